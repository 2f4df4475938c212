# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thin layer that acts: applies a plan in waves, and puts everything back from a journal."""
from __future__ import annotations

import base64
import dataclasses
import time
import typing as t

from ._cluster import Cluster
from ._errors import ApiError, PlatformError, Unreachable
from ._fields import identity, removals
from ._health import WEBHOOK_HINT, not_ready
from ._manifest import Ref
from ._plan import CREATE, DELETE, UPDATE, Action, Plan, is_policy
from ._types import ResourceType
from ._wait import Waiter

# What brings a kind of its own.
DEFINITIONS = ("CustomResourceDefinition", "ConstraintTemplate")
# An API server looks for changed policies every second, and compiles them.
POLICY_SECONDS = 2.5
CLAIMS = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)


@dataclasses.dataclass
class Entry:
    """One line of the journal: enough to undo one write without the plan it came from.

    `before` is the apply configuration that puts our fields back; None for an object that the run creates.
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
    replicas: int | None = None  # what a workload had, where the run hands its replicas over
    others: list = dataclasses.field(default_factory=list)  # of a deletion: [(manager, apply configuration)]

    @classmethod
    def of(cls, action: Action) -> Entry:
        rtype, ref = action.rtype, action.ref
        return cls(
            action.verb, rtype.group, rtype.version, rtype.kind, rtype.plural, rtype.namespaced,
            ref.namespace, ref.name, action.wave, action.before,
            (action.live or {}).get("spec", {}).get("replicas") if action.hold_replicas is not None else None,
            action.others,
        )

    @property
    def rtype(self) -> ResourceType:
        return ResourceType(self.group, self.version, self.kind, self.plural, self.namespaced)

    @property
    def ref(self) -> Ref:
        return Ref(self.group, self.kind, self.namespace, self.name)


def entries(plan: Plan) -> list[Entry]:
    return [Entry.of(action) for action in plan.writes]


def apply_plan(
    cluster: Cluster, plan: Plan, platform: str, force: bool, progress: t.Callable[[str], None], check: t.Callable[[], None]
) -> dict[Action, dict]:
    """Creates and updates, wave by wave; {action: the object as the server has it now}. The first refusal ends it
    (ApiError naming the object). `check` is called before each wave and raises when the run must not go on."""
    done: dict[Action, dict] = {}
    for wave in plan.waves():
        check()
        progress(f"applying {len(wave)} objects ({_kinds(wave)})")
        done.update(zip(wave, cluster.each(lambda action: _apply_one(cluster, action, force), wave)))
        definitions = {a.ref: a.rtype for a in wave if a.ref.kind in DEFINITIONS}
        Waiter(cluster, definitions, platform, progress).run(60)
        _until_in_force(action.ref for action in wave)
    return done


def apply_deletes(cluster: Cluster, plan: Plan, progress: t.Callable[[str], None], check: t.Callable[[], None]) -> None:
    """Prunes what the ledger owns and the bundle no longer has."""
    for batch in plan.deletes():
        check()
        progress(f"deleting {len(batch)} objects ({_kinds(batch)})")
        cluster.each(lambda action: _delete_one(cluster, action), batch)
        _until_in_force(action.ref for action in batch)


def _until_in_force(written: t.Iterable[Ref]) -> None:
    """Nothing tells when a policy, or its absence, is in force everywhere, and what comes next is not to meet the old one."""
    if any(is_policy(ref) for ref in written):
        time.sleep(POLICY_SECONDS)


def _delete_one(cluster: Cluster, action: Action) -> None:
    try:
        cluster.delete(action.rtype, action.ref.namespace, action.ref.name, (action.live or {})["metadata"]["uid"])
    except ApiError as exc:
        raise explain(exc, action) from exc


def _apply_one(cluster: Cluster, action: Action, force: bool) -> dict:
    if action.desired is None:
        raise AssertionError(f"{action.ref}: a {action.verb} without a desired state")
    try:
        if action.hold_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.hold_replicas)
        after = cluster.apply(action.rtype, action.desired.body, force)
        after = _stripped(cluster, action, after)
        if action.initial_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.initial_replicas)
    except ApiError as exc:
        raise explain(exc, action) from exc
    except Unreachable as exc:
        raise Unreachable(f"{action.desired.where}: {exc.message}", **exc.facts) from exc
    return after


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
        text = f"another manager owns fields that differ: {who}. Set force_conflicts to take them over"
    if "failed calling webhook" in text:
        text = f"{text}. Hint: {WEBHOOK_HINT}"
    return ApiError(f"{subject}: {text}", exc.status, exc.body, object=str(action.ref), **exc.facts_without_status())


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
    """What an undo did: names of objects put back, removed, kept because they hold data, and what went wrong."""

    back: list[str] = dataclasses.field(default_factory=list)
    removed: list[str] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def outcome(self, unsettled: str) -> str:
        """For people. `unsettled`: what is back but not ready yet, '' when everything is."""
        done = f"{len(self.back)} objects put back, {len(self.removed)} removed"
        kept = f", {len(self.kept)} kept because they hold data" if self.kept else ""
        if self.errors:
            return f"NOT everything could be restored ({done}{kept}); the next run tries again: " + "; ".join(self.errors)
        if unsettled:
            return f"The state before is restored ({done}{kept}), but it is not ready yet: {unsettled}"
        return f"The state before is restored ({done}{kept})."


def restore(cluster: Cluster, journal: list[Entry], started: str) -> Restored:
    """Undoes a run from its journal. Goes on after an error: the more is back, the better.

    What is new goes first, in reverse. Then what was there comes back in the order in which it is applied: a namespace before
    its contents, a definition (whose schema may have changed) before its resources.

    `started`: the server's time (RFC 3339) when the run began; an object older than that was there before, so it is not
    deleted even though the run thought it was creating it: only our fields leave it.
    """
    report = Restored()
    for verbs, backwards in (((CREATE,), True), ((UPDATE, DELETE), False)):
        for wave in sorted({entry.wave for entry in journal if entry.verb in verbs}, reverse=backwards):
            batch = [entry for entry in journal if entry.wave == wave and entry.verb in verbs]
            cluster.each(lambda entry: _undo(cluster, entry, started, report), batch)
            _until_served(cluster, batch)
            _until_in_force(entry.ref for entry in batch)
    _wait_until_gone(cluster, journal, report)
    return report


def _undo(cluster: Cluster, entry: Entry, started: str, report: Restored) -> None:
    try:
        if entry.replicas is not None:
            cluster.hold_replicas(entry.rtype, entry.namespace, entry.name, entry.replicas)
        if entry.verb in (UPDATE, DELETE):
            after = _put_back(cluster, entry)
            # Only where it had to be made again: in an object that was never deleted, others may have changed theirs meanwhile.
            for manager, image in entry.others if after["metadata"]["creationTimestamp"] >= started else ():
                cluster.apply(entry.rtype, image, force=True, manager=manager)
            report.back.append(str(entry.ref))
        elif entry.verb == CREATE:
            _undo_create(cluster, entry, started, report)
    except PlatformError as exc:
        report.errors.append(f"{entry.ref}: {exc.message}")


def _put_back(cluster: Cluster, entry: Entry) -> dict:
    before = t.cast(dict, entry.before)
    after = cluster.apply(entry.rtype, before, force=True)
    if after["metadata"].get("deletionTimestamp"):
        # Still on its way out (a pruned namespace takes its time): what was applied now goes with it.
        cluster.gone([(entry.rtype, entry.ref)])
        after = cluster.apply(entry.rtype, before, force=True)
    return after


def _until_served(cluster: Cluster, batch: list[Entry], seconds: float = 30.0) -> None:
    """A definition that had to be made again serves its resources a moment later."""
    left, deadline = [e for e in batch if e.verb == DELETE and e.kind == "CustomResourceDefinition"], time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        left = [entry for entry in left if not_ready(cluster.get(entry.rtype, "", entry.name) or {})]
        time.sleep(0.25 if left else 0)


def _undo_create(cluster: Cluster, entry: Entry, started: str, report: Restored) -> None:
    live = cluster.get(entry.rtype, entry.namespace, entry.name)
    if live is None:
        return
    if live["metadata"]["creationTimestamp"] < started:
        cluster.apply(entry.rtype, identity(live), force=True)
        report.back.append(str(entry.ref))
    elif entry.kind == "PersistentVolumeClaim" or (entry.kind == "Namespace" and cluster.list(CLAIMS, "", entry.name)):
        report.kept.append(str(entry.ref))
    else:
        cluster.delete(entry.rtype, entry.namespace, entry.name, live["metadata"]["uid"])
        report.removed.append(str(entry.ref))


def _wait_until_gone(cluster: Cluster, journal: list[Entry], report: Restored) -> None:
    """Deleting is asynchronous; the state before is back only when the objects are really gone."""
    removed = [(entry.rtype, entry.ref) for entry in journal if entry.verb == CREATE and str(entry.ref) in report.removed]
    report.errors += [f"{ref}: still being deleted" for ref in cluster.gone(removed)]
