"""An engine without torch, for the tests of everything around it."""

import threading
import time

import numpy as np

from genai_inference.engine import Batch, Probabilities
from genai_inference.model import HeldOut, InputSpec, ModelCard, WeightsSpec

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


class StubEngine:
    """Sees in an image the number of its full pixels; is 91 % sure. Loads once `may_load` is set, and computes while
    `may_compute` is.
    """

    framework = "stub"
    device = "stub"

    def __init__(self, seconds: float = 0.0, failure: Exception | None = None, card: ModelCard = CARD) -> None:
        self.card = card
        self.may_load = threading.Event()
        self.may_compute = threading.Event()
        self.may_compute.set()
        self.error: Exception | None = None
        self.threads: set[str] = set()
        self.batches: list[int] = []
        self._seconds = seconds
        self._failure = failure

    def load(self) -> ModelCard:
        self.may_load.wait()
        if self._failure is not None:
            raise self._failure
        return self.card

    def predict(self, batch: Batch) -> Probabilities:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(batch))
        self.may_compute.wait()
        if self.error is not None:
            raise self.error
        time.sleep(self._seconds)
        full = batch.reshape(len(batch), -1).sum(axis=1, dtype=np.float64) / self.card.input.maximum
        labels = full.round().astype(int) % len(self.card.labels)
        return (np.eye(len(self.card.labels))[labels] * 0.9 + 0.01).astype(np.float32)

    def device_memory(self) -> int | None:
        return None

    def device_utilization(self) -> float | None:
        return None


def loaded(card: ModelCard = CARD) -> StubEngine:
    """One that may load at once."""
    engine = StubEngine(card=card)
    engine.may_load.set()
    return engine
