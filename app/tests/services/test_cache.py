"""Answers that processes share in a real Redis, also one that goes away while requests come."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from threading import Event, Thread

import httpx
import pytest
import redis
from backing import Backing
from processes import Server, Start
from waiting import eventually

from genai_inference.cache import MOST_AT_ONCE, READ_SECONDS, Answer, Shared, encode
from genai_inference.lifecycle import Lifecycle
from genai_inference.metrics import Metrics
from genai_inference.stores import Redis

ANSWER = Answer(b'{"predictions":[]}', [3, 3])
STORE_SECONDS = 0.5


def begin(start: Start, server: Backing, ttl: float = 600, **settings: str) -> Server:
    process = start("0", GENAI_REDIS_URL=server.url, GENAI_CACHE_TTL_SECONDS=str(ttl), **settings)
    process.becomes("/ready", 200)
    return process


def image(number: int) -> dict[str, list[list[int]]]:
    """Another body for each of 4913 numbers."""
    return {"instances": [[number % 17, number // 17 % 17, number // 289 % 17, *[0] * 61]]}


def ask(server: Server, number: int = 1, **headers: str) -> httpx.Response:
    return httpx.post(server.url + "/v1/predict", json=image(number), headers=headers, timeout=60)


def metric(server: Server, line: str) -> float:
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    return sum(float(each.split()[-1]) for each in lines if each.startswith(line))


def asked(server: Server, result: str) -> float:
    return metric(server, f'genai_cache_requests_total{{model="stub",result="{result}"}}')


def degraded(server: Server) -> dict[str, str]:
    ready = httpx.get(server.url + "/ready")
    assert ready.status_code == 200
    reasons: dict[str, str] = ready.json().get("degraded", {})
    return reasons


def keys(server: Backing) -> list[bytes]:
    with redis.Redis.from_url(server.url) as client:
        found: list[bytes] = client.keys("genai:cache:stub:*")
        return found


def test_another_process_has_what_the_first_one_stored(start: Start, redis_server: Backing) -> None:
    first, second = begin(start, redis_server), begin(start, redis_server)
    answer = ask(first)
    assert answer.headers["x-cache"] == "miss"
    eventually(lambda: len(keys(redis_server)) == 1, "it is written, after the answer")
    hits = [ask(second) for _ in range(2)]
    assert [(hit.headers["x-cache"], hit.content) for hit in hits] == [("hit", answer.content)] * 2
    assert all(0 <= int(hit.headers["age"]) < 60 for hit in hits)
    assert (asked(second, "redis_hit"), asked(second, "local_hit"), asked(second, "miss")) == (1, 1, 0)
    assert metric(second, "genai_predictions_total") == 2
    assert metric(second, "genai_forward_seconds_count") == 0, "it computed nothing"


def test_without_a_local_layer_redis_answers_until_the_entry_expires(start: Start, redis_server: Backing) -> None:
    process = begin(start, redis_server, ttl=2, GENAI_CACHE_LOCAL_BYTES="0")
    ask(process)
    eventually(lambda: bool(keys(redis_server)), "written")
    ages = []

    def expired() -> bool:
        answer = ask(process)
        ages.append(int(answer.headers.get("age", -1)))
        return answer.headers["x-cache"] == "miss"

    eventually(expired, "the entry expires")
    assert ages[-1] == -1 and set(ages[:-1]) <= {0, 1} and 0 in ages
    assert asked(process, "local_hit") == 0


def test_what_is_not_to_be_stored_is_not(start: Start, redis_server: Backing) -> None:
    process = begin(start, redis_server)
    ask(process, **{"Cache-Control": "no-store"})
    ask(process, 2)
    eventually(lambda: bool(keys(redis_server)), "the second one is written")
    assert len(keys(redis_server)) == 1


def test_an_entry_that_is_none_of_ours_is_computed_anew(start: Start, redis_server: Backing) -> None:
    process = begin(start, redis_server, GENAI_CACHE_LOCAL_BYTES="0")
    ask(process)
    eventually(lambda: bool(keys(redis_server)), "written")
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(keys(redis_server)[0], b"rubbish", px=60_000)
        answer = ask(process)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "miss")
        client.delete(name := keys(redis_server)[0])
        client.rpush(name, "not even a string")
    answer = ask(process)
    assert (answer.status_code, answer.headers["x-cache"]) == (200, "miss")
    assert "cache read" in degraded(process)


def test_a_redis_that_takes_no_writes_is_named(start: Start, redis_server: Backing) -> None:
    process = begin(start, redis_server, GENAI_CACHE_LOCAL_BYTES="0")
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        seen = []  # each time anew, for one write may also have taken too long

        def named() -> bool:
            seen.append(ask(process))
            return "maxmemory" in degraded(process).get("cache write", "")

        eventually(named, "named")
        client.config_set("maxmemory", 0)
    assert {(answer.status_code, answer.headers["x-cache"]) for answer in seen} == {(200, "miss")}
    eventually(lambda: ask(process).headers["x-cache"] == "hit" and not degraded(process), "it is over")


@dataclass
class Traffic:
    """Requests one after another, mostly for something new, in four threads."""

    server: Server
    statuses: list[int] = field(default_factory=list)
    end: Event = field(default_factory=Event)

    def run(self, first: int) -> None:
        number = first
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            while not self.end.is_set():
                try:
                    self.statuses.append(client.post("/v1/predict", json=image(number)).status_code)
                except httpx.TransportError:
                    self.statuses.append(0)
                number = first + (number + 1 - first) % 1000

    def __enter__(self) -> "Traffic":
        self._threads = [Thread(target=self.run, args=(1000 * index,), daemon=True) for index in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_redis_goes_away_in_the_middle_and_no_prediction_fails(
    start: Start, redis_server: Backing, outage: str
) -> None:
    process = begin(start, redis_server, GENAI_STORE_TIMEOUT_SECONDS=str(STORE_SECONDS))
    ask(process, 4000)
    eventually(lambda: bool(keys(redis_server)), "written")
    with Traffic(process) as traffic:
        eventually(lambda: len(traffic.statuses) > 50, "traffic")
        getattr(redis_server, outage)()
        eventually(lambda: set(degraded(process)) == {"redis"}, "noticed")
        before = len(traffic.statuses)
        eventually(lambda: len(traffic.statuses) > before + 100, "traffic without Redis")
        assert ask(process, 4000).headers["x-cache"] == "hit", "of this process's own layer"
        redis_server.thaw() if outage == "freeze" else redis_server.start()
        eventually(lambda: not degraded(process), "Redis is used again")
    assert set(traffic.statuses) == {200}
    assert metric(process, 'genai_store_failures_total{store="redis"}') >= 1
    other = begin(start, redis_server)
    stored = len(keys(redis_server))
    ask(process, 4001)
    eventually(lambda: len(keys(redis_server)) == stored + 1, "and written again")
    assert ask(other, 4001).headers["x-cache"] == "hit"


def with_shared(server: Backing, story: Callable[[Shared], Awaitable[None]]) -> None:
    async def run() -> None:
        lifecycle = Lifecycle()
        store = Redis(server.url, lifecycle, Metrics(), STORE_SECONDS)
        shared = Shared(store, lifecycle)
        try:
            await story(shared)
        finally:
            await shared.close()
            await store.close()

    asyncio.run(run())


def test_a_frozen_redis_holds_up_nobody_for_long(redis_server: Backing) -> None:
    async def story(shared: Shared) -> None:
        shared.put("a", 60, ANSWER)
        await shared.close()
        found = await shared.get("a")
        assert found and found[0] == ANSWER and 0 <= found[1] < 30
        redis_server.freeze()
        started = time.monotonic()
        assert await shared.get("a") is None
        assert READ_SECONDS * 0.9 <= time.monotonic() - started < STORE_SECONDS, "it is not the store's time limit"
        started = time.monotonic()
        for _ in range(1000):  # while the first one is overdue, and while the store is known to be away
            assert await shared.get("a") is None
        assert time.monotonic() - started < STORE_SECONDS
        redis_server.thaw()
        end = time.monotonic() + 30
        while await shared.get("a") is None and time.monotonic() < end:
            await asyncio.sleep(0.05)
        assert await shared.get("a")

    with_shared(redis_server, story)


def test_no_more_is_begun_at_once_than_is_bounded(redis_server: Backing) -> None:
    async def story(shared: Shared) -> None:
        redis_server.freeze()
        for number in range(5 * MOST_AT_ONCE):
            shared.put(str(number), 60, ANSWER)
        reads = asyncio.gather(*[shared.get("a") for _ in range(5 * MOST_AT_ONCE)])
        await asyncio.sleep(0)
        assert (len(shared._writes), len(shared._reads)) == (MOST_AT_ONCE, MOST_AT_ONCE)
        assert await reads == [None] * 5 * MOST_AT_ONCE
        redis_server.thaw()
        await shared.close()
        await asyncio.sleep(0)
        assert not shared._writes and not shared._reads

    with_shared(redis_server, story)


def test_an_entry_without_an_end_is_not_used(redis_server: Backing) -> None:
    async def story(shared: Shared) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            client.set("a", encode(ANSWER, 60))
        assert await shared.get("a") is None

    with_shared(redis_server, story)
