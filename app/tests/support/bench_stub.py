"""The benchmark around the stub, with GENAI_* settings: `python bench_stub.py SECONDS` takes that long for a pass;
`python bench_stub.py SECONDS PATIENCE` waits for PostgreSQL, and for another process, no longer than that.
"""

import os
import sys
from pathlib import Path

import yaml
from stub import StubEngine

from genai_inference import benchmark, benchmark_results, logs
from genai_inference.engine import Engine
from genai_inference.model import CARD_FILE, ModelCard, read_card
from genai_inference.settings import ModelConfig, read_settings


def write_card(folder: Path, card: ModelCard) -> None:
    """A package as far as the stub needs one."""
    folder.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(yaml.safe_dump(card.model_dump()))


def _engine(config: ModelConfig) -> Engine:
    engine = StubEngine(seconds=float(sys.argv[1]), card=read_card(config.dir))
    engine.may_load.set()
    return engine


if __name__ == "__main__":
    settings = read_settings()
    logs.configure(settings.log_level)
    if len(sys.argv) > 2:
        benchmark_results.PATIENCE_SECONDS = float(sys.argv[2])
    code = benchmark.command(settings, _engine)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
