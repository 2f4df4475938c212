"""The command `worker`: computes jobs from a queue in Redis, with the same models, engine and batching as `serve`.

Its small HTTP server answers probes and scrapers. On SIGTERM it takes no more jobs, finishes those under way within
GENAI_DRAIN_SECONDS and hands the rest to other workers at once.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from fastapi import APIRouter

from . import routes
from .api import assemble
from .engine import MakeEngine
from .job_compute import ListDevices, Wish, compute, copies, on_each
from .job_queue import MOST_ATTEMPTS, Claim, Ended, Entry, JobQueue, Outcome, consumer_name
from .server import run
from .service import Service, readable
from .settings import PREFIX, ModelConfig, Settings, SettingsError, read_models
from .stores import RETRY_SECONDS, Away, Redis

log = logging.getLogger(__name__)

BLOCK_SECONDS = 1.0  # how long a read waits for a job: also how long a worker takes to hear that it shall end
TAKE_OVER_SECONDS = 0.5  # how often it is asked whether another worker left something
FIRST_PAUSE = 0.2


def pause(failures: int, most: float) -> float:
    """Seconds to wait after so many failed jobs in a row, so that a worker whose device is broken does not get hold of
    every job before those that work.
    """
    return min(most, FIRST_PAUSE * 2 ** min(failures - 1, 20)) if failures else 0.0


class Worker:
    """Takes jobs, `concurrency` at once, until the process drains."""

    def __init__(self, service: Service, redis: Redis) -> None:
        settings = service.settings
        self._service = service
        self._lifecycle = service.lifecycle
        self._metrics = service.metrics.jobs
        self._queue = JobQueue(redis, settings, consumer_name())
        self._concurrency = settings.worker_concurrency
        self._heartbeat = settings.worker_heartbeat_seconds
        self._lease = settings.worker_lease_seconds
        self._running: set[asyncio.Task[None]] = set()
        self._claims: dict[str, Claim] = {}
        self._failures = 0
        self._take_over_at = 0.0
        self._present_until = 0.0
        self._consuming: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._consuming = asyncio.create_task(self._consume())

    async def stop(self) -> None:
        """Ends what still runs, and hands it back."""
        tasks = [*self._running, *([self._consuming] if self._consuming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for claim in list(self._claims.values()):
                if await self._queue.release(claim, at_once=True):
                    self._metrics.handed_back.inc()
                    self._say("job handed back", claim)
            await self._queue.leave()
        except Away:
            log.warning("jobs not handed back: other workers take them when their lease has run out")

    # --- taking ------------------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        while not self._lifecycle.loaded and not self._lifecycle.draining:
            await asyncio.sleep(0.05)
        opened = False
        while not self._lifecycle.draining:
            try:
                if not opened:
                    await self._queue.open()
                    opened = True
                if time.monotonic() >= self._present_until:
                    await self._queue.present()
                    self._present_until = time.monotonic() + self._heartbeat
                await self._next()
            except Away:
                # The leases of living workers may have run out too: they come first when Redis is back.
                self._take_over_at = time.monotonic() + RETRY_SECONDS + self._heartbeat
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # nothing may end this task: what is wrong now may be well later
                log.exception("no jobs taken")
                await asyncio.sleep(RETRY_SECONDS)
        if self._running:
            await asyncio.wait(self._running)
        self._lifecycle.drained = True

    async def _next(self) -> None:
        free = self._concurrency - len(self._running)
        if free <= 0:
            await asyncio.wait(self._running, timeout=BLOCK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return
        await asyncio.sleep(pause(self._failures, self._lease))
        for entry in await self._take(free):
            if not self._lifecycle.draining:
                self._spawn(self._job(entry))

    async def _take(self, free: int) -> list[Entry]:
        if time.monotonic() >= self._take_over_at:
            found = await self._queue.take_over(free)
            self._take_over_at = time.monotonic() + (0.0 if found else TAKE_OVER_SECONDS)
            if found:
                return found
        return await self._queue.take(free, min(BLOCK_SECONDS, max(0.01, self._take_over_at - time.monotonic())))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- one job -----------------------------------------------------------------------------------------------------

    async def _job(self, entry: Entry) -> None:
        try:
            claim = await self._queue.begin(entry)
        except Away:  # the entry is this worker's for as long as a lease, then another one's
            return
        if isinstance(claim, Ended):
            self._metrics.ended.labels(claim.kind, claim.status).inc()
        if not isinstance(claim, Claim):
            return
        self._begun(claim)
        self._claims[entry.job] = claim
        started, wish = time.monotonic(), Wish()
        work = asyncio.create_task(self._outcome(claim, wish))
        heart = asyncio.create_task(self._beat(claim, work, wish))
        try:
            outcome = await work
            await self._settle(claim, outcome, time.monotonic() - started)
            self._claims.pop(entry.job, None)
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # this task, not the one it waits for
                work.cancel()
                raise
            self._lost(claim)
        except Exception:  # of Redis: nobody renews the lease any more, so another worker will have the job
            log.exception("job not finished", extra={"fields": self._about(claim)})
            self._claims.pop(entry.job, None)
        finally:
            heart.cancel()

    def _begun(self, claim: Claim) -> None:
        self._metrics.attempts.labels(claim.kind).inc()
        if claim.taken_over:
            self._metrics.takeovers.inc()
            self._say("job taken over", claim)
        if claim.attempt == 1:
            self._metrics.wait.labels(claim.kind).observe(claim.waited)

    async def _outcome(self, claim: Claim, wish: Wish) -> Outcome | None:
        """None after a failure that is worth another attempt."""
        try:
            service = self._service
            outcome = await compute(claim, service.registry.models, wish, service.metrics, service.decode)
        except Exception as error:
            log.exception("job failed", extra={"fields": self._about(claim)})
            self._failures += 1
            detail = f"Given up after {claim.attempt} attempts. The last one ended with {type(error).__name__}."
            return Outcome("failed", "attempts", detail) if claim.attempt >= MOST_ATTEMPTS else None
        self._failures = 0
        return outcome

    async def _beat(self, claim: Claim, work: "asyncio.Task[Outcome | None]", wish: Wish) -> None:
        """Keeps the lease until the result is written; without it, goes on with nothing."""
        while True:
            await asyncio.sleep(self._heartbeat)
            try:
                state = await self._queue.renew(claim)
            except Away:
                continue
            wish.cancelled = wish.cancelled or state == "cancel"
            if state == "lost":
                work.cancel()
                return

    async def _settle(self, claim: Claim, outcome: Outcome | None, seconds: float) -> None:
        """Writes what a job came to, for as long as that takes; what counts is decided in Redis."""
        while True:
            try:
                if outcome is None:
                    await self._queue.release(claim, at_once=False)
                    return
                status = await self._queue.finish(claim, outcome)
            except Away:
                await asyncio.sleep(RETRY_SECONDS / 2)
                continue
            if status is None:
                self._lost(claim)
                return
            self._metrics.ended.labels(claim.kind, status).inc()
            self._metrics.duration.labels(claim.kind).observe(seconds)
            self._say("job finished", claim, status=status, seconds=round(seconds, 3))
            return

    def _lost(self, claim: Claim) -> None:
        self._claims.pop(claim.entry.job, None)
        self._metrics.lost.inc()
        self._say("job lost: another worker has it", claim)

    def _say(self, message: str, claim: Claim, **more: object) -> None:
        log.info(message, extra={"fields": {**self._about(claim), **more}})

    def _about(self, claim: Claim) -> dict[str, object]:
        job = {"job": claim.entry.job, "kind": claim.kind, "attempt": claim.attempt, "request_id": claim.request_id}
        return {**job, "worker": self._queue.consumer}


class WorkerService(Service):
    """The service of a worker: the models of `serve`, for jobs in place of requests."""

    def __init__(self, settings: Settings, make_engine: MakeEngine, list_devices: ListDevices) -> None:
        """A worker of blueprint jobs has every model on every device, another one where the settings say."""
        if settings.redis_url is None:
            raise SettingsError(f"{PREFIX}REDIS_URL: the worker needs one")

        def read(own: Settings) -> list[ModelConfig]:
            return on_each(read_models(own), list_devices())

        if settings.worker_queue == "blueprint":
            super().__init__(settings, copies(make_engine), read)
        else:
            super().__init__(settings, make_engine)
        assert self.redis is not None  # noqa: S101  # for the type checker
        self._worker = Worker(self, self.redis)

    async def start(self) -> None:
        await super().start()
        self._worker.start()

    async def close(self) -> None:
        await self._worker.stop()
        await super().close()


def probes() -> Iterable[APIRouter]:
    """What is asked of a worker by HTTP."""
    router = APIRouter()
    readable(router, "/health")(routes.health)
    readable(router, "/ready")(routes.ready)
    readable(router, "/metrics")(routes.metrics)
    readable(router, "/version")(routes.version)
    return (router,)


def work(settings: Settings, make_engine: MakeEngine, list_devices: ListDevices) -> None:
    """Works until told to stop. Raises SettingsError, or what loading a model raised."""
    service = WorkerService(settings, make_engine, list_devices)
    run(assemble(settings, service, probes()), settings)
