"""Answers that were given before: in this process, and in a Redis that others share.

The input must be the same byte for byte, of the same model: its card with the weights' SHA-256, and the number format,
are part of the key. So a new version never answers with what the old one computed. A cache that does not answer is an
empty one: nothing here fails a prediction.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import pydantic_core
from pydantic import Field, TypeAdapter, ValidationError

from .flights import Flight, Flights
from .lifecycle import Lifecycle
from .metrics import Metrics
from .registry import Model
from .stores import Away, Redis

log = logging.getLogger(__name__)

# A request waits so long for Redis; Redis itself may take its own, longer time until it counts as away.
READ_SECONDS = 0.05
MOST_AT_ONCE = 16  # reads, and writes
LARGEST_BYTES = 2**22  # of an answer that is kept
ENTRY_BYTES = 600  # that an entry takes beside its body and labels
LABEL_BYTES = 8
# Longer than any request may wait: a computation is given up when the last request that waits for it has gone.
NO_DEADLINE = 86_400.0

Result = Literal["local_hit", "redis_hit", "miss", "joined", "bypass"]
Directive = Literal["no-cache", "no-store"]
Start = Callable[[float], Awaitable["asyncio.Future[Any]"]]
Head = tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], list[int | str]]
_HEAD: TypeAdapter[Head] = TypeAdapter(Head)


class Answer(NamedTuple):
    """The body of a PredictResponse, and the label of each of its predictions."""

    body: bytes
    labels: list[int | str]


class Stored(NamedTuple):
    """An answer, and when it was computed, by the cache's clock."""

    answer: Answer
    since: float


@dataclass(frozen=True, slots=True)
class Found:
    """An answer, how it was come by, and its age in seconds if it had been stored."""

    answer: Answer
    result: Result
    age: float | None = None


# --- decisions -------------------------------------------------------------------------------------------------------


def key_of(model: Model, kind: str, body: bytes) -> str:
    """The name of an answer, in Redis too: `genai:cache:MODEL:SHA-256`."""
    digest = hashlib.sha256(model.identity + kind.encode() + b"\0")
    digest.update(body)
    return f"genai:cache:{model.card.name}:{digest.hexdigest()}"


def directive_in(cache_control: str) -> Directive | None:
    """What a request's Cache-Control says: neither read nor write, or compute anew and store."""
    said = {word.strip().lower() for word in cache_control.split(",")} if cache_control else ()
    if "no-store" in said:
        return "no-store"
    return "no-cache" if "no-cache" in said else None


def encode(answer: Answer, ttl: float) -> bytes:
    """An entry in Redis: a line of JSON, [seconds to live, labels], and the body."""
    return pydantic_core.to_json([ttl, answer.labels]) + b"\n" + answer.body


def decode(entry: bytes) -> tuple[Answer, float] | None:
    """The answer, and the seconds it was to live; None if that is no entry of ours."""
    head, newline, body = entry.partition(b"\n")
    try:
        ttl, labels = _HEAD.validate_json(head)
    except ValidationError:
        return None
    return (Answer(body, labels), ttl) if newline and body else None


# --- this process ----------------------------------------------------------------------------------------------------


class Local:
    """Answers in memory, `most` bytes of them; the one not used for longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[str, Stored] = OrderedDict()
        self.bytes = 0

    def get(self, key: str, ttl: float, now: float) -> Stored | None:
        """An entry that is less than `ttl` seconds old."""
        stored = self._entries.get(key)
        if stored is None:
            return None
        if now - stored.since >= ttl:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return stored

    def put(self, key: str, stored: Stored) -> None:
        if key in self._entries:
            self._drop(key)
        if _size(stored) > self._most:
            return
        self._entries[key] = stored
        self.bytes += _size(stored)
        while self.bytes > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        self.bytes -= _size(self._entries.pop(key))


def _size(stored: Stored) -> int:
    return len(stored.answer.body) + LABEL_BYTES * len(stored.answer.labels) + ENTRY_BYTES


# --- Redis -----------------------------------------------------------------------------------------------------------


class Shared:
    """Answers in Redis, each with its time to live. Never raises, and makes nobody wait longer than READ_SECONDS.

    While a read is overdue no other one begins: of a Redis that is frozen, only those requests notice anything that
    came within the first READ_SECONDS.
    """

    def __init__(self, redis: Redis, lifecycle: Lifecycle) -> None:
        self._redis = redis
        self._lifecycle = lifecycle
        self._reads: set[asyncio.Task[Any]] = set()
        self._overdue: set[asyncio.Task[Any]] = set()
        self._writes: set[asyncio.Task[Any]] = set()

    async def get(self, key: str) -> tuple[Answer, float] | None:
        """The answer, and its age in seconds."""
        if self._overdue or len(self._reads) >= MOST_AT_ONCE:
            return None
        task = asyncio.create_task(self._ask("read", lambda client: _read(client, key)))
        _keep(self._reads, task)
        done, _ = await asyncio.wait({task}, timeout=READ_SECONDS)
        if not done:
            _keep(self._overdue, task)
            return None
        entry, left_ms = task.result() or (None, 0)
        found = decode(entry) if entry is not None and left_ms > 0 else None
        return (found[0], max(0.0, found[1] - left_ms / 1000)) if found else None

    def put(self, key: str, ttl: float, answer: Answer) -> None:
        """Begins to write, unless so much is being written already that this is left out."""
        if len(self._writes) < MOST_AT_ONCE:
            entry, ms = encode(answer, ttl), max(1, round(ttl * 1000))
            _keep(self._writes, asyncio.create_task(self._ask("write", lambda client: client.set(key, entry, px=ms))))

    async def close(self) -> None:
        """Ends what was begun; the store's own time limit bounds it."""
        await asyncio.gather(*self._reads, *self._writes)

    async def _ask(self, what: str, operation: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: ANN401  # Redis' answer
        part = f"cache {what}"
        try:
            answer = await self._redis.call(operation)
        except Away:
            return None
        except Exception as error:  # such as: no memory left, a replica that takes no writes, no permission
            if part not in self._lifecycle.degraded:  # said once, not for each request
                log.warning("Redis refuses", extra={"fields": {"operation": what, "reason": str(error)[:200]}})
            self._lifecycle.degrade(part, str(error)[:200])
            return None
        self._lifecycle.degrade(part, None)
        return answer


async def _read(client: Any, key: str) -> list[Any]:  # noqa: ANN401  # redis.asyncio.Redis
    async with client.pipeline(transaction=False) as both:
        entry_and_ms: list[Any] = await both.get(key).pttl(key).execute()
    return entry_and_ms


def _keep(tasks: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    """Has a task held by `tasks` until it has ended."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)


# --- both ------------------------------------------------------------------------------------------------------------


class Cache:
    """Both layers. Everything here belongs to the event loop. `ttl`: seconds an answer of the model may be used."""

    def __init__(
        self,
        redis: Redis | None,
        lifecycle: Lifecycle,
        metrics: Metrics,
        local_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = Local(local_bytes)
        self._shared = Shared(redis, lifecycle) if redis else None
        self._flights: Flights[Found] = Flights()
        self._clock = clock
        metrics.cache_bytes.set_function(lambda: self._local.bytes)

    def local(self, key: str, ttl: float) -> Found | None:
        """What this process knows."""
        now = self._clock()
        stored = self._local.get(key, ttl, now)
        return Found(stored.answer, "local_hit", now - stored.since) if stored else None

    async def found(
        self,
        key: str,
        ttl: float,
        start: Start,
        finish: Callable[[Any], Answer],
        wait: Callable[["asyncio.Future[Found]"], Awaitable[Found]],
        seconds: float,
    ) -> Found:
        """The answer from Redis, or computed: once, for all who ask for it at the same time.

        `start` begins to compute within some seconds, `finish` makes an answer of what that gives. This request has
        `seconds`, and goes when `wait` says so. Neither ends what others wait for.
        """

        async def fly(flight: Flight[Found]) -> Found:
            return await self._shared_hit(key, ttl) or await self._compute(flight, key, ttl, start, finish)

        waiter, joined = self._flights.join(key, fly, seconds)
        found = await wait(waiter)
        return replace(found, result="joined") if joined else found

    def put(self, key: str, ttl: float, answer: Answer) -> None:
        """Stores an answer that has just been computed."""
        if len(answer.body) > LARGEST_BYTES:
            return
        self._local.put(key, Stored(answer, self._clock()))
        if self._shared:
            self._shared.put(key, ttl, answer)

    async def close(self) -> None:
        if self._shared:
            await self._shared.close()

    async def _shared_hit(self, key: str, ttl: float) -> Found | None:
        answer, age = (await self._shared.get(key) if self._shared else None) or (None, 0.0)
        if answer is None or age >= ttl:  # the model's time to live may have been shortened since
            return None
        self._local.put(key, Stored(answer, self._clock() - age))
        return Found(answer, "redis_hit", age)

    async def _compute(
        self, flight: Flight[Found], key: str, ttl: float, start: Start, finish: Callable[[Any], Answer]
    ) -> Found:
        flight.computing = await start(NO_DEADLINE)
        answer = finish(await flight.computing)
        self.put(key, ttl, answer)
        return Found(answer, "miss")
