"""The engine that serves: a model package, computed by torch on the CPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .engine import Batch, CardCodec
from .model import ModelCard, read_card


class TorchEngine(CardCodec):
    """See Engine. Making one is cheap: torch is imported by `load`."""

    framework: str
    _probabilities: Callable[[Batch], Batch]

    def __init__(self, model_dir: Path, threads: int) -> None:
        self._model_dir = model_dir
        self._threads = threads

    def load(self) -> ModelCard:
        self.card = read_card(self._model_dir)
        from . import network

        network.use_threads(self._threads)
        self.framework = network.FRAMEWORK
        self._probabilities = partial(network.probabilities, network.load_network(self._model_dir, self.card))
        self.predict(np.zeros((1, *self.card.input.shape), dtype=np.float32))  # the first call is the slow one
        return self.card

    def predict(self, batch: Batch) -> Batch:
        return self._probabilities(batch)
