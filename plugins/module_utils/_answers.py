# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what is ready also answer? What no object's own status tells, out of all of them together. Pure."""
from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._fields import applied_fingerprint, entries_of_others, is_scaled, own_entry, owned_fields
from ._health import WORKLOADS
from ._manifest import LABEL_PLATFORM, Ref, hpa_targets
from ._plan import TAKEN_OVER, Record, ref_from_key

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


def silent(judged: Live, live: Live, slices: t.Iterable[dict], touched: t.Container[Ref] = ()) -> list[Silence]:
    """Services that no pod answers for, and autoscalers that do nothing. `judged`: what the platform has released; `live`: that, and what
    others have made with its labels; `slices`: the EndpointSlices of their namespaces; `touched`: see `edited`."""
    return [*_unanswered(judged, live, _endpoints(slices), touched), *_idle(judged, live)]


def _endpoints(slices: t.Iterable[dict]) -> collections.Counter[tuple[str, str]]:
    """{(namespace, Service): its endpoints that are ready}. A condition that is not known counts as ready (discovery.k8s.io/v1)."""
    ready: collections.Counter[tuple[str, str]] = collections.Counter()
    for each in slices:
        meta = each["metadata"]
        name = (meta.get("labels") or {}).get(SERVICE_NAME, "")
        ready[meta["namespace"], name] += sum((end.get("conditions") or {}).get("ready") is not False for end in each.get("endpoints") or [])
    return ready


def _unanswered(judged: Live, live: Live, ready: t.Mapping[tuple[str, str], int], touched: t.Container[Ref]) -> t.Iterator[Silence]:
    """A Service for which no workload of ours has pods is an operator's, a CronJob's or somebody's business, unless it, or a workload
    beside it, is not what was released."""
    for ref, service in judged.items():
        spec = service.get("spec") or {}
        selector = spec.get("selector")
        if (ref.group, ref.kind) != ("", "Service") or not selector or spec.get("type") == "ExternalName" or ready[ref.namespace, ref.name]:
            continue
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        beside = {other: obj for other, obj in live.items() if other.namespace == ref.namespace and other.kind in WORKLOADS}
        chosen = {other: obj for other, obj in beside.items() if _selects(selector, obj)}
        if any(not _none_wanted(other, obj, live) for other, obj in chosen.items()):
            yield Silence(ref, "NoEndpoints", f"none of the pods that it selects ({labels}) is ready", BESIDE_HINT)
        elif not chosen and (ref in touched or any(other in touched for other in beside)):
            yield Silence(ref, "NoEndpoints", f"it selects {labels}, which no workload of the platform has, and no pod answers", DRIFT_HINT)


def _selects(selector: dict, workload: dict) -> bool:
    labels = ((workload.get("spec") or {}).get("template") or {}).get("metadata", {}).get("labels") or {}
    return selector.items() <= labels.items()


def _none_wanted(ref: Ref, workload: dict, live: Live) -> bool:
    """Whether no pod is meant to be there: none was released, no node is for it, or KEDA may have found nothing to do. Not because
    somebody took them away. Of a Job, its own state says what there is to say."""
    if ref.kind in ("Job", "DaemonSet"):
        return ref.kind == "Job" or not workload.get("status", {}).get("desiredNumberScheduled")
    if workload["spec"].get("replicas") != 0:
        return False
    beside = (obj for other, obj in live.items() if other.kind == "ScaledObject" and other.namespace == ref.namespace)
    to_zero = {(obj["spec"].get("scaleTargetRef") or {}).get("name") for obj in beside if _may_be_none(obj)}
    return "f:replicas" in owned_fields(workload).get("f:spec", {}) or ref.name in to_zero


def _may_be_none(scaled: dict) -> bool:
    """Of a ScaledObject (keda.sh, "ScaledObject specification")."""
    paused = (scaled["metadata"].get("annotations") or {}).get("autoscaling.keda.sh/paused-replicas") == "0"
    return paused or not scaled["spec"].get("minReplicaCount") or scaled["spec"].get("idleReplicaCount") == 0


def _idle(judged: Live, live: Live) -> t.Iterator[Silence]:
    """A HorizontalPodAutoscaler leaves a workload without replicas alone: that is how it is switched off (kubernetes.io, "Implicit
    maintenance-mode deactivation")."""
    workloads = {(ref.namespace, ref.kind, ref.name): obj for ref, obj in live.items() if ref.kind in WORKLOADS}
    for ref, scaler in judged.items():
        for target, least in hpa_targets([{"kind": ref.kind, **scaler}]).items():
            if least and workloads.get(target, {}).get("spec", {}).get("replicas") == 0:
                _namespace, kind, name = target
                yield Silence(ref, "ScalingDisabled", f"{kind} {name} has 0 replicas, where it does nothing; its minimum is {least}", DRIFT_HINT)


# --- what others did -------------------------------------------------------------------------------------------------


def edited(record: Record, live: Live) -> list[Ref]:
    """Objects in which others have changed what we applied, by what the ledger remembers of it; and settings into which they have
    written since: there a key that was added is a change, too. What an autoscaler of others has taken over cannot be told."""
    targets = hpa_targets({"kind": ref.kind, **obj} for ref, obj in live.items())
    return [ref for ref, known in _known(record) if ref in live and _is_edited(ref, live[ref], known, targets)]


def _known(record: Record) -> t.Iterator[tuple[Ref, list[str]]]:
    return ((ref_from_key(key), prints) for objects in record.values() for key, prints in sorted(objects.items()))


def _is_edited(ref: Ref, obj: dict, known: list[str], targets: t.Container[tuple[str, str, str]]) -> bool:
    ours = own_entry(obj)
    if known[2:] == [TAKEN_OVER] or ours.get("apiVersion", obj["apiVersion"]) != obj["apiVersion"]:
        return False  # others may have written before us; and in other words the same is another print
    added = ref.kind in SETTINGS and any(
        each.get("time", "") > ours.get("time", "") and not {"f:data", "f:binaryData"}.isdisjoint(each.get("fieldsV1") or {}) for each in entries_of_others(obj)
    )
    left = is_scaled(obj) and (ref.namespace, ref.kind, ref.name) not in targets
    return added or (not left and known[1:2] != [applied_fingerprint(obj)])


def strangers(objects: t.Iterable[tuple[Ref, dict]], platform: str, known: t.Container[Ref]) -> list[str]:
    """Lines about what acts on a whole namespace, is no platform's, and belongs to nothing else."""
    return [
        f"{ref}{by_whom(obj)}" for ref, obj in sorted(objects, key=lambda item: item[0])
        if ref not in known and (obj["metadata"].get("labels") or {}).get(LABEL_PLATFORM, platform) == platform and not obj["metadata"].get("ownerReferences")
    ]


def by_whom(obj: dict) -> str:
    """Who wrote to an object last, we and the cluster's own controllers aside: ` (kubectl-edit, 2026-01-01T00:00:00Z)`."""
    last = max(entries_of_others(obj), key=lambda each: each.get("time", ""), default=None)
    return f" ({last.get('manager') or 'unknown'}, {last.get('time', '')})" if last else ""
