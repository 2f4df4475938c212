"""Real workers around the stub, with a real Redis, that are killed, frozen and told to end."""

import io
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from backing import Backing
from PIL import Image
from processes import Server, Start
from stub import digit
from waiting import LIMIT_SECONDS, eventually
from work_stub import BROKEN, POISON

from genai_inference.job_queue import MOST_ATTEMPTS
from genai_inference.jobs import GROUP, to_npy

# Short, so that the tests are; but a heartbeat that comes late on a busy machine shall not cost a lease.
LEASE = 2.0
JOBS = 200
FINISHED = ("succeeded", "failed", "cancelled")


class Platform:
    """A server that accepts jobs, and workers that compute them."""

    def __init__(self, start: Start, url: str) -> None:
        self.variables = {
            "GENAI_REDIS_URL": url,
            "GENAI_WORKER_HEARTBEAT_SECONDS": "0.2",
            "GENAI_WORKER_LEASE_SECONDS": str(LEASE),
        }
        self._start = start
        self.api = start("0", GENAI_JOBS="true", GENAI_STORE_TIMEOUT_SECONDS="5", **self.variables)
        self.api.becomes("/ready", 200)
        self.store = redis.Redis.from_url(url, decode_responses=True)
        self.http = httpx.Client(base_url=self.api.url, timeout=LIMIT_SECONDS)

    def worker(self, mode: str = "0.02", drain_seconds: float = 30, **settings: str) -> Server:
        variables = {**self.variables, **settings}
        worker = self._start(mode, drain_seconds, "work_stub.py", **variables)
        worker.becomes("/ready", 200)
        return worker

    def post(self, *labels: int, **more: Any) -> str:  # noqa: ANN401  # any JSON
        body = {"input": {"instances": [digit(label) for label in labels]}, **more}
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def becomes(self, job: str, status: str) -> dict[str, Any]:
        eventually(lambda: self.job(job)["status"] in (status, *FINISHED), f"the job is {status}")
        found = self.job(job)
        assert found["status"] == status, found
        return found

    def result(self, job: str) -> dict[str, Any]:
        answer = self.http.get(self.becomes(job, "succeeded")["result_url"])
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def labels(self, job: str) -> list[int]:
        return [prediction["label"] for prediction in self.result(job)["predictions"]]

    def completions(self, job: str) -> int:
        return int(self.store.hget(f"genai:job:{job}", "completions") or 0)

    def is_empty(self) -> None:
        """Nothing is left of finished jobs in the queue."""
        assert self.store.xlen("genai:jobs:standard") == 0
        assert self.store.xpending("genai:jobs:standard", "workers")["pending"] == 0


@pytest.fixture
def platform(start: Start, redis_server: Backing) -> Iterator[Platform]:
    platform = Platform(start, redis_server.url)
    yield platform
    platform.http.close()
    platform.store.close()


def metric(server: Server, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = httpx.get(server.url + "/metrics", timeout=LIMIT_SECONDS).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_done_twice_whatever_happens_to_workers(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [platform.post(number % 10) for number in range(JOBS)]
    settings = {"GENAI_MAX_BATCH_SIZE": "2", "GENAI_WORKER_CONCURRENCY": "4"}
    first, second = (platform.worker("1", **settings) for _ in range(2))

    def left() -> int:
        return int(platform.store.xlen("genai:jobs:standard"))

    def takeovers(*workers: Server) -> float:
        return sum(metric(worker, "genai_job_takeovers_total") for worker in workers)

    def held(*consumers: str) -> list[int]:
        """How many jobs each of them has begun and not ended, the fewest first; of all if none is named."""
        known = {each["name"]: each["pending"] for each in platform.store.xinfo_consumers("genai:jobs:standard", GROUP)}
        return sorted(known.get(name, 0) for name in consumers or known)

    eventually(lambda: left() <= JOBS - 10 and len(held()) == 2, "both work")
    both = {each["name"] for each in platform.store.xinfo_consumers("genai:jobs:standard", GROUP)}
    first.process.kill()
    third = platform.worker("1", **settings)
    eventually(lambda: takeovers(second, third) > 0, "what the dead one had is taken over")
    eventually(lambda: held(*both)[0] == 0 < held(*both)[1], "all of it, and the other one works")
    second.process.send_signal(signal.SIGSTOP)
    eventually(lambda: held(*both) == [0, 0], "what the frozen one had is taken over")
    second.process.send_signal(signal.SIGCONT)
    eventually(lambda: metric(second, "genai_job_leases_lost_total") > 0, "the frozen one finds that it lost them")
    assert left() > 8, "there is still work for the last part"
    third.terminate()
    assert third.exit_code() == 0
    platform.worker("0")  # makes short work of the rest
    eventually(lambda: left() == 0, "all are finished")
    states = [platform.job(job) for job in jobs]
    lost = [state for state in states if state["status"] != "succeeded"]
    wrong = [
        number
        for number, state in enumerate(states)
        if not lost and state["result"]["predictions"][0]["label"] != number % 10
    ]
    twice = [job for job in jobs if platform.completions(job) != 1]
    again = sum(state["attempts"] > 1 for state in states)
    with capsys.disabled():
        print(f"\njobs {len(jobs)}, lost {len(lost)}, done twice {len(twice)}, wrong {len(wrong)}, begun again {again}")
    assert (lost, twice, wrong) == ([], [], [])
    platform.is_empty()


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_redis_goes_and_comes_back(start: Start, durable_redis: Backing, outage: str) -> None:
    platform = Platform(start, durable_redis.url)
    workers = [platform.worker("0.1", GENAI_MAX_BATCH_SIZE="2", GENAI_WORKER_CONCURRENCY="4") for _ in range(2)]
    jobs = [platform.post(number % 10) for number in range(60)]
    eventually(lambda: platform.store.xlen("genai:jobs:standard") < 50, "they work")
    getattr(durable_redis, outage)()
    time.sleep(2 * LEASE)  # every lease runs out
    assert all(worker.status("/ready") == 200 for worker in workers)
    durable_redis.thaw() if outage == "freeze" else durable_redis.start()

    def nothing_left() -> bool:
        try:
            return int(platform.store.xlen("genai:jobs:standard")) == 0
        except redis.ConnectionError:
            return False

    eventually(nothing_left, "all are finished")
    eventually(lambda: platform.http.get(f"/v1/jobs/{jobs[0]}").status_code == 200, "the API has Redis back")
    assert [platform.labels(job) for job in jobs] == [[number % 10] for number in range(60)]
    assert {platform.completions(job) for job in jobs} == {1}


def test_sigterm_finishes_what_is_under_way_and_takes_nothing_more(platform: Platform) -> None:
    worker = platform.worker("0.5", GENAI_WORKER_CONCURRENCY="1")
    jobs = [platform.post(3) for _ in range(8)]
    platform.becomes(jobs[0], "running")
    worker.terminate()
    assert worker.exit_code() == 0
    statuses = [platform.job(job)["status"] for job in jobs]
    assert set(statuses) == {"succeeded", "queued"}
    assert statuses == sorted(statuses, reverse=True), "in their order"


def test_what_cannot_be_finished_in_time_is_handed_back_at_once(start: Start, redis_server: Backing) -> None:
    platform = Platform(start, redis_server.url)
    platform.variables["GENAI_WORKER_LEASE_SECONDS"] = "3600"
    slow = platform.worker("100", drain_seconds=0.5)
    job = platform.post(3)
    platform.becomes(job, "running")
    slow.terminate()
    assert slow.exit_code() == 0
    state = platform.job(job)
    assert (state["status"], state["worker"], state["attempts"]) == ("queued", None, 0)
    eventually(lambda: metric(platform.api, "genai_jobs_waiting") == 1, "something scales by this")
    platform.worker()
    assert platform.labels(job) == [3]
    assert platform.job(job)["attempts"] == 1


def test_an_idle_worker_ends_before_its_drain_does(platform: Platform) -> None:
    worker = platform.worker(drain_seconds=300)
    worker.terminate()
    assert worker.exit_code() == 0


def test_cancel_while_it_runs_stops_between_batches(platform: Platform) -> None:
    worker = platform.worker("0.1", GENAI_MAX_BATCH_SIZE="1")
    job = platform.post(*[1] * 500)
    platform.becomes(job, "running")
    answer = platform.http.delete(f"/v1/jobs/{job}")
    assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    state = platform.becomes(job, "cancelled")
    assert (state["result"], state["error"]) == (None, None)
    assert metric(worker, "genai_forward_seconds_count") < 400
    assert platform.labels(platform.post(5)) == [5], "and the worker goes on"
    platform.is_empty()


def test_a_deadline_that_passes_while_it_runs(platform: Platform) -> None:
    platform.worker("0.1", GENAI_MAX_BATCH_SIZE="1")
    job = platform.post(*[1] * 500, deadline_seconds=1)
    state = platform.becomes(job, "failed")
    assert state["error"]["title"] == "Deadline passed"
    assert state["error"]["detail"] == "The deadline passed while the job was computed."


def test_a_job_that_kills_its_workers_is_given_up(platform: Platform) -> None:
    job = platform.post(POISON)
    for _ in range(MOST_ATTEMPTS):
        worker = platform._start("0", 30, "work_stub.py", **platform.variables)
        assert worker.exit_code() == -signal.SIGKILL
        assert platform.job(job)["status"] == "running", "as far as anyone knows"
    platform.worker()
    state = platform.becomes(job, "failed")
    assert state["attempts"] == MOST_ATTEMPTS
    assert state["error"]["detail"].startswith(f"Given up after {MOST_ATTEMPTS} attempts: each time the worker died")
    assert platform.labels(platform.post(4)) == [4]
    platform.is_empty()


def test_a_job_on_which_the_engine_fails_is_tried_again_and_given_up(platform: Platform) -> None:
    worker = platform.worker()
    state = platform.becomes(platform.post(BROKEN), "failed")
    assert state["attempts"] == MOST_ATTEMPTS
    assert state["error"]["detail"] == "Given up after 3 attempts. The last one ended with RuntimeError."
    assert metric(worker, "genai_job_attempts_total") == MOST_ATTEMPTS
    assert platform.labels(platform.post(4)) == [4]


def test_jobs_are_batched(platform: Platform) -> None:
    jobs = [platform.post(number % 10) for number in range(64)]
    worker = platform.worker("0.1", GENAI_WORKER_CONCURRENCY="32")
    assert [platform.labels(job) for job in jobs] == [[number % 10] for number in range(64)]
    assert metric(worker, "genai_forward_seconds_count") < 32


def test_a_blueprint_job_uses_every_device_or_as_many_as_it_asks_for(platform: Platform) -> None:
    labels = [number % 10 for number in range(300)]
    job = platform.post(*labels, kind="blueprint")
    worker = platform.worker("0.02 3", GENAI_WORKER_QUEUE="blueprint", GENAI_MAX_BATCH_SIZE="8")
    assert platform.labels(job) == labels
    assert platform.result(job)["model"] == {"name": "stub", "version": "9.8.7"}

    def computed() -> list[float]:
        return [metric(worker, f'genai_batch_size_sum{{model="stub@stub:{device}"}}') for device in range(3)]

    before = computed()
    assert sum(before) == 300 and min(before) >= 50
    assert platform.labels(platform.post(*labels[:20], kind="blueprint", gpus=1)) == labels[:20]
    assert sorted(now - then for now, then in zip(computed(), before, strict=True)) == [0, 0, 20]
    job = platform.post(1)
    assert platform.job(job)["status"] == "queued", "another queue: not this worker's"


def test_a_model_that_the_worker_does_not_have(platform: Platform) -> None:
    job = platform.post(1)
    platform.store.hset(f"genai:job:{job}", "model", "other")
    platform.worker()
    assert platform.becomes(job, "failed")["error"]["detail"] == "No such model. There are: stub."


def test_its_http_server_is_for_probes_only(platform: Platform) -> None:
    worker = platform.worker()
    assert [worker.status(path) for path in ("/health", "/ready", "/version", "/metrics")] == [200] * 4
    answer = httpx.post(worker.url + "/v1/predict", json={"instances": [digit(1)]}, timeout=LIMIT_SECONDS)
    assert answer.status_code == 404


def test_an_input_of_any_media_type(platform: Platform) -> None:
    """A tensor, and a picture that has no pixel of a digit's background: the stub sees all of it as full."""
    platform.worker()
    tensor = to_npy(np.array([digit(number) for number in range(5)] * 20, np.uint8).reshape(-1, 8, 8))
    file = io.BytesIO()
    Image.fromarray(np.full((80, 80), 255, np.uint8)).save(file, "PNG")

    def raw(body: bytes, media_type: str) -> str:
        answer = platform.http.post("/v1/jobs?model=stub", content=body, headers={"Content-Type": media_type})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    assert platform.labels(raw(tensor, "application/x-npy")) == list(range(5)) * 20
    assert platform.labels(raw(file.getvalue(), "image/png")) == [64 % 10]
    state = platform.becomes(raw(b"x", "image/png"), "failed")
    assert (state["error"]["status"], state["attempts"]) == (422, 1)
    platform.is_empty()


def test_a_worker_is_known_while_it_is_there(platform: Platform) -> None:
    job = platform.post(1, kind="blueprint")
    assert platform.job(job)["workers"] == 0
    worker = platform.worker("10", GENAI_WORKER_QUEUE="blueprint", GENAI_WORKER_CONCURRENCY="1")
    platform.becomes(job, "running")
    second = platform.post(1, kind="blueprint")
    time.sleep(2 * LEASE)  # though all that it does is to renew a lease
    assert platform.job(second)["workers"] == 1
    eventually(lambda: metric(platform.api, 'genai_job_workers{queue="blueprint"}') == 1, "counted")
    worker.process.kill()
    eventually(lambda: platform.job(second)["workers"] == 0, "it was not heard of any more")
