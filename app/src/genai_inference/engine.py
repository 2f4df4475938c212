"""The seam between the service and whatever computes: load a package, predict batches."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .model import ModelCard
from .settings import ModelConfig

# Instances (n, *shape) in the card's own scale, uint8 or float; or probabilities (n, labels), float32.
Batch = NDArray[Any]
Probabilities = NDArray[np.float32]


class Engine(Protocol):
    """One version of one model. `load` comes first and once; `predict` may then be called by one thread at a time."""

    @property
    def framework(self) -> str:
        """What computes, with its version, e.g. `torch 2.6.0`; valid after `load`."""

    @property
    def device(self) -> str:
        """Where it computes, e.g. `cpu` or `cuda:0`; valid after `load`. One thread serves one device."""

    def load(self) -> ModelCard:
        """Reads the package and makes the model ready to answer; ModelError if it cannot."""

    def predict(self, batch: Batch) -> Probabilities:
        """Probabilities (n, labels) of instances (n, *shape) in the card's scale; every row adds up to 1."""

    def device_memory(self) -> int | None:
        """Bytes in use on the device; None where that is the process's own memory."""

    def device_utilization(self) -> float | None:
        """The part of the time, 0 to 1, in which the device was computing of late; None where nobody can say."""


MakeEngine = Callable[[ModelConfig], Engine]
