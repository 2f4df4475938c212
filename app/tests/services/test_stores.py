"""Redis and PostgreSQL that go and come back."""

import asyncio
import time
from collections.abc import Callable

import pytest
from backing import Backing

from genai_inference.lifecycle import Lifecycle
from genai_inference.metrics import Metrics
from genai_inference.stores import RETRY_SECONDS, Away, Postgres, Redis, Store

SECONDS = 0.3


def _redis(url: str, lifecycle: Lifecycle, metrics: Metrics) -> tuple[Store, Callable[[], object]]:
    store = Redis(url, lifecycle, metrics, SECONDS)
    return store, lambda: store.call(lambda client: client.ping())


def _postgres(url: str, lifecycle: Lifecycle, metrics: Metrics) -> tuple[Store, Callable[[], object]]:
    store = Postgres(url, lifecycle, metrics, SECONDS, "tests", 8)
    return store, lambda: store.call(lambda pool: pool.fetchval("select 1"))


@pytest.mark.parametrize(("fixture", "make"), [("redis_server", _redis), ("postgres_server", _postgres)])
@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_one_that_goes_away_is_noticed_and_used_again(
    fixture: str, make: Callable, outage: str, request: pytest.FixtureRequest
) -> None:
    server: Backing = request.getfixturevalue(fixture)
    lifecycle, metrics = Lifecycle(loaded=True), Metrics()

    async def story() -> None:
        store, ask = make(server.url, lifecycle, metrics)
        assert await ask()
        getattr(server, outage)()
        with pytest.raises(Away):
            await ask()
        assert [part.split()[0] for part in lifecycle.degraded] == [store.name] and lifecycle.unready is None
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(Away):
                await ask()
        assert time.monotonic() - started < RETRY_SECONDS / 2, "nobody waits again"
        server.thaw() if outage == "freeze" else server.start()
        deadline = time.monotonic() + 30
        while lifecycle.degraded and time.monotonic() < deadline:
            await asyncio.sleep(RETRY_SECONDS / 4)
            try:
                await ask()
            except Away:
                continue
        assert not lifecycle.degraded
        await store.close()

    asyncio.run(story())
    assert f'genai_store_failures_total{{store="{fixture.split("_")[0]}"}}'.encode() in metrics.exposition()


def test_connections_that_died_with_redis_do_not_fail_one_after_another(redis_server: Backing) -> None:
    async def story() -> None:
        store, ask = _redis(redis_server.url, Lifecycle(), Metrics())
        await asyncio.gather(*[ask() for _ in range(8)])
        redis_server.stop()
        with pytest.raises(Away):
            await ask()
        redis_server.start()
        await asyncio.sleep(RETRY_SECONDS * 1.1)
        assert all(await asyncio.gather(*[ask() for _ in range(8)]))
        await store.close()

    asyncio.run(story())
