"""Redis and PostgreSQL: services that may be away while predictions go on.

Whoever works with one gets Away at once while it is known not to answer: no request waits for the same timeout again.
It is tried anew every RETRY_SECONDS. Meanwhile `/ready` says `degraded`, and every failure is counted.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .lifecycle import Lifecycle
from .metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_SECONDS = 1.0
GONE: tuple[type[BaseException], ...] = (OSError, TimeoutError)


class Away(Exception):  # a state, not an accident
    """The store does not answer; the message names it."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, or TimeoutError. Unlike asyncio.timeout it does not wait until work that was cancelled has
    ended: asyncpg tells the server first, and a server that is gone never hears of it.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody asks for it any more
        task.cancel()
        raise TimeoutError("timed out")
    return task.result()


class Store:
    """One backing service behind a circuit breaker. `away` names the errors that mean that it does not answer."""

    name: str

    def __init__(
        self, lifecycle: Lifecycle, metrics: Metrics, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`seconds`: how long an operation may take unless it says otherwise."""
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._seconds = seconds
        self._clock = clock
        self._closed_until = 0.0
        self._part = self.name  # of what `/ready` calls degraded
        self._down = False

    def _away(self) -> tuple[type[BaseException], ...]:
        raise NotImplementedError

    async def call(self, operation: Callable[[Any], Awaitable[T]], seconds: float | None = None) -> T:
        """The result of `operation(client)`. Raises Away if the store does not answer, and anything else as it is."""
        if self._clock() < self._closed_until:
            raise Away(f"{self.name} does not answer")
        try:
            result = await within(seconds or self._seconds, self._run(operation))
        except self._away() as error:
            self._failed(error)
            raise Away(f"{self.name} does not answer") from error
        self._answered()
        return result

    async def _run(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        return await operation(await self._client())

    async def _client(self) -> Any:  # noqa: ANN401  # of the library
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        """Forgets connections that may never answer again."""

    def _failed(self, error: BaseException) -> None:
        self._closed_until = self._clock() + RETRY_SECONDS
        self._drop()
        self._metrics.store_failed(self.name)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._lifecycle.degrade(self._part, reason)
        if not self._down:  # said once, not for each request
            log.warning("store does not answer", extra={"fields": {"store": self._part, "reason": reason}})
        self._down = True

    def _answered(self) -> None:
        if self._down:
            log.info("store answers again", extra={"fields": {"store": self._part}})
            self._lifecycle.degrade(self._part, None)
        self._down = False


class Redis(Store):
    """`call` gives `redis.asyncio.Redis` with raw bytes as answers. The client is safe for many tasks at once."""

    name = "redis"

    def __init__(self, url: str, lifecycle: Lifecycle, metrics: Metrics, seconds: float) -> None:
        super().__init__(lifecycle, metrics, seconds)
        import redis.asyncio

        # The last one: a member that has just been demoted. One whose memory is full refuses what would add to it only.
        self._errors = (*GONE, redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)
        # No retries of its own: the breaker decides when to try again.
        self._redis = redis.asyncio.Redis.from_url(url, socket_connect_timeout=seconds, retry=None)
        self._dropping: asyncio.Future[None] | None = None

    def _away(self) -> tuple[type[BaseException], ...]:
        return self._errors

    async def _client(self) -> Any:  # noqa: ANN401
        return self._redis

    def _drop(self) -> None:
        if self._dropping is None or self._dropping.done():
            self._dropping = asyncio.ensure_future(self._disconnect_idle())

    async def _disconnect_idle(self) -> None:
        """They may be dead as well, and each would first have to fail."""
        with suppress(*self._errors):
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        if self._dropping is not None:
            await self._dropping
        await self._redis.aclose()


def postgres_gone() -> tuple[type[BaseException], ...]:
    """The errors that mean that PostgreSQL does not answer, or not for now."""
    import asyncpg  # type: ignore[import-untyped]

    return (
        *GONE,
        asyncpg.InterfaceError,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.AdminShutdownError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.ReadOnlySQLTransactionError,  # a member that has just been demoted
    )


class Postgres(Store):
    """`call` gives an asyncpg pool, made at the first call: one for each use, so that a slow query of one use keeps no
    other one from working. `use` is part of what `/ready` says; `connections` bounds the pool.
    """

    name = "postgres"

    def __init__(
        self, url: str, lifecycle: Lifecycle, metrics: Metrics, seconds: float, use: str, connections: int
    ) -> None:
        super().__init__(lifecycle, metrics, seconds)
        self._part = f"postgres ({use})"
        self._connections = connections
        self._url = url
        self._pool: Any = None
        self._dropped: set[Any] = set()
        self._opening = asyncio.Lock()

    def _away(self) -> tuple[type[BaseException], ...]:
        return postgres_gone()

    async def _client(self) -> Any:  # noqa: ANN401
        async with self._opening:
            if self._pool is None:
                import asyncpg

                self._pool = await asyncpg.create_pool(
                    self._url, min_size=0, max_size=self._connections, timeout=self._seconds
                )
        return self._pool

    def _drop(self) -> None:
        """Not at once: asyncpg is just telling the server which queries nobody waits for any more."""
        if self._pool is not None:
            self._dropped.add(self._pool)
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._end, self._pool)
        self._pool = None

    def _end(self, pool: Any) -> None:  # noqa: ANN401
        self._dropped.discard(pool)
        pool.terminate()

    async def close(self) -> None:
        for pool in [*self._dropped, self._pool]:
            if pool is not None:
                self._end(pool)
        self._pool = None
