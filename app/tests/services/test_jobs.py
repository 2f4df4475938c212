"""Jobs by HTTP, with a real Redis; and what its scripts decide, without a worker process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import redis
from backing import Backing
from checks import check
from fastapi.testclient import TestClient
from stub import CARD, digit, loaded
from waiting import eventually

from genai_inference import codec, job_queue, jobs
from genai_inference.api import create_app
from genai_inference.job_queue import Claim, Ended, JobQueue, Outcome
from genai_inference.lifecycle import Lifecycle
from genai_inference.metrics import Metrics
from genai_inference.settings import Settings
from genai_inference.stores import Redis

T = TypeVar("T")
LEASE = 0.6
JOB = {"input": {"instances": [digit(7)]}}
QUICK = {"worker_heartbeat_seconds": 0.1, "worker_lease_seconds": LEASE}


@pytest.fixture(autouse=True)
def measured_at_each_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MEASURED_SECONDS", 0.0)


@pytest.fixture
def client(redis_server: Backing) -> Iterator[TestClient]:
    settings = Settings(redis_url=redis_server.url, jobs=True, jobs_max_queued=5, **QUICK)
    with TestClient(create_app(settings, lambda _: loaded()), raise_server_exceptions=False) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


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


# --- the routes ------------------------------------------------------------------------------------------------------


def test_a_job_from_its_acceptance_to_its_result(client: TestClient, queues: Callable[..., Any]) -> None:
    answer = client.post("/v1/jobs", json=JOB)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["kind"], job["model"], job["instances"]) == ("queued", "predict", "stub", 1)
    assert (job["attempts"], job["started"], job["error"], job["result"]) == (0, None, None, None)
    url = f"/v1/jobs/{job['id']}"
    check(client.get(url + "/result"), 404, "There is no result: the job is queued.")

    async def story(a: JobQueue, _: JobQueue) -> None:
        claim = await begun(a)
        batch = codec.from_tensor(CARD.input, codec.read_npy(claim.tensor))
        assert (batch.reshape(-1) == digit(7)).all()
        running = client.get(url).json()
        assert (running["status"], running["worker"], running["attempts"]) == ("running", "a", 1)
        assert await a.finish(claim, done()) == "succeeded"

    queues(story)
    job = client.get(url).json()
    assert (job["status"], job["result"]) == ("succeeded", {"predictions": []})
    assert job["created"] <= job["started"] <= job["finished"]
    assert client.get(url + "/result").json() == {"predictions": []}
    check(client.delete(url), 409, "The job is finished.")


BAD = {
    "no input": ({}, 422, "input: Field required"),
    "no instances": ({"input": {"instances": []}}, 422, "input.instances: List should have at least 1 item"),
    "a wrong instance": ({"input": {"instances": [[1.0]]}}, 422, "instances.0: 64 or 8x8 numbers expected, got 1"),
    "out of range": ({"input": {"instances": [[17.0] * 64]}}, 422, "instances.0: numbers must be between 0 and 16"),
    "another kind": ({**JOB, "kind": "train"}, 422, "kind: Input should be 'predict' or 'blueprint'"),
    "another model": ({**JOB, "model": "other"}, 404, "No such model. There are: stub."),
    "no GPU": ({**JOB, "kind": "blueprint", "gpus": 0}, 422, "gpus: Input should be greater than or equal to 1"),
    "two GPUs": ({**JOB, "gpus": 2}, 422, 'gpus: only a job of kind "blueprint" may use more than one'),
    "a deadline of nothing": ({**JOB, "deadline_seconds": 0}, 422, "deadline_seconds: Input should be greater than 0"),
    "something else": ({**JOB, "priority": 1}, 422, "priority: Extra inputs are not permitted"),
    "too many": ({"input": {"instances": [digit(1)] * 3}}, 422, "input.instances: at most 2 in one job, got 3"),
}


@pytest.mark.parametrize(("body", "status", "detail"), BAD.values(), ids=BAD)
def test_bad_jobs(
    client: TestClient,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    body: dict[str, Any],
    status: int,
    detail: str,
) -> None:
    monkeypatch.setattr(jobs, "MOST_PROBABILITIES", 20)
    check(client.post("/v1/jobs", json=body), status, detail)
    assert store.keys() == []


def test_bodies_and_headers_that_are_none(client: TestClient) -> None:
    check(client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}), 400, "not valid JSON")
    check(client.post("/v1/jobs", content=b"x", headers={"Content-Type": "application/x-npy"}), 415, "application/json")
    for key in ("", "x" * 129, "a b", 'a"'):
        check(client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": key}), 422, "Idempotency-Key: 1 to 128")
    for method in ("get", "delete"):
        check(getattr(client, method)("/v1/jobs/nothing"), 404, "No such job.")


def test_without_the_setting_there_are_no_jobs() -> None:
    client = TestClient(create_app(Settings(), lambda _: loaded()))
    assert client.post("/v1/jobs", json=JOB).status_code == 404


def test_no_more_wait_than_may(client: TestClient, store: redis.Redis, queues: Callable[..., Any]) -> None:
    for _ in range(5):
        post(client)
    refused = client.post("/v1/jobs", json=JOB)
    check(refused, 429, "Too many jobs are waiting")
    assert int(refused.headers["retry-after"]) > 0
    assert len(store.keys("genai:job:*")) == 5
    post(client, {**JOB, "kind": "blueprint"})  # another queue
    assert 'genai_jobs_waiting{queue="standard"} 5.0' in client.get("/metrics").text

    async def story(a: JobQueue, b: JobQueue) -> None:
        claim = await begun(a)
        text = client.get("/metrics").text
        assert 'genai_jobs_waiting{queue="standard"} 4.0' in text
        assert 'genai_jobs_running{queue="standard"} 1.0' in text
        post(client)  # one runs: there is room again
        assert await a.release(claim, at_once=True)
        assert 'genai_jobs_waiting{queue="standard"} 6.0' in client.get("/metrics").text

    queues(story)


def test_scrapes_ask_redis_seldom(client: TestClient, store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches the port may scrape."""
    monkeypatch.setattr(jobs, "MEASURED_SECONDS", 2.0)
    asked, now = client.app.state.service.jobs, [1e9]  # type: ignore[attr-defined]
    monkeypatch.setattr(asked, "_clock", lambda: now[0])

    def scripts() -> int:
        calls: int = store.info("commandstats")["cmdstat_evalsha"]["calls"]
        return calls

    client.get("/metrics")
    before = scripts()
    for _ in range(20):
        assert 'genai_jobs_waiting{queue="standard"} 0.0' in client.get("/metrics").text
    assert scripts() == before
    now[0] += 2.0
    client.get("/metrics")
    assert scripts() == before + len(jobs.QUEUES)


def test_one_key_gives_one_job(client: TestClient, store: redis.Redis) -> None:
    with ThreadPoolExecutor(20) as pool:
        key = {"Idempotency-Key": '"order-17"'}
        answers = list(pool.map(lambda _: client.post("/v1/jobs", json=JOB, headers=key), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert store.xlen("genai:jobs:standard") == 1
    # The quotes are only those of the header's form; what is left out is as if it had been said.
    assert client.post("/v1/jobs", json={**JOB, "kind": "predict"}, headers={"Idempotency-Key": "order-17"}).is_success
    other = {"input": {"instances": [digit(8)]}}
    check(client.post("/v1/jobs", json=other, headers=key), 422, "Idempotency-Key: it was used before")
    for _ in range(4):
        post(client)
    assert client.post("/v1/jobs", json=JOB, headers=key).status_code == 200, "also while the queue is full"


def test_jobs_are_their_clients_own(redis_server: Backing, tmp_path: Any) -> None:  # noqa: ANN401
    hashes = {"one": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"}  # of "one"
    hashes["two"] = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    file = tmp_path / "keys"
    file.write_text("".join(f"{name} {digest}\n" for name, digest in hashes.items()))
    settings = Settings(redis_url=redis_server.url, jobs=True, api_keys_file=file)
    with TestClient(create_app(settings, lambda _: loaded())) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        one, two = ({"X-API-Key": name, "Idempotency-Key": "same"} for name in ("one", "two"))
        check(client.post("/v1/jobs", json=JOB), 401, "An API key is needed")
        job = post(client, **one)
        assert post(client, **two) != job, "a key is its client's own as well"
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/result"):
            check(client.get(path, headers=two), 404, "No such job.")
        check(client.delete(f"/v1/jobs/{job}", headers=two), 404, "No such job.")
        assert client.get(f"/v1/jobs/{job}", headers=one).json()["status"] == "queued"


def test_cancel_before_it_runs(client: TestClient, store: redis.Redis, queues: Callable[..., Any]) -> None:
    job = post(client)
    assert client.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job}").status_code == 200, "once more changes nothing"
    assert store.xlen("genai:jobs:standard") == 0

    async def story(a: JobQueue, _: JobQueue) -> None:
        assert await a.take(1, 0.05) == []

    queues(story)
    assert 0 < store.ttl(f"genai:job:{job}") <= 86400
    assert 'genai_jobs_total{kind="predict",status="cancelled"} 1.0' in client.get("/metrics").text


def test_cancel_while_it_runs_counts_even_if_the_result_is_there_first(
    client: TestClient, queues: Callable[..., Any]
) -> None:
    job = post(client)

    async def story(a: JobQueue, _: JobQueue) -> None:
        claim = await begun(a)
        assert await a.renew(claim) == "held"
        answer = client.delete(f"/v1/jobs/{job}")
        assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
        assert await a.renew(claim) == "cancel"
        assert await a.finish(claim, done()) == "cancelled"

    queues(story)
    answer = client.get(f"/v1/jobs/{job}").json()
    assert (answer["status"], answer["result"]) == ("cancelled", None)


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_redis_away(client: TestClient, redis_server: Backing, outage: str) -> None:
    job = post(client)
    getattr(redis_server, outage)()
    for _ in range(3):
        refused = client.post("/v1/jobs", json=JOB)
        check(refused, 503, "Jobs are not available at the moment.")
        assert refused.headers["retry-after"] == "1"
    check(client.get(f"/v1/jobs/{job}"), 503, "Jobs are not available")
    assert client.post("/v1/predict", json={"instances": [digit(7)]}).status_code == 200
    assert 'genai_jobs_waiting{queue="standard"}' not in client.get("/metrics").text
    redis_server.thaw() if outage == "freeze" else redis_server.start()
    eventually(lambda: client.post("/v1/jobs", json=JOB).status_code == 202, "jobs are accepted again")


def test_a_redis_that_is_full_refuses_jobs_whole(client: TestClient, store: redis.Redis) -> None:
    store.config_set("maxmemory", "1")
    check(client.post("/v1/jobs", json=JOB), 503, "Jobs are not available")
    store.config_set("maxmemory", "0")
    assert store.keys() == []
    eventually(lambda: client.post("/v1/jobs", json=JOB).status_code == 202, "jobs are accepted again")


# --- leases ----------------------------------------------------------------------------------------------------------


def completions(store: redis.Redis, job: str) -> int:
    return int(store.hget(f"genai:job:{job}", "completions") or 0)


def test_who_lost_a_job_changes_nothing(client: TestClient, store: redis.Redis, queues: Callable[..., Any]) -> None:
    job = post(client)

    async def story(a: JobQueue, b: JobQueue) -> None:
        old = await begun(a)
        assert await b.take_over(1) == [], "the lease holds"
        new = await taken_over(b)
        assert isinstance(new, Claim) and (new.taken_over, new.attempt, new.lease) == (True, 2, 2)
        assert await a.renew(old) == "lost"
        assert await a.finish(old, done(b'"old"')) is None
        assert await a.release(old, at_once=True) is False
        assert await a.begin(old.entry) is None
        assert await b.finish(new, done(b'"new"')) == "succeeded"
        assert await b.finish(new, done(b'"new"')) == "succeeded", "said again, for its first answer may be lost"
        assert await a.finish(old, done(b'"old"')) is None
        assert await a.begin(old.entry) is None

    queues(story)
    assert client.get(f"/v1/jobs/{job}/result").json() == "new"
    assert completions(store, job) == 1
    assert store.xlen("genai:jobs:standard") == 0
    assert store.xpending("genai:jobs:standard", "workers")["pending"] == 0


def test_heartbeats_keep_a_lease(client: TestClient, queues: Callable[..., Any]) -> None:
    post(client)

    async def story(a: JobQueue, b: JobQueue) -> None:
        claim = await begun(a)
        for _ in range(20):
            await asyncio.sleep(LEASE / 10)
            assert await a.renew(claim) == "held"
            assert await b.take_over(1) == []

    queues(story)


def test_handed_back_at_once_and_not_counted(client: TestClient, queues: Callable[..., Any]) -> None:
    job = post(client)

    async def story(a: JobQueue, b: JobQueue) -> None:
        for _ in range(job_queue.MOST_ATTEMPTS + 1):
            claim = await begun(a) if not client.get(f"/v1/jobs/{job}").json()["started"] else await taken_over(a)
            assert isinstance(claim, Claim) and (claim.attempt, claim.taken_over) == (1, False)
            assert await a.release(claim, at_once=True)
            assert client.get(f"/v1/jobs/{job}").json()["status"] == "queued"
        (entry,) = await b.take_over(1)
        assert isinstance(await b.begin(entry), Claim)

    queues(story)


def test_what_was_given_to_a_worker_that_leaves_goes_to_the_next(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any]
) -> None:
    post(client)

    async def story(a: JobQueue, b: JobQueue) -> None:
        assert len(await a.take(1, 5)) == 1
        assert await a.leave() == 1
        (entry,) = await b.take_over(1)
        assert isinstance(await b.begin(entry), Claim)

    queues(story)
    assert {consumer["name"] for consumer in store.xinfo_consumers("genai:jobs:standard", "workers")} == {"nobody", "b"}


def test_a_job_that_nobody_survives_is_given_up(client: TestClient, queues: Callable[..., Any]) -> None:
    job = post(client)

    async def story(a: JobQueue, b: JobQueue) -> None:
        await begun(a)
        for attempt in range(2, job_queue.MOST_ATTEMPTS + 1):
            claim = await taken_over(b)
            assert isinstance(claim, Claim) and claim.attempt == attempt
        assert await taken_over(b) == Ended("predict", "failed")

    queues(story)
    answer = client.get(f"/v1/jobs/{job}").json()
    assert (answer["status"], answer["attempts"]) == ("failed", job_queue.MOST_ATTEMPTS)
    expected = {"type": "about:blank", "title": "Given up", "status": 500, "detail": job_queue.GIVEN_UP}
    assert answer["error"] == expected


def test_too_late_to_begin(client: TestClient, queues: Callable[..., Any]) -> None:
    job = post(client, {**JOB, "deadline_seconds": 0.05})

    async def story(a: JobQueue, _: JobQueue) -> None:
        await asyncio.sleep(0.1)
        (entry,) = await a.take(1, 5)
        assert await a.begin(entry) == Ended("predict", "failed")

    queues(story)
    answer = client.get(f"/v1/jobs/{job}").json()
    assert (answer["status"], answer["attempts"], answer["error"]["status"]) == ("failed", 0, 504)


def test_workers_of_yore_are_forgotten(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "FORGOTTEN_LEASES", 0)
    post(client)

    async def story(a: JobQueue, b: JobQueue) -> None:
        await begun(a)
        assert await b.take(1, 0.05) == []
        await asyncio.sleep(0.05)
        await b.open()

    queues(story)
    (consumer,) = store.xinfo_consumers("genai:jobs:standard", "workers")
    assert consumer["name"] == "a", "who has a job stays"


def test_a_redis_that_lost_everything_is_a_new_one(
    client: TestClient, redis_server: Backing, queues: Callable[..., Any]
) -> None:
    async def story(a: JobQueue, _: JobQueue) -> None:
        redis_server.stop()
        redis_server.start()
        eventually(lambda: client.post("/v1/jobs", json=JOB).status_code == 202, "accepted")
        for _ in range(100):
            try:
                assert isinstance(await begun(a), Claim)
                return
            except jobs.Away:
                await asyncio.sleep(0.2)
        raise AssertionError("no job")

    queues(story)
