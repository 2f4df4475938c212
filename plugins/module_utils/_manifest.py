# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure functions from the bundle `{component: [manifests]}` to checked, labelled objects. No API, no clock."""
from __future__ import annotations

import base64
import dataclasses
import math
import re
import typing as t

from ._errors import InvalidInput
from ._fields import fingerprint

LABEL_PLATFORM = "genai.platform/platform"
LABEL_COMPONENT = "genai.platform/component"
# Set by the `manifests` lookup so that an error can name the template; never sent to the cluster.
ANNOTATION_SOURCE = "genai.platform/source"
ANNOTATION_WAVE = "genai.platform/wave"
# Real API servers refuse more; the margin is for what we add ourselves.
MAX_OBJECT_BYTES = 1_500_000

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.:]*[a-z0-9])?$", re.IGNORECASE)
_COMPONENT = re.compile(r"^[a-z][a-z0-9_]{0,40}$")

WAVES: dict[str, int] = {
    **dict.fromkeys(("CustomResourceDefinition", "Namespace", "PriorityClass", "StorageClass"), 0),
    **dict.fromkeys(
        (
            "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ConfigMap", "Secret",
            "PersistentVolume", "PersistentVolumeClaim", "ResourceQuota", "LimitRange", "NetworkPolicy",
            "PodDisruptionBudget", "SecurityContextConstraints",
        ),
        1,
    ),
    "Service": 2,
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"), 3),
}
LAST_WAVE = 4  # HorizontalPodAutoscaler, Ingress, Route and every custom resource


class Ref(t.NamedTuple):
    """Who an object is, whatever version of its API group wrote it."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"

    @classmethod
    def of(cls, obj: dict) -> Ref:
        version = obj["apiVersion"]
        meta = obj["metadata"]
        return cls(version.rpartition("/")[0], obj["kind"], meta.get("namespace") or "", meta["name"])


@dataclasses.dataclass(frozen=True)
class Desired:
    """One object as it shall be. `source` is the template it came from, for errors."""

    component: str
    ref: Ref
    body: dict
    wave: int
    source: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.body)


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
                errors.append(f"{where}: {desired.ref} is in the bundle twice, first in {objects[desired.ref].component}")
            objects[desired.ref] = desired
    if errors:
        raise InvalidInput("the manifests are not valid, nothing was written:\n- " + "\n- ".join(errors), errors=errors)
    return _leave_replicas_to_hpa(objects)


def _flatten(manifests: t.Any) -> t.Iterator[t.Any]:
    for manifest in manifests if isinstance(manifests, list) else [manifests]:
        if isinstance(manifest, dict) and manifest.get("kind") == "List" and isinstance(manifest.get("items"), list):
            yield from manifest["items"]
        else:
            yield manifest


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
        if value is not None and not (isinstance(value, str) and _NAME.match(value) and len(value) <= 253):
            return f"{manifest['kind']}: metadata.{field} {value!r} is not a valid Kubernetes name"
    for field in ("labels", "annotations"):
        pairs = meta.get(field)
        if pairs is not None and not isinstance(pairs, dict):
            return f"{manifest['kind']} {meta['name']}: metadata.{field} must be a mapping"
        for key, value in (pairs or {}).items():
            if not isinstance(value, str):
                return f"{manifest['kind']} {meta['name']}: metadata.{field}.{key} is {value!r}, quote it: \"{value}\""
    return _not_json(manifest)


def _not_json(value: t.Any, path: str = "") -> str:
    """Names the first value that JSON cannot carry (NaN, a date, a non-string key)."""
    if isinstance(value, dict):
        for key, sub in value.items():
            if not isinstance(key, str):
                return f"{path or 'the manifest'} has the key {key!r}, quote it"
            problem = _not_json(sub, f"{path}.{key}" if path else key)
            if problem:
                return problem
        return ""
    if isinstance(value, (list, tuple)):
        return next((p for p in (_not_json(sub, f"{path}[{i}]") for i, sub in enumerate(value)) if p), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which JSON cannot carry"
    if value is None or isinstance(value, (str, int, float, bool)):
        return ""
    return f"{path} is a {type(value).__name__} ({value!r}), quote it"


def _desired(component: str, manifest: dict, platform: str) -> Desired:
    body = _without_nulls(manifest)
    meta = body["metadata"]
    for field in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
        meta.pop(field, None)
    body.pop("status", None)
    annotations = meta.get("annotations", {})
    source = annotations.pop(ANNOTATION_SOURCE, "")
    if not annotations:
        meta.pop("annotations", None)
    meta["labels"] = {**meta.get("labels", {}), LABEL_PLATFORM: platform, LABEL_COMPONENT: component}
    if body["kind"] == "Secret":
        _encode_string_data(body)
    return Desired(component, Ref.of(body), body, _wave(body), source)


def _without_nulls(value: t.Any) -> t.Any:
    """A deep copy without null fields: apply reads a null as "absent", and an absent field is the same thing said once."""
    if isinstance(value, dict):
        return {str(key): _without_nulls(sub) for key, sub in value.items() if sub is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(sub) for sub in value]
    return value


def _encode_string_data(secret: dict) -> None:
    """`stringData` is write-only: as `data` the live object can be compared with the manifest."""
    plain = secret.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        secret["data"] = {**secret.get("data", {}), **encoded}


def _wave(body: dict) -> int:
    annotated = body["metadata"].get("annotations", {}).get(ANNOTATION_WAVE)
    if annotated is not None and re.fullmatch(r"-?\d{1,3}", annotated):
        return int(annotated)
    return WAVES.get(body["kind"], LAST_WAVE)


def _implausible(body: dict) -> list[str]:
    """What the API server would refuse, and is cheap to say before the first write."""
    errors = []
    spec = body.get("spec") if isinstance(body.get("spec"), dict) else {}
    wave = body["metadata"].get("annotations", {}).get(ANNOTATION_WAVE)
    if wave is not None and not re.fullmatch(r"-?\d{1,3}", wave):
        errors.append(f"annotation {ANNOTATION_WAVE} is {wave!r}, it must be a whole number")
    for field in ("replicas", "minReplicas", "maxReplicas", "minReadySeconds", "revisionHistoryLimit", "backoffLimit"):
        value = spec.get(field)
        if field in spec and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            errors.append(f"spec.{field} is {value!r}, it must be a whole number of at least 0")
    if body["kind"] == "HorizontalPodAutoscaler" and not errors:
        low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
        if high < 1 or low > high:
            errors.append(f"spec.minReplicas is {low} and spec.maxReplicas is {high}, it must be 1 <= min <= max")
    if body["kind"] == "Secret":
        # The API server's own complaint would quote the value.
        errors += [f"data.{key} is not base64; use stringData for plain text" for key in _not_base64(body.get("data"))]
    size = len(str(body))
    if size > MAX_OBJECT_BYTES:
        errors.append(f"is {size:,} bytes, the API server takes at most about {MAX_OBJECT_BYTES:,}; split it")
    return errors


def _not_base64(data: t.Any) -> list[str]:
    """Keys of a Secret's data whose value is not a base64 string."""
    bad = []
    for key, value in data.items() if isinstance(data, dict) else ():
        try:
            base64.b64decode(value, validate=True)
        except (ValueError, TypeError):
            bad.append(key)
    return bad


def hpa_targets(objects: t.Iterable[dict]) -> dict[tuple[str, str, str], int]:
    """{(namespace, kind, name): minReplicas} of the workloads that an autoscaler in `objects` owns the replicas of."""
    targets = {}
    for body in objects:
        if body["kind"] == "HorizontalPodAutoscaler":
            target = body["spec"].get("scaleTargetRef", {})
            key = (body["metadata"].get("namespace", ""), target.get("kind", ""), target.get("name", ""))
            targets[key] = body["spec"].get("minReplicas", 1)
    return targets


def _leave_replicas_to_hpa(objects: dict[Ref, Desired]) -> dict[Ref, Desired]:
    """Drops `spec.replicas` where an autoscaler owns it: a field we never apply is a field we never fight over."""
    targets = hpa_targets(item.body for item in objects.values())
    for ref, item in objects.items():
        if (ref.namespace, ref.kind, ref.name) in targets:
            item.body.get("spec", {}).pop("replicas", None)
    return objects
