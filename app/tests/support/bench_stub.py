"""The benchmark around the stub, with GENAI_* settings: `python bench_stub.py SECONDS` takes that long for a pass."""

import os
import sys

from stub import StubEngine

from genai_inference import benchmark, logs
from genai_inference.engine import Engine
from genai_inference.model import read_card
from genai_inference.settings import ModelConfig, read_settings


def _engine(config: ModelConfig) -> Engine:
    engine = StubEngine(seconds=float(sys.argv[1]), card=read_card(config.dir))
    engine.may_load.set()
    return engine


if __name__ == "__main__":
    settings = read_settings()
    logs.configure(settings.log_level)
    code = benchmark.command(settings, _engine)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
