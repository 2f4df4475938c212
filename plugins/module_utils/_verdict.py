# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may decide on a release: what it wrote. Not what was broken before it, and nothing that has nothing to do with it. Pure."""
from __future__ import annotations

import dataclasses
import typing as t

from ._health import WAITED, WORKLOADS, not_ready, owner_of, pod_problem, rolled_out
from ._manifest import Ref
from ._plan import CREATE, UNCHANGED, UPDATE, Action, Plan
from ._references import needed
from ._types import ResourceType

ROOM = ("Namespace", "ResourceQuota", "LimitRange")  # what pods of a namespace may be, and how many: it concerns all that are in it


@dataclasses.dataclass(frozen=True)
class Scope:
    """`wanted`: what is waited for. `hoped`: those of it that were broken before, and whose own description this run leaves as it is:
    what it wrote may mend them. `beside`: not ready, and nothing that this run wrote concerns it."""

    wanted: dict[Ref, ResourceType]
    hoped: frozenset[Ref]
    beside: dict[Ref, ResourceType]


def scope(plan: Plan) -> Scope:
    waited = [action for action in plan.actions if action.desired and action.ref.kind in WAITED]
    written = {action.ref for action in plan.actions if action.verb in (CREATE, UPDATE)}
    sick = [action for action in waited if action.verb == UNCHANGED and action.live and not_ready(action.live)]
    hoped = {action.ref: action.rtype for action in sick if _concerned(action, written)}
    wanted = {action.ref: action.rtype for action in waited if action.ref in written}
    return Scope({**wanted, **hoped}, frozenset(hoped), {action.ref: action.rtype for action in sick if action.ref not in hoped})


def unready_of(plan: Plan) -> dict[Ref, dict]:
    """The live objects that a plan may wait for and that are not ready yet."""
    return {a.ref: a.live for a in plan.actions if a.desired and a.live and a.ref.kind in WAITED and not_ready(a.live)}


def _concerned(action: Action, written: t.Collection[Ref]) -> bool:
    """Whether a workload needs something that was written, or is in a namespace whose limits were."""
    room = any(ref.kind in ROOM and action.ref.namespace in (ref.namespace, ref.name) for ref in written)
    return room or any(need.ref in written for need in needed([action.desired] if action.desired else []))


@dataclasses.dataclass(frozen=True)
class Before:
    """What was not ready before the first write: {workload: its generation}, {uid of its pod: {container: restarts}}, and the uids of
    those pods that were in trouble, not only starting. Counts and uids: no two clocks are compared."""

    generations: t.Mapping[Ref, int] = dataclasses.field(default_factory=dict)
    restarts: t.Mapping[str, t.Mapping[str, int]] = dataclasses.field(default_factory=dict)
    sick: frozenset[str] = frozenset()

    def had(self, ref: Ref, live: dict, pod: dict | None = None, container: str = "") -> bool:
        """Whether trouble with a workload, or with a container of its pod, is no newer than this."""
        if ref not in self.generations:
            return False
        if pod is None:
            return live.get("metadata", {}).get("generation", 0) == self.generations[ref]
        counts = self.restarts.get(pod["metadata"]["uid"])
        return counts is not None and restarts(pod).get(container, 0) <= counts.get(container, 0)

    def forgives(self, ref: Ref, live: dict, pod: dict | None, container: str) -> bool:
        """Whether trouble is nothing that the run has brought: it is no newer, or of a pod that was in trouble already."""
        return self.had(ref, live, pod, container) or (pod is not None and pod["metadata"].get("uid") in self.sick)

    def explains(self, ref: Ref, live: dict, pods: t.Iterable[dict]) -> bool:
        """Whether a workload is still not ready for nothing but what was so before: what was written has reached all of its pods, and
        those that are not ready were there."""
        unready = [pod for pod in pods if not _ready(pod) and not pod["metadata"].get("deletionTimestamp")]
        if not unready or not rolled_out(live):
            return self.had(ref, live)
        return all(self.forgives(ref, live, pod, name) for pod in unready for name in restarts(pod))


def before(unready: t.Mapping[Ref, dict], pods: t.Iterable[dict]) -> Before:
    """`unready`: the live objects of workloads that are not ready; `pods`: all of their namespaces."""
    generations = {ref: live["metadata"].get("generation", 0) for ref, live in unready.items()}
    owners = {(ref.kind, ref.namespace, ref.name) for ref in unready if ref.kind in WORKLOADS}
    owned = [pod for pod in pods for kind, name in (owner_of(pod),) if (kind, pod["metadata"]["namespace"], name) in owners]
    sick = frozenset(pod["metadata"]["uid"] for pod in owned if not _ready(pod) and (pod_problem(pod) or any(restarts(pod).values())))
    return Before(generations, {pod["metadata"]["uid"]: restarts(pod) for pod in owned}, sick)


def restarts(pod: dict) -> dict[str, int]:
    """{container: how often it was started again}; the pod itself under '', for trouble that no container has."""
    status = pod.get("status", {})
    counts = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return {"": 0, **{each["name"]: each.get("restartCount", 0) for each in counts}}


def _ready(pod: dict) -> bool:
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in pod.get("status", {}).get("conditions") or [])
