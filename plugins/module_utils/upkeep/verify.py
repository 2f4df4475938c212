# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is everything that was released there, ready, and answering? Waits for all of it at once, and not for what cannot get better."""
from __future__ import annotations

import time
import typing as t

from ..cluster.api import Cluster
from ..engine.ledger import Ledger, State
from ..engine.observe import observe, recorded_types
from ..engine.wait import Waiter, details
from ..errors import ApiError, Hopeless, InvalidInput, TimedOut
from ..fleet.fleet import COMPONENT
from ..fleet.node_drift import UNSEEN, node_findings
from ..objects.fields import spec_of
from ..objects.health import not_ready
from ..objects.kinds import FINISHING, WEBHOOKS
from ..objects.manifest import Ref
from ..objects.types import ResourceType, ref_of
from ..plan.drift import Finding
from ..plan.record import Record, ref_from_key
from .answers import DRIFT_HINT, Silence, by_whom, edited, hooks, no_room, service_of, silent, strangers
from .ask import ROUNDS, ask

UNKNOWN, GONE = "unknown", "gone"  # beside the types of a Service
HEALTHY, FAILED, TIMED_OUT = "healthy", "failed", "timed_out"
BESIDE_SECONDS = 8  # for what else there is to be said, once it is known that not all is well
ENDPOINT_SECONDS = 5  # until a Service's endpoints follow its pods
SERVICES = ResourceType("", "v1", "Service", "services", True)
SLICES = ResourceType("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True)
HOOKS = tuple(ResourceType("admissionregistration.k8s.io", "v1", kind, f"{kind.lower()}s", False) for kind in WEBHOOKS)
QUOTAS = ResourceType("", "v1", "ResourceQuota", "resourcequotas", True)
# What acts on all pods of a namespace, whoever made it.
NAMESPACE_RULES = (
    QUOTAS,
    ResourceType("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True),
    ResourceType("", "v1", "LimitRange", "limitranges", True),
    ResourceType("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
)


def verify(
    cluster: Cluster, ledger: Ledger, components: list[str] | None, timeout: float, progress: t.Callable[[str], None], asking: bool = False
) -> dict:
    """The verdict: {verdict, release, checked, ready, problems, seconds, ...}; `problems` is empty when healthy. `asking`: the Services
    that say how are asked."""
    started = time.monotonic()
    cluster.types()
    state, journal = ledger.load()
    release = state.deployed["number"]
    record = _record_of(state, components)
    refs = recorded_types(cluster, record)
    live = observe(cluster, ledger.platform, record)
    problems = [_missing(ref, ref not in refs) for ref in _recorded(record) if ref not in live and not _cleans_up(ref)]
    problems += [_going(ref) for ref in refs if live.get(ref, {}).get("metadata", {}).get("deletionTimestamp")]
    waiter = Waiter(cluster, {ref: rtype for ref, rtype in refs.items() if ref in live and not_ready(live[ref])}, ledger.platform, progress)
    verdict, found = _waited(waiter, min(timeout, BESIDE_SECONDS) if problems else timeout)
    verdict, problems = FAILED if problems else verdict, problems + found
    there = {ref: obj for ref, obj in {**live, **waiter.live}.items() if not obj["metadata"].get("deletionTimestamp")}
    judged = {ref: obj for ref, obj in there.items() if ref in refs}
    changed = edited(record, judged)
    silences, unseen = _silent(cluster, judged, there, changed, ENDPOINT_SECONDS if verdict == HEALTHY else 0)
    room = _in_the_room(cluster, {ref.namespace for ref in judged} - {""})
    ours = set(_recorded(state.record))
    rounds = 1 if problems or silences else ROUNDS
    if asking:
        progress("asking the Services that say how")
    asked = ask(cluster, judged if asking else {}, lambda space: _listed(cluster, SLICES, space), changed, rounds)
    unseen += asked.unseen
    problems += silences + [_of(each) for each in asked.silences]
    problems += [_of(each) for each in no_room([item for item in room if item[0].kind == QUOTAS.kind], judged, changed, ours)]
    on_nodes, unseen_nodes = _on_nodes(cluster, ledger, state, record)
    problems, unseen = problems + on_nodes, unseen + unseen_nodes
    if problems and verdict == HEALTHY:
        verdict = FAILED
    recorded = set(map(str, _recorded(record)))
    return {
        **_looked_at(cluster, ledger, release, journal),
        "verdict": verdict,
        "checked": len(recorded),
        "ready": len(recorded - {str(ref) for ref in waiter.waiting} - {problem["object"] for problem in problems}),
        "problems": problems,
        "changed_by_others": [f"{ref}{by_whom(judged[ref])}" for ref in sorted(changed)],
        "strangers": strangers(room, ledger.platform, ours),
        "not_checked": unseen,
        "asked": asked.lines,
        "seconds": round(time.monotonic() - started, 1),
    }


def _looked_at(cluster: Cluster, ledger: Ledger, release: int, journal: dict | None) -> dict:
    """Which release of which platform was looked at, whether a run of it was interrupted, and what looking took."""
    return {
        "changed": False,
        "platform": ledger.platform,
        "server": cluster.server,
        "release": release,
        "interrupted": {name: journal[name] for name in ("by", "at")} if journal else None,
        "requests": dict(cluster.requests),
    }


def _waited(waiter: Waiter, timeout: float) -> tuple[str, list[dict]]:
    """(verdict, problems) of waiting for what is not ready."""
    try:
        waiter.run(timeout)
    except (Hopeless, TimedOut) as exc:
        return FAILED if isinstance(exc, Hopeless) else TIMED_OUT, t.cast(list, exc.facts["problems"])
    return HEALTHY, []


def _silent(cluster: Cluster, judged: dict[Ref, dict], live: dict[Ref, dict], changed: t.Collection[Ref], seconds: float) -> tuple[list[dict], list[str]]:
    """(problems, what could not be looked at) of what is there, and does nothing for who needs it. Endpoints follow their pods: they are
    asked again for some seconds."""
    lists = cluster.each(lambda rtype: _listed(cluster, rtype, ""), HOOKS)
    asked = hooks([(ref_of(rtype, obj), obj) for rtype, found in zip(HOOKS, lists) for obj in found or ()], judged)
    types = dict(zip(asked, cluster.each(lambda hook: _service_type(cluster, *hook.service), asked)))
    asked = [hook for hook in asked if types[hook] not in ("ExternalName", UNKNOWN)]  # of what is outside no endpoints tell
    gone = {hook.service for hook in asked if types[hook] == GONE}  # its endpoints may outlive it for a while
    blind = [f"{rtype.kind}s: this identity may not list them" for rtype, found in zip(HOOKS, lists) if found is None]
    spaces = sorted({ref.namespace for ref in judged if ref.builtin == "Service" and not ref.group} | {hook.service[0] for hook in asked})
    deadline = time.monotonic() + seconds
    while True:
        listed = dict(zip(spaces, cluster.each(lambda space: _listed(cluster, SLICES, space), spaces)))
        unseen = [space for space, slices in listed.items() if slices is None]
        seen = {ref: obj for ref, obj in judged.items() if ref.builtin != "Service" or ref.namespace not in unseen}
        served = [hook for hook in asked if hook.service[0] not in unseen]
        endpoints = [each for slices in listed.values() for each in slices or () if service_of(each) not in gone]
        found = silent(seen, live, endpoints, changed, served)
        if all(each.ref.builtin == "HorizontalPodAutoscaler" for each in found) or time.monotonic() >= deadline:
            said = [f"the endpoints of Services in {space}: this identity may not list EndpointSlices there" for space in unseen]
            return [_of(each) for each in found], blind + said
        time.sleep(0.5)


def _service_type(cluster: Cluster, namespace: str, name: str) -> str:
    try:
        service = cluster.get(SERVICES, namespace, name)
    except ApiError as exc:
        if exc.status == 403:
            return UNKNOWN
        raise
    return spec_of(service).get("type") or "ClusterIP" if service else GONE


def _of(silence: Silence) -> dict:
    return _problem(silence.ref, silence.reason, silence.message, silence.hint)


def _in_the_room(cluster: Cluster, spaces: t.Collection[str]) -> list[tuple[Ref, dict]]:
    asked = [(rtype, space) for space in sorted(spaces) for rtype in NAMESPACE_RULES]
    lists = cluster.each(lambda item: _listed(cluster, *item, metadata=item[0] is not QUOTAS), asked)
    return [(ref_of(rtype, obj), obj) for (rtype, _space), found in zip(asked, lists) for obj in found or ()]


def _listed(cluster: Cluster, rtype: ResourceType, namespace: str, metadata: bool = False) -> list[dict] | None:
    """None where the identity may not look, or there is no such kind."""
    try:
        return cluster.list(rtype, "", namespace, metadata)
    except ApiError as exc:
        if exc.status in (403, 404):
            return None
        raise


def _record_of(state: State, components: list[str] | None) -> Record:
    unknown = set(components or ()) - set(state.record)
    if unknown:
        raise InvalidInput(f"no such component: {', '.join(sorted(unknown))}; deployed: {', '.join(sorted(state.record))}")
    return {name: objects for name, objects in state.record.items() if not components or name in components}


def _recorded(record: Record) -> list[Ref]:
    return [ref_from_key(key) for objects in record.values() for key in objects]


def _cleans_up(ref: Ref) -> bool:
    return ref.builtin in FINISHING  # one with ttlSecondsAfterFinished is gone once it is done


def _missing(ref: Ref, type_gone: bool) -> dict:
    if type_gone:
        hint = "its CustomResourceDefinition was deleted: install it again, then run site.yml"
        return _problem(ref, "TypeMissing", f"the cluster serves no {ref.kind} of {ref.group} any more", hint)
    return _problem(ref, "Missing", "it was released and is not there", DRIFT_HINT)


def _going(ref: Ref) -> dict:
    return _problem(ref, "Terminating", "somebody deleted it, and it is on its way out", "look at its finalizers; then run site.yml")


def _on_nodes(cluster: Cluster, ledger: Ledger, state: State, record: Record) -> tuple[list[dict], list[str]]:
    """(problems, what could not be looked at) of GPU nodes: whether they are as the pools of the release say."""
    revision = state.deployed["components"].get(COMPONENT) if COMPONENT in record else None
    found = node_findings(cluster, ledger.manifests(COMPONENT, revision) if revision else [], ledger.platform)
    return [_of_node(finding) for finding in found or []], [UNSEEN] if found is None else []


def _of_node(finding: Finding) -> dict:
    return _problem(finding.ref, "NotOfItsPool", finding.line().partition(f"{finding.ref}: ")[2], DRIFT_HINT)


def _problem(ref: Ref, reason: str, message: str, hint: str) -> dict:
    return {"object": str(ref), "pod": "", "container": "", "reason": reason, "message": message, "event": "", "log": [], "hint": hint}


def verdict_lines(verdict: dict) -> list[str]:
    """The verdict for people: what is wrong, and what others did, which may be why."""
    head = f"{verdict['verdict']}: {verdict['ready']} of {verdict['checked']} objects ready, release {verdict['release']} on {verdict['server']}"
    found = [head]
    for problem in verdict["problems"]:
        pod = f" (pod {problem['pod']})" if problem.get("pod") else ""
        found.append(f"{problem['object']}{pod}: {problem['reason']}: {problem['message']}")
        found += details(problem)
    found += verdict["asked"]
    found += [f"not looked at: {line}" for line in verdict["not_checked"]]
    found += [f"changed by others since it was released: {line}" for line in verdict["changed_by_others"]]
    found += [f"  hint: {DRIFT_HINT}"] if verdict["changed_by_others"] else []
    return found + [f"not of this platform, in a namespace of it: {line}" for line in verdict["strangers"]]
