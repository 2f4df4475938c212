# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evicts the broken pods that keep a StatefulSet from leaving the revision of a failed release."""
from __future__ import annotations

import time
import typing as t

from ._cluster import Cluster
from ._errors import ApiError, LockLost, PlatformError
from ._health import blocking_pod, observed, pod_problem
from ._manifest import Ref
from ._types import ResourceType

UNREADY_SECONDS = 10.0  # how long a pod may be not ready, for no known reason, before it is evicted
RETRY_SECONDS = 5.0  # until an eviction that was refused is tried again
BUDGET = "a PodDisruptionBudget forbids it now (unhealthyPodEvictionPolicy: AlwaysAllow would not)"
REVISIONS = ResourceType("apps", "v1", "ControllerRevision", "controllerrevisions", True)
OBSERVED_SECONDS = 10.0  # how long a controller may take to see a change

Leaving = t.Dict[Ref, t.FrozenSet[str]]  # {StatefulSet: names of the revisions that a way back leaves}


def revisions_left(cluster: Cluster, sets: t.Mapping[Ref, ResourceType]) -> Leaving:
    """The revisions that StatefulSets are about to leave. What cannot be read is left out.

    Waits for a controller that has not seen the last change yet: until then its status names the revision before.
    """
    deadline = time.monotonic() + OBSERVED_SECONDS
    while sets:
        try:
            found = [obj for obj in (cluster.get(rtype, ref.namespace, ref.name) for ref, rtype in sets.items()) if obj]
        except PlatformError:
            return {}
        if all(map(observed, found)) or time.monotonic() >= deadline:
            return {Ref.of(obj): _left(cluster, obj) for obj in found}
        time.sleep(0.25)
    return {}


def _left(cluster: Cluster, statefulset: dict) -> frozenset[str]:
    try:
        return left_by(statefulset, cluster.list(REVISIONS, "", statefulset["metadata"]["namespace"]))
    except PlatformError:
        return left_by(statefulset, [])


def left_by(statefulset: dict, revisions: t.Iterable[dict]) -> frozenset[str]:
    """Its newest revision, and those since the last one that all of its pods have reached: several changes may have followed each other.

    `revisions`: ControllerRevisions, those of others too. By its status: `currentRevision` is what all pods had reached,
    `updateRevision` the newest.
    """
    uid, status = statefulset["metadata"]["uid"], statefulset.get("status", {})
    newest = {name for name in (status.get("updateRevision"),) if name}
    owned = {o["metadata"]["name"]: o["revision"] for o in revisions if uid in (r["uid"] for r in o["metadata"].get("ownerReferences") or [])}
    reached = owned.get(status.get("currentRevision"))
    return frozenset(newest if reached is None else newest | {name for name, number in owned.items() if number > reached})


class Evictions:
    """Of each StatefulSet one pod at a time. `leaving`: {StatefulSet: the revisions to be left}."""

    def __init__(
        self, cluster: Cluster, leaving: t.Mapping[Ref, t.Collection[str]], progress: t.Callable[[str], None], clock: t.Callable[[], float]
    ) -> None:
        self._cluster, self._leaving, self._progress, self._clock = cluster, leaving, progress, clock
        self.refused: dict[Ref, str] = {}  # {StatefulSet: why its pod could not be evicted}
        self._blocking: dict[Ref, tuple[str, float]] = {}  # {StatefulSet: uid of its pod that blocks, since when}
        self._retry_at: dict[str, float] = {}  # {uid of a pod: when to try again}
        self._gone: set[str] = set()  # uids of pods that were evicted; until a watch tells, they look as before
        self._said: set[tuple[str, int]] = set()

    def due(self, ref: Ref, statefulset: dict, pods: list[dict]) -> dict | None:
        """The pod to evict now, out of all pods of a StatefulSet; None when there is none, or it may still get ready."""
        left = (pod for pod in pods if pod["metadata"]["uid"] not in self._gone)
        pod = blocking_pod(statefulset, left, self._leaving[ref])
        if pod is None:
            self._blocking.pop(ref, None)
            self.refused.pop(ref, None)
            return None
        uid, now, problem = pod["metadata"]["uid"], self._clock(), pod_problem(pod)
        if ref not in self._blocking or self._blocking[ref][0] != uid:
            self._blocking[ref] = (uid, now)
        patience = 0.0 if problem and not problem.bad else UNREADY_SECONDS  # what has `bad` events is a suspicion
        return pod if now >= max(self._blocking[ref][1] + patience, self._retry_at.get(uid, 0.0)) else None

    def evict(self, ref: Ref, pod: dict) -> None:
        """Asks for the eviction of a pod. A refusal ends nothing: it is told, and tried again."""
        meta = pod["metadata"]
        blocks = f"Pod {meta['namespace']}/{meta['name']}: not ready, phase {pod.get('status', {}).get('phase', 'unknown')}, blocks the rollout"
        try:
            accepted = self._cluster.evict(meta["namespace"], meta["name"], meta["uid"])
        except LockLost:
            raise  # another run may be at it
        except PlatformError as exc:
            self._not_evicted(ref, meta["uid"], blocks, exc)
            return
        self.refused.pop(ref, None)
        self._gone.add(meta["uid"])
        if accepted:
            self._progress(f"{blocks}; evicted so that it comes back at the new revision")

    def _not_evicted(self, ref: Ref, uid: str, blocks: str, exc: PlatformError) -> None:
        """Remembers why, and says it once for each pod and status."""
        status = exc.status if isinstance(exc, ApiError) else 0
        self._retry_at[uid] = self._clock() + RETRY_SECONDS
        self.refused[ref] = f"{blocks}; cannot be evicted: {BUDGET if status == 429 else exc.message}"
        if (uid, status) not in self._said:
            self._said.add((uid, status))
            self._progress(f"{self.refused[ref]}; trying again")
