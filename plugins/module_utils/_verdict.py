# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may decide on a release: what it wrote. Not what was broken before it, and nothing that has nothing to do with it. Pure."""
from __future__ import annotations

import dataclasses
import re
import typing as t

from ._health import WAITED, WORKLOADS, condition_is, containers, not_ready, owner_of, pod_problem, rolled_out, rolls, stuck
from ._manifest import Ref
from ._order import Order
from ._plan import CREATE, UNCHANGED, UPDATE, Action, Plan
from ._references import needed
from ._types import ResourceType

ROOM = ("ResourceQuota", "LimitRange")  # what pods of a namespace may be, and how many: it concerns all that are in it


@dataclasses.dataclass(frozen=True)
class Scope:
    """`wanted`: what is waited for. `hoped`: those of it that were not ready before, and whose own description this run leaves as it is:
    what it wrote may mend them. `beside`: not ready, and nothing that this run wrote concerns it."""

    wanted: dict[Ref, ResourceType]
    hoped: frozenset[Ref]
    beside: dict[Ref, ResourceType]


def scope(plan: Plan, order: Order | None = None) -> Scope:
    """What a run waits for. `order`: where given, also what it did not write and what something that it writes comes after."""
    waited = [action for action in plan.actions if action.desired and action.ref.builtin in WAITED]
    written = {action.ref for action in plan.actions if action.verb in (CREATE, UPDATE)}
    unready = [action for action in waited if action.verb == UNCHANGED and action.live and not_ready(action.live)]
    hoped = {action.ref: action.rtype for action in unready if action.ref.builtin != "Job" and _concerned(action, written)}
    wanted = {action.ref: action.rtype for action in waited if action.ref in written}
    ahead = order.ahead({action.component for action in plan.actions if action.verb in (CREATE, UPDATE)}) if order else set()
    gates = {action.ref: action.rtype for action in unready if action.component in ahead and action.ref not in hoped}
    beside = {action.ref: action.rtype for action in unready if action.ref not in hoped and action.ref not in gates}
    return Scope({**wanted, **hoped, **gates}, frozenset(hoped), beside)


def unready_of(plan: Plan, wanted: t.Collection[Ref]) -> dict[Ref, dict]:
    """The live objects, out of those waited for, that are not ready before the first write."""
    return {a.ref: a.live for a in plan.actions if a.ref in wanted and a.live and not_ready(a.live)}


def _concerned(action: Action, written: t.Collection[Ref]) -> bool:
    """Whether a workload needs something that was written, or is in a namespace that was, or whose limits were."""
    space = action.ref.namespace
    room = any((ref.builtin in ROOM and ref.namespace == space) or (ref.builtin == "Namespace" and ref.name == space) for ref in written)
    return room or any(need.ref in written for need in needed([action.desired] if action.desired else [], pull_secrets=True))


@dataclasses.dataclass(frozen=True)
class Before:
    """A reading from before the first write: {workload that was not ready: the live object}, and {workload: {uid: its pod that was not
    ready}}. What is compared are uids, counts and messages, never the times of two clocks."""

    live: t.Mapping[Ref, dict] = dataclasses.field(default_factory=dict)
    pods: t.Mapping[Ref, t.Mapping[str, dict]] = dataclasses.field(default_factory=dict)

    def was_broken(self, ref: Ref) -> bool:
        """Whether a workload was in trouble, and not only about to be ready."""
        if ref not in self.live:
            return False
        pods = self.pods.get(ref, {}).values()
        return not pods or bool(_said(self.live[ref])) or any(map(_in_trouble, pods))

    def knew(self, ref: Ref, pod: dict) -> bool:
        """Whether this very pod was not ready when the reading was taken."""
        return _uid(pod) in self.pods.get(ref, {})

    def had(self, ref: Ref, live: dict, pod: dict | None = None, container: str = "") -> bool:
        """Whether trouble with a workload, or with a container of its pod, is no newer than the reading."""
        if ref not in self.live:
            return False
        if pod is None:
            said = _said(self.live[ref])
            return said == _said(live) if said else _generation(live) == _generation(self.live[ref]) and not _said(live)
        then = self.pods.get(ref, {}).get(_uid(pod))
        return then is not None and restarts(pod).get(container, 0) <= restarts(then).get(container, 0)

    def forgives(self, ref: Ref, live: dict, pod: dict | None, container: str) -> bool:
        """Whether trouble is nothing that the run has brought: it is no newer, or of a pod that was in trouble already."""
        then = self.pods.get(ref, {}).get(_uid(pod)) if pod else None
        return self.had(ref, live, pod, container) or (then is not None and _in_trouble(then))

    def explains(self, ref: Ref, live: dict, pods: t.Iterable[dict]) -> bool:
        """Whether a workload is still not ready for nothing but what was so before: what was written has reached all of its pods, and
        those that are not ready were there."""
        unready = [pod for pod in pods if not condition_is(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")]
        if not unready or not rolled_out(live):
            return self.had(ref, live)
        return all(self.forgives(ref, live, pod, name) for pod in unready for name in restarts(pod))


def before(unready: t.Mapping[Ref, dict], pods: t.Iterable[dict]) -> Before:
    """`unready`: the live objects of workloads that are not ready; `pods`: all of their namespaces."""
    owners = {(ref.kind, ref.namespace, ref.name): ref for ref in unready if ref.builtin in WORKLOADS}
    owned: dict[Ref, dict[str, dict]] = {}
    for pod in pods:
        kind, name = owner_of(pod)
        ref = owners.get((kind, pod["metadata"]["namespace"], name))
        if ref and not condition_is(pod, "Ready"):
            owned.setdefault(ref, {})[_uid(pod)] = pod
    return Before(unready, owned)


def restarts(pod: dict) -> dict[str, int]:
    """{container: how often it was started again}; the pod itself under '', for trouble that no container has."""
    return {"": 0, **{each["name"]: each.get("restartCount", 0) for each in containers(pod.get("status", {}))}}


def may_start_anew(ref: Ref, live: dict, pod: dict) -> bool:
    """Whether evicting a pod only brings it back: nothing runs in it, its workload makes another, and of the same description."""
    running = any("running" in (each.get("state") or {}) for each in containers(pod.get("status", {})))
    return ref.builtin != "Job" and rolls(live) and not running


def _in_trouble(pod: dict) -> bool:
    """A suspicion is none, and who only starts has none."""
    problem = pod_problem(pod)
    return bool(problem and not problem.asks) or any(restarts(pod).values())


def _said(live: dict) -> tuple[str, str] | None:
    """What a workload says of its own trouble, without the names of the pods that it could not make."""
    problem = stuck(live)
    return (problem.reason, re.sub(r'"[^"]*"', "", problem.message)) if problem and not problem.asks else None


def _uid(pod: dict) -> str:
    return pod["metadata"].get("uid", "")


def _generation(live: dict) -> int:
    return live.get("metadata", {}).get("generation", 0)
