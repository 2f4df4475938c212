# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thin layer that acts: applies a plan in waves, and puts everything back from a journal."""
from __future__ import annotations

import base64
import dataclasses
import re
import time
import typing as t

from ._cluster import Cluster
from ._errors import ApiError, LockLost, PlatformError, TimedOut, Unreachable
from ._fields import (
    before_image, changed_paths, identity, images_of_others, is_scaled, other_managers, own_entry, owned_fields, removals,
)
from ._health import WEBHOOK_HINT, WORKLOADS, not_ready
from ._manifest import ANNOTATION_ONE_WAY, LABEL_COMPONENT, LABEL_PLATFORM, Ref
from ._occupied import occupied
from ._plan import CREATE, DELETE, ORPHAN, PROTECTED, UPDATE, Action, Plan, is_policy
from ._types import ResourceType
from ._wait import Waiter

# What brings a kind of its own.
DEFINITIONS = ("CustomResourceDefinition", "ConstraintTemplate")
# An API server looks for changed policies every second, and compiles them.
POLICY_SECONDS = 2.5
GONE_SECONDS = 120.0  # how long an undo waits for what is being deleted


@dataclasses.dataclass
class Entry:
    """One line of the journal: enough to undo one write without the plan it came from.

    `before` is the apply configuration that puts our fields back, in the version of the API that it is written in; None for an object
    that the run creates. A journal of an older version of this collection lacks the last fields.
    """

    verb: str
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    namespace: str
    name: str
    wave: int
    before: dict | None
    replicas: int | None = None  # what a workload had, where the run hands its replicas over or deletes it while an autoscaler has them
    others: list = dataclasses.field(default_factory=list)  # of what is made anew: [(manager, apply configuration)]
    uid: str = ""  # of the object that was there
    one_way: bool = False  # it was announced that there is no way back
    forced: bool = False

    @classmethod
    def of(cls, action: Action) -> Entry:
        rtype, ref, live = action.rtype, action.ref, action.live or {}
        return cls(
            action.verb, rtype.group, rtype.version, rtype.kind, rtype.plural, rtype.namespaced,
            ref.namespace, ref.name, action.wave, action.before,
            live["spec"].get("replicas") if action.hold_replicas is not None or (action.verb == DELETE and is_scaled(live)) else None,
            action.others, live.get("metadata", {}).get("uid", ""),
            bool(action.desired and ANNOTATION_ONE_WAY in action.desired.body["metadata"].get("annotations", {})), action.forced,
        )

    @classmethod
    def read(cls, line: dict) -> Entry:
        """From a journal, whatever version of this collection wrote it: fields that are not known here are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in line.items() if name in known})

    @property
    def rtype(self) -> ResourceType:
        version = (self.before or {}).get("apiVersion", "").rpartition("/")[2] or self.version
        return ResourceType(self.group, version, self.kind, self.plural, self.namespaced)

    @property
    def ref(self) -> Ref:
        return Ref(self.group, self.kind, self.namespace, self.name)


def entries(plan: Plan) -> list[Entry]:
    return [Entry.of(action) for action in plan.writes]


Check = t.Callable[[], None]  # raises LockLost when the run must not go on


def apply_plan(cluster: Cluster, plan: Plan, platform: str, force: bool, progress: t.Callable[[str], None], check: Check) -> dict[Action, dict]:
    """Creates and updates, wave by wave; {action: the object as the server has it now}. The first refusal ends it
    (ApiError naming the object). `check` is called before each write."""
    done: dict[Action, dict] = {}
    first = plan.first()
    if first:
        _delete(cluster, first, progress, check)
        cluster.gone([(action.rtype, action.ref) for action in first])
    for wave in plan.waves():
        progress(f"applying {len(wave)} objects ({_kinds(wave)})")
        done.update(zip(wave, cluster.each(lambda action: _apply_one(cluster, action, force, check), wave)))
        definitions = {a.ref: a.rtype for a in wave if a.ref.kind in DEFINITIONS}
        Waiter(cluster, definitions, platform, progress).run(60)
        _until_in_force(action.ref for action in wave)
    return done


def hold_again(cluster: Cluster, plan: Plan, afters: dict[Action, dict], check: Check) -> None:
    """Sees to it that replicas taken back from an autoscaler are still what was applied: one that was just at work when it was removed
    may have written once more."""
    for action in plan.writes:
        if action.hold_replicas is None or action not in afters or "replicas" not in action.body.get("spec", {}):
            continue
        live = cluster.get(action.rtype, action.ref.namespace, action.ref.name)
        if live and live["spec"].get("replicas") != action.hold_replicas:
            check()
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.hold_replicas)
            afters[action] = cluster.apply(action.rtype, action.body, force=True)


def apply_deletes(cluster: Cluster, plan: Plan, progress: t.Callable[[str], None], check: Check) -> None:
    """Prunes what the ledger owns and the bundle no longer has."""
    for batch in plan.deletes():
        _delete(cluster, batch, progress, check)
        _until_in_force(action.ref for action in batch)


def _delete(cluster: Cluster, batch: list[Action], progress: t.Callable[[str], None], check: Check) -> None:
    progress(f"deleting {len(batch)} objects ({_kinds(batch)})")
    cluster.each(lambda action: _delete_one(cluster, action, check), batch)


def _until_in_force(written: t.Iterable[Ref]) -> None:
    """Nothing tells when a policy, or its absence, is in force everywhere, and what comes next is not to meet the old one."""
    if any(is_policy(ref) for ref in written):
        time.sleep(POLICY_SECONDS)


def _delete_one(cluster: Cluster, action: Action, check: Check) -> None:
    check()
    ref, uid = action.ref, (action.live or {})["metadata"]["uid"]
    try:
        if action.verb == ORPHAN:
            let_go(cluster, action.rtype, ref, uid)
        else:
            cluster.delete(action.rtype, ref.namespace, ref.name, uid)
    except ApiError as exc:
        now = cluster.get(action.rtype, ref.namespace, ref.name) if exc.status in (404, 409) else action.live
        if now and now["metadata"]["uid"] == uid:  # else it is gone, and what has its name by now is another object
            raise explain(exc, action) from exc


def let_go(cluster: Cluster, rtype: ResourceType, ref: Ref, uid: str) -> None:
    """Takes our labels off an object that was there before the platform; it stays as it is."""
    labels = {LABEL_PLATFORM: None, LABEL_COMPONENT: None}
    cluster.patch(rtype, ref.namespace, ref.name, {"metadata": {"uid": uid, "labels": labels}})


def _apply_one(cluster: Cluster, action: Action, force: bool, check: Check) -> dict:
    if action.desired is None:
        raise AssertionError(f"{action.ref}: a {action.verb} without a desired state")
    check()
    try:
        if action.replace:
            _delete_and_wait(cluster, action.rtype, action.ref, (action.live or {})["metadata"]["uid"])
        if action.hold_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.hold_replicas)
        after = cluster.apply(action.rtype, action.body, force)
        after = _stripped(cluster, action, after)
        if action.initial_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.initial_replicas)
    except ApiError as exc:
        raise explain(exc, action) from exc
    except Unreachable as exc:
        raise Unreachable(f"{action.desired.where}: {exc.message}", **exc.facts) from exc
    return after


def _delete_and_wait(cluster: Cluster, rtype: ResourceType, ref: Ref, uid: str, seconds: float = 60.0) -> None:
    """Deletes an object and returns when it is gone. By itself, without the pool: it runs in one of its threads."""
    cluster.delete(rtype, ref.namespace, ref.name, uid)
    wait_until_gone(cluster, rtype, ref, seconds)


def wait_until_gone(cluster: Cluster, rtype: ResourceType, ref: Ref, seconds: float) -> None:
    """Raises TimedOut, naming the finalizers, when an object that is being deleted is still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        live = cluster.get(rtype, ref.namespace, ref.name)
        if live is None or not live["metadata"].get("deletionTimestamp"):
            return
        if time.monotonic() >= deadline:
            raise TimedOut(f"{ref}: {held_by(live)}, still after {seconds:.0f} s")
        time.sleep(0.25)


def held_by(live: dict) -> str:
    """Why an object that is being deleted is still there."""
    meta = live["metadata"]
    names = [*(meta.get("finalizers") or []), *((live.get("spec") or {}).get("finalizers") or [] if live.get("kind") == "Namespace" else [])]
    conditions = (live.get("status") or {}).get("conditions") or []
    content = [c.get("message", "") for c in conditions if c.get("status") == "True" and c.get("type", "").endswith("Remaining")]
    held = f", held by {', '.join(names)}" if names else ""
    return f"it is being deleted since {meta['deletionTimestamp']}{held}{': ' + ' '.join(content) if content else ''}"


def _stripped(cluster: Cluster, action: Action, obj: dict, attempts: int = 10) -> dict:
    """The object once what others added is gone from it. Its controllers write to it meanwhile, and where a thing stands in
    a list holds for one version only: then it is read anew."""
    surplus = removals(obj, action.strip)
    if not surplus:
        return obj
    try:
        return cluster.patch(action.rtype, action.ref.namespace, action.ref.name, surplus)
    except ApiError as exc:
        # A version that is gone and a result that is not valid are answered alike.
        newer = cluster.get(action.rtype, action.ref.namespace, action.ref.name) if exc.status == 422 and attempts > 1 else None
        if newer is None or newer["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]:
            raise
    return _stripped(cluster, action, newer, attempts - 1)


def explain(exc: ApiError, action: Action) -> ApiError:
    """The same refusal, naming the object, its template and, for a conflict, who owns which fields."""
    source = f" ({action.desired.source})" if action.desired and action.desired.source else ""
    subject = f"{action.component}{source}: {action.ref}"
    causes = exc.body.get("details", {}).get("causes") or []
    conflicts = [c for c in causes if c.get("reason") == "FieldManagerConflict"]
    text = without_secrets(exc.message, action.desired.body if action.desired else {})
    if conflicts:
        who = "; ".join(f"{c.get('field', '?').lstrip('.')}: {c.get('message', '')}" for c in conflicts)
        text = f"another manager owns fields that differ: {who}. To take them over: -e common_force_conflicts=true (force_conflicts of the module)"
    fixed = _unchangeable(exc.message, causes, action)
    if fixed:
        text = f"{', '.join(fixed)} cannot be changed once the object is there. Hint: {_ANEW.get(action.ref.kind, _ANEW[''])}"
    if "failed calling webhook" in text:
        text = f"{text}. Hint: {WEBHOOK_HINT}"
    return ApiError(f"{subject}: {text}", exc.status, exc.body, object=str(action.ref), **exc.facts_without_status())


# What to do about a field that cannot be changed, by kind. The API server says only that it cannot, with the whole of the field in Go's words.
_ANEW = {
    "Job": "give the Job another name, with a version in it, or delete it first, and run again",
    "StatefulSet": "delete the StatefulSet with --cascade=orphan, which leaves its pods and claims, and run again; a claim is made larger by itself",
    "": "give the object another name, or delete it first, and run again",
}
# The only fields of a StatefulSet that may change (kubernetes.io, StatefulSets); its refusal lists these and not what was changed.
_OF_A_SET = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds")


def _unchangeable(message: str, causes: list[dict], action: Action) -> list[str]:
    """The fields that a refusal says cannot be changed; [] when it says something else."""
    found = [cause.get("field", "") for cause in causes if "field is immutable" in cause.get("message", "")]
    if "updates to statefulset spec" in message and action.live:
        paths = changed_paths(before_image(action.live).get("spec", {}), action.body.get("spec", {}))
        names = {re.split(r"[.\[]", path)[0] for path in paths}
        found += [f"spec.{name}" for name in sorted(names) if name not in _OF_A_SET]
    return [name for name in dict.fromkeys(found) if name]


def without_secrets(text: str, body: dict) -> str:
    """`text` without the values of a Secret, plain or encoded: a refusal may quote what it refuses."""
    if body.get("kind") != "Secret":
        return text
    for value in body.get("data", {}).values():
        for shown in (value, base64.b64decode(value).decode("utf-8", "replace")):
            text = text.replace(shown, "(hidden)") if len(shown) > 2 else text
    return text


def _kinds(actions: list[Action]) -> str:
    return ", ".join(sorted({action.ref.kind for action in actions}))


# --- undo ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Restored:
    """What an undo did: names of objects put back and removed, those kept with the reason, and what went wrong."""

    back: list[str] = dataclasses.field(default_factory=list)
    removed: list[str] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def outcome(self, unsettled: str) -> str:
        """For people. `unsettled`: what is back but not ready yet, '' when everything is."""
        done = f"{len(self.back)} objects put back, {len(self.removed)} removed"
        kept = f", {len(self.kept)} kept: {'; '.join(self.kept)}" if self.kept else ""
        if self.errors:
            return f"NOT everything could be restored ({done}{kept}); the next run tries again: " + "; ".join(self.errors)
        if unsettled:
            return f"The state before is restored ({done}{kept}), but it is not ready yet: {unsettled}"
        return f"The state before is restored ({done}{kept})."


def restore(cluster: Cluster, journal: list[Entry], platform: str, check: Check = lambda: None) -> Restored:
    """Undoes a run from its journal. Goes on after an error: the more is back, the better. `check` is called before each write, and
    what it raises ends the work: another run may be at it.

    What is new goes first, in reverse. Then what was there comes back in the order in which it is applied: a namespace before
    its contents, a definition (whose schema may have changed) before its resources.
    """
    report = Restored()
    undo = Undo(cluster, platform, {entry.ref for entry in journal}, check, report)
    for verbs, backwards in (((CREATE,), True), ((UPDATE, DELETE, ORPHAN), False)):
        for wave in sorted({entry.wave for entry in journal if entry.verb in verbs}, reverse=backwards):
            batch = [entry for entry in journal if entry.wave == wave and entry.verb in verbs]
            cluster.each(undo.one, batch)
            _until_served(cluster, batch)
            _until_in_force(entry.ref for entry in batch)
    _wait_until_gone(cluster, journal, report)
    return report


# What an undo may delete and make anew when the server takes no change back, such as a ConfigMap that was made immutable: nothing
# that has pods, data or other objects in it.
NEVER_REPLACED = (*PROTECTED, *WORKLOADS, "Pod")


@dataclasses.dataclass
class Undo:
    """Undoes single writes. `ours`: what the run has written, without what turns out to be somebody else's."""

    cluster: Cluster
    platform: str
    ours: set[Ref]
    check: Check
    report: Restored

    def one(self, entry: Entry) -> None:
        self.check()
        try:
            live = self.cluster.get(entry.rtype, entry.namespace, entry.name)
            if entry.verb == CREATE:
                self._remove(entry, live)
            else:
                self._put_back(entry, live)
        except ApiError as exc:
            if entry.one_way and exc.status == 422:
                self.report.kept.append(f"{entry.ref}: there is no way back from what was announced as one-way")
            else:
                self.report.errors.append(f"{entry.ref}: {exc.message}")
        except LockLost:
            raise
        except PlatformError as exc:
            self.report.errors.append(f"{entry.ref}: {exc.message}")

    def _put_back(self, entry: Entry, live: dict | None) -> None:
        owner = self._other_owner(live)
        if owner:
            self.report.kept.append(f"{entry.ref}: it belongs to platform {owner} by now")
            return
        if entry.replicas is not None and live and entry.verb == UPDATE:
            self._hold_replicas(entry)
        after = self._apply(entry, t.cast(dict, entry.before))
        # Only where it had to be made again: in an object that was never deleted, others may have changed theirs meanwhile.
        if entry.uid and after["metadata"]["uid"] != entry.uid:
            for manager, image in entry.others:
                self.cluster.apply(entry.rtype, image, force=True, manager=manager)
            if entry.replicas is not None:
                self._hold_replicas(entry)  # it begins with one, and its autoscaler goes on from what there is
        self.report.back.append(str(entry.ref))

    def _hold_replicas(self, entry: Entry) -> None:
        self.cluster.hold_replicas(entry.rtype, entry.namespace, entry.name, t.cast(int, entry.replicas))

    def _other_owner(self, live: dict | None) -> str:
        """The other platform whose label an object carries; '' when it is ours, nobody's or not there."""
        owner = ((live or {}).get("metadata", {}).get("labels") or {}).get(LABEL_PLATFORM, "")
        return "" if owner == self.platform else owner

    def _apply(self, entry: Entry, before: dict) -> dict:
        try:
            after = self.cluster.apply(entry.rtype, before, force=True)
        except ApiError as exc:
            if exc.status != 422 or "immutable" not in exc.message or entry.kind in NEVER_REPLACED:
                raise  # a refusal by admission is no reason to delete anything
            live = self.cluster.get(entry.rtype, entry.namespace, entry.name)
            if live is None or live["metadata"].get("labels", {}).get(LABEL_PLATFORM) != self.platform:
                raise
            entry.others = images_of_others(live)
            _delete_and_wait(self.cluster, entry.rtype, entry.ref, live["metadata"]["uid"])
            return self.cluster.apply(entry.rtype, before, force=True)
        if after["metadata"].get("deletionTimestamp"):
            # Still on its way out (a pruned namespace takes its time): what was applied now goes with it.
            wait_until_gone(self.cluster, entry.rtype, entry.ref, GONE_SECONDS)
            after = self.cluster.apply(entry.rtype, before, force=True)
        return after

    def _remove(self, entry: Entry, live: dict | None) -> None:
        """Takes away what the run made. What was there all the same, or was somebody else's a moment earlier, only loses our fields."""
        if live is None:
            return
        if self._other_owner(live) or not owned_fields(live):
            self.ours.discard(entry.ref)  # the run ended before it came to this one, and its namespace is not ours alone
            return
        if not self._made_by_us(entry, live):
            self.ours.discard(entry.ref)
            self.cluster.apply(entry.rtype, identity(live), force=True)
            self.report.back.append(str(entry.ref))
            return
        why = self._kept(entry)
        if why:
            if entry.kind == "Namespace" and occupied(self.cluster, entry.name, self.platform, self.ours, claims=False):
                let_go(self.cluster, entry.rtype, entry.ref, live["metadata"]["uid"])  # no release has it, and others live in it
            self.report.kept.append(f"{entry.ref}: {why}")
            return
        self.cluster.delete(entry.rtype, entry.namespace, entry.name, live["metadata"]["uid"])
        self.report.removed.append(str(entry.ref))

    def _made_by_us(self, entry: Entry, live: dict) -> bool:
        """By the server's answer to our apply, where this process has it; else by what the object itself says. No clocks are compared:
        both times are of the one request that made it."""
        if live["metadata"]["uid"] in self.cluster.created:
            return True
        born, ours = live["metadata"]["creationTimestamp"], own_entry(live).get("time", "")
        if ours > born:
            return False
        before_us = [e for e in live["metadata"].get("managedFields") or [] if e["manager"] in other_managers(live) and e.get("time", "") <= born]
        return not before_us or (not entry.forced and self._invalid_without_us(entry, live))

    def _invalid_without_us(self, entry: Entry, live: dict) -> bool:
        """Whether nothing valid is left without our fields: then nobody else can have made it."""
        try:
            self.cluster.apply(entry.rtype, identity(live), force=True, dry_run=True)
        except ApiError as exc:
            return exc.status == 422
        return False

    def _kept(self, entry: Entry) -> str:
        if entry.kind == "PersistentVolumeClaim":
            return "it holds data"
        return occupied(self.cluster, entry.name, self.platform, self.ours) if entry.kind == "Namespace" else ""


def _until_served(cluster: Cluster, batch: list[Entry], seconds: float = 30.0) -> None:
    """A definition that had to be made again serves its resources a moment later."""
    left, deadline = [e for e in batch if e.verb == DELETE and e.kind == "CustomResourceDefinition"], time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        left = [entry for entry in left if not_ready(cluster.get(entry.rtype, "", entry.name) or {})]
        time.sleep(0.25 if left else 0)


def _wait_until_gone(cluster: Cluster, journal: list[Entry], report: Restored) -> None:
    """Deleting is asynchronous; the state before is back only when the objects are really gone."""
    removed = [(entry.rtype, entry.ref) for entry in journal if entry.verb == CREATE and str(entry.ref) in report.removed]
    report.errors += [f"{ref}: still being deleted" for ref in cluster.gone(removed)]
