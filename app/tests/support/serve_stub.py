"""A real server around the stub, with GENAI_* settings:

- `python serve_stub.py SECONDS` takes that long to predict;
- `python serve_stub.py loading` never gets ready;
- `python serve_stub.py device FILE` has a device that does what the file says, `well`, `fail` or `hang`;
- `python serve_stub.py cpus 16` takes colour pictures, and itself to be on a node of so many CPUs;
- `python serve_stub.py models` serves those of GENAI_MODELS_FILE, each a stub by the name of its folder: small grey
  pictures, or `colours` (3 x 32 x 32).
"""

import sys
import time
from functools import partial
from pathlib import Path

from stub import CARD, StubEngine, loaded

from genai_inference import logs, service
from genai_inference.engine import Batch, Probabilities
from genai_inference.model import InputSpec
from genai_inference.server import serve
from genai_inference.settings import ModelConfig, read_settings
from genai_inference.watchdog import DeviceLost

COLOUR = {"input": InputSpec(shape=[3, 32, 32], minimum=0.0, maximum=255.0)}


def stub_of(config: ModelConfig) -> StubEngine:
    colour = COLOUR if config.dir.name == "colours" else {}
    return loaded(CARD.model_copy(update={"name": config.dir.name, **colour}))


class Device(StubEngine):
    """A stand-in for a device that fails as GPUs do: with every batch, or by never coming back from one."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self._state = state
        self.may_load.set()

    def predict(self, batch: Batch) -> Probabilities:
        while self._state.read_text() == "hang":
            time.sleep(0.01)
        if self._state.read_text() == "fail":
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")
        return super().predict(batch)


if __name__ == "__main__":
    settings = read_settings()
    logs.configure(settings.log_level)
    if sys.argv[1] == "loading":
        serve(settings, lambda _: StubEngine())
    elif sys.argv[1] == "device":
        device = Device(Path(sys.argv[2]))
        try:
            serve(settings, lambda _: device)
        except DeviceLost as error:
            sys.exit(error.exit_code)
    elif sys.argv[1] == "cpus":
        service.usable_cpus = partial(int, sys.argv[2])
        serve(settings, lambda _: loaded(CARD.model_copy(update=COLOUR)))
    elif sys.argv[1] == "models":
        serve(settings, stub_of)
    else:
        engine = StubEngine(seconds=float(sys.argv[1]))
        engine.may_load.set()
        serve(settings, lambda _: engine)
