"""Packages with random weights: networks of a given size for benchmarks and tests, known for their speed alone."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
import yaml
from torch import nn

from .model import CARD_FILE, WEIGHTS_FILE, InputSpec, ModelCard, WeightsSpec
from .network import DIMENSIONS, Residual, build

SIZE = 224
LABELS = 1000
CALIBRATION = 32  # images
RESIDUE = 0.2  # what a block adds to the identity: a deep random network would otherwise magnify every rounding


def write_random(
    out: Path, architecture: str, version: str, *, name: str, size: int, labels: int, seed: int
) -> ModelCard:
    """Writes a package whose weights are random; model.yaml comes last, so that a package that has one is whole."""
    colour = DIMENSIONS.get(architecture) == 3
    spec = InputSpec(shape=[3, size, size] if colour else [size, size], minimum=0.0, maximum=255.0)
    card = ModelCard(
        name=name,
        version=version,
        architecture=architecture,
        input=spec,
        labels=list(range(labels)),
        weights=WeightsSpec(sha256="0" * 64),
    )
    torch.manual_seed(seed)
    network = build(card, out)
    _calibrate(network, spec)
    weights = safetensors.torch.save(network.state_dict())
    card = card.model_copy(update={"weights": WeightsSpec(sha256=hashlib.sha256(weights).hexdigest())})
    out.mkdir(parents=True, exist_ok=True)
    (out / WEIGHTS_FILE).write_bytes(weights)
    (out / CARD_FILE).write_text(yaml.safe_dump(card.model_dump(), sort_keys=False))
    return card


@torch.no_grad()
def _calibrate(network: nn.Module, spec: InputSpec) -> None:
    """Sets what batch normalisation needs; without it the numbers of a deep network grow beyond all bounds."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, Residual):
            nn.init.constant_(module.body[-1].weight, RESIDUE)
    network.train()(torch.rand(CALIBRATION, *spec.shape))
    network.eval()
