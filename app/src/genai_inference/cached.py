"""A prediction by a model whose answers are kept: the way of a request through the cache."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Response

from . import codec
from .cache import Answer, Found, directive_in, key_of
from .engine import Probabilities
from .model import ModelCard
from .registry import Model
from .service import Service

LONG_BODY = 2**20  # bytes: to hash more takes so long that it is done beside the event loop
Wait = Callable[["asyncio.Future[Any]"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its media type, body and Cache-Control, and the time.monotonic() at which its time is over."""

    kind: str
    body: bytes
    cache_control: str
    until: float

    @property
    def seconds(self) -> float:
        """What is left of its time."""
        return self.until - time.monotonic()


async def predict(service: Service, model: Model, asked: Asked, wait: Wait) -> Found:
    """The answer, and how it was come by. `wait` ends early if the client has gone."""
    found = await _found(service, model, asked, wait)
    service.metrics.cached(model.card.name, found.result)
    service.metrics.predicted(model.card, found.answer.labels)
    return found


def response(found: Found) -> Response:
    """With `X-Cache`, and `Age` if the answer had been stored."""
    return Response(found.answer.body, headers=headers_of(found), media_type="application/json")


def headers_of(found: Found) -> dict[str, str]:
    """Who joined has a hit if the answer had been stored."""
    if found.age is not None:
        return {"X-Cache": "hit", "Age": str(int(found.age))}
    return {"X-Cache": "bypass" if found.result == "bypass" else "miss"}


async def _found(service: Service, model: Model, asked: Asked, wait: Wait) -> Found:
    cache, ttl = service.cache, model.config.cache_ttl_seconds
    start, finish = partial(_start, service, model, asked), partial(_finish, model.card)
    directive = directive_in(asked.cache_control)
    if directive == "no-store":
        return Found(finish(await wait(await start(asked.seconds))), "bypass")
    key = await _key(model, asked)
    if directive == "no-cache":
        answer = finish(await wait(await start(asked.seconds)))
        cache.put(key, ttl, answer)
        return Found(answer, "bypass")
    return cache.local(key, ttl) or await cache.found(key, ttl, start, finish, wait, asked.seconds)


async def _key(model: Model, asked: Asked) -> str:
    if len(asked.body) > LONG_BODY:
        return await asyncio.to_thread(key_of, model, asked.kind, asked.body)
    return key_of(model, asked.kind, asked.body)


async def _start(service: Service, model: Model, asked: Asked, seconds: float) -> "asyncio.Future[Probabilities]":
    model.batcher.check_room()
    until = time.monotonic() + seconds
    batch = await service.decode(model, asked.kind, asked.body)
    return model.batcher.submit(batch, until - time.monotonic())


def _finish(card: ModelCard, probabilities: Probabilities) -> Answer:
    labels = codec.labels_of(card, probabilities)
    return Answer(codec.to_json(card, probabilities, labels), labels)
