"""Stories of workers at a real Redis, without a worker process; and what they need."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
import redis
from backing import Backing
from fastapi.testclient import TestClient
from stub import digit

from genai_inference.job_queue import Claim, Ended, JobQueue, Outcome
from genai_inference.lifecycle import Lifecycle
from genai_inference.metrics import Metrics
from genai_inference.settings import Settings
from genai_inference.stores import Redis

T = TypeVar("T")
LEASE = 0.6
JOB = {"input": {"instances": [digit(7)]}}
QUICK = {"worker_heartbeat_seconds": 0.1, "worker_lease_seconds": LEASE}


@pytest.fixture
def store(redis_server: Backing) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as store:
        yield store


@pytest.fixture
def queues(redis_server: Backing) -> Callable[..., Any]:
    """Runs a story of workers: `await story(a, b)` with the places of two of them at the standard queue."""

    def run(story: Callable[[JobQueue, JobQueue], Awaitable[T]]) -> T:
        async def inner() -> T:
            settings = Settings(redis_url=redis_server.url, **QUICK)
            store = Redis(redis_server.url, Lifecycle(), Metrics(), 5)
            a, b = (JobQueue(store, settings, name) for name in "ab")
            await a.open()
            try:
                return await story(a, b)
            finally:
                await store.close()

        return asyncio.run(inner())

    return run


def post(client: TestClient, body: dict[str, Any] = JOB, **headers: str) -> str:
    answer = client.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def begun(queue: JobQueue) -> Claim:
    (entry,) = await queue.take(1, 5)
    claim = await queue.begin(entry)
    assert isinstance(claim, Claim)
    return claim


async def taken_over(queue: JobQueue) -> Claim | Ended | None:
    for _ in range(200):
        if found := await queue.take_over(1):
            return await queue.begin(found[0])
        await asyncio.sleep(LEASE / 10)
    raise AssertionError("nothing to take over")


def done(answer: bytes = b'{"predictions":[]}') -> Outcome:
    return Outcome("succeeded", result=answer)
