"""Trains the network on the 1,797 digits bundled with scikit-learn and writes a model package."""

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import yaml
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from .engine import Batch
from .model import CARD_FILE, SAMPLES_FILE, WEIGHTS_FILE, HeldOut, InputSpec, ModelCard, WeightsSpec
from .network import DigitsNet, probabilities, use_threads

NAME = "digits"
ARCHITECTURE = "digits-cnn-v1"
LABELS = list(range(10))
SHAPE = [8, 8]
MAXIMUM = 16.0
# The same digits are held out of every version, so that versions can be compared.
HELD_OUT_SHARE = 0.2
SPLIT_SEED = 0
EPOCHS = 25
BATCH = 64

Labels = NDArray[np.int64]


def seed_of(version: str) -> int:
    """Another version is another model: its seed comes from its name."""
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:4])


def train(seed: int) -> tuple[DigitsNet, float, tuple[Batch, Labels]]:
    """The trained network, its accuracy on the held-out digits, and those digits (pixels 0 to 16, labels)."""
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.images, digits.target, test_size=HELD_OUT_SHARE, stratify=digits.target, random_state=SPLIT_SEED
    )
    network = _fit(_scaled(train_x), train_y, seed)
    guesses = probabilities(network, _scaled(test_x)).argmax(axis=1)
    return network, float((guesses == test_y).mean()), (test_x, test_y)


def write_package(
    out: Path, version: str, network: DigitsNet, accuracy: float, held_out: tuple[Batch, Labels]
) -> ModelCard:
    """Writes the package; model.yaml comes last, so that a package that has one is whole."""
    pixels, labels = held_out
    weights = safetensors.torch.save(network.state_dict())
    card = ModelCard(
        name=NAME,
        version=version,
        architecture=ARCHITECTURE,
        input=InputSpec(shape=SHAPE, minimum=0.0, maximum=MAXIMUM),
        labels=list(LABELS),
        weights=WeightsSpec(sha256=hashlib.sha256(weights).hexdigest()),
        held_out=HeldOut(accuracy=accuracy, count=len(labels)),
    )
    samples = {"model": NAME, "version": version, "instances": _flat(pixels), "labels": labels.tolist()}
    out.mkdir(parents=True, exist_ok=True)
    (out / WEIGHTS_FILE).write_bytes(weights)
    (out / SAMPLES_FILE).write_text(json.dumps(samples) + "\n")
    (out / CARD_FILE).write_text(yaml.safe_dump(card.model_dump(), sort_keys=False))
    return card


def _fit(images: Batch, labels: Labels, seed: int) -> DigitsNet:
    use_threads(1)  # faster for so small a network, and the result does not depend on the number of cores
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    network = DigitsNet(SHAPE, len(LABELS))
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(y)).split(BATCH):
            scores = network(_shifted(x[chosen]))
            _step(optimiser, nn.functional.cross_entropy(scores, y[chosen], label_smoothing=0.05))
        schedule.step()
    network.eval()
    return network


def _shifted(images: Tensor) -> Tensor:
    """Every other batch, on average, moved by up to one pixel: a digit is the same a little further left."""
    if torch.rand(()) < 0.5:
        return images
    down, right = torch.randint(0, 3, (2,)).tolist()
    height, width = SHAPE
    return nn.functional.pad(images, (1, 1, 1, 1))[:, down : down + height, right : right + width]


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _scaled(pixels: NDArray[np.float64]) -> Batch:
    return (pixels / MAXIMUM).astype(np.float32)


def _flat(pixels: Batch) -> list[list[int]]:
    flat: list[list[int]] = pixels.reshape(len(pixels), -1).astype(int).tolist()
    return flat
