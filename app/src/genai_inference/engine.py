"""The seam between the service and whatever computes: load, decode, predict, encode."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .model import ModelCard
from .schemas import Prediction

Batch = NDArray[np.float32]
Pixels = list[float] | list[list[float]]


class InputError(ValueError):
    """An instance this model cannot take; the message is meant for the caller."""


class Engine(Protocol):
    """One model. `load` comes first and once; the others may then be called from any one thread at a time."""

    @property
    def framework(self) -> str:
        """What computes, with its version, e.g. `torch 2.6.0`; valid after `load`."""

    def load(self) -> ModelCard:
        """Reads the package and makes the model ready to answer; ModelError if it cannot."""

    def decode(self, instances: Sequence[Pixels]) -> Batch:
        """Instances as an array (n, height, width) in the model's own scale; InputError if one does not fit."""

    def predict(self, batch: Batch) -> Batch:
        """Probabilities (n, labels); every row adds up to 1."""

    def encode(self, probabilities: Batch) -> list[Prediction]:
        """Probabilities in the terms of the API."""


class CardCodec:
    """`decode` and `encode` for any model of grey images, all taken from its card."""

    card: ModelCard

    def decode(self, instances: Sequence[Pixels]) -> Batch:
        return np.stack([self._image(index, pixels) for index, pixels in enumerate(instances)])

    def encode(self, probabilities: Batch) -> list[Prediction]:
        return [self._prediction([float(value) for value in row]) for row in probabilities]

    def _prediction(self, row: list[float]) -> Prediction:
        highest = max(row)
        return Prediction(label=self.card.labels[row.index(highest)], probability=highest, probabilities=row)

    def _image(self, index: int, pixels: Pixels) -> Batch:
        spec = self.card.input
        height, width = spec.shape
        try:
            image = np.asarray(pixels, dtype=np.float64)
        except ValueError:
            raise InputError(f"instances.{index}: the rows are not all of the same length") from None
        if image.shape not in ((height * width,), (height, width)):
            shape = "x".join(str(size) for size in image.shape)
            raise InputError(f"instances.{index}: {height * width} or {height}x{width} numbers expected, got {shape}")
        if not ((image >= spec.minimum) & (image <= spec.maximum)).all():  # also true of NaN
            raise InputError(f"instances.{index}: numbers must be between {spec.minimum:g} and {spec.maximum:g}")
        return (image.reshape(height, width) / spec.maximum).astype(np.float32)
