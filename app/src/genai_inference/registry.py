"""Which models are served. What the configuration says is loaded beside what serves, warmed up, and then takes its
place in one assignment: all of it, or, if anything cannot be loaded, nothing.
"""

import gc
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from . import __version__
from .batching import Batcher, Device
from .engine import Engine, MakeEngine
from .lifecycle import Lifecycle
from .metrics import Metrics
from .model import CARD_FILE, WEIGHTS_FILE, ModelCard, ModelError
from .settings import ModelConfig
from .watchdog import Trouble

log = logging.getLogger(__name__)

# Of the files of a package: it changes when they do, or when a link leads to other ones.
Fingerprint = tuple[tuple[int, int, int], ...]
Wanted = tuple[ModelConfig, Fingerprint]


@dataclass(frozen=True)
class Model:
    """A model that answers. Whoever holds one may use it to the end, also after another version took its place."""

    config: ModelConfig
    fingerprint: Fingerprint
    card: ModelCard
    engine: Engine
    batcher: Batcher
    load_seconds: float

    @property
    def wanted(self) -> Wanted:
        return self.config, self.fingerprint

    @cached_property
    def identity(self) -> bytes:
        """32 bytes, the same for models that answer the same: what the card says, and the number format."""
        what = f"{__version__}\0{self.config.dtype}\0{self.card.model_dump_json()}"
        return hashlib.sha256(what.encode()).digest()


def fingerprint(folder: Path) -> Fingerprint:
    """Says nothing of files that are not there: reading them will."""
    found = []
    for name in (CARD_FILE, WEIGHTS_FILE):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def by_name(models: Iterable[Model]) -> dict[str, Model]:
    """The models by name, in their order; ModelError if two have the same."""
    named: dict[str, Model] = {}
    for model in models:
        if model.card.name in named:
            other = named[model.card.name].config.dir
            raise ModelError(model.config.dir / CARD_FILE, f"name: {model.card.name!r} is also the model in {other}")
        named[model.card.name] = model
    return named


class Registry:
    """Loads models in a thread of its own: a daemon, so that a process told to end need not wait for it."""

    def __init__(
        self,
        read: Callable[[], list[ModelConfig]],
        make_engine: MakeEngine,
        lifecycle: Lifecycle,
        metrics: Metrics,
        reload_seconds: float,
    ) -> None:
        self._read = read
        self._make_engine = make_engine
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._reload_seconds = reload_seconds
        self._models: dict[str, Model] = {}
        self._devices: dict[str, Device] = {}
        self._refused: tuple[list[Wanted], ModelError] | None = None
        self._closed = threading.Event()

    @property
    def models(self) -> Mapping[str, Model]:
        """By name, the default one first; empty until all of the first configuration are loaded."""
        return self._models

    def trouble(self, seconds: float) -> Trouble | None:
        """Why a device does not compute; None if all do. `seconds`: how long a batch may take."""
        now = time.monotonic()
        found = (device.watchdog.trouble(now, seconds) for device in list(self._devices.values()))
        return next(filter(None, found), None)

    def start(self) -> None:
        threading.Thread(target=self._follow, name="load", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        for device in self._devices.values():
            device.close()

    def _follow(self) -> None:
        self._lifecycle.failure = self._try()
        self._lifecycle.loaded = self._lifecycle.failure is None
        while self._lifecycle.loaded and self._reload_seconds and not self._closed.wait(self._reload_seconds):
            error = self._try()
            self._lifecycle.degrade("models", str(error) if error else None)

    def _try(self) -> ModelError | None:
        """Why the configuration could not be followed. Nothing ends this thread: the next change may be a good one."""
        try:
            self.reconcile()
        except ModelError as error:
            error.__context__ = None  # both would hold the engines of the frames they lead to,
            return error.with_traceback(None)  # and the second grows each time the error is raised again
        except Exception as error:
            log.exception("configuration of models not read")
            return ModelError(Path("models"), f"{type(error).__name__}: {error}")
        return None

    def reconcile(self) -> None:
        """Makes what is served what the configuration says; ModelError, and nothing changed, if it cannot.

        What was refused once is loaded again only when the configuration or the files have changed.
        """
        wanted = [(config, fingerprint(config.dir)) for config in self._read()]
        if wanted == [model.wanted for model in self._models.values()]:
            self._refused = None
            return
        if self._refused and self._refused[0] == wanted:
            raise self._refused[1]
        current = {model.wanted: model for model in self._models.values()}
        try:
            models = by_name([current.get(each) or self._load(*each) for each in wanted])
        except ModelError as error:
            log.error("models not loaded", extra={"fields": {"reason": str(error)}})
            self._metrics.load_failures.inc()
            self._refused = wanted, error
            raise
        self._switch(models)

    def _load(self, config: ModelConfig, found: Fingerprint) -> Model:
        started = time.perf_counter()
        engine = self._make_engine(config)
        try:
            card = engine.load()
        except ModelError:
            raise
        except Exception as error:
            log.exception("model not loaded")
            raise ModelError(config.dir, f"{type(error).__name__}: {error}") from None
        if engine.device not in self._devices:
            self._devices[engine.device] = Device(engine.device)
        limits = (config.max_batch_size, config.queue_bound)
        batcher = Batcher(engine.predict, self._devices[engine.device], limits, self._metrics.of_model(card.name))
        return Model(config, found, card, engine, batcher, time.perf_counter() - started)

    def _measure(self, device: str) -> None:
        """Has a device measured by whichever engine is on it: an engine held for that would never be freed."""

        def engine() -> Engine | None:
            return next((model.engine for model in self._models.values() if model.engine.device == device), None)

        def memory() -> int | None:
            return found.device_memory() if (found := engine()) else None

        def utilization() -> float | None:
            return found.device_utilization() if (found := engine()) else None

        self._metrics.device(device, memory, utilization)

    def _switch(self, models: dict[str, Model]) -> None:
        before, self._models = self._models, models
        if before:
            gc.unfreeze()  # see server.on_tick: an old model that holds itself would stay in memory for good
        devices, known = ({model.engine.device for model in each.values()} for each in (models, before))
        for device in devices - known:
            self._measure(device)
        for name, old in before.items():
            if models.get(name) is not old:
                successor = models[name].card.version if name in models else None
                self._metrics.unloaded(name, old.card.version, successor=successor)
                log.info("model unloaded", extra={"fields": {"model": name, "version": old.card.version}})
        for name, new in models.items():
            if before.get(name) is not new:
                version, seconds = new.card.version, new.load_seconds
                self._metrics.loaded(name, version, seconds, partial(getattr, new.batcher, "waiting"))
                log.info("model loaded", extra={"fields": {"model": name, "version": version, "seconds": seconds}})
