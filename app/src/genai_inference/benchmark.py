"""`benchmark`: how fast every configured model is on the node this process runs on, for several batch sizes.

Each pair of a model and a batch size is a step, and is kept as soon as it is finished. A process that ends before the
last one, however it ends, leaves the rest to the next process with the same run.
"""

import asyncio
import contextlib
import hashlib
import logging
import resource
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .benchmark_results import (
    BenchmarkError,
    Checkpoint,
    Interrupted,
    Kept,
    Place,
    Results,
    Step,
    StepResult,
    Unkept,
)
from .engine import Batch, Engine, MakeEngine
from .model import CARD_FILE, InputSpec, ModelCard, ModelError, read_card
from .settings import ModelConfig, Settings, SettingsError, read_models

log = logging.getLogger(__name__)

T = TypeVar("T")

WARM_UP_PASSES = 3
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Target:
    """A model to measure."""

    config: ModelConfig
    card: ModelCard


@dataclass(frozen=True)
class Memory:
    """Bytes: the most the process held while it measured, and what it holds of a GPU, if there is one."""

    peak_rss: int
    device: int | None


# --- what is decided -------------------------------------------------------------------------------------------------


def batch_sizes(text: str) -> list[int]:
    """The sizes of `GENAI_BENCHMARK_BATCH_SIZES`, each once, the smallest first."""
    return sorted({int(size) for size in text.split(",")})


def plan(targets: Sequence[Target], sizes: Sequence[int]) -> tuple[list[Step], list[Step]]:
    """The steps to measure, in the order of the models, and those left out: larger than the model's own batches."""
    fitting: list[Step] = []
    left_out: list[Step] = []
    for target in targets:
        for size in sizes:
            fits = size <= target.config.max_batch_size
            (fitting if fits else left_out).append(Step(target.card.name, target.card.version, size))
    return fitting, left_out


def remaining(steps: Sequence[Step], finished: set[Step]) -> list[Step]:
    """The steps still to do, in their order."""
    return [step for step in steps if step not in finished]


def by_name(targets: Sequence[Target]) -> dict[str, Target]:
    """The models by name; ModelError if two have the same, whose results could not be told apart."""
    named: dict[str, Target] = {}
    for target in targets:
        if target.card.name in named:
            other = named[target.card.name].config.dir
            file = target.config.dir / CARD_FILE
            raise ModelError(file, f"name: {target.card.name!r} is also the model in {other}")
        named[target.card.name] = target
    return named


def run_name(now: datetime, targets: Sequence[Target], steps: Sequence[Step], seconds: float) -> str:
    """What a run is called that nobody named: the same models and steps on the same day (UTC) are the same run."""
    what = repr(([target.card.weights.sha256 for target in targets], steps, seconds))
    return f"{now:%Y-%m-%d}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def percentiles_ms(samples: Sequence[float]) -> tuple[float, ...]:
    """p50, p95 and p99 of seconds, in milliseconds: each is a time that was measured, none lies between two."""
    found = np.percentile(np.asarray(samples, dtype=np.float64) * 1000, PERCENTILES, method="inverted_cdf")
    return tuple(round(float(value), 4) for value in found)


def to_result(
    step: Step, card: ModelCard, place: Place, begun: Checkpoint, memory: Memory, finished_at: datetime
) -> StepResult:
    """What the samples of a finished step come to."""
    p50, p95, p99 = percentiles_ms(begun.samples)
    return StepResult(
        **asdict(step),
        weights_sha256=card.weights.sha256,
        **asdict(place),
        attempts=begun.attempts,
        passes=len(begun.samples),
        items_per_second=round(step.batch_size * len(begun.samples) / sum(begun.samples), 3),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        peak_rss_bytes=memory.peak_rss,
        device_memory_bytes=memory.device,
        started_at=begun.started_at,
        finished_at=finished_at,
    )


# --- what is measured ------------------------------------------------------------------------------------------------


def measure(
    predict: Callable[[Batch], object],
    batch: Batch,
    seconds: float,
    samples: "array[float]",
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Adds the seconds of each pass to `samples` until they come to `seconds`; false if it was stopped before."""
    for _ in range(WARM_UP_PASSES):
        if stopped():
            return False
        predict(batch)
    spent = sum(samples)
    while spent < seconds:
        if stopped():
            return False
        started = clock()
        predict(batch)
        samples.append(clock() - started)
        spent += samples[-1]
    return True


def noise(spec: InputSpec, count: int) -> Batch:
    """Instances (count, *shape) of evenly spread numbers in the model's range, the same ones each time."""
    values = np.random.default_rng(0).uniform(spec.minimum, spec.maximum, (count, *spec.shape))
    return values.astype(np.float32)


def forget_peak_rss() -> None:
    """Begins the peak anew, where the kernel lets us; elsewhere it stays that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss() -> int:
    """Bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- the run ---------------------------------------------------------------------------------------------------------


def command(settings: Settings, make_engine: MakeEngine) -> int:
    """Measures what the settings say, and returns the exit code; what failed is one line on stderr."""
    log.setLevel(logging.INFO)  # the results are what it is run for, whatever GENAI_LOG_LEVEL says
    try:
        asyncio.run(_run(settings, make_engine))
    except (BenchmarkError, ModelError, SettingsError) as error:
        print(f"genai-inference: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def _run(settings: Settings, make_engine: MakeEngine) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    targets = [Target(config, read_card(config.dir, config.name)) for config in read_models(settings)]
    named = by_name(targets)
    steps, left_out = plan(targets, batch_sizes(settings.benchmark_batch_sizes))
    for step in left_out:
        log.info("batch size left out, the model's max_batch_size is smaller", extra={"fields": asdict(step)})
    if not steps:
        raise SettingsError("GENAI_BENCHMARK_BATCH_SIZES: every size is larger than the models' max_batch_size")
    seconds = settings.benchmark_seconds
    run = settings.benchmark_run or run_name(datetime.now(UTC), targets, steps, seconds)
    results: Results = Unkept()
    if settings.database_url is not None:
        results = Kept(settings.database_url.get_secret_value(), run, len(steps), seconds, stop)
    node = settings.node or socket.gethostname()
    await Benchmark(run, named, node, seconds, make_engine, results, stop).measure(steps)


class Benchmark:
    """Takes the steps of a run one after the other. One thread loads and computes, as in the service."""

    def __init__(
        self,
        run: str,
        targets: dict[str, Target],
        node: str,
        seconds: float,
        make_engine: MakeEngine,
        results: Results,
        stop: asyncio.Event,
    ) -> None:
        self._run = run
        self._targets = targets
        self._node = node
        self._seconds = seconds
        self._make_engine = make_engine
        self._results = results
        self._stop = stop
        self._thread = ThreadPoolExecutor(1, "inference")
        self._loaded: tuple[Target, Engine] | None = None

    async def measure(self, steps: Sequence[Step]) -> None:
        """All steps that are not finished; Interrupted once told to end."""
        todo = remaining(steps, await self._results.finished())
        self._log("benchmark begins", steps=len(steps), finished=len(steps) - len(todo))
        while todo:
            if self._stop.is_set():
                raise Interrupted
            await self._measure(todo[0])
            # Asked anew each time: while PostgreSQL was away, another process may have had the run.
            todo = remaining(steps, await self._results.finished())
        await self._results.complete()
        self._log("benchmark finished", steps=len(steps))

    async def _measure(self, step: Step) -> None:
        target = self._targets[step.model]
        engine = await self._engine(target)
        place = Place(self._node, engine.device, target.config.dtype, engine.framework)
        begun = await self._results.begin(step, place)
        work = (engine.predict, noise(target.card.input, step.batch_size), self._seconds, begun.samples)
        forget_peak_rss()
        if not await self._beside(target, measure, *work, self._stop.is_set):
            await self._results.checkpoint(step, begun.samples)
            raise Interrupted
        memory = Memory(peak_rss(), engine.device_memory())
        result = to_result(step, target.card, place, begun, memory, datetime.now(UTC))
        await self._results.finish(result)
        self._log("benchmark step", **asdict(result))

    async def _engine(self, target: Target) -> Engine:
        """The model, loaded. Only one is in memory at a time."""
        if self._loaded is None or self._loaded[0] is not target:
            self._loaded = None
            engine = self._make_engine(target.config)
            loading = asyncio.ensure_future(self._beside(target, engine.load))
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                raise Interrupted
            stopping.cancel()
            if loading.result() != target.card:
                raise ModelError(target.config.dir, "changed since the benchmark began")
            self._loaded = target, engine
        return self._loaded[1]

    async def _beside(self, target: Target, work: Callable[..., T], *arguments: object) -> T:
        """What `work` gives in the inference thread; ModelError for whatever it raises."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except ModelError:
            raise
        except Exception as error:
            log.exception("model not measured")
            raise ModelError(target.config.dir, f"{type(error).__name__}: {error}") from None

    def _log(self, message: str, **values: Any) -> None:  # noqa: ANN401  # JSON, or a time
        plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
        log.info(message, extra={"fields": {"run": self._run, **plain}})
