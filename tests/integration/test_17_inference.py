# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inference service with everything that belongs to it: jobs, cache, audit, benchmark; and what users see when parts of it go.

Redis and PostgreSQL are real, in pods; the tests take them away. The S3 store is a stand-in, which is slow. At the end the platform is what it was before.
"""
from __future__ import annotations

import collections
import hashlib
import json
import statistics
import threading
import time
import typing as t

import backing
import cluster
import httpx
import pytest
from backing import eventually
from traffic import Traffic, samples

VARIABLES = ("-e", "@tests/integration/inference_vars.yml")
WORKERS = "app.kubernetes.io/component=worker"
BENCHMARK, BENCHMARK_POD = "story", "batch.kubernetes.io/job-name=story"
JOBS = 60
KEYS = "inference-keys"


@pytest.fixture(scope="module")
def before() -> t.Iterator[dict]:
    """The platform as it was; the service is made complete, and afterwards goes back to this."""
    specs = cluster.specs()
    backing.start()
    try:
        run = cluster.play("site.yml", *VARIABLES)
        assert run.code == 0, run.output
        yield specs
    finally:
        cluster.kubectl("delete", f"job/{BENCHMARK}", f"secret/{KEYS}", "-n", cluster.NAMESPACE, "--ignore-not-found")
        cluster.play("site.yml")
        backing.remove()


@pytest.fixture
def client() -> t.Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.URL, timeout=30) as client:
        yield client


class Requests(threading.Thread):
    """Predictions of ever other pictures while the block runs, so that nothing comes from a cache, by new connections, which come to
    every pod. Milliseconds of each, and what failed."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.took: list[float] = []
        self.failures: list[str] = []
        self._done = threading.Event()

    def __enter__(self) -> Requests:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self.join(60)

    def run(self) -> None:
        instance = list(samples()["instances"][0])
        while not self._done.wait(0.02):
            instance[len(self.took) % 64] = (len(self.took) // 64) % 17
            with httpx.Client(base_url=cluster.URL, timeout=30) as client:
                started = time.monotonic()
                try:
                    client.post("/v1/predict", json={"instances": [instance]}).raise_for_status()
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                self.took.append(1000 * (time.monotonic() - started))

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.took, n=20)[-1]


def submit(client: httpx.Client, number: int) -> str:
    """The id of a job, which is asked for twice with one key."""
    body = {"input": {"instances": [samples()["instances"][number % 100]] * 4}}
    answers = [client.post("/v1/jobs", json=body, headers={"Idempotency-Key": f"story-{number}"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 200], [answer.text for answer in answers]
    first, again = (answer.json()["id"] for answer in answers)
    assert first == again
    return first


def ended(client: httpx.Client, jobs: list[str]) -> dict[str, dict] | None:
    """The documents of all jobs once the last has ended."""
    found = {job: client.get(f"/v1/jobs/{job}").json() for job in jobs}
    return found if all(each["status"] in ("succeeded", "failed", "cancelled") for each in found.values()) else None


def test_everything_runs(before, client, figure):
    expected = samples()
    answer = client.post("/v1/predict", json={"instances": expected["instances"][:32]}).json()
    right = sum(each["label"] == label for each, label in zip(answer["predictions"], expected["labels"]))
    assert right >= 30
    assert "degraded" not in client.get("/ready").json()
    page = client.get("/")
    assert page.status_code == 200 and "text/html" in page.headers["content-type"]
    again = cluster.play("site.yml", *VARIABLES)
    assert again.code == 0 and again.changed == 0, again.output
    figure("inference, complete: objects more than before", len(set(cluster.specs()) - set(before)))


def test_the_same_question_is_answered_from_the_cache_of_another_pod(before, client, figure):
    body = {"instances": [samples()["instances"][5]]}
    seen = collections.Counter()
    for _ in range(40):  # by new connections, which come to both pods
        with httpx.Client(base_url=cluster.URL, timeout=30) as fresh:
            answer = fresh.post("/v1/predict", json=body)
        seen[answer.headers["x-cache"]] += 1
    assert seen["miss"] <= 1 and seen["hit"] >= 39, seen
    stored = client.post("/v1/predict", json=body, headers={"Cache-Control": "no-store"})
    assert stored.headers["x-cache"] == "bypass"
    figure("inference, one question asked 40 times of two pods: computed", seen["miss"])


def test_no_job_is_lost_or_done_twice_when_workers_are_killed(before, client, figure):
    jobs = [submit(client, number) for number in range(JOBS)]
    killed = backing.pods(WORKERS)[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", killed, "-n", cluster.NAMESPACE, "--grace-period=0", "--force")
    jobs += [submit(client, number) for number in range(JOBS, 2 * JOBS)]
    cluster.kubectl("rollout", "restart", "deployment/inference-worker-standard", "-n", cluster.NAMESPACE)
    found = eventually(lambda: ended(client, jobs), "every job has ended", 300)
    lost = [job for job, each in found.items() if each["status"] != "succeeded"]
    assert lost == [], [found[job] for job in lost]
    done = sum(int(backing.redis("hget", f"genai:job:{job}", "completions") or 0) for job in jobs)
    assert done == len(jobs)
    figure("jobs, worker killed and workers rolled: sent / lost / done twice", f"{len(jobs)} / {len(lost)} / {done - len(jobs)}")


def test_every_request_is_in_the_audit_log_without_its_payload(before, client, figure):
    names = [f"story-audit-{number}" for number in range(50)]
    for name in names:
        client.post("/v1/predict", json={"instances": [samples()["instances"][6]]}, headers={"X-Request-ID": name}).raise_for_status()
    counted = "select count(*), count(distinct request_id) from audit_log where request_id like 'story-audit-%'"
    rows = eventually(lambda: [row for row in backing.sql(counted) if row[0] == "50"], "50 rows")
    assert rows == [["50", "50"]]
    figure("audit log: requests / rows", "50 / 50")


def test_a_benchmark_whose_pod_goes_away_ends_with_each_step_once(before, client, figure):
    cluster.kubectl("create", "job", BENCHMARK, "--from=cronjob/inference-benchmark", "-n", cluster.NAMESPACE)
    steps = f"select model, batch_size, count(*) from benchmark_steps where run_id = '{BENCHMARK}' group by 1, 2"
    exists = "select count(*) from information_schema.tables where table_name = 'benchmark_steps'"
    eventually(lambda: backing.sql(exists) == [["1"]] and backing.sql(steps), "the first step is written", 180)
    first = backing.pods(BENCHMARK_POD)[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", first, "-n", cluster.NAMESPACE)
    cluster.kubectl("wait", "--for=condition=complete", f"job/{BENCHMARK}", "-n", cluster.NAMESPACE, "--timeout=300s")
    found = backing.sql(steps)
    assert found and {row[2] for row in found} == {"1"}, found
    assert {(row[0], row[1]) for row in found} == {(model["name"], str(size)) for model in models(client) for size in (1, 4)}
    assert backing.sql("select hypertable_name from timescaledb_information.hypertables") == [["benchmark_steps"]]
    runs = client.get("/v1/benchmarks").json()
    assert BENCHMARK in json.dumps(runs)
    figure("benchmark, pod deleted in the middle: steps / written twice", f"{len(found)} / {sum(row[2] != '1' for row in found)}")


def models(client: httpx.Client) -> list[dict]:
    return client.get("/v1/models").json()["models"]


def degraded() -> list[dict]:
    """What ten times some pod says does not work, by the store or part. It is ready all the same."""
    answers = [httpx.get(f"{cluster.URL}/ready", timeout=30) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {200}
    return [{part.split()[0]: why for part, why in answer.json().get("degraded", {}).items()} for answer in answers]


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_predictions_go_on_while_a_store_is_away(store, before, figure):
    with Requests() as calm:
        time.sleep(5)
    backing.stop(store)
    try:
        with Requests() as away:
            eventually(lambda: all(store in parts for parts in degraded()), f"/ready names {store}, of every pod", 60)
            time.sleep(5)
    finally:
        backing.resume(store)
    with Requests() as back:
        eventually(lambda: not any(store in parts for parts in degraded()), f"{store} is used again", 60)
    failures = [*calm.failures, *away.failures, *back.failures]
    assert failures == []
    figure(f"{store} away: failed / sent predictions", f"{len(failures)} / {len(calm.took) + len(away.took) + len(back.took)}")
    figure(f"{store} away: p95 in ms, there / away", f"{calm.p95:.0f} / {away.p95:.0f}")


def test_options_of_a_model_change_without_a_new_pod_or_a_failed_request(before, client, figure):
    pods = {pod["metadata"]["uid"] for pod in backing.pods("app.kubernetes.io/component=api")}
    entries = [{"name": "digits", "source": "/model", "max_batch_size": 8}, {"name": "digits-small", "source": "/model", "max_batch_size": 4}]
    with Traffic() as traffic:
        run = cluster.play("site.yml", *VARIABLES, "-e", json.dumps({"inference_app_models": entries}))
        assert run.code == 0, run.output
        # The kubelet brings a changed ConfigMap into a volume within a minute or so.
        eventually(lambda: all(options(pod) == [8, 4] for pod in range(10)), "both pods serve the new options", 240)
    assert traffic.failures == []
    assert {pod["metadata"]["uid"] for pod in backing.pods("app.kubernetes.io/component=api")} == pods
    figure("options of a model changed in place: failed / sent requests, new pods", f"0 / {traffic.sent}, 0")


def statuses(key: str) -> set[int]:
    """What ten new connections, which come to all pods, are answered with this key."""
    body, headers = {"instances": [samples()["instances"][7]]}, {"Authorization": f"Bearer {key}"} if key else {}
    found = set()
    for _ in range(10):
        with httpx.Client(base_url=cluster.URL, timeout=30) as fresh:
            found.add(fresh.post("/v1/predict", json=body, headers=headers).status_code)
    return found


def keep_keys(*keys: str) -> None:
    """What the pods' Secret holds from now on. The kubelet looks at once where a pod has changed, else within two minutes."""
    lines = "".join(f"client-{number} {hashlib.sha256(key.encode()).hexdigest()}\n" for number, key in enumerate(keys))
    cluster.kubectl("patch", "secret", KEYS, "-n", cluster.NAMESPACE, "-p", json.dumps({"stringData": {"keys": lines}}))
    for pod in backing.pods("app.kubernetes.io/component=api"):
        cluster.kubectl("annotate", "pod", pod["metadata"]["name"], "-n", cluster.NAMESPACE, f"story/keys={time.time()}", "--overwrite")


def test_only_who_has_a_key_may_call(before, figure):
    """Users, 4. Red where the pod cannot read the Secret, or where a key that was taken away goes on working."""
    ours, theirs = "o" * 32, "t" * 32
    cluster.kubectl("create", "secret", "generic", KEYS, "-n", cluster.NAMESPACE)
    keep_keys(ours, theirs)
    run = cluster.play("site.yml", *VARIABLES, "-e", json.dumps({"inference_app_api_keys_secret": {"name": KEYS}}))
    assert run.code == 0, run.output
    eventually(lambda: statuses("") == {401}, "every pod asks for a key", 60)
    assert (statuses(ours), statuses(theirs), statuses("another")) == ({200}, {200}, {401})
    keep_keys(ours)
    eventually(lambda: statuses(theirs) == {401}, "a key that was taken away opens nothing")
    assert statuses(ours) == {200}
    keep_keys()
    eventually(lambda: statuses(ours) == {401}, "without keys nobody may call")
    run = cluster.play("rollback.yml", "-e", "to=previous")
    assert run.code == 0, run.output
    eventually(lambda: statuses("") == {200}, "it is open again", 60)
    figure("API keys on the cluster: without / with a key / taken away / no keys left", "401 / 200 / 401 / 401")


def names(_attempt: int) -> list[str]:
    """The models that some pod serves."""
    with httpx.Client(base_url=cluster.URL, timeout=30) as fresh:
        return [model["name"] for model in models(fresh)]


def options(_attempt: int) -> list[int]:
    """The batch sizes that some pod serves with."""
    with httpx.Client(base_url=cluster.URL, timeout=30) as fresh:
        return [model["max_batch_size"] for model in models(fresh)]


def test_a_slow_store_of_models_keeps_nobody_waiting(before, figure):
    """The new pods wait for their models; the old ones serve until then."""
    chosen = {"inference_app_models": [{"name": "digits", "source": "s3://models/digits/1.0.0/"}], "inference_app_s3": backing.S3}
    with Requests() as calm:
        time.sleep(5)
    with Requests() as slow:
        run = cluster.play("site.yml", *VARIABLES, "-e", json.dumps(chosen))
        assert run.code == 0, run.output
    assert [*calm.failures, *slow.failures] == []
    # A pod that drains may still be given a new connection, until every node has heard that it goes.
    eventually(lambda: all(names(pod) == ["digits"] for pod in range(10)), "every new connection comes to the new pods", 60)
    figure(f"models from an S3 store at {backing.BUCKET_RATE // 1000} kB/s: seconds of the release", round(run.seconds))
    figure("models from a slow S3 store: failed / sent predictions", f"0 / {len(slow.took)}")
    figure("models from a slow S3 store: p95 in ms, before / meanwhile", f"{calm.p95:.0f} / {slow.p95:.0f}")


def test_back_to_the_plain_service(before, figure):
    with Traffic() as traffic:
        run = cluster.play("rollback.yml", "-e", "to=previous")
        assert run.code == 0, run.output
        run = cluster.play("site.yml")
        assert run.code == 0, run.output
    assert traffic.failures == []
    cluster.kubectl("delete", f"job/{BENCHMARK}", f"secret/{KEYS}", "-n", cluster.NAMESPACE, "--ignore-not-found")
    backing.remove()
    after = {name: spec for name, spec in cluster.specs().items() if not name.startswith("Secret ")}
    assert after == {name: spec for name, spec in before.items() if not name.startswith("Secret ")}
    figure("from complete back to plain: failed / sent requests", f"0 / {traffic.sent}")
