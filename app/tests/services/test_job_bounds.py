"""What waits in Redis has a bound, an end and an order; and what scales workers counts it right."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from backing import Backing
from checks import check
from fastapi.testclient import TestClient
from stories import JOB, QUICK, begun, done, post, taken_over
from stub import loaded
from waiting import eventually

from genai_inference import job_queue, job_upkeep, jobs
from genai_inference.api import create_app
from genai_inference.job_queue import Claim, Ended, JobQueue
from genai_inference.jobs import GROUP
from genai_inference.settings import Settings

STREAM = "genai:jobs:standard"


def app(redis_server: Backing, **settings: Any) -> TestClient:  # noqa: ANN401
    """The store may take its time: what is slow here is the machine."""
    values = {"redis_url": redis_server.url, "jobs": True, "store_timeout_seconds": 10, **QUICK, **settings}
    return TestClient(create_app(Settings(**values), lambda _: loaded()), raise_server_exceptions=False)


def becomes_ready(client: TestClient) -> None:
    eventually(lambda: client.get("/ready").status_code == 200, "ready")


@pytest.fixture
def client(redis_server: Backing) -> Iterator[TestClient]:
    with app(redis_server) as client:
        becomes_ready(client)
        yield client


def lag(store: redis.Redis) -> int | None:
    """What KEDA scales by: entries that no worker has been given yet; None if Redis cannot say."""
    (group,) = store.xinfo_groups(STREAM)
    found: int | None = group["lag"]
    return found


# --- what scales workers ---------------------------------------------------------------------------------------------


def test_a_cancellation_hides_no_job_that_waits(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any]
) -> None:
    first, second = post(client), post(client)
    assert client.delete(f"/v1/jobs/{second}").json()["status"] == "cancelled"
    assert (lag(store) or 0) > 0, "the first one waits"
    third = post(client)
    for job in (first, third):
        client.delete(f"/v1/jobs/{job}")
    post(client)
    assert (lag(store) or 0) > 0

    async def story(a: JobQueue, _: JobQueue) -> None:
        entries = await a.take(10, 5)
        claims = [claim for claim in [await a.begin(entry) for entry in entries] if isinstance(claim, Claim)]
        assert len(claims) == 1
        assert await a.finish(claims[0], done()) == "succeeded"

    queues(story)
    assert (lag(store), store.xlen(STREAM)) == (0, 0), "what was cancelled is cleared when a worker comes by"


def test_all_cancelled_is_cleared_when_a_worker_comes_by(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any]
) -> None:
    for job in [post(client) for _ in range(3)]:
        client.delete(f"/v1/jobs/{job}")
    assert (lag(store) or 0) > 0

    async def story(a: JobQueue, _: JobQueue) -> None:
        assert [await a.begin(entry) for entry in await a.take(10, 5)] == [None] * 3

    queues(story)
    assert (lag(store), store.xlen(STREAM)) == (0, 0)
    post(client)
    assert lag(store) == 1


def test_a_job_that_ends_before_an_older_one_hides_none_that_waits(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any]
) -> None:
    for _ in range(3):
        post(client)

    async def story(a: JobQueue, _: JobQueue) -> None:
        first, second, third = [await begun(a) for _ in range(3)]
        await a.finish(third, done())
        post(client)
        assert lag(store) == 1
        await a.finish(second, done())
        post(client)
        assert lag(store) == 2
        for claim in (await begun(a), first, await begun(a)):
            await a.finish(claim, done())
            assert lag(store) is not None

    queues(story)
    assert (lag(store), store.xlen(STREAM)) == (0, 0)
    post(client)
    assert lag(store) == 1


def test_a_job_that_was_handed_back_and_cancelled_is_cleared_at_once(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any]
) -> None:
    job = post(client)

    async def story(a: JobQueue, _: JobQueue) -> None:
        assert await a.release(await begun(a), at_once=True)
        assert client.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"

    queues(story)
    assert (lag(store), store.xlen(STREAM), store.xpending(STREAM, GROUP)["pending"]) == (0, 0, 0)


def test_a_queue_is_there_before_its_first_job(
    redis_server: Backing, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KEDA asks what of it is under way, and a queue that is not there is an error to it; also where Redis lost all."""
    monkeypatch.setattr(job_upkeep, "EVERY_SECONDS", 0.05)
    with app(redis_server) as client:
        becomes_ready(client)
        for _ in range(2):
            eventually(lambda: store.exists(STREAM, "genai:jobs:blueprint") == 2, "both queues are there")
            assert (lag(store), store.xpending(STREAM, GROUP)["pending"]) == (0, 0)
            store.flushall()


# --- an end, and a share ---------------------------------------------------------------------------------------------


def test_a_job_that_waits_has_an_end(
    redis_server: Backing, store: redis.Redis, queues: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_upkeep, "EVERY_SECONDS", 0.05)
    with app(redis_server, job_deadline_seconds=0.3) as client:
        becomes_ready(client)
        job = post(client, {**JOB, "kind": "blueprint"}, **{"Idempotency-Key": "a"})
        later = post(client, {**JOB, "deadline_seconds": 3600})
        eventually(lambda: client.get(f"/v1/jobs/{job}").json()["status"] == "failed", "it has ended")
        error = client.get(f"/v1/jobs/{job}").json()["error"]
        assert (error["status"], error["detail"]) == (504, jobs.TOO_LATE)
        assert store.hget(f"genai:job:{job}", "input") is None, "its payload is gone"
        assert all(0 < store.ttl(key) <= 86400 for key in (f"genai:job:{job}", jobs.idempotency_key("", "a")))
        assert 'genai_jobs_total{kind="blueprint",status="failed"} 1.0' in client.get("/metrics").text
        assert client.get(f"/v1/jobs/{later}").json()["status"] == "queued", "the client's own word counts"
        assert store.ttl(f"genai:job:{later}") == -1, "what waits must not be evicted"
        assert store.zcard("genai:jobs:blueprint:deadlines") == 0


def test_a_job_whose_worker_died_has_an_end_too(
    redis_server: Backing, store: redis.Redis, queues: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_upkeep, "EVERY_SECONDS", 0.05)
    with app(redis_server) as client:
        becomes_ready(client)
        job = post(client)

        async def story(a: JobQueue, _: JobQueue) -> None:
            claim = await begun(a)
            store.hset(f"genai:job:{job}", "deadline", time.time())
            store.zadd(f"{STREAM}:deadlines", {job: time.time()})
            eventually(lambda: client.get(f"/v1/jobs/{job}").json()["status"] == "failed", "it has ended")
            assert await a.renew(claim) == "lost"

        queues(story)
        assert client.get(f"/v1/jobs/{job}").json()["error"]["detail"] == job_upkeep.LEFT
        assert (lag(store), store.xlen(STREAM), store.xpending(STREAM, GROUP)["pending"]) == (0, 0, 0)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    names = ("one", "two")
    file.write_text("".join(f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n" for name in names))
    return file


def test_one_client_cannot_fill_the_queue(
    redis_server: Backing, store: redis.Redis, queues: Callable[..., Any], keys: Path
) -> None:
    one, two = ({"X-API-Key": name} for name in ("one", "two"))
    with app(redis_server, api_keys_file=keys, jobs_max_queued=8, jobs_max_per_client=3) as client:
        becomes_ready(client)
        mine = [post(client, **one) for _ in range(3)]
        refused = client.post("/v1/jobs", json=JOB, headers=one)
        check(refused, 429, "3 jobs of this client are not finished: no more may be; try again in 10 s.")
        client.delete(f"/v1/jobs/{mine[2]}", headers=one)
        check(client.post("/v1/jobs", json=JOB, headers=one), 429, "this client")  # its place is not free yet
        post(client, **two)
        post(client, {**JOB, "kind": "blueprint"}, **one)  # another queue

        async def story(a: JobQueue, _: JobQueue) -> None:
            claim = await begun(a)
            check(client.post("/v1/jobs", json=JOB, headers=one), 429, "this client")
            await a.finish(claim, done())
            post(client, **one)
            claims = [claim for claim in [await a.begin(entry) for entry in await a.take(10, 5)] if claim]
            assert len(claims) == 3
            for each in claims:
                assert isinstance(each, Claim)
                await a.finish(each, done())

        queues(story)
        assert store.hgetall(f"{STREAM}:clients") == {}
        assert store.hgetall("genai:jobs:blueprint:clients") == {"one": "1"}
        assert (lag(store), store.xlen(STREAM)) == (0, 0)


def test_cancelled_jobs_do_not_make_room_for_ever_more(redis_server: Backing, store: redis.Redis) -> None:
    with app(redis_server, jobs_max_queued=5) as client:
        becomes_ready(client)
        for _ in range(5):
            client.delete(f"/v1/jobs/{post(client)}")
        check(client.post("/v1/jobs", json=JOB), 429, "Too many jobs are waiting")
        assert store.xlen(STREAM) == 5


def test_jobs_begin_in_the_order_of_their_acceptance_whosever_they_are(
    redis_server: Backing, queues: Callable[..., Any], keys: Path
) -> None:
    one, two = ({"X-API-Key": name} for name in ("one", "two"))
    with app(redis_server, api_keys_file=keys, jobs_max_queued=20) as client:
        becomes_ready(client)
        jobs = [post(client, **one) for _ in range(10)]
        jobs.append(post(client, **two))

        async def story(a: JobQueue, b: JobQueue) -> None:
            order = []
            for worker in [a, b] * 5:
                claim = await begun(worker)
                order.append(claim.entry.job)
                await worker.finish(claim, done())
                jobs.append(post(client, **one))
            order.append((await begun(a)).entry.job)
            assert order == jobs[:11], "what the other client goes on sending comes after"

        queues(story)


def test_what_fails_again_and_again_holds_off_nobody_for_ever(client: TestClient, queues: Callable[..., Any]) -> None:
    """A job that failed comes back first, but only once a lease, and MOST_ATTEMPTS times."""
    bad, good = post(client), post(client)

    async def story(a: JobQueue, _: JobQueue) -> None:
        assert await a.release(await begun(a), at_once=False)
        assert await a.take_over(1) == []
        claim = await begun(a)
        assert claim.entry.job == good
        await a.finish(claim, done())
        for _ in range(2, job_queue.MOST_ATTEMPTS + 1):
            again = await taken_over(a)
            assert isinstance(again, Claim) and again.entry.job == bad
            await a.release(again, at_once=False)
        assert await taken_over(a) == Ended("predict", "failed")

    queues(story)


# --- workers ---------------------------------------------------------------------------------------------------------


def test_a_kind_that_nobody_computes_is_refused(redis_server: Backing, store: redis.Redis) -> None:
    with app(redis_server, job_kinds="predict") as client:
        becomes_ready(client)
        check(client.post("/v1/jobs", json={**JOB, "kind": "blueprint"}), 422, "kind: no worker here computes jobs of")
        assert store.keys() == []
        post(client)


def test_who_waits_is_told_how_many_workers_there_are(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MEASURED_SECONDS", 0.0)
    answer = client.post("/v1/jobs", json=JOB).json()
    url = f"/v1/jobs/{answer['id']}"
    assert answer["workers"] == 0
    assert 'genai_job_workers{queue="standard"} 0.0' in client.get("/metrics").text

    async def story(a: JobQueue, b: JobQueue) -> None:
        await a.present()
        assert client.get(url).json()["workers"] == 1
        claim = await begun(a)
        assert client.get(url).json()["workers"] is None, "one has it"
        await a.release(claim, at_once=True)
        await b.present()
        assert client.get(url).json()["workers"] == 2
        eventually(lambda: client.get(url).json()["workers"] == 0, "they were not heard of any more")
        await b.present()
        assert client.get(url).json()["workers"] == 1
        await b.leave()
        assert client.get(url).json()["workers"] == 0
        assert store.zcard(f"{STREAM}:workers") == 0

    queues(story)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_when_redis_is_full_what_is_there_is_finished(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that makes room. New jobs are refused meanwhile, and nothing else is."""
    jobs = [post(client) for _ in range(4)]
    late = post(client, {**JOB, "deadline_seconds": 0.01})
    store.config_set("maxmemory", "1")
    check(client.post("/v1/jobs", json=JOB), 503, "Jobs are not available")
    assert client.get(f"/v1/jobs/{jobs[0]}").status_code == 200
    assert client.delete(f"/v1/jobs/{jobs[3]}").json()["status"] == "cancelled"

    async def story(a: JobQueue, b: JobQueue) -> None:
        assert await a.finish(await begun(a), done()) == "succeeded"
        claim = await begun(a)
        assert await a.renew(claim) == "held"
        assert await a.release(claim, at_once=True)
        (entry,) = await b.take_over(1)
        again = await b.begin(entry)
        assert isinstance(again, Claim)
        assert await b.finish(again, done()) == "succeeded"
        await begun(a)

    queues(story)
    eventually(lambda: client.get(f"/v1/jobs/{late}").json()["status"] == "failed", "too late")
    assert client.get(f"/v1/jobs/{jobs[0]}").json()["status"] == "succeeded"
    store.config_set("maxmemory", "0")
    assert client.post("/v1/jobs", json=JOB).status_code == 202


def test_a_policy_that_loses_jobs_is_said(
    redis_server: Backing, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_upkeep, "EVERY_SECONDS", 0.05)
    with app(redis_server) as client:
        becomes_ready(client)

        def said() -> str:
            return str(client.get("/ready").json().get("degraded", {}).get("redis memory", ""))

        store.config_set("maxmemory-policy", "allkeys-lru")
        store.config_set("maxmemory", "1gb")
        eventually(lambda: "maxmemory-policy is allkeys-lru" in said(), "said")
        store.config_set("maxmemory-policy", "volatile-ttl")
        eventually(lambda: not said(), "well again")


def test_what_waits_is_not_evicted(client: TestClient, store: redis.Redis) -> None:
    """By the policy of the README: the cache goes, and then results, the oldest first."""
    waiting = [post(client) for _ in range(20)]
    for number in range(50):
        store.set(f"genai:cache:stub:{number}", b"x" * 100_000, ex=300)
    store.set("genai:job:old:result", b"x" * 100_000, ex=3600)
    store.config_set("maxmemory-policy", "volatile-ttl")
    store.config_set("maxmemory", str(store.info("memory")["used_memory"]))
    store.set("genai:job:new:result", b"x" * 1_000_000, ex=7200)
    assert 0 < len(store.keys("genai:cache:*")) < 50
    assert len(store.keys("genai:job:*:result")) == 2
    store.config_set("maxmemory", "1")
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        store.set("one", "more")
    assert store.keys("genai:cache:*") == store.keys("genai:job:*:result") == []
    assert all(store.hexists(f"genai:job:{job}", "input") for job in waiting)
    assert lag(store) == 20


UNFIT = {
    "no bound": ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, None),
    "as it has to be": ({"maxmemory": 1, "maxmemory_policy": "volatile-ttl"}, None),
    "a server that says nothing": ({}, None),
    "loses jobs": ({"maxmemory": 1, "maxmemory_policy": "allkeys-random"}, True),
    "loses results": ({"maxmemory": 1, "maxmemory_policy": "volatile-lru"}, False),
    "is filled by the cache": ({"maxmemory": 1, "maxmemory_policy": "noeviction"}, False),
}


@pytest.mark.parametrize(("memory", "loses"), UNFIT.values(), ids=UNFIT)
def test_unfit(memory: dict[str, Any], loses: bool | None) -> None:
    found = job_upkeep.unfit(memory)
    assert (found and found[1]) == loses
