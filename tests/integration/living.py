# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests of a living cluster share: small objects, the other hands that write to it, and a look at what is there."""
from __future__ import annotations

import concurrent.futures
import threading
import time
import typing as t

from bundles import Platform, obj, pod, workload
from live import Api, Kind, until

API = Api()
HOLD = "example.com/hold"  # a finalizer that nobody takes off but the test
OUR_LABELS = ("genai.platform/platform", "genai.platform/component")
STUCK_SECONDS = 5  # a run that has not ended after so long waits for what is being deleted, should it not say so


# --- objects ---------------------------------------------------------------------------------------------------------


def space(name: str) -> dict:
    return obj("v1", "Namespace", name)


def settings(namespace: str, name: str = "settings", rate: str = "1", **rest: t.Any) -> dict:
    return obj("v1", "ConfigMap", name, namespace, data={"rate": rate}, **rest)


def secret(namespace: str, name: str) -> dict:
    return obj("v1", "Secret", name, namespace, stringData={"key": "value"})


def deployment(namespace: str, name: str = "web", **spec: t.Any) -> dict:
    return workload("Deployment", name, namespace, pod(name), **spec)


def nowhere(namespace: str) -> dict:
    """A Deployment that no release survives: its image does not exist."""
    return workload("Deployment", "broken", namespace, pod("broken", image="genai-platform/nowhere:1"))


def autoscaler(namespace: str, name: str = "web", least: int = 3, target: str = "") -> dict:
    """Without metrics it does one thing: it keeps its target at `least` replicas."""
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target or name}
    return obj("autoscaling/v2", "HorizontalPodAutoscaler", name, namespace, spec={"scaleTargetRef": reference, "minReplicas": least, "maxReplicas": 5})


# --- other hands -----------------------------------------------------------------------------------------------------


def path(body: dict) -> str:
    namespace = body["metadata"].get("namespace", "")
    return Kind(body["kind"], body["apiVersion"], f"{body['kind'].lower()}s", bool(namespace)).path(namespace, body["metadata"]["name"])


def by_hand(*bodies: dict) -> None:
    """Creates objects that no platform owns, as `kubectl create` does."""
    for body in bodies:
        API.need("POST", path(body).rpartition("/")[0], body, fieldManager="kubectl-create")


def edit(body: dict, change: dict, manager: str = "kubectl-edit") -> None:
    status, answer = API.request("PATCH", path(body), change, "application/merge-patch+json", fieldManager=manager)
    assert status == 200, answer


def hold(body: dict) -> None:
    """An operator's finalizer: who deletes the object now has to wait for `let_go`."""
    edit(body, {"metadata": {"finalizers": [HOLD]}}, "operator")


def let_go(*bodies: dict) -> None:
    for body in bodies:
        status, answer = API.request("PATCH", path(body), {"metadata": {"finalizers": None}}, "application/merge-patch+json", fieldManager="operator")
        assert status in (200, 404), answer


def delete(body: dict) -> None:
    """Asks for it and does not wait."""
    status, answer = API.request("DELETE", path(body))
    assert status in (200, 202), answer


# --- looks -----------------------------------------------------------------------------------------------------------


def there(body: dict) -> dict | None:
    """The live object; None when it is not there or on its way out."""
    status, live = API.request("GET", path(body))
    return live if status == 200 and not live["metadata"].get("deletionTimestamp") else None


def uid(body: dict) -> str:
    live = there(body)
    return live["metadata"]["uid"] if live else ""


def is_ours(body: dict) -> bool:
    """Whether the live object carries a label of a platform."""
    live = there(body)
    assert live, path(body)
    return any(label in live["metadata"].get("labels", {}) for label in OUR_LABELS)


def versions(bodies: t.Iterable[dict]) -> dict[str, str]:
    """{path: resourceVersion}; '' for what is not there."""
    found = {path(body): there(body) for body in bodies}
    return {name: live["metadata"]["resourceVersion"] if live else "" for name, live in found.items()}


def replicas(body: dict) -> int:
    live = there(body)
    assert live, path(body)
    return live["spec"]["replicas"]


def scaled(body: dict, number: int) -> None:
    """Waits until an autoscaler has acted and its pods are ready."""
    until(f"{path(body)} has {number} ready replicas", lambda: (there(body) or {}).get("status", {}).get("readyReplicas") == number, 120)


def settled(body: dict) -> None:
    """Waits until the Deployment's controller has nothing more to write to it."""

    def is_settled() -> bool:
        live = there(body) or {}
        reasons = {each["reason"] for each in live.get("status", {}).get("conditions", [])}
        current = live["status"].get("observedGeneration") == live["metadata"]["generation"]
        return current and {"MinimumReplicasAvailable", "NewReplicaSetAvailable"} <= reasons

    until(f"{path(body)} is settled", is_settled)


def release_once(platform: Platform, bundle: dict[str, list[dict]], free: t.Callable[[], None]) -> dict:
    """The result of a release beside which `free` lets go of what is being deleted, once the release waits for it."""
    said: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        run = executor.submit(platform.deploy, bundle, progress=said.append)
        end = time.monotonic() + STUCK_SECONDS
        until("the release waits", lambda: run.done() or any("being deleted" in line for line in said) or time.monotonic() > end)
        free()
        return run.result()


class Members:
    """The fewest pods with a label that were there and not on their way out while the block ran, and the uids of all that were."""

    def __init__(self, namespace: str, app: str) -> None:
        self._path, self._selector = f"/api/v1/namespaces/{namespace}/pods", f"app={app}"
        self.seen: list[int] = []
        self.uids: set[str] = set()
        self._stop = threading.Event()
        self._executor = concurrent.futures.ThreadPoolExecutor(1)

    def __enter__(self) -> Members:
        self._look()  # a first pod may be gone before the thread has looked
        self._looking = self._executor.submit(self._watch)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._executor.shutdown()
        self._looking.result()  # who stopped looking has seen nothing
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._look()

    def _look(self) -> None:
        pods = API.need("GET", self._path, labelSelector=self._selector)["items"]
        self.uids |= {each["metadata"]["uid"] for each in pods}
        self.seen.append(sum(not each["metadata"].get("deletionTimestamp") for each in pods))

    @property
    def fewest(self) -> int:
        return min(self.seen)


# --- two versions of one API ------------------------------------------------------------------------------------------


def older(namespace: str, percent: int) -> dict:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "older"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": percent}
    return obj("autoscaling/v1", "HorizontalPodAutoscaler", "older", namespace, spec=spec)


def newer(namespace: str) -> dict:
    memory = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 60}}}
    body = autoscaler(namespace, "newer", least=1)
    return {**body, "spec": {**body["spec"], "metrics": [memory]}}


# --- members that are not ready for a while ---------------------------------------------------------------------------

BUSY_SECONDS = 12
# Each member writes when it started into a folder that all of them see; one that is older than another is not ready for
# BUSY_SECONDS after that (it copies shards, say). A member that has just come back is ready at once.
SERVE = f"""
import glob, http.server, os, time
me, born = os.environ["HOSTNAME"], time.time()
with open("/shared/" + me, "w") as file:
    file.write(str(born))
class Probe(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        others = [float(open(path).read() or 0) for path in glob.glob("/shared/member-*") if not path.endswith(me)]
        busy = any(born < other and time.time() - other < {BUSY_SECONDS} for other in others)
        self.send_response(503 if busy else 200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Probe).serve_forever()
"""


def members(namespace: str, revision: str) -> list[dict]:
    # The oldest member sees two others start: it fails for 24 s at most, however long a start takes, and is unready for the last 20.
    # A probe that may fail four times after five seconds is allowed 27 s: being busy is no trouble.
    probe = {"httpGet": {"path": "/", "port": 8080}, "initialDelaySeconds": 5, "periodSeconds": 1, "failureThreshold": 4}
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("serve", "shared")]
    template = pod("member", "exec python3 /serve/serve.py", env=[{"name": "REVISION", "value": revision}], readinessProbe=probe, volumeMounts=mounts)
    template["spec"]["securityContext"] = {"runAsUser": 0}
    template["spec"]["volumes"] = [{"name": "serve", "configMap": {"name": "serve"}}, {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return [
        obj("v1", "ConfigMap", "serve", namespace, data={"serve.py": SERVE}),
        obj("v1", "PersistentVolumeClaim", "shared", namespace, spec=claim),
        workload("StatefulSet", "member", namespace, template, replicas=3),
    ]
