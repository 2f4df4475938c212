"""Jobs by HTTP, with a real Redis; and what its scripts decide, without a worker process."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import redis
from backing import Backing
from checks import check
from fastapi.testclient import TestClient
from safetensors.numpy import save
from stories import JOB, LEASE, QUICK, begun, done, post, taken_over
from stub import CARD, digit, loaded
from waiting import eventually

from genai_inference import codec, job_queue, jobs
from genai_inference.api import create_app
from genai_inference.job_queue import Claim, Ended, JobQueue
from genai_inference.settings import Settings


@pytest.fixture(autouse=True)
def measured_at_each_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MEASURED_SECONDS", 0.0)


@pytest.fixture
def client(redis_server: Backing) -> Iterator[TestClient]:
    settings = Settings(redis_url=redis_server.url, jobs=True, jobs_max_queued=5, store_timeout_seconds=2, **QUICK)
    with TestClient(create_app(settings, lambda _: loaded()), raise_server_exceptions=False) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


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
        batch = codec.from_tensor(CARD.input, codec.read_npy(claim.input))
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
    check(client.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain"}), 415, "application/json")
    for key in ("", "x" * 129, "a b", 'a"'):
        check(client.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": key}), 422, "Idempotency-Key: 1 to 128")
    for method in ("get", "delete"):
        check(getattr(client, method)("/v1/jobs/nothing"), 404, "No such job.")


TENSOR = jobs.to_npy(np.array([digit(7), digit(3)], np.uint8).reshape(-1, 8, 8))
RAW = {
    "npy": ("application/x-npy", TENSOR, 2),
    "safetensors": ("application/x-safetensors", save({"x": np.zeros((3, 8, 8), np.float32)}), 3),
    "a picture": ("image/png", b"looked at by the worker", 1),
    "with parameters": ("IMAGE/JPEG; q=1", b"the same", 1),
}


@pytest.mark.parametrize(("media_type", "body", "count"), RAW.values(), ids=RAW)
def test_a_body_that_is_the_input_alone(
    client: TestClient, queues: Callable[..., Any], media_type: str, body: bytes, count: int
) -> None:
    headers = {"Content-Type": media_type, "Idempotency-Key": "one"}
    answer = client.post("/v1/jobs?model=stub&kind=predict&gpus=1&deadline_seconds=60.5", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["model"], job["kind"], job["gpus"], job["instances"]) == ("stub", "predict", 1, count)
    assert job["deadline"] == pytest.approx(job["created"] + 60.5, abs=0.01)
    again = "/v1/jobs?gpus=1&model=stub&deadline_seconds=60.5"
    assert client.post(again, content=body, headers=headers).json()["id"] == job["id"]
    other = {**headers, "Content-Type": "image/jpeg" if media_type == "image/png" else "image/png"}
    check(client.post(again, content=body, headers=other), 422, "Idempotency-Key: it was used before")

    async def story(a: JobQueue, _: JobQueue) -> None:
        claim = await begun(a)
        assert (claim.input, claim.media_type) == (body, media_type.partition(";")[0].lower())

    queues(story)


BAD_RAW = {
    "no tensor": ("", "application/x-npy", b"x", 422, "not an .npy file of version 1.0"),
    "another shape": ("", "application/x-npy", jobs.to_npy(np.zeros((9, 9))), 422, "tensor: 8x8 or n x 8x8 numbers"),
    "out of range": ("", "application/x-npy", jobs.to_npy(np.full((8, 8), 17.0)), 422, "numbers must be between 0 and"),
    "too many": ("", "application/x-npy", jobs.to_npy(np.zeros((3, 8, 8))), 422, "tensor: at most 2 in one job, got 3"),
    "another type": ("", "text/plain", b"x", 415, "Content-Type must be one of application/json, application/x-npy"),
    "an option that is none": ("?priority=1", "image/png", b"x", 422, "priority: Extra inputs are not permitted"),
    "a bad option": ("?gpus=many", "image/png", b"x", 422, "gpus: Input should be a valid integer"),
    "two GPUs": ("?gpus=2", "image/png", b"x", 422, 'gpus: only a job of kind "blueprint" may use more than one'),
    "no deadline": ("?deadline_seconds=nan", "image/png", b"x", 422, "deadline_seconds: Input should be a finite"),
    "another model": ("?model=other", "image/png", b"x", 404, "No such model. There are: stub."),
}


@pytest.mark.parametrize(("query", "media_type", "body", "status", "detail"), BAD_RAW.values(), ids=BAD_RAW)
def test_bad_bodies_that_are_the_input_alone(
    client: TestClient,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    media_type: str,
    body: bytes,
    status: int,
    detail: str,
) -> None:
    monkeypatch.setattr(jobs, "MOST_PROBABILITIES", 20)
    check(client.post(f"/v1/jobs{query}", content=body, headers={"Content-Type": media_type}), status, detail)
    compressed = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    assert client.post("/v1/jobs", content=body, headers=compressed).status_code == 415
    assert store.keys() == []


RESULTS = {"small": 1000, "as large as is inlined": jobs.INLINE_BYTES, "large": jobs.INLINE_BYTES + 1}


@pytest.mark.parametrize("size", [*RESULTS.values(), 2 * jobs.PIECE_BYTES + 5], ids=[*RESULTS, "in pieces"])
def test_only_a_small_result_is_part_of_the_document(
    client: TestClient, store: redis.Redis, queues: Callable[..., Any], size: int
) -> None:
    job, result = post(client), b'{"x":"' + b"0123456789" * (size // 10)
    result = result[: size - 2] + b'"}'

    async def story(a: JobQueue, _: JobQueue) -> None:
        assert await a.finish(await begun(a), done(result)) == "succeeded"

    queues(story)
    found = client.get(f"/v1/jobs/{job}")
    assert found.json()["result_url"] == f"/v1/jobs/{job}/result"
    assert found.json()["result"] == (json.loads(result) if size <= jobs.INLINE_BYTES else None)
    answer = client.get(found.json()["result_url"])
    assert (answer.content, answer.headers["content-length"]) == (result, str(size))
    assert 0 < store.ttl(jobs.result_key(job)) <= 86400
    store.delete(jobs.result_key(job))
    check(client.get(f"/v1/jobs/{job}/result"), 404, "The result is not kept any more.")
    store.hset(f"genai:job:{job}", "result", result)  # as workers of earlier releases did
    assert client.get(f"/v1/jobs/{job}/result").content == result


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
    assert store.hget(f"genai:job:{job}", "input") is None

    async def story(a: JobQueue, _: JobQueue) -> None:
        (entry,) = await a.take(1, 5)
        assert await a.begin(entry) is None

    queues(story)
    assert store.xlen("genai:jobs:standard") == 0
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
