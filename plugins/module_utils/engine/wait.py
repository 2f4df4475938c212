# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for many objects at once, by watch, and stops at the first one that cannot get better."""
from __future__ import annotations

import time
import typing as t

from ..cluster.api import Cluster
from ..cluster.watch import Watch, Watches
from ..errors import ApiError, Hopeless, LockLost, PlatformError, TimedOut
from ..objects.health import READY, Problem, awaits_consumer, condition_is, ended, not_ready, observed, owner_of, pod_problem, stuck
from ..objects.kinds import WORKLOADS
from ..objects.manifest import LABEL_PLATFORM, Ref
from ..objects.types import CLASSES, PODS, REPLICASETS, ResourceType, ref_of
from ..plan.verdict import Before, may_start_anew, restarts
from .evict import Evictions

REVISION = "deployment.kubernetes.io/revision"
NAMED_UNREADY = 5
FEW_NAMESPACES = 4  # objects in more of them are watched in all namespaces at once, if the identity may
CLAIM_SECONDS = 2.0  # between two looks at the events of claims
OLD_SECONDS = 30.0  # how much longer than usual trouble from before the release may last; a crash, until its container is started again
QUOTA = "exceeded quota"
CRASHES = ("CrashLoopBackOff", "OOMKilled")

More = t.Callable[[t.Collection[Ref]], t.Dict[Ref, ResourceType]]  # {what is not ready} -> {what is to be waited for as well: type}


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
        leaving: t.Mapping[Ref, t.Collection[str]] | None = None,
        after: str = "",
        hoped: t.Collection[Ref] = (),
        before: Before | None = None,
        patience: t.Callable[[Ref, str], float] = lambda _ref, _reason: 0.0,
    ) -> None:
        self.cluster, self.platform, self.progress, self.clock = cluster, platform, progress, clock
        self.poll = poll  # seconds between two looks at how long a problem has lasted; events are seen at once
        self.leaving = leaving or {}  # {StatefulSet: the revisions that a way back leaves}: broken pods of it that block are evicted
        self.after = after  # RFC 3339: what was changed is in force from then on, also for admission; '' when nothing was
        self._revisions: dict[tuple[str, str], str | None] = {}  # of ReplicaSets, for one pass
        self.patience = patience  # seconds that trouble with an object may last at least, by its reason
        self.hoped, self.before = hoped, before or Before()  # what cannot fail the wait; what was broken before it
        self.left: dict[Ref, str] = {}  # {what is not waited for any longer: why}; it is not ready, and fails nothing
        self.wanted = wanted
        self.waiting: dict[Ref, str] = dict.fromkeys(wanted, "not seen yet")
        self.live: dict[Ref, dict] = {}
        self.pods: dict[Ref, dict] = {}
        self._watches = Watches(cluster, clock, poll)
        self._evictions = Evictions(cluster, self.leaving, progress, clock)
        self._watched: set[str] = set()  # namespaces
        # {uid: how often its containers had been started again} of pods that were to be evicted so that they start anew
        self._anew: dict[str, dict[str, int]] = {}
        self._since: dict[tuple[Ref, str], float] = {}
        self._drained: dict[str, float] = {}  # {namespace: seconds more for who waits for its quota}
        self._begun: set[Watch] = set()
        self._told: set[Ref] = set()  # what was not ready when `more` was asked last
        self._deadline = 0.0
        self._late: frozenset[str] | None = None
        self._late_unknown, self._claims_at = False, 0.0

    def run(self, timeout: float, more: More | None = None) -> None:
        """Returns when all are ready but what is in `left`; raises Hopeless or TimedOut (each with `problems` for machines).

        `more` is told what is not ready, and returns what has been written meanwhile because of what is. That is waited for as well, and
        has `timeout` seconds from then on.
        """
        if not self.wanted and not more:
            return
        self._deadline = self.clock() + timeout
        self._watches.seconds = int(timeout) + 1
        try:
            self._start_watches(self.wanted)
            while self._goes_on(timeout, more):
                if self.clock() >= self._deadline:
                    self._time_is_up(timeout)
                    continue
                for event in self._watches.take(min(self.poll, max(0.0, self._deadline - self.clock()))):
                    self._handle(*event)
                self._revisions.clear()
                self._look_at_claims()
                self._watch_pods()
                self._stop_if_hopeless()
                self._evict_blocking()
                self._start_anew()
        finally:
            self._watches.stop()

    def _goes_on(self, timeout: float, more: More | None) -> bool:
        """Whether there is still something to wait for. A list is asked for only where something has become ready."""
        if not self.waiting or (more and self._unready() != self._told):
            self._look_again()
        while more and (found := more(self._unready())):
            self._wait_for(found)
            self._deadline = self.clock() + timeout
        self._told = self._unready()
        return bool(self.waiting)

    def _unready(self) -> set[Ref]:
        return {*self.waiting, *self.left}

    def _wait_for(self, found: dict[Ref, ResourceType]) -> None:
        """Waits for more. It is listed where a watch is open already, which may have told of it before it was of interest."""
        self.wanted = {**self.wanted, **found}
        self.waiting.update({ref: "not seen yet" for ref in found if ref not in self.left})
        for watch in self._start_watches(found):
            for obj in self.cluster.items(watch.rtype, watch.selector, watch.namespace):
                self._handle(watch.rtype, {"type": "MODIFIED", "object": obj})

    def _start_watches(self, wanted: dict[Ref, ResourceType]) -> list[Watch]:
        """Watches a type where its objects are; in all namespaces where these are many, if the identity may. Returns what was watched
        already."""
        selector, known = f"{LABEL_PLATFORM}={self.platform}", []
        for rtype in set(wanted.values()):
            namespaces = {ref.namespace for ref, each in wanted.items() if each == rtype}
            watches = [Watch(rtype, namespace, selector) for namespace in sorted(namespaces)]
            if len(watches) > FEW_NAMESPACES:
                self._watches.start(Watch(rtype, "", selector), otherwise=watches)
                continue
            known += [watch for watch in watches if watch in self._begun]
            for watch in watches:
                if watch not in self._begun:
                    self._begun.add(watch)
                    self._watches.start(watch)
        return known

    def _watch_pods(self) -> None:
        """Pods are watched where they are waited for: most workloads of a large release need none, or are ready at once."""
        waiting = {ref.namespace for ref in self.waiting if ref.builtin in WORKLOADS and _has_pods(self.live.get(ref, {}))}
        for namespace in waiting - self._watched:
            self._watched.add(namespace)
            self._watches.start(Watch(PODS, namespace, ""))

    def _look_again(self) -> None:
        """Lists what an interrupted watch is about, before anything is decided: it does not tell what was deleted meanwhile."""
        for watch in list(self._watches.interrupted):
            found = {ref_of(watch.rtype, obj): obj for obj in self.cluster.items(watch.rtype, watch.selector, watch.namespace)}
            known = self.pods if watch.rtype == PODS else {ref: obj for ref, obj in self.live.items() if self.wanted[ref] == watch.rtype}
            gone = {ref: obj for ref, obj in known.items() if ref not in found and watch.namespace in ("", ref.namespace)}
            for kind, objects in (("DELETED", gone), ("MODIFIED", found)):
                for obj in objects.values():
                    self._handle(watch.rtype, {"type": kind, "object": obj})

    def _handle(self, rtype: ResourceType, event: dict) -> None:
        obj = event["object"]
        ref, gone = ref_of(rtype, obj), event["type"] == "DELETED"
        if rtype.kind == "Pod":
            self.pods.pop(ref, None) if gone else self.pods.__setitem__(ref, obj)
        elif ref in self.wanted and not self._is_stale(ref, obj):
            obj = {"kind": rtype.kind, "apiVersion": rtype.api_version, **obj}
            gone = gone and not ended(obj)
            self.live.pop(ref, None) if gone else self.live.__setitem__(ref, obj)
            reason = "it was deleted" if gone else self._not_ready(obj)
            if reason and ref in self.left:
                return
            if reason:
                if self.waiting.get(ref) != reason:
                    self.progress(f"{ref}: {reason}")
                self.waiting[ref] = reason
            elif self.waiting.pop(ref, self.left.pop(ref, None)) is not None:
                self.progress(f"{ref}: ready")

    def _is_stale(self, ref: Ref, obj: dict) -> bool:
        """Whether an event is older than what is known: of a description that is no longer the last one."""
        known, told = self.live.get(ref, {}).get("metadata", {}), obj["metadata"]
        return "uid" in known and told.get("uid") == known["uid"] and told.get("generation", 0) < known.get("generation", 0)

    # --- claims --------------------------------------------------------------------------------------------------------

    def _not_ready(self, obj: dict) -> str:
        reason = not_ready(obj)
        pending = obj["kind"] == "PersistentVolumeClaim" and obj.get("status", {}).get("phase") == "Pending"
        return READY if reason and pending and self._binds_late(obj) else reason

    def _binds_late(self, claim: dict) -> bool:
        """Whether a claim is bound only when a pod needs it: it is no reason to wait. Who may not list StorageClasses goes by its events."""
        if self._late is None and not self._late_unknown:
            self._load_classes()
        if self._late is None:
            return awaits_consumer(self._events(Ref.of(claim)))
        return claim["spec"].get("storageClassName") in self._late

    def _load_classes(self) -> None:
        try:
            classes = self.cluster.list(CLASSES)
        except ApiError as exc:
            if exc.status != 403:
                raise
            self._late_unknown = True
            return
        self._late = frozenset(c["metadata"]["name"] for c in classes if c.get("volumeBindingMode") == "WaitForFirstConsumer")

    def _look_at_claims(self) -> None:
        """Asks for the events of claims now and then where only these tell: an event does not change the claim, so no watch tells."""
        if not self._late_unknown or self.clock() < self._claims_at:
            return
        self._claims_at = self.clock() + CLAIM_SECONDS
        for ref in [ref for ref in self.waiting if ref.builtin == "PersistentVolumeClaim" and ref in self.live]:
            self._handle(self.wanted[ref], {"type": "MODIFIED", "object": self.live[ref]})

    # --- a StatefulSet's way back ------------------------------------------------------------------------------------

    def _evict_blocking(self) -> None:
        """Evicts what is due, judged by pods that are known to be there still."""
        for ref in self.leaving:
            if self._due(ref):
                self._look_again()
                pod = self._due(ref)
                if pod:
                    self._evictions.evict(ref, pod)

    def _due(self, ref: Ref) -> dict | None:
        return self._evictions.due(ref, self.live[ref], self._pods_of(ref)) if ref in self.waiting and ref in self.live else None

    def _start_anew(self) -> None:
        """Evicts pods that crash since before this run, of workloads that it may have mended: a container is started again only after
        minutes, and its pod comes back at once. In none of them anything runs."""
        if any(self._old_crashes()):
            if self._watches.interrupted:
                self._look_again()
            for subject in list(self._old_crashes()):
                self._anew[self.pods[subject]["metadata"]["uid"]] = restarts(self.pods[subject])
                self.progress(f"{subject}: crashes since before this run; {self._evicted(self.pods[subject])}")

    def _old_crashes(self) -> t.Iterator[Ref]:
        for ref, subject, problem in list(self._problems()):
            if self._may_be_mended(ref, subject, problem) and self.pods[subject]["metadata"]["uid"] not in self._anew:
                if may_start_anew(ref, self.live[ref], self.pods[subject]) and self._is_current(ref, subject):
                    yield subject

    def _may_be_mended(self, ref: Ref, subject: Ref, problem: Problem) -> bool:
        """Whether a container that crashes may not have been started since the run put right what it needs: it was in trouble before,
        and may have been started once more between that reading and the write."""
        if ref not in self.hoped or problem.reason not in CRASHES or not self.before.knew(ref, self.pods[subject]):
            return False
        at = self._anew.get(self.pods[subject]["metadata"]["uid"])
        return at is None or restarts(self.pods[subject]).get(problem.container, 0) <= at.get(problem.container, 0)

    def _evicted(self, pod: dict) -> str:
        meta = pod["metadata"]
        try:
            self.cluster.evict(meta["namespace"], meta["name"], meta["uid"])
        except LockLost:
            raise
        except PlatformError as exc:
            return f"it cannot be evicted to start at once, so its next start is waited for: {exc.message}"
        return "evicted, so that it starts with what is there now"

    # --- what cannot get better ---------------------------------------------------------------------------------------

    def _stop_if_hopeless(self) -> None:
        """Raises Hopeless with everything that has been hopeless for longer than its patience. What cannot fail the wait is left."""
        found = self._beyond_patience()
        if found and self._watches.interrupted:
            self._look_again()
            found = self._beyond_patience()
        brought = [each for each in found if each[0] not in self.hoped and not self._forgiven(*each)]
        if brought:
            raise self._hopeless(brought)
        for ref, subject, problem in found:
            if ref in self.waiting and (ref in self.hoped or self._explained(ref)):
                self._leave(ref, self._lines([(ref, subject, problem)], [self._facts(ref, subject, problem)]))

    def _beyond_patience(self) -> list[tuple[Ref, Ref, Problem]]:
        now, seen, found = self.clock(), set(), []
        for ref, subject, problem in list(self._problems()):
            key = (subject, problem.reason)
            seen.add(key)
            lasts = now - self._since.setdefault(key, now)
            if QUOTA in problem.message and self._is_drained(ref.namespace, lasts):
                continue
            if lasts >= self._patience(ref, subject, problem) and self._is_current(ref, subject):
                confirmed = problem.confirmed(self._telling(subject, problem)) if problem.asks else problem
                if confirmed:
                    found.append((ref, subject, confirmed))
                else:
                    self._since[key] = now  # not borne out by the events: ask again after another patience
        self._since = {key: since for key, since in self._since.items() if key in seen or self._crashes_on(*key)}
        return found

    def _is_drained(self, namespace: str, seconds: float) -> bool:
        """Whether pods of the namespace are on their way out, and count in its quota until they are gone. Then a controller may take as long
        again until it tries once more. `seconds`: how long it has been refused."""
        if not any(ref.namespace == namespace and pod["metadata"].get("deletionTimestamp") for ref, pod in self.pods.items()):
            return False
        self._drained[namespace] = max(self._drained.get(namespace, 0.0), 2 * seconds)
        return True

    def _crashes_on(self, subject: Ref, reason: str) -> bool:
        """Whether a container that crashes is just being tried again: its trouble has not ended until the pod is ready."""
        return reason in CRASHES and subject in self.pods and not condition_is(self.pods[subject], "Ready")

    def _patience(self, ref: Ref, subject: Ref, problem: Problem) -> float:
        seconds = max(problem.patience, self.patience(ref, problem.reason)) + self._drained.get(ref.namespace, 0.0) * (QUOTA in problem.message)
        if self._may_be_mended(ref, subject, problem):
            return float("inf")
        if not self._had(ref, subject, problem):
            return seconds
        return float("inf") if problem.reason in CRASHES else seconds + OLD_SECONDS

    def _had(self, ref: Ref, subject: Ref, problem: Problem) -> bool:
        """Whether the trouble is older than the release."""
        return self.before.had(ref, self.live.get(ref, {}), self.pods.get(subject), problem.container)

    def _forgiven(self, ref: Ref, subject: Ref, problem: Problem) -> bool:
        """Whether the release has not brought the trouble."""
        return self.before.forgives(ref, self.live.get(ref, {}), self.pods.get(subject), problem.container)

    def _explained(self, ref: Ref) -> bool:
        return self.before.explains(ref, self.live.get(ref, {}), self._pods_of(ref))

    def _leave(self, ref: Ref, why: str) -> None:
        self.left[ref] = why
        if self.waiting.pop(ref, None) is not None:
            self.progress(f"{ref}: not waited for any longer")

    def _telling(self, subject: Ref, problem: Problem) -> list[dict]:
        events = self._events(subject)
        return [event for event in events if (event.get("lastTimestamp") or "") >= self.after] if problem.fresh else events

    def _events(self, subject: Ref) -> list[dict]:
        """Those of a pod are of this very one: the next of a StatefulSet has its name."""
        try:
            found = self.cluster.events(subject.namespace, subject.kind, subject.name)
        except PlatformError:
            return []  # the events are a help, their absence must not hide the problem itself
        uid = self.pods.get(subject, {}).get("metadata", {}).get("uid")
        return [event for event in found if uid in (None, event.get("involvedObject", {}).get("uid") or uid)]

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
        if ref.builtin in ("StatefulSet", "DaemonSet"):
            update = owner["status"].get("updateRevision")  # a DaemonSet has none: its pods are told apart by generation
            return update is None or labels.get("controller-revision-hash") == update
        if ref.builtin == "Deployment":
            replicaset = next(o["name"] for o in pod["metadata"]["ownerReferences"] if o.get("controller"))
            return self._revision(ref.namespace, replicaset) == owner["metadata"].get("annotations", {}).get(REVISION)
        return True

    def _revision(self, namespace: str, replicaset: str) -> str | None:
        if (namespace, replicaset) not in self._revisions:
            found = self.cluster.get(REPLICASETS, namespace, replicaset) or {"metadata": {}}
            self._revisions[namespace, replicaset] = found["metadata"].get("annotations", {}).get(REVISION)
        return self._revisions[namespace, replicaset]

    def _hopeless(self, found: list[tuple[Ref, Ref, Problem]]) -> Hopeless:
        problems = [self._facts(*each) for each in found]
        return Hopeless(self._lines(found, problems), problems=problems)

    def _lines(self, found: list[tuple[Ref, Ref, Problem]], problems: list[dict]) -> str:
        lines = []
        for (ref, subject, problem), facts in zip(found, problems):
            where = f"{ref}: {subject}" if subject != ref else str(ref)
            lines.append(f"{where}: {problem.reason}: {problem.message}")
            lines += details(facts)
        return "\n".join(lines)

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
            pods = self._pods_of(ref)
        if not pods:
            return []
        newest = max(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
        container = problem.container or newest["spec"]["containers"][0]["name"]
        return self.cluster.log_tail(subject.namespace, newest["metadata"]["name"], container, previous=problem.log == "previous")

    def _pods_of(self, ref: Ref) -> list[dict]:
        return [pod for pod_ref, pod in self.pods.items() if (*owner_of(pod), pod_ref.namespace) == (ref.kind, ref.name, ref.namespace)]

    def _time_is_up(self, timeout: float) -> None:
        """Raises TimedOut, unless nothing is left but what cannot fail the wait, and what was so before it."""
        forgiven = [ref for ref in self.waiting if ref in self.hoped or self._explained(ref)]
        if len(forgiven) < len(self.waiting):
            raise self._timed_out(timeout)
        for ref in forgiven:
            self._leave(ref, f"{ref}: {self.waiting[ref]}, still after {timeout:.0f} s")

    def _timed_out(self, timeout: float) -> TimedOut:
        refused = self._evictions.refused
        reasons = {ref: f"{reason}; {refused[ref]}" if ref in refused else reason for ref, reason in self.waiting.items()}
        left = [f"{ref}: {reason}" for ref, reason in reasons.items()]
        more = f" and {len(left) - NAMED_UNREADY} more" if len(left) > NAMED_UNREADY else ""
        text = f"not ready after {timeout:.0f} s: {'; '.join(left[:NAMED_UNREADY])}{more}"
        facts = [{"object": str(ref), "reason": "Timeout", "message": reason} for ref, reason in reasons.items()]
        return TimedOut(text, problems=facts)


def details(problem: dict) -> list[str]:
    """What is known beyond a problem's message, for people: event, log lines and hint, as far as it has them."""
    event, hint = problem.get("event"), problem.get("hint")
    lines = [f"  event: {event}"] if event and event != problem["message"] else []
    return [*lines, *(f"  log: {line}" for line in problem.get("log", [])), *([f"  hint: {hint}"] if hint else [])]


def _has_pods(workload: dict) -> bool:
    return bool(workload) and workload.get("spec", {}).get("replicas") != 0
