"""The network. Only this and train.py import torch: that takes seconds, so both are imported late."""

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .engine import Batch
from .model import CARD_FILE, WEIGHTS_FILE, ModelCard, ModelError, read_weights


class DigitsNet(nn.Module):
    """Two convolutions, one pooling, one linear layer: (n, height, width) in 0..1 to scores (n, labels)."""

    name = "digits-cnn-v1"

    def __init__(self, shape: list[int], labels: int) -> None:
        super().__init__()
        height, width = shape
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
        )
        self.scores = nn.Linear(64 * (height // 2) * (width // 2), labels)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.features(images.unsqueeze(1)))
        return scores


FRAMEWORK = f"torch {torch.__version__}"
ARCHITECTURES: dict[str, type[DigitsNet]] = {DigitsNet.name: DigitsNet}


def use_threads(count: int) -> None:
    """Threads of one inference, for this process."""
    torch.set_num_threads(count)


def load_network(model_dir: Path, card: ModelCard) -> DigitsNet:
    """The network with its weights, ready to predict; ModelError if the package does not hold together."""
    if card.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(model_dir / CARD_FILE, f"architecture {card.architecture!r} is not known (known: {known})")
    network = ARCHITECTURES[card.architecture](card.input.shape, len(card.labels))
    path = model_dir / WEIGHTS_FILE
    try:
        tensors = safetensors.torch.load(read_weights(model_dir, card))
        network.load_state_dict(tensors)
    except safetensors.SafetensorError as error:
        raise ModelError(path, f"not a safetensors file: {error}") from None
    except RuntimeError as error:  # load_state_dict: names and shapes, one a line
        raise ModelError(path, " ".join(str(error).split())) from None
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ModelError(path, "holds weights that are not finite numbers")
    return network.eval()


@torch.inference_mode()
def probabilities(network: DigitsNet, images: Batch) -> Batch:
    """Probabilities (n, labels) of images (n, height, width) in 0..1."""
    scores: Tensor = network(torch.from_numpy(images))
    result: Batch = scores.softmax(dim=1).numpy()
    return result
