"""Jobs as a worker sees them: at least one worker begins each, and at most one result of each counts.

See job_scripts for what makes that so. Every method raises Away while Redis does not answer.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from . import job_scripts
from .bodies import NPY
from .jobs import BULK_SECONDS, GROUP, TOO_LATE, job_key, result_key, stream_key
from .settings import Settings
from .stores import Redis

MOST_ATTEMPTS = 3
NOBODY = "nobody"  # the consumer that holds what was handed back
GIVEN_UP = f"Given up after {MOST_ATTEMPTS} attempts: each time the worker died, or was not heard of for too long."
# Consumers that hold nothing and were not heard of for so many leases belonged to workers that died.
FORGOTTEN_LEASES = 100


@dataclass(frozen=True)
class Entry:
    """One entry of the stream, given to this worker: which job, not yet whether it may be begun."""

    id: str
    job: str


@dataclass(frozen=True)
class Claim:
    """A job this worker has begun. `lease` is the number with which alone it can be finished; `remaining` and `waited`
    are seconds.
    """

    entry: Entry
    lease: int
    attempt: int
    taken_over: bool
    waited: float
    remaining: float | None
    kind: str
    model: str
    gpus: int
    input: bytes
    media_type: str
    request_id: str


@dataclass(frozen=True)
class Ended:
    """A job that was over when it was to begin: cancelled, too late, or begun too often."""

    kind: str
    status: str


@dataclass(frozen=True)
class Outcome:
    """What a job came to: a result, or why there is none."""

    status: str
    reason: str = ""
    detail: str = ""
    result: bytes = b""


def consumer_name() -> str:
    """Of this process and no other, also not the one that had this host's name before."""
    return f"{socket.gethostname()[:63]}-{os.urandom(4).hex()}"


def claim_of(entry: Entry, answer: list[Any]) -> Claim:
    """What BEGIN says of a job that may be begun."""
    lease, attempt, taken_over, waited, remaining, kind, model, gpus, body, _, request_id, media_type = answer
    left = float(remaining) if remaining else None
    place = (lease, attempt, bool(taken_over), float(waited), left)
    media_type = media_type.decode() if media_type else NPY  # jobs of earlier releases have tensors only
    return Claim(entry, *place, kind.decode(), model.decode(), int(gpus), body, media_type, request_id.decode())


def entries_of(answer: Any) -> list[Entry]:  # noqa: ANN401  # a list, a dictionary or None, by the protocol
    """The entries of an answer to XREADGROUP about one stream."""
    streams = answer.items() if isinstance(answer, dict) else answer or []
    return [entry for _, found in streams for entry in _entries(found)]


def _entries(found: list[Any]) -> list[Entry]:
    if found and isinstance(found[0], list) and found[0] and isinstance(found[0][0], list | tuple):
        found = found[0]  # RESP3 puts them into a list of their own
    return [Entry(name.decode(), fields[b"job"].decode()) for name, fields in found if fields]


class JobQueue:
    """One worker's place at one queue."""

    def __init__(self, redis: Redis, settings: Settings, consumer: str) -> None:
        self.consumer = consumer
        self._redis = redis
        self._stream = stream_key(settings.worker_queue)
        self._keep = settings.job_result_seconds
        self._lease_ms = int(settings.worker_lease_seconds * 1000)
        self._timeout = settings.store_timeout_seconds
        self._cursor: Any = "0-0"

    async def open(self) -> None:
        """Makes the group if there is none, and forgets workers that died long ago."""
        await self._script(job_scripts.TIDY, [self._stream], [GROUP, FORGOTTEN_LEASES * self._lease_ms])

    async def present(self) -> None:
        """Says that this worker is here, for a lease's time: clients are told how many are."""
        await self._script(job_scripts.PRESENT, [self._stream], [self.consumer, self._lease_ms / 1000])

    async def take(self, count: int, seconds: float) -> list[Entry]:
        """Jobs that are new, waiting up to `seconds` for one."""
        block = max(1, int(seconds * 1000))
        return entries_of(
            await self._in_group(
                lambda redis: redis.xreadgroup(GROUP, self.consumer, {self._stream: ">"}, count=count, block=block),
                self._timeout + seconds,
            )
        )

    async def take_over(self, count: int) -> list[Entry]:
        """Jobs whose lease has run out, or that were handed back."""
        self._cursor, found, *_ = await self._in_group(
            lambda redis: redis.xautoclaim(
                self._stream, GROUP, self.consumer, self._lease_ms, start_id=self._cursor, count=count
            ),
            self._timeout,
        )
        return _entries(found)

    async def _in_group(self, operation: Callable[[Any], Awaitable[Any]], seconds: float) -> Any:  # noqa: ANN401
        """The answer, also of a Redis that has lost everything."""
        import redis

        try:
            return await self._redis.call(operation, seconds)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        await self.open()
        return await self._redis.call(operation, seconds)

    async def begin(self, entry: Entry) -> Claim | Ended | None:
        """None if it is not this worker's any more, or was finished before."""
        state, *rest = await self._job(
            job_scripts.BEGIN, entry, [self.consumer, entry.id, MOST_ATTEMPTS, self._keep, TOO_LATE, GIVEN_UP]
        )
        if state == b"run":
            return claim_of(entry, rest)
        return Ended(rest[0].decode(), state.decode()) if rest else None

    async def renew(self, claim: Claim) -> str:
        """held, cancel (its client asked for it) or lost."""
        answer: bytes = await self._job(job_scripts.RENEW, claim.entry, [self.consumer, claim.entry.id, claim.lease])
        return answer.decode()

    async def finish(self, claim: Claim, outcome: Outcome) -> str | None:
        """The job's final status; None if another worker has it and this outcome counts for nothing.

        May be repeated: what counted counts once.
        """
        said = [outcome.status, outcome.reason, outcome.detail, outcome.result]
        answer = await self._job(job_scripts.FINISH, claim.entry, [claim.lease, self._keep, *said])
        return None if answer == b"lost" else answer.split()[1].decode()

    async def release(self, claim: Claim, *, at_once: bool) -> bool:
        """Gives a job to the next worker: at once, as if it had not been begun; or, after a failure, once the lease's
        time is over. False if it was not this worker's any more.
        """
        where = [self.consumer, claim.entry.id, claim.lease, NOBODY]
        how = [self._lease_ms, -1] if at_once else [0, 0]
        return bool(await self._job(job_scripts.RELEASE, claim.entry, [*where, *how]))

    async def leave(self) -> int:
        """Gives back what was never begun. How much that was."""
        arguments = [GROUP, self.consumer, NOBODY, self._lease_ms]
        return int(await self._script(job_scripts.LEAVE, [self._stream], arguments))

    async def _job(self, script: str, entry: Entry, arguments: list[Any]) -> Any:  # noqa: ANN401
        keys = [job_key(entry.job), self._stream, result_key(entry.job)]
        return await self._script(script, keys, [GROUP, *arguments])

    async def _script(self, script: str, keys: list[str], arguments: list[Any]) -> Any:  # noqa: ANN401  # of Lua
        # Inputs and results may be large, but what is renewed is not to wait for a Redis that is gone.
        seconds = self._timeout if script is job_scripts.RENEW else self._timeout + BULK_SECONDS
        return await self._redis.call(lambda redis: redis.register_script(script)(keys, arguments), seconds)
