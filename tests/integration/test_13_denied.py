# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must not be possible is tried for real, by whoever might try it; and what is allowed beside it works.

A row of ATTEMPTS is one such pair. Requests go to the API server with a token of the ServiceAccount in question and nothing else.
"""
from __future__ import annotations

import base64
import json
import ssl
import subprocess
import time
import typing as t

import httpx
import pytest
import yaml
from bundles import IMAGE, Platform
from cluster import CONTROL_PLANE, KUBECONFIG, kubectl, play

PLATFORM = Platform("denied")
SERVING, STORAGE, NODE = "denied-serving", "denied-storage", "denied-node"
LABELS = {"app.kubernetes.io/name": "attempt", "data-classification": "public"}
RUNNER = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]},
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"], "verbs": ["get"]},
]
VARIABLES = {
    "common_platform": PLATFORM.name,
    "common_ledger_namespace": PLATFORM.ledger_namespace,
    "namespaces_priority_classes": [],
    "namespaces_list": [
        {
            "name": SERVING,
            "quota": {"requests.cpu": "1", "requests.nvidia.com/gpu": "1"},
            "limits": {"default": {"cpu": "100m", "memory": "64Mi"}, "default_request": {"cpu": "10m", "memory": "32Mi"}},
            "service_accounts": [{"name": "api", "profile": "api"}, {"name": "runner", "rules": RUNNER}, {"name": "gitops", "profile": "gitops"}],
        },
        {"name": STORAGE},
    ],
    "namespaces_components": {
        "client": {"namespace": SERVING, "pods": {"role": "client"}},
        "server": {"namespace": SERVING, "pods": {"role": "server"}, "ports": {"http": 8000}},
        "store": {"namespace": STORAGE, "pods": {"role": "store"}, "ports": {"http": 8000}},
    },
    "namespaces_flows": [{"from": "client", "to": "server"}, {"from": "server", "to": "store"}],
}


# --- requests --------------------------------------------------------------------------------------------------------


class Request(t.NamedTuple):
    method: str
    path: str
    body: dict | None = None


class Attempt(t.NamedTuple):
    """`identity`: a ServiceAccount, as (namespace, name). `said`: part of the reason for which `denied` is refused."""

    name: str
    identity: tuple[str, str]
    denied: Request
    said: str
    permitted: Request


def pod(name: str, namespace: str = SERVING, security: dict | None = None, **container: t.Any) -> Request:
    """Creates a pod that the strictest level and every policy of the platform allow, but for what is given."""
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **(security or {})}
    resources = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
    main = {"name": "main", "image": IMAGE, "command": ["sleep", "600"], "securityContext": own, "resources": resources, **container}
    context = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "securityContext": context, "containers": [main]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {**LABELS, "role": name}}, "spec": spec}
    return Request("POST", f"/api/v1/namespaces/{namespace}/pods", body)


def deployment(name: str, labels: dict, image: str = IMAGE) -> Request:
    """Creates a Deployment that asks for no pod: its template is what is judged."""
    template = pod(name, image=image).body
    template = {"metadata": {"labels": {"role": name, **labels}}, "spec": template["spec"]}
    spec = {"replicas": 0, "selector": {"matchLabels": {"role": name}}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    return Request("POST", f"/apis/apps/v1/namespaces/{SERVING}/deployments", body)


def asking(name: str, requests: dict, limits: dict) -> Request:
    return pod(name, resources={"requests": {"memory": "32Mi", **requests}, "limits": {"memory": "64Mi", **limits}})


def gpus(number: int) -> Request:
    return asking(f"gpus-{number}", {"cpu": "10m"}, {"cpu": "100m", "nvidia.com/gpu": str(number)})


def get(namespace: str, kind: str, name: str = "") -> Request:
    return Request("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}".rstrip("/"))


API, RUN, GITOPS = ((SERVING, name) for name in ("api", "runner", "gitops"))
UNLABELLED = deployment("unlabelled", {})
ATTEMPTS = [
    Attempt(
        "a privileged pod in a restricted namespace", RUN, pod("privileged", security={"privileged": True, "allowPrivilegeEscalation": True}), 'violates PodSecurity "restricted',
        pod("plain"),
    ),
    Attempt(
        "a pod over quota", RUN, asking("large", {"cpu": "2"}, {"cpu": "2"}), "exceeded quota: quota, requested: requests.cpu=2",
        asking("small", {"cpu": "20m"}, {"cpu": "100m"}),
    ),
    Attempt("a GPU request over the GPU quota", RUN, gpus(2), "exceeded quota: quota, requested: requests.nvidia.com/gpu=2", gpus(1)),
    Attempt(
        "reading another namespace's Secret", RUN, get(STORAGE, "secrets", "key"), 'cannot get resource "secrets"', get(SERVING, "secrets", "key"),
    ),
    Attempt("deleting a node as the API", API, Request("DELETE", f"/api/v1/nodes/{NODE}"), 'cannot delete resource "nodes"', get(SERVING, "pods")),
    Attempt("a Deployment without required labels", GITOPS, UNLABELLED, "denied-required-labels", deployment("labelled", LABELS)),
    Attempt(
        "an image with latest", GITOPS, deployment("newest", LABELS, IMAGE.partition(":")[0] + ":latest"), "denied-no-latest-tag",
        deployment("pinned", LABELS),
    ),
    Attempt("reading Secrets as the API", API, get(SERVING, "secrets"), 'cannot list resource "secrets"', get(SERVING, "services")),
]  # fmt: skip


@pytest.fixture(name="platform", scope="module", autouse=True)
def denied_platform(api: httpx.Client) -> t.Iterator[None]:
    """The namespaces and policies as the roles make them, a Secret in each, and a node that nobody misses."""
    done = play("site.yml", "--tags", "namespaces,policy", "-e", json.dumps(VARIABLES))
    assert done.code == 0, done.output
    for namespace in (SERVING, STORAGE):
        kubectl("create", "secret", "generic", "key", "-n", namespace, "--from-literal=a=b")
    apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"unschedulable": True}})
    trial = UNLABELLED._replace(path=f"{UNLABELLED.path}?dryRun=All")
    deadline = time.monotonic() + 60
    while send(api, GITOPS, trial).is_success and time.monotonic() < deadline:
        time.sleep(0.5)  # the API server takes new policies up some seconds later
    yield
    kubectl("delete", "node", NODE, "--ignore-not-found")
    kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-l", f"genai.platform/platform={PLATFORM.name}")
    PLATFORM.remove()


def apply(body: dict) -> None:
    command = ["docker", "exec", "-i", CONTROL_PLANE, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "-f", "-"]
    subprocess.run(command, input=json.dumps(body), text=True, check=True, capture_output=True, timeout=60)


@pytest.fixture(name="api", scope="module")
def api_server() -> t.Iterator[httpx.Client]:
    """The API server without any identity."""
    about = yaml.safe_load(KUBECONFIG.read_text(encoding="utf-8"))["clusters"][0]["cluster"]
    trusted = ssl.create_default_context(cadata=base64.b64decode(about["certificate-authority-data"]).decode())
    with httpx.Client(base_url=about["server"], verify=trusted, timeout=30) as client:
        yield client


def send(api: httpx.Client, identity: tuple[str, str], request: Request) -> httpx.Response:
    namespace, name = identity
    token = kubectl("create", "token", name, "-n", namespace, "--duration=10m")
    return api.request(request.method, request.path, json=request.body, headers={"Authorization": f"Bearer {token.strip()}"})


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=[attempt.name for attempt in ATTEMPTS])
def test_denied(attempt, api, figure):
    refused = send(api, attempt.identity, attempt.denied)
    assert refused.status_code in (403, 422) and attempt.said in refused.json()["message"], refused.text  # 422: by a policy
    done = send(api, attempt.identity, attempt.permitted)
    assert done.is_success, done.text
    if attempt.permitted.body:
        path = f"{attempt.permitted.path}/{attempt.permitted.body['metadata']['name']}"
        assert send(api, attempt.identity, Request("DELETE", path)).is_success
    assert kubectl("get", "node", NODE, "-o", "name").strip() == f"node/{NODE}"
    figure(f"denied: {attempt.name} / the permitted twin", f"{refused.status_code} / {done.status_code}")


# --- the network -----------------------------------------------------------------------------------------------------
SERVE = ["python3", "-m", "http.server", "8000"]
PODS = {"client": SERVING, "server": SERVING, "stranger": SERVING, "store": STORAGE}
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"
FLOWS = {(flow["from"], flow["to"]) for flow in VARIABLES["namespaces_flows"]}


@pytest.fixture(name="addresses")
def probe_pods() -> t.Iterator[dict[str, str]]:
    """{pod: address} of pods that listen, one per component and one that is none."""
    for name, namespace in PODS.items():
        body = pod(name, namespace, command=SERVE, readinessProbe={"exec": {"command": ["true"]}}).body
        apply({**body, "metadata": {**body["metadata"], "namespace": namespace}})
    for name, namespace in PODS.items():
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", namespace, "--timeout=45s")
    time.sleep(1)  # Python takes a moment to listen
    yield {name: kubectl("get", "pod", name, "-n", namespace, "-o", "jsonpath={.status.podIP}") for name, namespace in PODS.items()}
    for name, namespace in PODS.items():
        kubectl("delete", "pod", name, "-n", namespace, "--wait=false")


def connects(source: str, address: str) -> bool:
    command = ["exec", source, "-n", PODS[source], "--", "python3", "-c", CONNECT, address, "8000"]
    done = subprocess.run(
        ["docker", "exec", CONTROL_PLANE, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *command],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 or "Error" in done.stderr or "timed out" in done.stderr, done.stderr
    return done.returncode == 0


def test_network_policies_by_probe_pods(addresses, figure):
    """Every pair of pods. Where a connection that must not be comes about, nothing enforces policies, and the test says that it is skipped."""
    assert connects("server", "127.0.0.1"), "the probe itself works"
    if connects("stranger", addresses["store"]):
        figure("NetworkPolicies by probe pods", "skipped: this cluster's network enforces none")
        pytest.skip("this cluster's network enforces no NetworkPolicies: a connection that every policy forbids came about")
    seen = {(one, other) for one in PODS for other in PODS if one != other and connects(one, addresses[other])}
    assert seen == FLOWS
    figure("NetworkPolicies by probe pods: pairs allowed / denied", f"{len(seen)} / {len(PODS) * (len(PODS) - 1) - len(seen)}")
