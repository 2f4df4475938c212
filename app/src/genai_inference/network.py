"""The networks. Only this, packages.py and train.py import torch: that takes seconds, so all are imported late."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .engine import Batch, Probabilities
from .model import CARD_FILE, WEIGHTS_FILE, ModelCard, ModelError, read_weights


class DigitsNet(nn.Module):
    """Two convolutions, one pooling, one linear layer: (n, height, width) in 0..1 to scores (n, labels)."""

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


class Residual(nn.Module):
    """A block of a residual network (He et al., 2015): `body` is what is learnt on top of the identity."""

    def __init__(self, body: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """(n, 3, height, width) in 0..1 to scores (n, labels)."""

    def __init__(self, shape: list[int], labels: int, *, blocks: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(shape[0], 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        layers: list[nn.Module] = []
        inputs = 64
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                body, outputs = (_bottleneck if bottleneck else _basic)(inputs, 64 * 2**stage, stride)
                layers.append(Residual(body, inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.scores = nn.Linear(inputs, labels)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return scores


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


def _basic(inputs: int, width: int, stride: int) -> tuple[nn.Sequential, int]:
    return nn.Sequential(*_conv(inputs, width, 3, stride), nn.ReLU(), *_conv(width, width, 3)), width


def _bottleneck(inputs: int, width: int, stride: int) -> tuple[nn.Sequential, int]:
    body = [
        *_conv(inputs, width, 1),
        nn.ReLU(),
        *_conv(width, width, 3, stride),
        nn.ReLU(),
        *_conv(width, 4 * width, 1),
    ]
    return nn.Sequential(*body), 4 * width


ARCHITECTURES: dict[str, Callable[[list[int], int], nn.Module]] = {
    "digits-cnn-v1": DigitsNet,
    "resnet18-v1": partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False),
    "resnet50-v1": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
}
DIMENSIONS = {"digits-cnn-v1": 2, "resnet18-v1": 3, "resnet50-v1": 3}


def framework() -> str:
    """torch and what it computes with."""
    gpu = f", ROCm {torch.version.hip}" if torch.version.hip else f", CUDA {torch.version.cuda}"
    return f"torch {torch.__version__}" + (gpu if torch.cuda.is_available() else "")


def use_threads(count: int) -> None:
    """Threads of one inference, for this process."""
    torch.set_num_threads(count)


def find_device(name: str) -> torch.device:
    """`auto` is the first GPU, if any; ROCm calls itself cuda. ValueError for a GPU that is not there."""
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there (GPUs: {torch.cuda.device_count()})")
    return device


def all_devices() -> list[str]:
    """Every GPU that this process sees, or else the CPU."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]


def memory_in_use(device: torch.device) -> int | None:
    """Bytes of GPU memory that this process holds; None on a CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None


def utilization(device: torch.device) -> float | None:
    """The part of the last second or less, 0 to 1, in which the GPU computed, for whatever process; None on a CPU, and
    without the library of its vendor (nvidia-ml-py or amdsmi) or the right to ask it.
    """
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device)) / 100
    except Exception:  # each vendor's library has errors of its own
        return None


def build(card: ModelCard, model_dir: Path) -> nn.Module:
    """The network of a card, not yet with its weights; ModelError if there is none for it."""
    if card.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(model_dir / CARD_FILE, f"architecture {card.architecture!r} is not known (known: {known})")
    if len(card.input.shape) != DIMENSIONS[card.architecture]:
        needed = DIMENSIONS[card.architecture]
        raise ModelError(model_dir / CARD_FILE, f"input.shape: {card.architecture} takes {needed} dimensions")
    return ARCHITECTURES[card.architecture](card.input.shape, len(card.labels))


def load_network(model_dir: Path, card: ModelCard) -> nn.Module:
    """The network with its weights, ready to predict; ModelError if the package does not hold together."""
    network = build(card, model_dir)
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


class Graph(nn.Module):
    """A network as one graph for a CPU: half the time and less. Batch normalisation is folded into the convolutions,
    whose weights oneDNN keeps in the order it likes best (eager torch does not use it for one image on one thread); and
    Python's lock is taken once, not once for every operation, each of which would wait for a busy event loop.
    """

    def __init__(self, network: nn.Module, shape: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0), requires_grad=False)  # says where and in what type it computes
        with torch.no_grad():
            traced = torch.jit.trace(network, torch.zeros((2, *shape)), check_trace=False)
            self.graph = torch.jit.optimize_for_inference(traced)

    def forward(self, images: Tensor) -> Tensor:
        # Without what the executor would do on top of it, for each shape anew: its fuser hangs in Debian's torch.
        with torch.jit.optimized_execution(False):
            scores: Tensor = self.graph(images)
        return scores


def place(network: nn.Module, device: torch.device, dtype: str, compiled: bool, shape: list[int]) -> nn.Module:
    """The network where and how it is to compute. `shape` is that of an instance."""
    # channels_last is what convolutions are fastest in, on CPUs and GPUs.
    network = network.to(device, getattr(torch, dtype))
    network = network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile(dynamic=True)  # once for any size of a batch, not once for each
    elif device.type == "cpu" and dtype == "float32":
        return Graph(network, shape)
    return network


@torch.inference_mode()
def probabilities(network: nn.Module, images: Batch, maximum: float = 1.0) -> Probabilities:
    """Probabilities (n, labels) of images (n, *shape) in 0..maximum, wherever the network is."""
    weight = next(network.parameters())
    # Moved as they came (a quarter of the bytes if they are uint8), and scaled there.
    pixels = torch.from_numpy(images).to(weight.device).to(torch.float32).div(maximum).to(weight.dtype)
    scores: Tensor = network(pixels)
    result: Probabilities = scores.float().softmax(dim=1).cpu().numpy()
    return result
