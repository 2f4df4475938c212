# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure functions from the bundle `{component: [manifests]}` to checked, labelled objects. No API, no clock."""
from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import graphlib
import math
import re
import typing as t

from ._errors import InvalidInput
from ._fields import fingerprint, spec_of
from ._request import ANNOTATION_REQUEST, request_of

LABEL_PLATFORM = "genai.platform/platform"
LABEL_COMPONENT = "genai.platform/component"
# Set by the `manifests` lookup so that an error can name the template; never sent to the cluster.
ANNOTATION_SOURCE = "genai.platform/source"
ANNOTATION_WAVE = "genai.platform/wave"
# On any object of a component, with a text: what this revision does that going back does not undo.
ANNOTATION_ONE_WAY = "genai.platform/one-way"
# On any object, a text per line: what whoever described it knows to be wrong, for the check that says everything that is wrong.
ANNOTATION_FINDING = "genai.platform/finding"
# Real API servers refuse more; the margin is for what we add ourselves.
MAX_OBJECT_BYTES = 1_500_000

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.:]*[a-z0-9])?\Z", re.IGNORECASE)
_RBAC = "rbac.authorization.k8s.io"
_SEGMENT = re.compile(r"^(?!\.{1,2}\Z)[^/%]+\Z")  # all that the API server asks of a name in RBAC
# Texts, or maps and lists of them, at any depth of a workload: where YAML makes something else of `yes` and 22:30, it is not what was meant.
_TEXTS = ("labels", "annotations", "matchLabels", "nodeSelector", "command", "args", "value")
_COUNTS = ("replicas", "minReplicas", "maxReplicas", "minReadySeconds", "revisionHistoryLimit", "backoffLimit")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SERVERS_OWN = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")
_COMPONENT = re.compile(r"^[a-z][a-z0-9_]{0,40}\Z")

WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_WORKLOADS = 3
WAVES: dict[str, int] = {
    **dict.fromkeys(("CustomResourceDefinition", "Namespace", "PriorityClass", "StorageClass"), 0),
    **dict.fromkeys(
        (
            "ServiceAccount", "Role", "ClusterRole", "ConfigMap", "Secret",
            "PersistentVolume", "PersistentVolumeClaim", "ResourceQuota", "LimitRange", "NetworkPolicy",
            "PodDisruptionBudget", "SecurityContextConstraints",
            # Before the workloads: what a rule forbids shall fail the release that brings both.
            "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ConstraintTemplate",
        ),
        1,
    ),
    # Who may not do everything can bind only to a role that is there: what it grants is looked up.
    **dict.fromkeys(("RoleBinding", "ClusterRoleBinding", "Service"), 2),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"), _WORKLOADS),
    # After who serves them, and before what they judge and complete.
    **dict.fromkeys(WEBHOOKS, _WORKLOADS + 1),
}
LAST_WAVE = 5  # HorizontalPodAutoscaler, Ingress, Route and every custom resource


def is_builtin(group: str, kind: str) -> bool:
    """Whether a kind is Kubernetes' own, by its API group: those of others have a domain of theirs. Or Gatekeeper's that brings others."""
    return "." not in group or group.endswith(".k8s.io") or (group, kind) == ("templates.gatekeeper.sh", "ConstraintTemplate")


def own_kind(body: dict) -> str:
    """As `Ref.builtin`, of a manifest."""
    return body["kind"] if is_builtin(str(body.get("apiVersion", "")).rpartition("/")[0], body["kind"]) else ""


class Ref(t.NamedTuple):
    """Who an object is, whatever version of its API group wrote it."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"

    @property
    def builtin(self) -> str:
        """The kind where it is one of Kubernetes' own; '' for another's of that name, such as the Job of a batch system."""
        return self.kind if is_builtin(self.group, self.kind) else ""

    @classmethod
    def of(cls, obj: dict) -> Ref:
        version = obj["apiVersion"]
        meta = obj["metadata"]
        return cls(version.rpartition("/")[0], obj["kind"], meta.get("namespace") or "", meta["name"])


@dataclasses.dataclass(frozen=True)
class Desired:
    """One object as it shall be. `source` is the template it came from, for errors.

    `body` is what we decide by, `sent` what is written: the same with its nulls, of which the API server makes something of its own (an
    empty text in a map of texts, none instead of a default in a nullable field).
    """

    component: str
    ref: Ref
    body: dict
    sent: dict
    wave: int
    source: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.sent)

    @property
    def where(self) -> str:
        """`component (template): Kind namespace/name`, the beginning of an error about it."""
        return f"{self.component}{f' ({self.source})' if self.source else ''}: {self.ref}"


def prepare(bundle: dict[str, list[dict]], platform: str) -> dict[Ref, Desired]:
    """Checks the whole bundle and labels it. Raises one InvalidInput that lists everything wrong with it."""
    errors: list[str] = []
    objects: dict[Ref, Desired] = {}
    if not isinstance(bundle, dict):
        raise InvalidInput(f"bundle: expected a dictionary of component: [manifests], got {type(bundle).__name__}")
    for component, manifests in bundle.items():
        if not _COMPONENT.match(str(component)):
            errors.append(f"component {component!r}: use a role name: lower-case letters, digits and _, at most 41")
            continue
        for index, manifest in enumerate(_flatten(manifests)):
            where = f"{component}, manifest {index + 1}{_source_suffix(manifest)}"
            problem = _malformed(manifest)
            if problem:
                errors.append(f"{where}: {problem}")
                continue
            desired = _desired(component, manifest, platform)
            errors.extend(f"{where}: {desired.ref}: {text}" for text in _implausible(desired.body))
            if desired.ref in objects:
                first = objects[desired.ref]
                errors.append(f"{where}: {desired.ref} is in the bundle twice, first in {first.where.rpartition(': ')[0]}")
            objects[desired.ref] = desired
    for cycle in cycles(objects):
        circle = " owned by ".join(str(ref) for ref in (*cycle, cycle[0]))
        errors.append(f"{objects[cycle[0]].where}: metadata.ownerReferences go round in a circle: {circle}; take one of them out")
    if errors:
        raise InvalidInput("the manifests are not valid, nothing was written:\n- " + "\n- ".join(errors), errors=errors)
    leave_replicas(objects, hpa_targets(item.body for item in objects.values()))
    return objects


def _flatten(manifests: t.Any) -> t.Iterator[t.Any]:
    """The manifests themselves: a document that holds nothing is none, and a list, of one kind or of many, is its items."""
    for manifest in manifests if isinstance(manifests, list) else [manifests]:
        if _is_list(manifest):
            yield from (_typed(item, manifest) for item in manifest["items"])
        elif manifest is not None:
            yield manifest


def _is_list(manifest: t.Any) -> bool:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("items"), list) or not isinstance(manifest.get("kind"), str):
        return False
    meta = manifest.get("metadata")
    return manifest["kind"].endswith("List") and not (isinstance(meta, dict) and meta.get("name"))


def _typed(item: t.Any, listed: dict) -> t.Any:
    """An item of a list of one kind, which leaves apiVersion and kind out."""
    kind = listed["kind"][: -len("List")]
    return {"apiVersion": listed.get("apiVersion"), "kind": kind, **item} if kind and isinstance(item, dict) else item


def _source_suffix(manifest: t.Any) -> str:
    source = _source(manifest)
    return f" ({source})" if source else ""


def _source(manifest: t.Any) -> str:
    try:
        return str(manifest["metadata"]["annotations"][ANNOTATION_SOURCE])
    except (KeyError, TypeError):
        return ""


def _malformed(manifest: t.Any) -> str:
    """What keeps this from being a Kubernetes object at all; '' when nothing does."""
    if not isinstance(manifest, dict):
        return f"a manifest is a mapping, this is {type(manifest).__name__}"
    for field in ("apiVersion", "kind"):
        if not isinstance(manifest.get(field), str) or not manifest[field]:
            return f"{field} is missing; give it a non-empty string"
    meta = manifest.get("metadata")
    if not isinstance(meta, dict) or not meta.get("name"):
        return f"{manifest['kind']} without metadata.name; give it a name"
    for field in ("name", "namespace"):
        value = meta.get(field)
        free = field == "name" and (manifest["apiVersion"].startswith(f"{_RBAC}/") or own_kind(manifest) == "IPAddress")
        if value is not None and not (isinstance(value, str) and (_SEGMENT.match(value) if free else _NAME.match(value) and len(value) <= 253)):
            return f"{manifest['kind']}: metadata.{field} {value!r} is not a valid Kubernetes name"
    hide = manifest["kind"] == "Secret"  # of whatever API group
    problem = next(not_json(manifest, hide=hide), "") or _misshapen_metadata(meta) or _misshapen(manifest) or "; ".join(_unquoted(manifest))
    return f"{Ref.of(manifest)}: {problem}" if problem else ""


def _misshapen_metadata(meta: dict) -> str:
    """Names labels or annotations that are no mapping, or the first in them that is no text."""
    for field in ("labels", "annotations"):
        if not isinstance(meta.get(field), (dict, type(None))):
            return f"metadata.{field} must be a mapping"
        problem = next(_no_texts(meta.get(field), f"metadata.{field}"), "")
        if problem:
            return problem
    return ""


def not_json(value: t.Any, path: str = "", hide: bool = False) -> t.Iterator[str]:
    """Names the values that JSON cannot carry (NaN, a date, a key that is no text). `hide`: without the values themselves."""
    if isinstance(value, dict):
        for key, sub in value.items():
            if isinstance(key, str):
                yield from not_json(sub, f"{path}.{key}" if path else key, hide)
            else:
                yield f"{path or 'the manifest'} has the key {key!r}, quote it"
    elif isinstance(value, (list, tuple)):
        for index, sub in enumerate(value):
            yield from not_json(sub, f"{path}[{index}]", hide)
    elif isinstance(value, str) and _SURROGATE.search(value):
        yield f"{path} holds half of a character (a lone surrogate), which is no text"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}, which JSON cannot carry"
    elif not (value is None or isinstance(value, (str, int, float, bool))):
        yield f"{path} is {_called(value)}{'' if hide else f' ({value})'}, quote it"


def _no_texts(value: t.Any, path: str, hide: bool = False) -> t.Iterator[str]:
    """Names what is no text where a text stands, or a map or list of texts. The API server reads a null as an empty one."""
    inner = {f".{key}": sub for key, sub in value.items()} if isinstance(value, dict) else {}
    inner = {f"[{index}]": sub for index, sub in enumerate(value)} if isinstance(value, list) else inner
    for where, sub in inner.items() if isinstance(value, (dict, list)) else [("", value)]:
        if not isinstance(sub, (str, type(None))):
            yield f"{path}{where} is {_called(sub) if hide else repr(sub)}, where a text is needed: quote it"


def _called(value: t.Any) -> str:
    """What YAML has made of what stood there."""
    names = {bool: "a truth value", int: "a number", float: "a number", dict: "a mapping", list: "a list", datetime.datetime: "a time", datetime.date: "a date"}
    return next((name for known, name in names.items() if isinstance(value, known)), f"of type {type(value).__name__}")


def _unquoted(body: dict) -> list[str]:
    """Names what YAML has read as a number or a truth value where the API server takes text only."""
    kind = own_kind(body)
    if kind in ("ConfigMap", "Secret"):
        return [text for field in ("data", "stringData") for text in _no_texts(body.get(field), field, hide=kind == "Secret")]
    if kind == "Service":
        return list(_no_texts(spec_of(body).get("selector"), "spec.selector"))
    return list(_unquoted_in(body.get("spec"), "spec")) if WAVES.get(kind) == _WORKLOADS else []


def _unquoted_in(value: t.Any, path: str) -> t.Iterator[str]:
    if isinstance(value, dict):
        for key, sub in value.items():
            yield from (_no_texts if key in _TEXTS else _unquoted_in)(sub, f"{path}.{key}")
    elif isinstance(value, list):
        for index, sub in enumerate(value):
            yield from _unquoted_in(sub, f"{path}[{index}]")


def _misshapen(manifest: dict) -> str:
    """Names the first thing of another shape than planning relies on, before any server sees it."""
    kind, spec = own_kind(manifest), spec_of(manifest)
    for field in ("spec", "data", "stringData") if kind == "Secret" else ("spec",) if kind else ():
        if not isinstance(manifest.get(field), (dict, type(None))):
            return f"{field} must be a mapping"
    if kind == "HorizontalPodAutoscaler":
        target = spec.get("scaleTargetRef")
        if not (isinstance(target, dict) and all(isinstance(value, str) for value in target.values())):
            return "spec.scaleTargetRef must be a mapping of strings"
    if kind == "ConstraintTemplate":
        names = spec
        for field in ("crd", "spec", "names"):
            names = names.get(field) if isinstance(names.get(field), dict) else {}
        return "" if isinstance(names.get("kind"), str) and names["kind"] else "spec.crd.spec.names.kind is missing; give it a non-empty string"
    return _misshapen_definition(spec) if kind == "CustomResourceDefinition" else ""


def _misshapen_definition(spec: dict) -> str:
    """The kinds that a CustomResourceDefinition brings have to be known before it is applied."""
    names = spec.get("names") if isinstance(spec.get("names"), dict) else {}
    needed = {"group": spec.get("group"), "scope": spec.get("scope"), "names.kind": names.get("kind"), "names.plural": names.get("plural")}
    for field, value in needed.items():
        if not (isinstance(value, str) and value):
            return f"spec.{field} is missing; give it a non-empty string"
    versions = spec.get("versions")
    good = isinstance(versions, list) and all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in versions)
    return "" if good else "spec.versions must be a list of mappings with a name"


def _desired(component: str, manifest: dict, platform: str) -> Desired:
    sent = copy.deepcopy(dict(manifest))
    if own_kind(sent):  # what another's kind has at its top is its own, a status without a subresource included
        sent = {key: value for key, value in sent.items() if value is not None and key != "status"}
    meta = sent["metadata"] = {key: value for key, value in sent["metadata"].items() if value is not None and key not in _SERVERS_OWN}
    source = meta.get("annotations", {}).pop(ANNOTATION_SOURCE, "")
    if not meta.get("annotations"):
        meta.pop("annotations", None)
    meta["labels"] = {**meta.get("labels", {}), LABEL_PLATFORM: platform, LABEL_COMPONENT: component}
    if own_kind(sent) and spec_of(sent).get("replicas", 0) is None:
        del sent["spec"]["replicas"]  # no number; a null would be a claim to the field, and fight whoever scales
    if own_kind(sent) == "Secret":
        _encode_string_data(sent)
    body = _without_nulls(sent)
    return Desired(component, Ref.of(body), body, sent, _wave(body), source)


def _without_nulls(value: t.Any) -> t.Any:
    """A deep copy without fields that are null, which says the same as an absent one to us."""
    if isinstance(value, dict):
        return {key: _without_nulls(sub) for key, sub in value.items() if sub is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(sub) for sub in value]
    return value


def _encode_string_data(secret: dict) -> None:
    """`stringData` is write-only: as `data` the live object can be compared with the manifest. Both as the server writes it."""
    for key, value in (secret.get("data") or {}).items():
        if isinstance(value, str):  # what refuses it would quote it without its line breaks, and then it is not known again
            secret["data"][key] = re.sub("[\r\n]", "", value)
    plain = secret.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        encoded = {key: base64.b64encode((value or "").encode()).decode() for key, value in plain.items()}
        secret["data"] = {**secret.get("data", {}), **encoded}


def _wave(body: dict) -> int:
    annotated = body["metadata"].get("annotations", {}).get(ANNOTATION_WAVE)
    if annotated is not None and re.fullmatch(r"-?\d{1,3}", annotated):
        return int(annotated)
    return WAVES.get(body["kind"], LAST_WAVE)


def _implausible(body: dict) -> list[str]:
    """What the API server would refuse, and is cheap to say before the first write."""
    errors = []
    kind, spec = own_kind(body), spec_of(body)
    wave = body["metadata"].get("annotations", {}).get(ANNOTATION_WAVE)
    if wave is not None and not re.fullmatch(r"-?\d{1,3}", wave):
        errors.append(f"annotation {ANNOTATION_WAVE} is {wave!r}, it must be a whole number")
    request = body["metadata"].get("annotations", {}).get(ANNOTATION_REQUEST)
    if request is not None and not (kind == "Service" and request_of(body)):
        errors.append(f"annotation {ANNOTATION_REQUEST} is {request!r}, it must be a TCP port of this Service and a path, such as http:/ready")
    for field in _COUNTS if kind else ():
        value = spec.get(field)
        if field in spec and (not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0 or value != int(value)):
            errors.append(f"spec.{field} is {value!r}, it must be a whole number of at least 0")
    if kind == "HorizontalPodAutoscaler" and not errors:
        low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
        if high < 1 or low > high:
            errors.append(f"spec.minReplicas is {low} and spec.maxReplicas is {high}, it must be 1 <= min <= max")
    if kind == "Secret":
        # The API server's own complaint would quote the value.
        errors += [f"data.{key} is not base64; use stringData for plain text" for key in _not_base64(body.get("data"))]
    size = _size(body) if len(str(body)) > MAX_OBJECT_BYTES else 0
    if size > MAX_OBJECT_BYTES:
        errors.append(f"is {size:,} bytes, the API server takes at most about {MAX_OBJECT_BYTES:,}; split it")
    return errors


def _size(value: t.Any) -> int:
    """About how many bytes the API server stores of a value."""
    if isinstance(value, dict):
        return sum(len(key) + 4 + _size(sub) for key, sub in value.items())
    if isinstance(value, list):
        return sum(2 + _size(sub) for sub in value)
    return len(value.encode(errors="replace")) if isinstance(value, str) else 8


def _not_base64(data: t.Any) -> list[str]:
    """Keys of a Secret's data whose value is not a base64 string."""
    bad = []
    for key, value in data.items() if isinstance(data, dict) else ():
        try:
            # As the API server reads it (Go's encoding/base64): line breaks do not count.
            base64.b64decode(re.sub("[\r\n]", "", value), validate=True)
        except (ValueError, TypeError):
            bad.append(key)
    return bad


def cycles(objects: dict[Ref, Desired]) -> list[list[Ref]]:
    """Circles of ownerReferences inside the bundle: each object is owned by the next, the last by the first."""
    by_name = {(ref.kind, ref.namespace, ref.name): ref for ref in objects}
    graph = {ref: _owners(item, by_name) for ref, item in objects.items()}
    found: list[list[Ref]] = []
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
            return found
        except graphlib.CycleError as exc:
            found.append(exc.args[1][:0:-1])  # it comes owners first, and with its first object again at the end
            graph = {ref: owners for ref, owners in graph.items() if ref not in found[-1]}


def _owners(item: Desired, by_name: dict[tuple[str, str, str], Ref]) -> list[Ref]:
    """Owners of an object that are in the bundle; they live in its namespace or in none."""
    references = item.body["metadata"].get("ownerReferences")
    owners = [ref for ref in references if isinstance(ref, dict)] if isinstance(references, list) else []
    keys = [(str(ref.get("kind")), space, str(ref.get("name"))) for ref in owners for space in (item.ref.namespace, "")]
    return [by_name[key] for key in keys if key in by_name]


def one_way(objects: t.Iterable[Desired]) -> dict[str, list[str]]:
    """{component: [`Job ns/migrate: adds a column`]} of the one-way changes that objects declare."""
    marks: dict[str, list[str]] = {}
    for item in sorted(objects, key=lambda item: item.ref):
        text = item.body["metadata"].get("annotations", {}).get(ANNOTATION_ONE_WAY)
        if text:
            marks.setdefault(item.component, []).append(f"{item.ref}: {text}")
    return marks


def hpa_targets(objects: t.Iterable[dict]) -> dict[tuple[str, str, str], int]:
    """{(namespace, kind, name): minReplicas} of the workloads that an autoscaler in `objects` owns the replicas of."""
    targets = {}
    for body in objects:
        if own_kind(body) == "HorizontalPodAutoscaler":
            target = body["spec"].get("scaleTargetRef", {})
            key = (body["metadata"].get("namespace", ""), target.get("kind", ""), target.get("name", ""))
            targets[key] = body["spec"].get("minReplicas", 1)
    return targets


def scale_targets(objects: t.Iterable[dict]) -> set[tuple[str, str, str]]:
    """{(namespace, kind, name)} of what any autoscaler in `objects` scales: each kind of them says it as HorizontalPodAutoscaler does, and
    one of KEDA's may leave the kind out."""
    found = set()
    for body in objects:
        target = spec_of(body).get("scaleTargetRef")
        if isinstance(target, dict):
            found.add((body["metadata"].get("namespace", ""), str(target.get("kind") or "Deployment"), str(target.get("name"))))
    return found


def leave_replicas(objects: dict[Ref, Desired], targets: t.Container[tuple[str, str, str]]) -> None:
    """Drops `spec.replicas` where an autoscaler owns it: a field we never apply is a field we never fight over."""
    for ref, item in objects.items():
        if (ref.namespace, ref.kind, ref.name) in targets:
            for body in (item.body, item.sent):
                spec_of(body).pop("replicas", None)
