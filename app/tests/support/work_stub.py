"""A real worker around the stub, with GENAI_* settings: `python work_stub.py SECONDS [DEVICES]` takes that long for
each batch, on so many devices. An image with POISON full pixels kills it, one with BROKEN makes its engine raise.
"""

import os
import signal
import sys

import numpy as np
from stub import StubEngine

from genai_inference import logs
from genai_inference.engine import Batch, Probabilities
from genai_inference.settings import ModelConfig, read_settings
from genai_inference.worker import work

POISON, BROKEN = 63, 62


class WorkEngine(StubEngine):
    def __init__(self, seconds: float, device: str) -> None:
        super().__init__(seconds)
        self.device = device
        self.may_load.set()

    def predict(self, batch: Batch) -> Probabilities:
        full = set((batch.reshape(len(batch), -1).sum(axis=1, dtype=np.float64) / 16).round().astype(int).tolist())
        if POISON in full:
            os.kill(os.getpid(), signal.SIGKILL)
        if BROKEN in full:
            raise RuntimeError("broken")
        return super().predict(batch)


if __name__ == "__main__":
    settings = read_settings()
    logs.configure(settings.log_level)
    seconds = float(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1

    def make(config: ModelConfig) -> WorkEngine:
        return WorkEngine(seconds, config.device)

    work(settings, make, lambda: [f"stub:{index}" for index in range(count)])
