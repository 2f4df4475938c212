"""The engine that serves: a model package, computed by torch on a CPU or a GPU."""

from collections.abc import Callable
from functools import partial

import numpy as np

from .engine import Batch, Probabilities
from .model import ModelCard, ModelError, read_card
from .settings import ModelConfig


def all_devices() -> list[str]:
    """Every GPU, or else the CPU."""
    from . import network

    return network.all_devices()


class TorchEngine:
    """See Engine. Making one is cheap: torch is imported by `load`."""

    framework: str
    device: str
    device_memory: Callable[[], int | None]
    device_utilization: Callable[[], float | None]
    _probabilities: Callable[[Batch], Probabilities]

    def __init__(self, config: ModelConfig, threads: int) -> None:
        self._config = config
        self._threads = threads

    def load(self) -> ModelCard:
        config = self._config
        card = read_card(config.dir, config.name)
        from . import network

        network.use_threads(self._threads)
        self.framework = network.framework()
        loaded = network.load_network(config.dir, card)
        try:
            device = network.find_device(config.device)
            self._probabilities = partial(
                network.probabilities,
                network.place(loaded, device, config.dtype, config.compile, card.input.shape),
                maximum=card.input.maximum,
            )
            self._warm_up(card)
        except (ValueError, RuntimeError) as error:  # no such GPU, no compiler, a type the device cannot compute
            raise ModelError(config.dir, " ".join(str(error).split())[:500]) from None
        self.device = str(device)
        self.device_memory = partial(network.memory_in_use, device)
        self.device_utilization = partial(network.utilization, device)
        return card

    def predict(self, batch: Batch) -> Probabilities:
        return self._probabilities(batch)

    def _warm_up(self, card: ModelCard) -> None:
        """The first calls are the slow ones: of the process, of the network, and of each size of a batch."""
        for _ in range(self._config.warm_up):
            for size in sorted({1, 2, self._config.max_batch_size}):
                self.predict(np.zeros((size, *card.input.shape), dtype=np.float32))
