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
from ._health import READY, WORKLOADS, Problem, not_ready, observed, overtaken, owner_of, pod_problem, stuck
from ._manifest import LABEL_PLATFORM, Ref
from ._types import ResourceType, ref_of

PODS = ResourceType("", "v1", "Pod", "pods", True)
REPLICASETS = ResourceType("apps", "v1", "ReplicaSet", "replicasets", True)
CLASSES = ResourceType("storage.k8s.io", "v1", "StorageClass", "storageclasses", False)
REVISION = "deployment.kubernetes.io/revision"
SHOWN = 5
OVERTAKEN_SECONDS = 10.0  # how long a StatefulSet's pod of another revision may be unready before it is replaced


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
        replace: bool = False,
        after: str = "",
    ) -> None:
        self.cluster, self.platform, self.progress, self.clock = cluster, platform, progress, clock
        self.poll = poll  # seconds between two looks at how long a problem has lasted; events are seen at once
        self.replace = replace  # whether broken pods that block a StatefulSet's way to another revision are deleted
        self.after = after  # RFC 3339: what was changed is in force from then on, also for admission; '' when nothing was
        self.wanted = wanted
        self.waiting: dict[Ref, str] = dict.fromkeys(wanted, "not seen yet")
        self.live: dict[Ref, dict] = {}
        self.pods: dict[Ref, dict] = {}
        self._watched: set[str] = set()  # namespaces
        self._since: dict[tuple[Ref, str], float] = {}
        self._overtaken: dict[tuple[Ref, str], float] = {}
        self._late: frozenset[str] | None = None
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
            self._watch_pods(int(timeout) + 1)
            self._stop_if_hopeless()
            if self.replace:
                self._replace_overtaken()

    def _start_watches(self, seconds: int) -> None:
        selector = f"{LABEL_PLATFORM}={self.platform}"
        for rtype in set(self.wanted.values()):
            self._start_watch(rtype, rtype.path(), selector, seconds)

    def _watch_pods(self, seconds: int) -> None:
        """Pods are watched where they are waited for: most workloads of a large release need none, or are ready at once."""
        waiting = {ref.namespace for ref in self.waiting if ref.kind in WORKLOADS and _has_pods(self.live.get(ref, {}))}
        for namespace in waiting - self._watched:
            self._watched.add(namespace)
            self._start_watch(PODS, PODS.path(namespace), "", seconds)

    def _start_watch(self, *watch: t.Any) -> None:
        threading.Thread(target=self._watch, args=watch, daemon=True).start()

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
            reason = "it was deleted" if gone else self._not_ready(obj)
            if reason:
                if self.waiting.get(ref) != reason:
                    self.progress(f"{ref}: {reason}")
                self.waiting[ref] = reason
            elif self.waiting.pop(ref, None) is not None:
                self.progress(f"{ref}: ready")

    def _not_ready(self, obj: dict) -> str:
        reason = not_ready(obj)
        if reason and obj["kind"] == "PersistentVolumeClaim" and obj.get("status", {}).get("phase") == "Pending":
            return READY if obj["spec"].get("storageClassName") in self._binding_late() else reason
        return reason

    def _binding_late(self) -> frozenset[str]:
        """StorageClasses whose claims are bound only when a pod needs them: such a claim is no reason to wait."""
        if self._late is None:
            classes = self.cluster.list(CLASSES)
            self._late = frozenset(c["metadata"]["name"] for c in classes if c.get("volumeBindingMode") == "WaitForFirstConsumer")
        return self._late

    # --- a StatefulSet's way back ------------------------------------------------------------------------------------

    def _replace_overtaken(self) -> None:
        owners = {(ref.kind, ref.namespace, ref.name): ref for ref in self.waiting if ref.kind == "StatefulSet" and ref in self.live}
        seen = set()
        for pod_ref, pod in list(self.pods.items()):
            kind, name = owner_of(pod)
            owner = self.live.get(owners.get((kind, pod_ref.namespace, name)))  # type: ignore[arg-type]
            why = overtaken(pod, owner["status"].get("updateRevision", "")) if owner and _rolls(owner) else ""
            if not why:
                continue
            key = (pod_ref, "overtaken")
            seen.add(key)
            patience = 0.0 if pod_problem(pod) else OVERTAKEN_SECONDS
            if self.clock() - self._overtaken.setdefault(key, self.clock()) >= patience:
                self.progress(f"{pod_ref}: {why}, blocks the rollout; deleted so that it comes back at the new revision")
                self.cluster.delete(PODS, pod_ref.namespace, pod_ref.name, pod["metadata"]["uid"])
                self.pods.pop(pod_ref)
        self._overtaken = {key: since for key, since in self._overtaken.items() if key in seen}

    # --- what cannot get better ---------------------------------------------------------------------------------------

    def _stop_if_hopeless(self) -> None:
        """Raises Hopeless with everything that has been hopeless for longer than its patience."""
        now, seen, found = self.clock(), set(), []
        for ref, subject, problem in list(self._problems()):
            key = (subject, problem.reason)
            seen.add(key)
            if now - self._since.setdefault(key, now) >= problem.patience and self._is_current(ref, subject):
                confirmed = problem.confirmed(self._telling(subject, problem)) if problem.bad else problem
                if confirmed:
                    found.append((ref, subject, confirmed))
                else:
                    self._since[key] = now  # not borne out by the events: ask again after another patience
        self._since = {key: since for key, since in self._since.items() if key in seen}
        if found:
            raise self._hopeless(found)

    def _telling(self, subject: Ref, problem: Problem) -> list[dict]:
        events = self._events(subject)
        return [event for event in events if (event.get("lastTimestamp") or "") >= self.after] if problem.fresh else events

    def _events(self, subject: Ref) -> list[dict]:
        try:
            return self.cluster.events(subject.namespace, subject.kind, subject.name)
        except PlatformError:
            return []  # the events are a help, their absence must not hide the problem itself

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

    def _hopeless(self, found: list[tuple[Ref, Ref, Problem]]) -> Hopeless:
        problems = [self._facts(*each) for each in found]
        lines = []
        for (ref, subject, problem), facts in zip(found, problems):
            where = f"{ref}: {subject}" if subject != ref else str(ref)
            lines.append(f"{where}: {problem.reason}: {problem.message}")
            lines += details(facts)
        return Hopeless("\n".join(lines), problems=problems)

    def _facts(self, ref: Ref, subject: Ref, problem: Problem) -> dict:
        warnings = [event for event in self._events(subject) if event.get("type") == "Warning"]
        return {
            "object": str(ref),
            "pod": subject.name if subject.kind == "Pod" else "",
            "container": problem.container,
            "reason": problem.reason,
            "message": problem.message,
            "event": warnings[-1].get("message", "") if warnings else "",
            "log": self._log(ref, subject, problem),
            "hint": problem.hint,
        }

    def _log(self, ref: Ref, subject: Ref, problem: Problem) -> list[str]:
        """The last lines of the container in trouble; of a workload, those of its newest pod."""
        if not problem.log:
            return []
        if subject.kind == "Pod":
            pods = [self.pods[subject]]
        else:
            pods = [pod for pod_ref, pod in self.pods.items() if (*owner_of(pod), pod_ref.namespace) == (ref.kind, ref.name, ref.namespace)]
        if not pods:
            return []
        newest = max(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
        container = problem.container or newest["spec"]["containers"][0]["name"]
        return self.cluster.log_tail(subject.namespace, newest["metadata"]["name"], container, previous=problem.log == "previous")

    def _timed_out(self, timeout: float) -> TimedOut:
        left = [f"{ref}: {reason}" for ref, reason in self.waiting.items()]
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        text = f"not ready after {timeout:.0f} s: {'; '.join(left[:SHOWN])}{more}"
        facts = [{"object": str(ref), "reason": "Timeout", "message": reason} for ref, reason in self.waiting.items()]
        return TimedOut(text, problems=facts)


def details(problem: dict) -> list[str]:
    """What is known beyond a problem's message, for people: event, log lines and hint, as far as it has them."""
    event, hint = problem.get("event"), problem.get("hint")
    lines = [f"  event: {event}"] if event and event != problem["message"] else []
    return [*lines, *(f"  log: {line}" for line in problem.get("log", [])), *([f"  hint: {hint}"] if hint else [])]


def _has_pods(workload: dict) -> bool:
    return bool(workload) and workload.get("spec", {}).get("replicas") != 0


def _rolls(statefulset: dict) -> bool:
    """Whether its controller has seen the newest spec and replaces pods by itself."""
    return observed(statefulset) and statefulset["spec"].get("updateStrategy", {}).get("type") != "OnDelete"
