# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster in memory for tests of the order of work. It knows just enough of server-side apply for one manager; what a
real API server does with our requests is tested on kind."""
from __future__ import annotations

import collections
import copy
import itertools

from ansible_collections.genai.platform.plugins.module_utils._types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils._errors import ApiError, Unreachable
from ansible_collections.genai.platform.plugins.module_utils._fields import MANAGER
from ansible_collections.genai.platform.plugins.module_utils._manifest import Ref

TYPES = [
    ResourceType("", "v1", "ConfigMap", "configmaps", True),
    ResourceType("", "v1", "Secret", "secrets", True),
    ResourceType("", "v1", "Service", "services", True),
    ResourceType("", "v1", "Namespace", "namespaces", False),
    ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True),
    ResourceType("", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False),
]


def granular(value):
    """FieldsV1 of a manager that owns every field of `value`."""
    return {f"f:{key}": granular(sub) for key, sub in value.items()} if isinstance(value, dict) else {}


class FakeCluster:
    server = "https://fake:6443"

    def __init__(self):
        self.objects: dict[Ref, dict] = {}
        self.requests = collections.Counter()
        self.writes: list[str] = []
        self.fail_at: int | None = None  # index of the write that fails
        self.failure: Exception = ApiError("refused by an admission webhook", 400)
        self.allowed = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        self._version = itertools.count(1)
        self._now = itertools.count(10)

    @property
    def server_time(self):
        return f"2026-01-01T00:00:{next(self._now):02d}Z"

    def types(self):
        return {(rtype.api_version, rtype.kind): rtype for rtype in TYPES}

    def each(self, function, items):
        return [function(item) for item in items]

    def list(self, rtype, selector="", namespace=""):
        return [
            copy.deepcopy(o) for ref, o in self.objects.items()
            if ref.kind == rtype.kind and namespace in ("", ref.namespace) and _matches(o["metadata"].get("labels", {}), selector)
        ]

    def get(self, rtype, namespace, name):
        return copy.deepcopy(self.objects.get(Ref(rtype.group, rtype.kind, namespace, name)))

    def apply(self, rtype, body, force=False, dry_run=False):
        ref = Ref.of(body)
        if not dry_run:
            self._write(f"apply {ref}")
        if ref.namespace and Ref("", "Namespace", "", ref.namespace) not in self.objects:
            raise ApiError(f'namespaces "{ref.namespace}" not found', 404)
        old = self.objects.get(ref, {})
        new = copy.deepcopy(body)
        owned = {f"f:{k}": granular(v) for k, v in body.items() if k not in ("apiVersion", "kind", "metadata")}
        labels = body["metadata"].get("labels")
        owned |= {"f:metadata": {"f:labels": granular(labels)}} if labels else {}
        new["metadata"] |= {
            "uid": old.get("metadata", {}).get("uid") or str(ref),
            "creationTimestamp": old.get("metadata", {}).get("creationTimestamp") or self.server_time,
            "resourceVersion": str(next(self._version)),
            "managedFields": [{"manager": MANAGER, "operation": "Apply", "fieldsV1": owned}],
        }
        if not dry_run:
            self.objects[ref] = new
        return copy.deepcopy(new)

    def patch(self, rtype, namespace, name, body):
        """Merge patch of annotations: all that the lock needs."""
        ref, asked = Ref(rtype.group, rtype.kind, namespace, name), body["metadata"]
        meta = self.objects[ref]["metadata"] if ref in self.objects else {}
        if any(meta.get(field) != asked[field] for field in ("uid", "resourceVersion") if field in asked):
            raise ApiError("not there, or another", 409)
        meta.setdefault("annotations", {}).update(asked["annotations"])
        meta["resourceVersion"] = str(next(self._version))
        return copy.deepcopy(self.objects[ref])

    def create(self, rtype, body):
        if Ref.of(body) in self.objects:
            raise ApiError("already exists", 409, {"reason": "AlreadyExists"})
        return self.apply(rtype, body)

    def delete(self, rtype, namespace, name, uid=None):
        ref = Ref(rtype.group, rtype.kind, namespace, name)
        self._write(f"delete {ref}")
        if rtype.kind == "Namespace":
            self.objects = {r: o for r, o in self.objects.items() if r.namespace != name}
        return self.objects.pop(ref, None) is not None

    def rules(self, namespace):
        return self.allowed

    def may(self, *need):
        return False

    def gone(self, objects, seconds=0):
        return []

    def _write(self, what):
        if self.fail_at is not None and len(self.writes) == self.fail_at:
            self.fail_at = None
            raise self.failure
        self.writes.append(what)

    def contents(self, ledger="genai-ledger"):
        """{object: what it says}, the ledger and the server's own fields aside."""
        return {
            str(ref): {k: v for k, v in o.items() if k != "metadata"} | {"labels": o["metadata"].get("labels", {})}
            for ref, o in self.objects.items() if ledger not in (ref.namespace, ref.name)
        }


def _matches(labels, selector):
    for term in selector.replace("(state,journal)", "state|journal").split(","):
        key, _sep, values = term.replace(" in ", "=").partition("=")
        if term and labels.get(key) not in values.split("|"):
            return False
    return True


CUT = Unreachable("connection reset")
