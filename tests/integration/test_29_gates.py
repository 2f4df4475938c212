# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A component comes after another: nothing of it is written until that is ready, nor is that removed while it runs."""
from __future__ import annotations

import contextlib
import threading
import time
import typing as t

import pytest
from ansible_collections.genai.platform.plugins.module_utils._errors import ReleaseFailed
from bundles import Platform, obj, pod, workload
from cluster import Audit
from living import API, settings, space

START_SECONDS = 20  # of the database
AFTER = {"app": ["migration"], "migration": ["database"]}
LISTEN = "exec python3 -m http.server 8080 --directory /tmp"
# Half as long as the database takes to start: a node's proxy hears of a pod that is ready only a moment later.
ONCE = "python3 -c 'import urllib.request; urllib.request.urlopen(\"http://database:8080\", timeout=2).read()' 2>/dev/null"
ASK = f"end=$(($(date +%s) + {START_SECONDS // 2})); until {ONCE}; do test $(date +%s) -lt $end || exit 1; sleep 0.2; done"


@pytest.fixture
def platform(living):
    found: Platform = living("gates")
    yield found


def database(namespace: str, version: str) -> list[dict]:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 60}
    template = pod("database", f"sleep {START_SECONDS if version == '1' else 5}; {LISTEN}", readinessProbe=probe, env=[{"name": "VERSION", "value": version}])
    service = obj("v1", "Service", "database", namespace, spec={"selector": {"app": "database"}, "ports": [{"port": 8080}]})
    # Never two at once: the old one is gone before the new one starts, so that whoever needs it meanwhile fails.
    return [service, workload("Deployment", "database", namespace, template, strategy={"type": "Recreate"})]


def migration(namespace: str, command: str = ASK) -> list[dict]:
    """One try: it is right only if the database answers by then."""
    template = pod("migration", command)
    template["spec"]["restartPolicy"] = "Never"
    return [obj("batch/v1", "Job", "migration", namespace, spec={"backoffLimit": 0, "template": template})]


def app(namespace: str, version: str) -> list[dict]:
    """It exits without the database."""
    template = pod("app", f"{ASK}; exec sleep infinity", env=[{"name": "VERSION", "value": version}])
    return [settings(namespace, "app", version), workload("Deployment", "app", namespace, template)]


def tiers(name: str, version: str = "1", command: str = ASK) -> dict[str, list[dict]]:
    return {"app": app(name, version), "base": [space(name)], "database": database(name, version), "migration": migration(name, command)}


def pods(namespace: str, name: str) -> list[dict]:
    return API.need("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{name}")["items"]


def restarts(namespace: str) -> int:
    return sum(status["restartCount"] for each in pods(namespace, "app") for status in each["status"]["containerStatuses"])


def became_ready(each: dict) -> str:
    return next(c["lastTransitionTime"] for c in each["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True")


@contextlib.contextmanager
def watched(namespace: str) -> t.Iterator[list[tuple[int, bool]]]:
    """[(how many pods of the app there are, whether the database is there and stays)], ten times a second."""
    seen: list[tuple[int, bool]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            running = len(pods(namespace, "app"))  # before the database: what is seen there may only be older
            found = API.need("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
            seen.append((running, any(each["metadata"]["name"] == "database" and "deletionTimestamp" not in each["metadata"] for each in found)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_three_tiers_come_up_in_their_order_and_go_backwards(platform, figure):
    """Red where the Job or the app is written before the database is ready: the one fails at its only try, the other crashes."""
    name = platform.name
    began = time.monotonic()
    result = platform.deploy(tiers(name), after=AFTER)
    seconds = time.monotonic() - began
    assert result["order"] == [["base", "database"], ["migration"], ["app"]] and result["not_ready"] == []
    (store,), (job,), (front,) = pods(name, "database"), pods(name, "migration"), pods(name, "app")
    assert became_ready(store) <= job["metadata"]["creationTimestamp"] <= front["metadata"]["creationTimestamp"]
    assert restarts(name) == 0 and job["status"]["phase"] == "Succeeded"
    assert platform.deploy(tiers(name), after=AFTER)["changes"] == []

    platform.deploy(tiers(name, "2"), after=AFTER)
    (store,), (front,) = (running(name, each) for each in ("database", "app"))
    assert became_ready(store) <= front["metadata"]["creationTimestamp"] and restarts(name) == 0
    platform.roll_back("1")
    (store,), (front,) = (running(name, each) for each in ("database", "app"))
    assert became_ready(store) <= front["metadata"]["creationTimestamp"] and restarts(name) == 0

    with watched(name) as seen:
        platform.tear_down()
    beside = [running for running, there in seen if running and not there]
    assert not beside and any(there for _running, there in seen)
    figure(
        f"gates: a database that takes {START_SECONDS} s, a Job with one try, an app that exits without it: right at the first release, updated, rolled back",
        f"yes ({seconds:.0f} s), yes, yes; 0 restarts",
    )
    figure("gates, teardown: pods of the app without the database, of so many looks", f"0 of {len(seen)}")


def running(namespace: str, name: str) -> list[dict]:
    """The pods of the newest description: with one replica, the youngest."""
    return sorted((each for each in pods(namespace, name) if "deletionTimestamp" not in each["metadata"]), key=lambda each: each["metadata"]["creationTimestamp"])[-1:]


def test_a_job_that_fails_holds_back_what_comes_after_it(platform, figure):
    """Red where anything of the app is written although what it comes after has failed."""
    name, audit = platform.name, Audit()
    with pytest.raises(ReleaseFailed, match="(?s)Job .*migration.*no such column"):
        platform.deploy(tiers(name, command="echo no such column; exit 1"), after=AFTER)
    assert not [each for each in API.need("GET", "/api/v1/namespaces")["items"] if each["metadata"]["name"] == name]
    assert audit.writes(f"/namespaces/{name}/jobs/migration") and not audit.writes(f"/namespaces/{name}/deployments/app")
    assert not audit.writes(f"/namespaces/{name}/configmaps/app")
    figure("gates, a Job that fails: the release is undone, with the Job's log, and nothing of the app was written", "yes")


def test_without_the_order_the_same_bundle_fails(platform, figure):
    """What the two above rest on: without a gate the Job's only try meets no database."""
    with pytest.raises(ReleaseFailed, match="migration|app"):
        platform.deploy(tiers(platform.name))
    figure("gates, the same without them: fails", "yes")
