# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A hostile cluster: other managers at work, outages of the API server, of a node and of a webhook, and a client that notices every one."""
from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import http.client
import random
import subprocess
import threading
import time
import typing as t

import urllib3
from bundles import obj, pod, workload
from cluster import CACHE, CONTROL_PLANE, KUBECONFIG, NAME
from live import until
from living import API, autoscaler, path, settings, space, there
from proxy import Fate, Request

WORKERS = [f"{NAME}-worker", f"{NAME}-worker2"]
PAUSE_SECONDS, WEBHOOK_SECONDS = 20, 10
BEAT = "example.com/beat"  # a label that another manager writes all the time
DRAINED = {"hostile": "yes"}  # pods that a drain is told to evict: others on the node are not ours to move
CALL_PAUSE, WRITE_PAUSE = 0.05, 0.3  # seconds between two requests of the client, and of the other manager

# A pod goes on serving in `preStop` for longer than the control plane is away: its endpoints leave the Service only after that.
DRAIN_SECONDS = PAUSE_SECONDS + 15
SERVE = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["REVISION"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", 8080), Answer).serve_forever()
"""


# --- objects ---------------------------------------------------------------------------------------------------------


def service(namespace: str) -> dict:
    ports = [{"port": 80, "targetPort": 8080}]
    return obj("v1", "Service", "front", namespace, spec={"type": "NodePort", "selector": {"app": "front"}, "ports": ports})


def _front(namespace: str, revision: str) -> dict:
    """Two or more pods of a service that loses no request when they are replaced or evicted."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    env = [{"name": "REVISION", "value": revision}]
    hook = {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}
    template = pod("front", f"exec python3 -c '{SERVE}'", env=env, readinessProbe=probe, lifecycle=hook)
    template["metadata"]["labels"].update(DRAINED)
    chosen = {"labelSelector": {"matchLabels": {"app": "front"}}}
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", **chosen}
    template["spec"].update(terminationGracePeriodSeconds=DRAIN_SECONDS + 15, topologySpreadConstraints=[spread])
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    body = workload("Deployment", "front", namespace, template, strategy=rolling)
    del body["spec"]["replicas"]  # they are the autoscaler's
    return body


def _back(namespace: str, revision: str) -> dict:
    """One pod by the bundle; an autoscaler of somebody else's wants two."""
    template = pod("back", env=[{"name": "REVISION", "value": revision}])
    template["metadata"]["labels"].update(DRAINED)
    return workload("Deployment", "back", namespace, template, replicas=1)


def bundle(namespace: str, revision: str) -> dict[str, list[dict]]:
    budget = obj("policy/v1", "PodDisruptionBudget", "front", namespace, spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "front"}}})
    front = [settings(namespace, rate=revision), service(namespace), budget, _front(namespace, revision), autoscaler(namespace, "front", least=2)]
    return {"base": [space(namespace)], "front": front, "back": [_back(namespace, revision)]}


def deployments(namespace: str) -> list[dict]:
    return [_front(namespace, ""), _back(namespace, "")]


def ready(namespace: str, revision: str) -> bool:
    """Whether both Deployments have two pods or more, all ready and all of this revision; and the ConfigMap says it too."""
    lives = [there(body) or {} for body in deployments(namespace)]
    config = there(settings(namespace)) or {}
    return config.get("data") == {"rate": revision} and all(_ready(live, revision) for live in lives)


def _ready(live: dict, revision: str) -> bool:
    spec, status = live["spec"], live["status"]
    env = spec["template"]["spec"]["containers"][0]["env"]
    counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "readyReplicas")]
    current = status.get("observedGeneration") == live["metadata"]["generation"]
    return env == [{"name": "REVISION", "value": revision}] and current and spec["replicas"] >= 2 and counts == [spec["replicas"]] * 3


# --- who is at work all along ----------------------------------------------------------------------------------------


class _Working:
    """A thread that does `_once` again and again while the block runs."""

    def __init__(self, pause: float) -> None:
        self._pause, self._stop = pause, threading.Event()
        self._executor = concurrent.futures.ThreadPoolExecutor(1)

    def __enter__(self) -> t.Self:
        self._work = self._executor.submit(self._run)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._work.result(90)  # who stopped working for an error has shown nothing
        self._executor.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._once()

    def _once(self) -> None:
        raise NotImplementedError


class Client(_Working):
    """Calls the Service, each time by a new connection, through the NodePort of one worker and then the other's.

    A worker's own rules lead to the pods: they are there while the control plane stands still.
    """

    def __init__(self, namespace: str) -> None:
        super().__init__(CALL_PAUSE)
        port = API.need("GET", path(service(namespace)))["spec"]["ports"][0]["nodePort"]
        self._doors = [(address, port) for address in map(_address, WORKERS)]
        self.answers: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []

    @property
    def sent(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def _once(self) -> None:
        address, port = self._doors[self.sent % len(self._doors)]
        connection = http.client.HTTPConnection(address, port, timeout=10)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            self.answers[answer.read().decode()] += 1
        except (OSError, http.client.HTTPException, AssertionError) as exc:
            self.failures.append(f"{time.strftime('%X')} {address}: {type(exc).__name__}: {exc}")
        finally:
            connection.close()


def _address(node: str) -> str:
    addresses = API.need("GET", f"/api/v1/nodes/{node}")["status"]["addresses"]
    return next(each["address"] for each in addresses if each["type"] == "InternalIP")


class Writer(_Working):
    """Another manager, which writes a label to everything. `replicas`: those of the Deployments as it finds them: {name: numbers}."""

    def __init__(self, namespace: str) -> None:
        super().__init__(WRITE_PAUSE)
        self._bodies = [space(namespace), settings(namespace), service(namespace), *deployments(namespace)]
        self.written, self.replicas = 0, collections.defaultdict[str, set[int]](set)

    def _once(self) -> None:
        label = {"metadata": {"labels": {BEAT: str(self.written)}}}
        for body in self._bodies:
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # the API server is away
                status, live = API.request("PATCH", path(body), label, "application/merge-patch+json", fieldManager="beat")
                self.written += status == 200  # a webhook that is down refuses it too
                if status == 200 and body["kind"] == "Deployment":
                    self.replicas[body["metadata"]["name"]].add(live["spec"]["replicas"])


class Throttle:
    """For a proxy: answers one request in twenty with 429, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, _request: Request) -> Fate:
        return Fate.ERROR_429 if self._random.random() < 0.05 else Fate.PASS


# --- what happens in the middle of a run -----------------------------------------------------------------------------


@contextlib.contextmanager
def beside(*functions: t.Callable[[], None]) -> t.Iterator[t.Callable[[], None]]:
    """Yields what starts the functions, all at once, the first time that it is called. The block ends when they have ended."""
    futures: list[concurrent.futures.Future] = []
    with concurrent.futures.ThreadPoolExecutor(max(1, len(functions))) as executor:

        def start() -> None:
            if not futures:
                futures.extend(executor.submit(function) for function in functions)

        yield start
        for future in futures:
            future.result()


def stop_control_plane() -> None:
    """Everything in its container stands still, as on a machine that swaps. Who connects waits; what is on the workers goes on."""
    subprocess.run(["docker", "pause", CONTROL_PLANE], check=True, capture_output=True, timeout=60)


def start_control_plane() -> None:
    """Also where it never stopped."""
    done = subprocess.run(["docker", "unpause", CONTROL_PLANE], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or "not paused" in done.stderr, done.stderr


def control_plane_stands_still() -> None:
    stop_control_plane()
    try:
        time.sleep(PAUSE_SECONDS)
    finally:
        start_control_plane()


def _kubectl(*args: str) -> None:
    """Not the one in the control plane's container, where nothing can be started while it stands still. It gives up after 10 s
    without a connection, so it is tried again, as a person would."""
    command = [CACHE / "bin" / "kubectl", f"--kubeconfig={KUBECONFIG}", *args]
    for _attempt in range(1 + PAUSE_SECONDS // 5):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return
    raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")


def node_is_drained(node: str) -> None:
    """No new pod comes to the node, and those of the tests are evicted as far as their budget allows."""
    selector = ",".join("=".join(item) for item in DRAINED.items())
    _kubectl("drain", node, "--force", "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={selector}", "--timeout=240s")


def nodes_are_back() -> None:
    _kubectl("uncordon", *WORKERS)


def webhook(namespace: str) -> dict:
    """It asks a service that does not exist about every ConfigMap of one namespace."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"], "scope": "Namespaced"}
    hook = {
        "name": "nobody.example.com", "clientConfig": {"service": {"namespace": namespace, "name": "nobody"}}, "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "failurePolicy": "Fail", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
    }  # fmt: skip
    return obj("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", f"{namespace}-nobody", webhooks=[hook])


def webhook_goes_down(namespace: str) -> None:
    """Returns when the API server refuses what the webhook would be asked about."""
    hook, trial = webhook(namespace), settings(namespace, "trial")
    API.need("PATCH", path(hook), hook)
    until("the webhook is down", lambda: "failed calling webhook" in API.apply(path(trial), trial, dryRun="All")[1].get("message", ""))


def webhook_is_back(namespace: str) -> None:
    status, answer = API.request("DELETE", path(webhook(namespace)))
    assert status in (200, 404), answer


def webhook_comes_back(namespace: str) -> None:
    time.sleep(WEBHOOK_SECONDS)
    webhook_is_back(namespace)
