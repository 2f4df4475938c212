"""A real server around the stub, with GENAI_* settings: `python serve_stub.py SECONDS` takes that long to predict;
`python serve_stub.py loading` never gets ready; `python serve_stub.py models` serves those of GENAI_MODELS_FILE, each a
stub by the name of its folder: small grey pictures, or `colours` (3 x 32 x 32).
"""

import sys

from stub import CARD, StubEngine, loaded

from genai_inference import logs
from genai_inference.model import InputSpec
from genai_inference.server import serve
from genai_inference.settings import ModelConfig, read_settings


def stub_of(config: ModelConfig) -> StubEngine:
    colour = {"input": InputSpec(shape=[3, 32, 32], minimum=0.0, maximum=255.0)} if config.dir.name == "colours" else {}
    return loaded(CARD.model_copy(update={"name": config.dir.name, **colour}))


if __name__ == "__main__":
    settings = read_settings()
    logs.configure(settings.log_level)
    if sys.argv[1] == "loading":
        serve(settings, lambda _: StubEngine())
    elif sys.argv[1] == "models":
        serve(settings, stub_of)
    else:
        engine = StubEngine(seconds=float(sys.argv[1]))
        engine.may_load.set()
        serve(settings, lambda _: engine)
