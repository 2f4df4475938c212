# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what is ready also answer? What no object's own status tells, out of all of them together. Pure."""
from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._fields import CONTROLLERS, MANAGER, REPLICAS_MANAGER, applied_fingerprint, is_scaled, owned_fields
from ._health import WORKLOADS
from ._manifest import LABEL_PLATFORM, Ref
from ._plan import Record, record_key

SERVICE_NAME = "kubernetes.io/service-name"  # labels the EndpointSlices of a Service
DRIFT_HINT = "ansible-playbook drift.yml shows what was changed by hand, and -e fix=true puts it back"
BESIDE_HINT = "why they are not ready stands beside this, as far as it is known"
SETTINGS = ("ConfigMap", "Secret")
Live = t.Mapping[Ref, dict]


@dataclasses.dataclass(frozen=True)
class Silence:
    """Why something that exists does nothing for whoever needs it."""

    ref: Ref
    reason: str
    message: str
    hint: str


def silent(live: Live, slices: t.Iterable[dict]) -> list[Silence]:
    """Services that no pod answers for, and autoscalers that do nothing. `live`: the platform's objects; `slices`: the EndpointSlices
    of their namespaces."""
    return [*_unanswered(live, _endpoints(slices)), *_idle(live)]


def _endpoints(slices: t.Iterable[dict]) -> collections.Counter[tuple[str, str]]:
    """{(namespace, Service): its endpoints that are ready}. A condition that is not known counts as ready (discovery.k8s.io/v1)."""
    ready: collections.Counter[tuple[str, str]] = collections.Counter()
    for each in slices:
        meta = each["metadata"]
        name = (meta.get("labels") or {}).get(SERVICE_NAME, "")
        ready[meta["namespace"], name] += sum((end.get("conditions") or {}).get("ready") is not False for end in each.get("endpoints") or [])
    return ready


def _unanswered(live: Live, ready: t.Mapping[tuple[str, str], int]) -> t.Iterator[Silence]:
    for ref, service in live.items():
        spec = service.get("spec") or {}
        selector = spec.get("selector")
        if (ref.group, ref.kind) != ("", "Service") or not selector or spec.get("type") == "ExternalName" or ready[ref.namespace, ref.name]:
            continue
        chosen = [obj for other, obj in live.items() if other.namespace == ref.namespace and other.kind in WORKLOADS and _selects(selector, obj)]
        if chosen and all(_none_wanted(ref.namespace, obj, live) for obj in chosen):
            continue
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        if chosen:
            yield Silence(ref, "NoEndpoints", f"none of the pods that it selects ({labels}) is ready", BESIDE_HINT)
        else:
            yield Silence(ref, "NoEndpoints", f"it selects {labels}, which no workload of the platform has, and no pod answers", DRIFT_HINT)


def _selects(selector: dict, workload: dict) -> bool:
    labels = ((workload.get("spec") or {}).get("template") or {}).get("metadata", {}).get("labels") or {}
    return selector.items() <= labels.items()


def _none_wanted(namespace: str, workload: dict, live: Live) -> bool:
    """Whether it has no replicas because it was released so, or because KEDA may have found nothing to do; not because somebody took
    them away."""
    if workload["spec"].get("replicas") != 0:
        return False
    to_zero = (
        obj["spec"].get("scaleTargetRef", {}).get("name") for ref, obj in live.items()
        if ref.kind == "ScaledObject" and ref.namespace == namespace and not obj["spec"].get("minReplicaCount")
    )
    return "f:replicas" in owned_fields(workload).get("f:spec", {}) or workload["metadata"].get("name") in to_zero


def _idle(live: Live) -> t.Iterator[Silence]:
    """A HorizontalPodAutoscaler leaves a workload without replicas alone: that is how it is switched off (kubernetes.io, "Implicit
    maintenance-mode deactivation")."""
    workloads = {(ref.namespace, ref.kind, ref.name): obj for ref, obj in live.items() if ref.kind in WORKLOADS}
    for ref, scaler in live.items():
        if ref.kind != "HorizontalPodAutoscaler":
            continue
        target = scaler["spec"]["scaleTargetRef"]
        found = workloads.get((ref.namespace, target["kind"], target["name"]))
        least = scaler["spec"].get("minReplicas", 1)
        if found and least and found["spec"].get("replicas") == 0:
            message = f"{target['kind']} {target['name']} has 0 replicas, where it does nothing; its minimum is {least}"
            yield Silence(ref, "ScalingDisabled", message, DRIFT_HINT)


# --- what others did -------------------------------------------------------------------------------------------------


def changed(record: Record, live: Live) -> list[str]:
    """Lines about objects in which others have changed what we applied, by what the ledger remembers of it; and about settings in which
    they have written anything: there a key that was added is a change, too."""
    prints = {key: known for objects in record.values() for key, known in objects.items()}
    found = []
    for ref, obj in sorted(live.items()):
        applied = prints.get(record_key(ref), ["", ""])[1:2]
        edited = not is_scaled(obj) and applied_fingerprint(obj) != applied[0] if applied else False
        if edited or (ref.kind in SETTINGS and by_whom(obj)):
            found.append(f"{ref}{by_whom(obj)}")
    return found


def strangers(objects: t.Iterable[tuple[Ref, dict]]) -> list[str]:
    """Lines about what acts on a whole namespace, is no platform's, and belongs to nothing else."""
    return [
        f"{ref}{by_whom(obj)}" for ref, obj in sorted(objects, key=lambda item: item[0])
        if LABEL_PLATFORM not in (obj["metadata"].get("labels") or {}) and not obj["metadata"].get("ownerReferences")
    ]


def by_whom(obj: dict) -> str:
    """Who wrote to an object last, we and the cluster's own controllers aside: ` (kubectl-edit, 2026-01-01T00:00:00Z)`."""
    entries = [
        each for each in obj["metadata"].get("managedFields") or []
        if each["manager"] not in (MANAGER, REPLICAS_MANAGER, *CONTROLLERS) and each.get("subresource") != "status"
    ]
    last = max(entries, key=lambda each: each.get("time", ""), default=None)
    return f" ({last['manager']}, {last.get('time', '')})" if last else ""
