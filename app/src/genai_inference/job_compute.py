"""How a worker computes a job: its instances in chunks, through the same batchers that answer requests, on one device
or on several at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np
from fastapi import HTTPException

from . import bodies, codec
from .batching import DeadlineExceeded, NotFinite
from .engine import Batch, Engine, MakeEngine, Probabilities
from .job_queue import Claim, Outcome
from .metrics import Metrics
from .model import ModelCard
from .registry import Model
from .settings import ModelConfig

# One chunk is computed while the next one of the same device waits.
CHUNKS_AHEAD = 2
# A chunk may wait behind those of many other jobs, but something that takes so long does not work.
CHUNK_SECONDS = 600.0
ROOM_SECONDS = 0.05  # until it is asked again whether a picture may be unpacked
MOST_RESULT_BYTES = 128 * 2**20  # a string of Redis holds at most 512 MiB

Decode = Callable[[Model, str, bytes], Awaitable[Batch]]  # of a body by its media type, as in Service


class Cancelled(Exception):  # a wish, not an accident
    """The job's client does not want it any more."""


@dataclass
class Wish:
    """Set from outside while a job is computed; looked at between chunks."""

    cancelled: bool = field(default=False)


# --- one model on several devices ------------------------------------------------------------------------------------


def on_each(configs: Iterable[ModelConfig], devices: Sequence[str]) -> list[ModelConfig]:
    """Every model on every device; one that names its device stays there alone."""
    return [
        config.model_copy(update={"device": device})
        for config in configs
        for device in (devices if config.device == "auto" else (config.device,))
    ]


class Copy:
    """An engine whose model is called NAME@DEVICE, so that a registry takes one for each device."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def framework(self) -> str:
        return self._engine.framework

    @property
    def device(self) -> str:
        return self._engine.device

    def load(self) -> ModelCard:
        card = self._engine.load()
        return card.model_copy(update={"name": f"{card.name}@{self._engine.device}"})

    def predict(self, batch: Batch) -> Probabilities:
        return self._engine.predict(batch)

    def device_memory(self) -> int | None:
        return self._engine.device_memory()

    def device_utilization(self) -> float | None:
        return self._engine.device_utilization()


def copies(make_engine: MakeEngine) -> MakeEngine:
    return lambda config: Copy(make_engine(config))


def named(models: Mapping[str, Model], name: str) -> list[Model]:
    """The copies of a model, those with the shortest queue first."""
    found = (model for own, model in models.items() if own.partition("@")[0] == name)
    return sorted(found, key=lambda model: model.batcher.waiting)


# --- one job ---------------------------------------------------------------------------------------------------------


def chunks(count: int, most: int, devices: int) -> list[slice]:
    """`count` instances as slices of `most` at most; so small that every device has some, if there are so many."""
    size = max(1, min(most, -(-count // devices)))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


async def probabilities(models: Sequence[Model], batch: Batch, wish: Wish, seconds: float) -> Probabilities:
    """Probabilities (n, labels) of instances (n, *shape), whichever of the models computed which.

    Raises Cancelled, DeadlineExceeded after `seconds` for one chunk, or what an engine raised.
    """
    todo = chunks(len(batch), min(model.batcher.max_batch_size for model in models), len(models))
    rest = iter(todo)
    done: dict[int, Probabilities] = {}

    async def lane(model: Model) -> None:
        for chunk in rest:
            if wish.cancelled:
                raise Cancelled
            done[chunk.start] = await _submitted(model, batch[chunk], seconds)

    lanes = [asyncio.ensure_future(lane(model)) for _ in range(CHUNKS_AHEAD) for model in models]
    try:
        await asyncio.gather(*lanes)
    finally:
        for each in lanes:
            each.cancel()
    return np.concatenate([done[chunk.start] for chunk in todo])


async def _submitted(model: Model, chunk: Batch, seconds: float) -> Probabilities:
    await model.batcher.room(len(chunk))
    return await model.batcher.submit(chunk, seconds)


async def instances(claim: Claim, model: Model, decode: Decode) -> Batch:
    """The instances in a job's input, by the rules of a prediction; only of tensors a job may have more. Waits while
    many pictures are being unpacked.
    """
    if claim.media_type in bodies.TENSORS:
        return codec.from_tensor(model.card.input, bodies.TENSORS[claim.media_type](claim.input))
    while True:
        try:
            return await decode(model, claim.media_type, claim.input)
        except HTTPException as refused:
            if refused.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                raise codec.InputError(refused.detail) from None
        await asyncio.sleep(ROOM_SECONDS)


async def compute(claim: Claim, models: Mapping[str, Model], wish: Wish, metrics: Metrics, decode: Decode) -> Outcome:
    """What a job comes to. Anything raised is a failure that another attempt may not have."""
    found = named(models, claim.model)
    if not found:
        there = ", ".join(sorted({name.partition("@")[0] for name in models}))
        return Outcome("failed", "model", f"No such model. There are: {there}.")
    used = found[: claim.gpus or None]
    try:
        async with asyncio.timeout(claim.remaining):
            batch = await instances(claim, used[0], decode)
            answer = await probabilities(used, batch, wish, CHUNK_SECONDS)
    except codec.InputError as error:
        return Outcome("failed", "input", str(error))
    except NotFinite as error:
        return Outcome("failed", "result", str(error))
    except Cancelled:
        return Outcome("cancelled")
    except TimeoutError:
        return Outcome("failed", "deadline", "The deadline passed while the job was computed.")
    except DeadlineExceeded:
        raise RuntimeError(f"a batch was not computed within {CHUNK_SECONDS:g} s") from None
    return await asyncio.to_thread(_succeeded, used[0].card, claim.model, answer, metrics)


def _succeeded(card: ModelCard, name: str, answer: Probabilities, metrics: Metrics) -> Outcome:
    own = card.model_copy(update={"name": name})
    labels = codec.labels_of(card, answer)
    result = codec.to_json(own, answer, labels)
    if len(result) > MOST_RESULT_BYTES:
        return Outcome("failed", "result", f"The result has {len(result)} bytes; {MOST_RESULT_BYTES} are allowed.")
    metrics.predicted(own, labels)
    return Outcome("succeeded", result=result)


ListDevices = Callable[[], Sequence[str]]
