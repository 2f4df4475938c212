# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes in memory, and as much of an API server as patches of their labels, annotations and taints need."""
from __future__ import annotations

import collections
import copy

from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError
from fake import FakeCluster

CAPACITY = {"nvidia": {"nvidia.com/gpu": "8"}, "amd": {"amd.com/gpu": "8"}, "": {}}


def node(name, labels=None, taints=(), vendor="nvidia", manager="kubelet", **status):
    """As its kubelet has registered it: the labels are `manager`'s."""
    capacity = {"cpu": "64", **CAPACITY[vendor]}
    found = {
        "metadata": {"name": name, "resourceVersion": "1", "labels": {}, "annotations": {}, "managedFields": []},
        "spec": {"taints": list(taints)},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [{"type": "Ready", "status": "True"}], **status},
    }
    return patched(found, {"metadata": {"labels": labels or {}}}, manager)


def patched(live, patch, manager):
    """A merge patch: a label belongs to whoever changed it last, and to nobody when it is gone."""
    new = copy.deepcopy(live)
    meta, asked = new["metadata"], patch.get("metadata", {})
    for key, value in asked.get("labels", {}).items():
        if meta["labels"].get(key) != value:
            _disown(meta["managedFields"], key)
            if value is None:
                meta["labels"].pop(key, None)
            else:
                meta["labels"][key] = value
                own(new, key, manager)
    for key, value in (asked.get("annotations") or {}).items():
        meta["annotations"][key] = value
    meta["annotations"] = {key: value for key, value in meta["annotations"].items() if value is not None}
    new["spec"] = {**new["spec"], **copy.deepcopy(patch.get("spec", {}))}
    meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
    return new


def own(live, key, manager):
    entries = live["metadata"]["managedFields"]
    entry = next((entry for entry in entries if entry["manager"] == manager), None)
    if entry is None:
        entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}}
        entries.append(entry)
    entry["fieldsV1"]["f:metadata"]["f:labels"][f"f:{key}"] = {}


def _disown(entries, key):
    for entry in entries:
        entry["fieldsV1"]["f:metadata"]["f:labels"].pop(f"f:{key}", None)


class FakeNodes:
    """`before_patch`: called with the name of a node that is about to be patched, to get in its way."""

    def __init__(self, *nodes):
        self.nodes = {each["metadata"]["name"]: each for each in nodes}
        self.requests = collections.Counter()
        self.before_patch = lambda name: None
        self.allowed = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]

    def rules(self, namespace):
        self.requests["POST"] += 1
        return self.allowed

    def may(self, *need):
        return False

    def items(self, rtype):
        self.requests["GET"] += 1
        return copy.deepcopy(list(self.nodes.values()))

    list = items

    def get(self, rtype, namespace, name):
        self.requests["GET"] += 1
        return copy.deepcopy(self.nodes.get(name))

    def patch(self, rtype, namespace, name, body, manager):
        self.requests["PATCH"] += 1
        self.before_patch(name)
        if name not in self.nodes:
            raise ApiError(f'nodes "{name}" not found', 404)
        if body["metadata"]["resourceVersion"] != self.nodes[name]["metadata"]["resourceVersion"]:
            raise ApiError("the object has been modified; please apply your changes to the latest version", 409)
        self.nodes[name] = patched(self.nodes[name], body, manager)

    def by_hand(self, name, manager="kubectl-label", **labels):
        self.nodes[name] = patched(self.nodes[name], {"metadata": {"labels": labels}}, manager)

    def each(self, function, items):
        return [function(item) for item in items]


class FakePlatform(FakeCluster):
    """Nodes and a ledger in one cluster, which answers one request at a time however many threads ask."""

    def __init__(self, *nodes):
        super().__init__()
        self.fleet = FakeNodes(*nodes)

    def items(self, rtype, *args, **options):
        with self._storing:
            return self.fleet.items(rtype) if rtype.kind == "Node" else list(super().items(rtype, *args, **options))

    def get(self, rtype, namespace, name):
        with self._storing:
            return self.fleet.get(rtype, namespace, name) if rtype.kind == "Node" else super().get(rtype, namespace, name)

    def patch(self, rtype, namespace, name, body, manager=""):
        if rtype.kind == "Node":
            self.before_patch(name)  # outside: it may wait for another thread's requests
        with self._storing:
            return self.fleet.patch(rtype, namespace, name, body, manager) if rtype.kind == "Node" else super().patch(rtype, namespace, name, body)

    def before_patch(self, name):
        pass
