# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what is ready also answer? What no object's own status tells, out of all of them together. Pure."""
from __future__ import annotations

import collections
import dataclasses
import typing as t

from ..objects.fields import applied_fingerprint, entries_of_others, is_scaled, own_entry, owned_fields, spec_of
from ..objects.kinds import SETTINGS, WORKLOADS
from ..objects.manifest import LABEL_PLATFORM, Ref, hpa_targets, selects
from ..objects.quantities import quantity
from ..objects.references import GATEWAYS
from ..plan.record import TAKEN_OVER, Record, ref_from_key

SERVICE_NAME = "kubernetes.io/service-name"  # labels the EndpointSlices of a Service
DRIFT_HINT = "ansible-playbook drift.yml shows what was changed by hand, and -e fix=true puts it back"
BESIDE_HINT = "why they are not ready stands beside this, as far as it is known"
UNKNOWN = {"": "only the name is known"}
NAME_LABEL = "kubernetes.io/metadata.name"  # on every Namespace
FOR_PODS = ("pods", "count/pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
Live = t.Mapping[Ref, dict]


@dataclasses.dataclass(frozen=True)
class Silence:
    """Why something that exists does nothing for whoever needs it."""

    ref: Ref
    reason: str
    message: str
    hint: str


def silent(judged: Live, live: Live, slices: t.Iterable[dict], touched: t.Container[Ref] = (), hooks: t.Iterable[Hook] = ()) -> list[Silence]:
    """Services that no pod answers for, webhooks that nobody serves, autoscalers that do nothing or cannot, and routes that lead nowhere.
    `judged`: what the platform has released; `live`: that, and what others have made with its labels; `slices`: the EndpointSlices of their
    namespaces and of those of `hooks`; `touched`: see `edited`."""
    ready = _endpoints(slices)
    return [*_unanswered(judged, live, ready, touched), *_unserved(hooks, ready), *_idle(judged, live), *_unscaled(judged), *_unrouted(judged)]


def _endpoints(slices: t.Iterable[dict]) -> collections.Counter[tuple[str, str]]:
    """{(namespace, Service): its endpoints that are ready}. A condition that is not known counts as ready (discovery.k8s.io/v1)."""
    ready: collections.Counter[tuple[str, str]] = collections.Counter()
    for each in slices:
        ready[service_of(each)] += sum((end.get("conditions") or {}).get("ready") is not False for end in each.get("endpoints") or [])
    return ready


def service_of(endpoints: dict) -> tuple[str, str]:
    """(namespace, name) of the Service of an EndpointSlice."""
    meta = endpoints["metadata"]
    return meta["namespace"], (meta.get("labels") or {}).get(SERVICE_NAME, "")


def _unanswered(judged: Live, live: Live, ready: t.Mapping[tuple[str, str], int], touched: t.Container[Ref]) -> t.Iterator[Silence]:
    """A Service for which no workload of ours has pods is an operator's, a CronJob's or somebody's business, unless it, or a workload
    beside it, is not what was released."""
    for ref, service in judged.items():
        spec = spec_of(service)
        selector = spec.get("selector")
        if (ref.group, ref.kind) != ("", "Service") or not selector or spec.get("type") == "ExternalName" or ready[ref.namespace, ref.name]:
            continue
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        beside = {other: obj for other, obj in live.items() if other.namespace == ref.namespace and other.builtin in WORKLOADS}
        chosen = {other: obj for other, obj in beside.items() if selects(selector, obj)}
        if any(not _none_wanted(other, obj, live) for other, obj in chosen.items()):
            yield Silence(ref, "NoEndpoints", f"none of the pods that it selects ({labels}) is ready", BESIDE_HINT)
        elif not chosen and (ref in touched or any(other in touched for other in beside)):
            yield Silence(ref, "NoEndpoints", f"it selects {labels}, which no workload of the platform has, and no pod answers", DRIFT_HINT)


# --- webhooks --------------------------------------------------------------------------------------------------------


class Hook(t.NamedTuple):
    """A webhook without whose answer something that matters here is refused. `service`: (namespace, name) of who is to answer."""

    ref: Ref
    name: str
    service: tuple[str, str]
    ours: bool


def hooks(configurations: t.Iterable[tuple[Ref, dict]], judged: Live) -> list[Hook]:
    """Those of ours that a Service is to serve, and those of others that are asked about new pods in a namespace of ours: what else they
    are asked about is not our concern, and whether a condition of theirs holds cannot be told."""
    known = {ref.name: obj["metadata"].get("labels") or {} for ref, obj in judged.items() if ref.builtin == "Namespace"}
    # Of a Namespace that somebody else made, or that is no part of what is looked at, only the name is known.
    spaces = [known.get(name) or {NAME_LABEL: name, **UNKNOWN} for name in _with_pods(judged)]
    found = []
    for ref, configuration in configurations:
        for each in configuration.get("webhooks") or []:
            service = (each.get("clientConfig") or {}).get("service")
            if service and each.get("failurePolicy") != "Ignore" and (ref in judged or _stops_pods(each, spaces)):
                found.append(Hook(ref, each["name"], (service["namespace"], service["name"]), ref in judged))
    return found


def _stops_pods(hook: dict, spaces: t.Iterable[dict]) -> bool:
    asked = any(
        {"", "*"} & set(rule.get("apiGroups") or ()) and {"pods", "*", "*/*"} & set(rule.get("resources") or ())
        and {"CREATE", "*"} & set(rule.get("operations") or ()) and rule.get("scope") != "Cluster" for rule in hook.get("rules") or []
    )
    told = any((hook.get("objectSelector") or {}).get(field) for field in ("matchLabels", "matchExpressions")) or hook.get("matchConditions")
    return asked and not told and any(_is_selected(hook.get("namespaceSelector") or {}, labels) for labels in spaces)


def _with_pods(judged: Live) -> set[str]:
    """The namespaces in which pods of the platform are meant to be."""
    return {ref.namespace for ref, obj in judged.items() if ref.builtin in WORKLOADS and not _none_wanted(ref, obj, judged)}


def _is_selected(selector: dict, labels: dict) -> bool:
    """Whether a label selector (meta/v1) chooses what has these labels. Not where labels are asked for that are not known."""
    keys = {*(selector.get("matchLabels") or {}), *(each["key"] for each in selector.get("matchExpressions") or [])}
    if UNKNOWN.items() <= labels.items() and keys - {NAME_LABEL}:
        return False
    rules: dict[str, t.Callable[[str, list], bool]] = {
        "In": lambda key, values: labels.get(key) in values, "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _values: key in labels, "DoesNotExist": lambda key, _values: key not in labels,
    }
    expressions = selector.get("matchExpressions") or []
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        rules[each["operator"]](each["key"], each.get("values") or []) for each in expressions
    )


def _unserved(found: t.Iterable[Hook], ready: t.Mapping[tuple[str, str], int]) -> t.Iterator[Silence]:
    for hook in found:
        if not ready[hook.service]:
            what = "what it judges" if hook.ours else "every new pod here"
            hint = DRIFT_HINT if hook.ours else f"start what serves it, or kubectl delete {hook.ref.kind.lower()} {hook.ref.name}"
            message = f"no pod answers for its Service {'/'.join(hook.service)}, and without an answer {what} is refused"
            yield Silence(hook.ref, "NoWebhookServer", f"webhook {hook.name}: {message}", hint)


# --- room ------------------------------------------------------------------------------------------------------------


def no_room(quotas: t.Iterable[tuple[Ref, dict]], judged: Live, touched: t.Container[Ref], ours: t.Container[Ref]) -> list[Silence]:
    """Quotas under which no pod of the platform could start again: made or changed by others, for one that was released so is meant.
    `ours`: what was released, also where it is not looked at."""
    spaces = _with_pods(judged)
    found = []
    for ref, quota in quotas:
        spec = quota.get("spec") or {}
        none = sorted(name for name, amount in (spec.get("hard") or {}).items() if name in FOR_PODS and quantity(amount) == 0)
        meant = ref in ours and ref not in touched
        if none and ref.namespace in spaces and not meant and not spec.get("scopes") and not spec.get("scopeSelector"):
            hint = DRIFT_HINT if ref in ours else f"kubectl delete resourcequota -n {ref.namespace} {ref.name}, or ask who made it"
            found.append(Silence(ref, "NoRoom", f"it allows {', '.join(f'{name}: 0' for name in none)}, so that no pod can start again", hint))
    return found


def _none_wanted(ref: Ref, workload: dict, live: Live) -> bool:
    """Whether no pod is meant to be there: none was released, no node is for it, or KEDA may have found nothing to do. Not because
    somebody took them away. Of a Job, its own state says what there is to say."""
    if ref.builtin in ("Job", "DaemonSet"):
        return ref.builtin == "Job" or not workload.get("status", {}).get("desiredNumberScheduled")
    if workload["spec"].get("replicas") != 0:
        return False
    beside = (obj for other, obj in live.items() if (other.group, other.kind, other.namespace) == ("keda.sh", "ScaledObject", ref.namespace))
    to_zero = {(spec_of(obj).get("scaleTargetRef") or {}).get("name") for obj in beside if _may_be_none(obj)}
    return "f:replicas" in owned_fields(workload).get("f:spec", {}) or ref.name in to_zero


def _may_be_none(scaled: dict) -> bool:
    """Of a ScaledObject (keda.sh, "ScaledObject specification")."""
    paused = (scaled["metadata"].get("annotations") or {}).get("autoscaling.keda.sh/paused-replicas") == "0"
    return paused or not spec_of(scaled).get("minReplicaCount") or spec_of(scaled).get("idleReplicaCount") == 0


def _idle(judged: Live, live: Live) -> t.Iterator[Silence]:
    """A HorizontalPodAutoscaler leaves a workload without replicas alone: that is how it is switched off (kubernetes.io, "Implicit
    maintenance-mode deactivation")."""
    workloads = {(ref.namespace, ref.kind, ref.name): obj for ref, obj in live.items() if ref.builtin in WORKLOADS}
    for ref, scaler in judged.items():
        for target, least in hpa_targets([{**scaler, "kind": ref.builtin}]).items():
            if least and workloads.get(target, {}).get("spec", {}).get("replicas") == 0:
                _namespace, kind, name = target
                yield Silence(ref, "ScalingDisabled", f"{kind} {name} has 0 replicas, where it does nothing; its minimum is {least}", DRIFT_HINT)


def _unscaled(judged: Live) -> t.Iterator[Silence]:
    """What KEDA says of its ScaledObjects: it makes no autoscaler for one that it cannot use, and wakes nobody. That a trigger answered
    with an error just now (TriggerError) is no such thing: so does a queue that nobody has made yet."""
    for ref, scaled in judged.items():
        if (ref.group, ref.kind) == ("keda.sh", "ScaledObject"):
            for each in (scaled.get("status") or {}).get("conditions") or []:
                if each["type"] == "Ready" and each["status"] == "False" and each.get("reason") != "TriggerError":
                    hint = "KEDA has to reach what its triggers name, and needs the password and the authority for it"
                    yield Silence(ref, each.get("reason", "NotReady"), each.get("message", ""), hint)


def _unrouted(judged: Live) -> t.Iterator[Silence]:
    """What Gateways say of HTTPRoutes (Gateway API, "RouteParentStatus"): each that takes one up says so, also when it refuses it."""
    for ref, route in judged.items():
        if (ref.group, ref.kind) != (GATEWAYS, "HTTPRoute") or not spec_of(route).get("parentRefs"):
            continue
        parents = (route.get("status") or {}).get("parents") or []
        if not parents:
            hint = "name a Gateway whose class has a controller in this cluster (kubectl get gateways --all-namespaces)"
            yield Silence(ref, "NoGateway", "no Gateway has taken it up, so that it leads nobody here", hint)
        for parent in parents:
            newest = [each for each in parent.get("conditions") or [] if each.get("observedGeneration", 0) >= route["metadata"].get("generation", 0)]
            for each in newest:
                if each["type"] in ("Accepted", "ResolvedRefs") and each["status"] == "False":
                    said = f"{each.get('reason', 'refused')} by Gateway {parent['parentRef']['name']}: {each.get('message', '')}"
                    yield Silence(ref, "RouteRefused", said, "the Gateway's listeners say which namespaces and host names they let in")


# --- what others did -------------------------------------------------------------------------------------------------


def edited(record: Record, live: Live) -> list[Ref]:
    """Objects in which others have changed what we applied, by what the ledger remembers of it; and settings into which they have
    written since: there a key that was added is a change, too. What an autoscaler of others has taken over cannot be told."""
    targets = hpa_targets({**obj, "kind": ref.builtin} for ref, obj in live.items())
    return [ref for ref, known in _known(record) if ref in live and _is_edited(ref, live[ref], known, targets)]


def _known(record: Record) -> t.Iterator[tuple[Ref, list[str]]]:
    return ((ref_from_key(key), prints) for objects in record.values() for key, prints in sorted(objects.items()))


def _is_edited(ref: Ref, obj: dict, known: list[str], targets: t.Container[tuple[str, str, str]]) -> bool:
    ours = own_entry(obj)
    if known[2:] == [TAKEN_OVER] or ours.get("apiVersion", obj["apiVersion"]) != obj["apiVersion"]:
        return False  # others may have written before us; and in other words the same is another print
    added = ref.builtin in SETTINGS and any(
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
