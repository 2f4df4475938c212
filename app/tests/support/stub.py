"""An engine without torch, for the tests of everything around it."""

import threading
import time

import numpy as np

from genai_inference.engine import Batch, CardCodec
from genai_inference.model import HeldOut, InputSpec, ModelCard, ModelError, WeightsSpec

CARD = ModelCard(
    name="stub",
    version="9.8.7",
    architecture="stub",
    input=InputSpec(shape=[8, 8], minimum=0.0, maximum=16.0),
    labels=list(range(10)),
    weights=WeightsSpec(sha256="0" * 64),
    held_out=HeldOut(accuracy=1.0, count=1),
)


def digit(label: int) -> list[float]:
    """The flat image which the stub takes for `label`."""
    return [16.0] * label + [0.0] * (64 - label)


class StubEngine(CardCodec):
    """Sees in an image the number of its full pixels; is 91 % sure. Loads once `may_load` is set."""

    framework = "stub"
    card = CARD

    def __init__(self, seconds: float = 0.0, failure: ModelError | None = None) -> None:
        self.may_load = threading.Event()
        self.threads: set[str] = set()
        self._seconds = seconds
        self._failure = failure

    def load(self) -> ModelCard:
        self.may_load.wait()
        if self._failure is not None:
            raise self._failure
        return self.card

    def predict(self, batch: Batch) -> Batch:
        self.threads.add(threading.current_thread().name)
        time.sleep(self._seconds)
        labels = batch.sum(axis=(1, 2)).round().astype(int) % 10
        return (np.eye(10)[labels] * 0.9 + 0.01).astype(np.float32)
