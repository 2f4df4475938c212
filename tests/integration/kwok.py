# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet of nodes that are nowhere, kept alive on the real cluster by kwok, which runs beside it on this machine.

What the real cluster would do with real nodes is kept off them. Their taint repels pods, and without the label
`kubernetes.io/os` no DaemonSet wants them. They come as the cluster's controllers would make them (ready, with a pod network,
without the taint of new nodes, with the annotation for a fleet of their size): those write no more than 20 nodes a second.
"""
from __future__ import annotations

import concurrent.futures
import json
import pathlib
import subprocess
import tempfile
import time
import typing as t

import cluster
from live import Api

PROGRAM = cluster.CACHE / "bin" / "kwok"
ANNOTATION = {"kwok.x-k8s.io/node": "fake"}
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
LABEL = {"genai.platform/fleet": "kwok"}
SELECTOR = "genai.platform/fleet=kwok"
NODES, LEASES = "/api/v1/nodes", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
LEASE_SECONDS = 800  # renewed four times as often, and so within the 5 min after which a node counts as lost (node-monitor-grace-period)
WORKERS = 24
SETTLE_SECONDS = 180
GPUS = "8"
NOWHERE = "10.99.0.0/24"  # the cluster has but 256 networks to give
NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"


# All that kwok does to a node; its lease it keeps without being told.
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kwok says so"}
STAGE = {
    "apiVersion": "kwok.x-k8s.io/v1alpha1",
    "kind": "Stage",
    "metadata": {"name": "node-ready"},
    "spec": {
        "resourceRef": {"apiGroup": "v1", "kind": "Node"},
        "selector": {"matchExpressions": [{"key": '.status.conditions.[] | select( .type == "Ready" ) | .status', "operator": "NotIn", "values": ["True"]}]},
        "next": {"statusTemplate": json.dumps({"conditions": [READY]})},
    },
}


class Product(t.NamedTuple):
    """A kind of node, and how many of every ten."""

    name: str
    resource: str
    of_ten: int
    labels: dict[str, str]

    @property
    def capacity(self) -> dict[str, str]:
        return {self.resource: GPUS} if self.resource else {}


def _nvidia(name: str, product: str, of_ten: int) -> Product:
    labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": product, "feature.node.kubernetes.io/pci-10de.present": "true"}
    return Product(name, NVIDIA, of_ten, labels)


def _amd(name: str, product: str, of_ten: int) -> Product:
    return Product(name, AMD, of_ten, {"amd.com/gpu.product-name": product, "feature.node.kubernetes.io/amd-gpu": "true"})


# Of 1,000 nodes: 600 of NVIDIA in three products, 300 of AMD in two, 100 without a GPU.
PRODUCTS = (
    _nvidia("a100", "NVIDIA-A100-SXM4-80GB", 3), _nvidia("h100", "NVIDIA-H100-80GB-HBM3", 2), _nvidia("l4", "NVIDIA-L4", 1),
    _amd("mi300x", "AMD_Instinct_MI300X_OAM", 2), _amd("mi355x", "AMD_Instinct_MI355X_OAM", 1),
    Product("plain", "", 1, {}),
)


def pools() -> list[dict]:
    """One for each product: a label or two, and a taint on those that may be taken away."""
    return [
        {
            "name": product.name,
            "vendor": product.resource.partition(".")[0],
            "match": {"products": [next(value for key, value in product.labels.items() if "product" in key)], "labels": LABEL},
            "labels": {"gpu-type": product.name, "workload-type": "inference"},
            "taints": [{"key": "spot", "value": "true", "effect": "PreferNoSchedule"}] if product.name == "l4" else [],
            "spot": product.name == "l4",
        }
        for product in PRODUCTS if product.resource
    ]


def node(name: str, product: Product, fleet_size: int = 1000) -> dict:
    ttl = {"node.alpha.kubernetes.io/ttl": "60" if fleet_size < 2000 else "300"}  # how long a kubelet may keep Secrets
    meta = {"name": name, "annotations": {**ANNOTATION, **ttl}, "labels": {**LABEL, **product.labels}}
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", **product.capacity}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": [TAINT], "podCIDR": NOWHERE, "podCIDRs": [NOWHERE]},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [READY]},
    }


class Fleet:
    """Nodes on the cluster, with kwok running, until `close`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._executor = concurrent.futures.ThreadPoolExecutor(WORKERS)
        self._folder = tempfile.TemporaryDirectory(prefix="kwok-")
        self._log, config = (pathlib.Path(self._folder.name, name) for name in ("log", "config.yaml"))
        config.write_text(json.dumps(STAGE), encoding="utf-8")
        selector = ",".join(f"{key}={value}" for key, value in ANNOTATION.items())
        command = [str(PROGRAM), f"--config={config}", f"--kubeconfig={cluster.KUBECONFIG}", f"--manage-nodes-with-annotation-selector={selector}"]
        with self._log.open("w", encoding="utf-8") as log:
            self._kwok = subprocess.Popen([*command, f"--node-lease-duration-seconds={LEASE_SECONDS}"], stdout=log, stderr=log)

    def make(self, nodes: t.Iterable[dict]) -> None:
        """Creates nodes, and waits until the cluster's controllers have done what they do to new ones."""
        list(self._executor.map(self._make_one, nodes))
        self.settle()

    def _make_one(self, body: dict) -> None:
        self._api.need("POST", NODES, body)
        # The API server has added the taint of a node that is not ready, whatever its status says.
        path = f"{NODES}/{body['metadata']['name']}"
        self._api.request("PATCH", path, {"spec": {"taints": [TAINT]}}, "application/merge-patch+json")

    def settle(self) -> None:
        """Waits until all nodes are ready, and nobody writes to them any more."""
        end, before, found = time.monotonic() + SETTLE_SECONDS, None, self.list()
        while before != _versions(found) or _waiting(found):
            assert self._kwok.poll() is None, self._log.read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < end, f"nodes that are not ready: {_waiting(found)[:5]}"
            time.sleep(1)
            before, found = _versions(found), self.list()

    def make_many(self, count: int) -> None:
        """`count` of all products in their proportions, named `fleet-<product>-<number>`."""
        self.make(node(f"fleet-{p.name}-{number}", p, count) for p in PRODUCTS for number in range(count * p.of_ten // 10))

    def list(self) -> list[dict]:
        return self._api.need("GET", NODES, labelSelector=SELECTOR)["items"]

    def delete(self, names: t.Iterable[str]) -> None:
        list(self._executor.map(lambda name: self._api.request("DELETE", f"{NODES}/{name}"), names))

    def clear(self) -> None:
        """Removes all nodes, and their leases: the next fleet has the same names, and would look as old as the last one."""
        names = [each["metadata"]["name"] for each in self.list()]
        self.delete(names)
        list(self._executor.map(lambda name: self._api.request("DELETE", f"{LEASES}/{name}"), names))

    def close(self) -> None:
        self.clear()
        self._kwok.terminate()
        self._kwok.wait()
        self._executor.shutdown()
        self._folder.cleanup()


def _versions(found: list[dict]) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in found}


def _waiting(found: list[dict]) -> list[str]:
    """Names of the nodes that are not ready, or still have a taint that says so."""
    return [
        each["metadata"]["name"] for each in found
        if any(taint["key"].startswith("node.kubernetes.io/") for taint in each["spec"].get("taints", []))
        or not any(c["type"] == "Ready" and c["status"] == "True" for c in each["status"].get("conditions", []))
    ]
