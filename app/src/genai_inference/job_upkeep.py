"""Ends jobs that nobody computed in time, and says if Redis may lose some: in the API's processes, for a queue may have
no worker.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from . import job_scripts
from .job_metrics import JobMetrics
from .jobs import GROUP, QUEUES, TOO_LATE, stream_key
from .lifecycle import Lifecycle
from .settings import Settings
from .stores import Away, Redis

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 5.0  # nobody waits for this: that it is slow must not make Redis count as away for requests
MOST_AT_ONCE = 1000  # jobs that are ended in one step
LEFT = "The deadline had passed, and the worker that had begun was not heard of any more."
EVICTION = "volatile-ttl"


def unfit(memory: Mapping[str, Any]) -> tuple[str, bool] | None:
    """What is wrong with how this Redis makes room, and whether that may cost a job; None if all is well. `memory` is
    Redis' own INFO about it.
    """
    policy = memory.get("maxmemory_policy", EVICTION)
    if not memory.get("maxmemory") or policy == EVICTION:
        return None
    loses = str(policy).startswith("allkeys-")
    harm = "jobs that wait can be lost" if loses else "the cache can push out results, or leave no room for jobs"
    return f"maxmemory-policy is {policy}, with which {harm}; {EVICTION} is needed", loses


class Upkeep:
    """Looks every EVERY_SECONDS. Several processes may do so at once."""

    def __init__(self, redis: Redis, settings: Settings, metrics: JobMetrics, lifecycle: Lifecycle) -> None:
        self._redis = redis
        self._settings = settings
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._said: str | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def end_overdue(self) -> None:
        """Fails jobs whose deadline passed while they waited, and frees what they hold."""
        for kind, queue in QUEUES.items():
            ended = await self._redis.call(partial(self._end, queue), PATIENCE_SECONDS)
            if ended:
                self._metrics.ended.labels(kind, "failed").inc(ended)
                log.warning("jobs too late", extra={"fields": {"queue": queue, "jobs": ended}})

    async def _end(self, queue: str, redis: Any) -> int:  # noqa: ANN401
        """Ends the overdue jobs of one queue. How many that was."""
        settings = self._settings
        arguments = [GROUP, settings.job_result_seconds, settings.worker_lease_seconds, MOST_AT_ONCE, TOO_LATE, LEFT]
        return int(await redis.register_script(job_scripts.OVERDUE)([stream_key(queue)], arguments))

    async def check_eviction(self) -> None:
        """Says if Redis, once it is full, makes room in a way that costs jobs; nothing where that may not be asked."""
        import redis

        try:
            found = unfit(await self._redis.call(lambda redis: redis.info("memory"), PATIENCE_SECONDS))
        except redis.ResponseError:
            return
        reason, loses = found or (None, False)
        if reason and reason != self._said:
            log.warning("Redis evicts what it should not", extra={"fields": {"reason": reason}})
        self._said = reason
        self._lifecycle.degrade("redis memory", reason if loses else None)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.end_overdue()
                await self.check_eviction()
            except Away:  # the store says so
                pass
            except Exception:  # nothing may end this task: what is wrong now may be well later
                log.exception("upkeep of jobs")
