# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for many objects at once, by watch, and stops at the first one that cannot get better."""
from __future__ import annotations

import queue
import threading
import time
import typing as t

from ._cluster import ATTEMPTS, RETRIED, Cluster
from ._errors import ApiError, Hopeless, PlatformError, TimedOut
from ._health import WORKLOADS, Problem, not_ready, observed, owner_of, pod_problem, stuck
from ._manifest import LABEL_PLATFORM, Ref
from ._types import ResourceType, ref_of

PODS = ResourceType("", "v1", "Pod", "pods", True)
REPLICASETS = ResourceType("apps", "v1", "ReplicaSet", "replicasets", True)
REVISION = "deployment.kubernetes.io/revision"
SHOWN = 5


class Waiter:
    """Waits until every object of `wanted` is ready. Clock and poll are injected so that tests need not sleep."""

    def __init__(
        self,
        cluster: Cluster,
        wanted: dict[Ref, ResourceType],
        platform: str,
        progress: t.Callable[[str], None],
        clock: t.Callable[[], float] = time.monotonic,
        poll: float = 1.0,
    ) -> None:
        self.cluster, self.platform, self.progress, self.clock = cluster, platform, progress, clock
        self.poll = poll  # seconds between two looks at how long a problem has lasted; events are seen at once
        self.wanted = wanted
        self.waiting: dict[Ref, str] = dict.fromkeys(wanted, "not seen yet")
        self.live: dict[Ref, dict] = {}
        self.pods: dict[Ref, dict] = {}
        self._since: dict[tuple[Ref, str], float] = {}
        self._queue: queue.Queue[tuple[ResourceType, dict] | PlatformError] = queue.Queue()

    def run(self, timeout: float) -> None:
        """Returns when all are ready; raises Hopeless or TimedOut (each with `problems` for machines)."""
        if not self.wanted:
            return
        deadline = self.clock() + timeout
        self._start_watches(int(timeout) + 1)
        while self.waiting:
            if self.clock() >= deadline:
                raise self._timed_out(timeout)
            self._take(min(self.poll, max(0.0, deadline - self.clock())))
            self._stop_if_hopeless()

    def _start_watches(self, seconds: int) -> None:
        selector = f"{LABEL_PLATFORM}={self.platform}"
        watches = {(rtype, rtype.path(), selector) for rtype in self.wanted.values()}
        namespaces = {ref.namespace for ref in self.wanted if ref.kind in WORKLOADS}
        watches |= {(PODS, PODS.path(namespace), "") for namespace in namespaces}
        for watch in watches:
            threading.Thread(target=self._watch, args=(*watch, seconds), daemon=True).start()

    def _watch(self, rtype: ResourceType, path: str, selector: str, seconds: int) -> None:
        """Feeds the queue. A server may end a watch, a proxy may cut it: each new one starts with everything there is, so
        nothing is missed. Only several failures in a row, or a refusal, are an error."""
        failures = 0
        while self.waiting:
            try:
                for event in self.cluster.watch(path, selector, seconds):
                    failures = 0
                    if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                        self._queue.put((rtype, event))
            except PlatformError as exc:
                failures += 1
                refused = isinstance(exc, ApiError) and exc.status not in (*RETRIED, 410)
                if refused or failures >= ATTEMPTS:
                    self._queue.put(exc)
                    return
            time.sleep(self.poll * max(1, failures))  # a server that ends every watch at once is not to be hammered

    def _take(self, seconds: float) -> None:
        """Handles one event, and whatever else has arrived with it."""
        try:
            item = self._queue.get(timeout=seconds)
            while True:
                if isinstance(item, PlatformError):
                    raise item
                self._handle(*item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return

    def _handle(self, rtype: ResourceType, event: dict) -> None:
        obj = event["object"]
        ref, gone = ref_of(rtype, obj), event["type"] == "DELETED"
        if rtype.kind == "Pod":
            self.pods.pop(ref, None) if gone else self.pods.__setitem__(ref, obj)
        elif ref in self.wanted:
            obj = {"kind": rtype.kind, "apiVersion": rtype.api_version, **obj}
            self.live[ref] = obj
            reason = "it was deleted" if gone else not_ready(obj)
            if reason:
                if self.waiting.get(ref) != reason:
                    self.progress(f"{ref}: {reason}")
                self.waiting[ref] = reason
            elif self.waiting.pop(ref, None) is not None:
                self.progress(f"{ref}: ready")

    # --- what cannot get better ---------------------------------------------------------------------------------------

    def _stop_if_hopeless(self) -> None:
        now, seen = self.clock(), set()
        for ref, subject, problem in list(self._problems()):
            key = (subject, problem.reason)
            seen.add(key)
            if now - self._since.setdefault(key, now) >= problem.patience and self._is_current(ref, subject):
                raise self._hopeless(ref, subject, problem)
        self._since = {key: since for key, since in self._since.items() if key in seen}

    def _problems(self) -> t.Iterator[tuple[Ref, Ref, Problem]]:
        """(workload waited for, object in trouble, problem)."""
        for ref in self.waiting:
            problem = stuck(self.live.get(ref, {}))
            if problem:
                yield ref, ref, problem
        owners = {(ref.kind, ref.namespace, ref.name): ref for ref in self.waiting}
        for pod_ref, pod in self.pods.items():
            kind, name = owner_of(pod)
            owner = owners.get((kind, pod_ref.namespace, name))
            problem = pod_problem(pod) if owner and not pod["metadata"].get("deletionTimestamp") else None
            if owner and problem:
                yield owner, pod_ref, problem

    def _is_current(self, ref: Ref, subject: Ref) -> bool:
        """Whether a pod in trouble runs what is being rolled out, not what is on its way out."""
        if subject.kind != "Pod":
            return True
        pod, owner = self.pods[subject], self.live.get(ref)
        if owner is None or not observed(owner):
            return False
        labels = pod["metadata"].get("labels", {})
        if ref.kind in ("StatefulSet", "DaemonSet"):
            update = owner["status"].get("updateRevision")  # a DaemonSet has none: its pods are told apart by generation
            return update is None or labels.get("controller-revision-hash") == update
        if ref.kind == "Deployment":
            replicaset = next(o["name"] for o in pod["metadata"]["ownerReferences"] if o.get("controller"))
            return self._revision(ref.namespace, replicaset) == owner["metadata"].get("annotations", {}).get(REVISION)
        return True

    def _revision(self, namespace: str, replicaset: str) -> str | None:
        found = self.cluster.get(REPLICASETS, namespace, replicaset) or {"metadata": {}}
        return found["metadata"].get("annotations", {}).get(REVISION)

    def _hopeless(self, ref: Ref, subject: Ref, problem: Problem) -> Hopeless:
        facts = self._facts(ref, subject, problem)
        lines = [f"{ref}: {subject}: {problem.reason}: {problem.message}"]
        lines += [f"  event: {facts['event']}"] if facts["event"] else []
        lines += [f"  log: {line}" for line in facts["log"]]
        lines.append(f"  hint: {problem.hint}")
        return Hopeless("\n".join(lines), problems=[facts])

    def _facts(self, ref: Ref, subject: Ref, problem: Problem) -> dict:
        log: list[str] = []
        if problem.crashed:
            log = self.cluster.log_tail(subject.namespace, subject.name, problem.container, previous=True)
        try:
            warnings = [e for e in self.cluster.events(subject.namespace, subject.kind, subject.name) if e.get("type") == "Warning"]
        except PlatformError:
            warnings = []  # the events are a help, their absence must not hide the problem itself
        return {
            "object": str(ref),
            "pod": subject.name if subject.kind == "Pod" else "",
            "container": problem.container,
            "reason": problem.reason,
            "message": problem.message,
            "event": warnings[-1].get("message", "") if warnings else "",
            "log": log,
            "hint": problem.hint,
        }

    def _timed_out(self, timeout: float) -> TimedOut:
        left = [f"{ref}: {reason}" for ref, reason in self.waiting.items()]
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        text = f"not ready after {timeout:.0f} s: {'; '.join(left[:SHOWN])}{more}"
        facts = [{"object": str(ref), "reason": "Timeout", "message": reason} for ref, reason in self.waiting.items()]
        return TimedOut(text, problems=facts)
