# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An API server in memory behind the real `Cluster`: its threads, retries and answers are the product's own.

It can be as unkind as a real one: several field managers with conflicts, objects that take their time to go, two API servers whose
clocks differ, immutable ConfigMaps, and a failure at any write. What it does not know (defaults, admission, controllers) is tested on
kind.
"""
from __future__ import annotations

import collections
import concurrent.futures
import copy
import datetime
import email.utils
import itertools
import json
import threading
import urllib.parse

from ansible_collections.genai.platform.plugins.module_utils.cluster.api import Cluster
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Unreachable
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType

TYPES = [
    ResourceType("", "v1", "ConfigMap", "configmaps", True),
    ResourceType("", "v1", "Secret", "secrets", True),
    ResourceType("", "v1", "Service", "services", True),
    ResourceType("", "v1", "Pod", "pods", True),
    ResourceType("", "v1", "ResourceQuota", "resourcequotas", True),
    ResourceType("", "v1", "Namespace", "namespaces", False),
    ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True),
    ResourceType("", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False),
    ResourceType("apps", "v1", "Deployment", "deployments", True),
    ResourceType("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
    ResourceType("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
    ResourceType("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False),
]
CUT = Unreachable("connection reset")
EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


class Answer:
    """What urllib3 hands over."""

    reason = ""

    def __init__(self, status, body, date):
        self.status, self.data = status, json.dumps(body).encode()
        self.headers = {"content-type": "application/json", "date": date}


class Refused(Exception):
    """An answer that is no."""

    def __init__(self, status, message, **body):
        super().__init__(message)
        self.status, self.body = status, {"kind": "Status", "message": message, **body}


class FakeCluster(Cluster):
    """`skews`: seconds by which the clocks of the API servers are off, which answer in turn."""

    def __init__(self, workers=4, skews=(0, 0)):  # pylint: disable=super-init-not-called
        self.server = "https://fake:6443"
        self.requests = collections.Counter()
        self.created, self.fence = set(), None
        self._count, self._cancelled = threading.Lock(), threading.Event()
        self._answered, self._date = True, email.utils.format_datetime(EPOCH, usegmt=True)
        self._executor = concurrent.futures.ThreadPoolExecutor(workers)
        self.objects: dict[Ref, dict] = {}
        self.writes: list[str] = []
        self.fail_at: int | None = None  # index of the write that fails
        self.failure: Exception = ApiError("refused by an admission webhook", 400)
        self.allowed = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        self.hidden: set[str] = set()  # plurals that may not be listed in all namespaces
        self.forbidden: set[str] = set()  # plurals that may not be listed anywhere
        self.served = list(TYPES)
        self.seconds, self.tick = 10, 1  # the clock, and how far each write moves it
        self._skews, self._version, self._uids = itertools.cycle(skews), itertools.count(1), itertools.count(1)
        self._storing = threading.RLock()

    def types(self):
        return {(rtype.api_version, rtype.kind): rtype for rtype in self.served}

    def rules(self, namespace):
        return self.allowed

    def may(self, *need):
        return False

    def _stopped(self, seconds):
        return True  # nothing is tried again

    def watch(self, path, selector, seconds):
        """What is there, and then the server ends the watch, as it may."""
        rtype, namespace, _name = _parsed(path, self.served)
        for obj in self.items(rtype, selector, namespace):
            yield {"type": "ADDED", "object": obj}

    # --- what only a test does ---------------------------------------------------------------------------------------

    def contents(self, ledger="genai-ledger"):
        """{object: what it says}, the ledger and the server's own fields aside."""
        return {
            str(ref): {k: v for k, v in copy.deepcopy(o).items() if k != "metadata"} | {"labels": dict(o["metadata"].get("labels", {}))}
            for ref, o in self.objects.items() if ledger not in (ref.namespace, ref.name)
        }

    def edit(self, ref, changes, manager="kubectl-patch", subresource=""):
        """Somebody else's merge patch."""
        with self._storing:
            self._now = EPOCH + datetime.timedelta(seconds=self.seconds)
            self._update(ref, changes, manager, subresource)

    def make(self, body, manager="kubectl-create"):
        """Somebody else's object."""
        ref = Ref.of(body)
        with self._storing:
            self._now = EPOCH + datetime.timedelta(seconds=self.seconds)
            self.objects[ref] = self._born(ref, {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {}})
            self._update(ref, body, manager, "")

    def let_go(self, *refs):
        """Finalizers are done: what was being deleted is gone."""
        with self._storing:
            for ref in refs:
                if self.objects[ref]["metadata"].get("deletionTimestamp"):
                    self.objects[ref]["metadata"].pop("finalizers", None)
                    self._drop(ref)

    # --- the server --------------------------------------------------------------------------------------------------

    def _send(self, method, path, query, body, content_type, accept):
        with self._count:
            self.requests[method] += 1
        with self._storing:
            skew = next(self._skews)
            self._now = EPOCH + datetime.timedelta(seconds=self.seconds + skew)
            date = email.utils.format_datetime(self._now, usegmt=True)
            try:
                status, found = self._serve(method, path, query or {}, copy.deepcopy(body), content_type, accept)
            except Refused as exc:
                status, found = exc.status, exc.body
            self._date = date
            return Answer(status, found, date)

    def _serve(self, method, path, query, body, content_type, accept):
        rtype, namespace, name = _parsed(path, self.served)
        ref = Ref(rtype.group, rtype.kind, namespace, name)
        dry_run = "dryRun" in query
        if method == "GET" and not name:
            return 200, {"items": self._listed(rtype, namespace, query, accept), "metadata": {}}
        if method == "GET":
            return (200, self._shown(ref, rtype)) if ref in self.objects else _absent(ref)
        if method == "DELETE":
            return self._delete(ref, body)
        if method == "POST":
            ref = Ref(rtype.group, rtype.kind, namespace, body["metadata"]["name"])
            if ref in self.objects:
                raise Refused(409, "already exists", reason="AlreadyExists")
        if method == "PATCH" and "apply-patch" not in content_type:
            return self._merge(ref, body, query, content_type)
        return self._apply(ref, body, query, dry_run, "Apply" if method == "PATCH" else "Update")

    def _listed(self, rtype, namespace, query, accept):
        if rtype.plural in self.forbidden or (not namespace and rtype.plural in self.hidden):
            raise Refused(403, f"{rtype.plural} is forbidden")
        found = [
            self._shown(ref, rtype) for ref, o in sorted(self.objects.items())
            if (ref.group, ref.kind) == (rtype.group, rtype.kind) and namespace in ("", ref.namespace)
            and _matches(o["metadata"].get("labels", {}), query.get("labelSelector", ""))
        ]
        return [{"metadata": o["metadata"]} for o in found] if "PartialObjectMetadata" in accept else found

    def _shown(self, ref, rtype):
        return {**copy.deepcopy(self.objects[ref]), "apiVersion": rtype.api_version}

    def _apply(self, ref, body, query, dry_run, operation):
        if not dry_run:
            self._write(f"apply {ref}")
        if ref.namespace and Ref("", "Namespace", "", ref.namespace) not in self.objects:
            raise Refused(404, f'namespaces "{ref.namespace}" not found')
        if self._leaving(ref.namespace) and ref not in self.objects:
            raise Refused(403, f"unable to create new content in namespace {ref.namespace} because it is being terminated")
        kept = copy.deepcopy(self.objects)
        status = 200 if ref in self.objects else 201
        if status == 201:
            self.objects[ref] = self._born(ref, {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {}})
        try:
            self._own(ref, body, query.get("fieldManager", "?"), operation, query.get("force") == "true")
            found = {**copy.deepcopy(self.objects[ref]), "apiVersion": body["apiVersion"]}
        except Refused:
            self.objects = kept
            raise
        if dry_run:
            self.objects = kept
        return status, found

    def _own(self, ref, body, manager, operation, force):
        """One manager's apply: takes what it names, gives up what it named before, and meets the others' fields."""
        obj, version = self.objects[ref], body["apiVersion"]
        before = json.dumps(obj, sort_keys=True)
        mine = {path: value for path, value in _leaves(body) if path not in IDENTITY}
        entries = obj["metadata"].setdefault("managedFields", [])
        own = next((e for e in entries if (e["manager"], e["operation"]) == (manager, operation)), None)
        others = {path: e for e in entries if e is not own for path, _v in _leaves(e["fieldsV1"])}
        fought = [path for path, value in mine.items() if _f(path) in others and _at(obj, path) != value]
        if fought and not force:
            causes = [{"reason": "FieldManagerConflict", "field": ".".join(path), "message": f"conflict with {others[_f(path)]['manager']}"} for path in fought]
            raise Refused(409, "Apply failed with conflicts", reason="Conflict", details={"causes": causes})
        self._refuse_immutable(obj, mine)
        for path in fought:
            _cut(others[_f(path)]["fieldsV1"], _f(path))
        for path, _value in _leaves(own["fieldsV1"]) if own else ():
            if tuple(step[2:] for step in path) not in mine and path not in others:
                _cut(obj, tuple(step[2:] for step in path))
        for path, value in mine.items():
            _put(obj, path, value)
        fields: dict = {}
        for path in mine:
            _put(fields, _f(path), {})
        entries[:] = [e for e in entries if e is not own and e["fieldsV1"]]
        entry = {"manager": manager, "operation": operation, "apiVersion": version, "fieldsV1": fields}
        changed = own is None or own["fieldsV1"] != fields or json.dumps({**obj, "metadata": {}}) != json.dumps({**json.loads(before), "metadata": {}})
        entries.append({**entry, "time": self._stamp() if changed else own["time"]})
        if json.dumps(obj, sort_keys=True) != before:
            obj["metadata"]["resourceVersion"] = str(next(self._version))
        self._count_specs(obj, json.loads(before).get("spec"))

    def _refuse_immutable(self, obj, mine):
        if obj.get("immutable") is True:
            was = dict(_leaves({key: obj[key] for key in ("data", "immutable") if key in obj}))
            if {path: value for path, value in mine.items() if path[0] in ("data", "immutable")} != was:
                raise Refused(422, "field is immutable when `immutable` is set", reason="Invalid")

    def _merge(self, ref, body, query, content_type):
        if "json-patch" in content_type:
            raise Refused(422, "not known here")
        if ref not in self.objects:
            return _absent(ref)
        meta = self.objects[ref]["metadata"]
        asked = body.get("metadata", {})
        if any(meta.get(field) != asked[field] for field in ("uid", "resourceVersion") if field in asked):
            raise Refused(409, "the object has been modified; please apply your changes to the latest version", reason="Conflict")
        self._update(ref, body, query.get("fieldManager", "?"), "")
        return 200, copy.deepcopy(self.objects[ref])

    def _update(self, ref, changes, manager, subresource):
        obj = self.objects[ref]
        spec = copy.deepcopy(obj.get("spec"))
        entries = obj["metadata"].setdefault("managedFields", [])
        own = next((e for e in entries if (e["manager"], e["operation"], e.get("subresource", "")) == (manager, "Update", subresource)), None)
        if own is None:
            own = {"manager": manager, "operation": "Update", "apiVersion": obj["apiVersion"], "fieldsV1": {}}
            own.update({"subresource": subresource} if subresource else {})
            entries.append(own)
        for path, value in _leaves(changes):
            if path in IDENTITY or path[:2] in (("metadata", "uid"), ("metadata", "resourceVersion")) or _at(obj, path) == value:
                continue
            for entry in entries:
                _cut(entry["fieldsV1"], _f(path))
            if value is None:
                _cut(obj, path)
            else:
                _put(obj, path, value)
                _put(own["fieldsV1"], _f(path), {})
            own["time"] = self._stamp()
        entries[:] = [e for e in entries if e["fieldsV1"]]
        obj["metadata"]["resourceVersion"] = str(next(self._version))
        self._count_specs(obj, spec)

    def _count_specs(self, obj, before):
        if obj.get("spec") != before:
            obj["metadata"]["generation"] = obj["metadata"].get("generation", 0) + 1

    def _delete(self, ref, options):
        self._write(f"delete {ref}")
        if ref not in self.objects:
            return _absent(ref)
        meta = self.objects[ref]["metadata"]
        wanted = ((options or {}).get("preconditions") or {}).get("uid")
        if wanted and wanted != meta["uid"]:
            raise Refused(409, "the UID in the precondition does not match", reason="Conflict")
        meta.setdefault("deletionTimestamp", self._stamp())
        for inside in [r for r in self.objects if ref.kind == "Namespace" and r.namespace == ref.name]:
            self.objects[inside]["metadata"].setdefault("deletionTimestamp", self._stamp())
            self._drop(inside)
        self._drop(ref)
        return 200, {}

    def _drop(self, ref):
        """Removes an object that is being deleted, unless a finalizer, or something in a namespace, holds it."""
        if ref not in self.objects:
            return  # its namespace has taken it along
        held = self.objects[ref]["metadata"].get("finalizers") or (ref.kind == "Namespace" and any(r.namespace == ref.name for r in self.objects))
        if not held:
            del self.objects[ref]
            space = Ref("", "Namespace", "", ref.namespace)
            if ref.namespace and self._leaving(ref.namespace):
                self._drop(space)

    def _leaving(self, namespace):
        return bool(self.objects.get(Ref("", "Namespace", "", namespace), {"metadata": {}})["metadata"].get("deletionTimestamp"))

    def _born(self, ref, obj):
        obj["metadata"] |= {"name": ref.name, **({"namespace": ref.namespace} if ref.namespace else {}), "uid": f"{ref}#{next(self._uids)}"}
        obj["metadata"] |= {"creationTimestamp": self._stamp(), "resourceVersion": str(next(self._version))}
        return obj

    def _stamp(self):
        now = getattr(self, "_now", EPOCH + datetime.timedelta(seconds=self.seconds))
        return now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _write(self, what):
        self.seconds += self.tick
        if self.fail_at is not None and len(self.writes) == self.fail_at:
            self.fail_at = None
            raise self.failure
        self.writes.append(what)


IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}


def _parsed(path, served):
    parts = path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    name = urllib.parse.unquote(rest[1]) if len(rest) > 1 else ""
    rtype = next((t for t in served if (t.group, t.version, t.plural) == (group, version, rest[0])), None)
    if rtype is None:
        raise Refused(404, f"no {path} here")
    return rtype, namespace, name


def _absent(ref):
    raise Refused(404, f'{ref.kind} "{ref.name}" not found', reason="NotFound")


def _matches(labels, selector):
    for term in filter(None, selector.replace("(state,journal)", "state|journal").split(",")):
        unlike = "!=" in term
        key, _sep, values = term.replace("!=", "=").replace(" in ", "=").partition("=")
        if (values and labels.get(key) not in values.split("|")) is not unlike and values:
            return False
        if not values and key not in labels:
            return False
    return True


def _leaves(value, path=()):
    """(path, value) of everything that is no mapping, and of empty mappings."""
    if isinstance(value, dict) and (value or not path):
        for key, sub in value.items():
            yield from _leaves(sub, (*path, key))
    else:
        yield path, value


def _f(path):
    return tuple(f"f:{step}" for step in path)


def _at(obj, path):
    for step in path:
        if not isinstance(obj, dict) or step not in obj:
            return None
        obj = obj[step]
    return obj


def _put(obj, path, value):
    for step in path[:-1]:
        if not isinstance(obj.get(step), dict):
            obj[step] = {}
        obj = obj[step]
    obj[path[-1]] = value


def _cut(obj, path):
    """Takes a field out, and the mappings that it leaves empty."""
    if not isinstance(obj, dict) or path[0] not in obj:
        return
    if len(path) > 1:
        _cut(obj[path[0]], path[1:])
    if len(path) == 1 or obj[path[0]] == {}:
        del obj[path[0]]
