# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thin layer that acts: applies a plan in waves, and puts everything back from a journal."""
from __future__ import annotations

import base64
import dataclasses
import typing as t

from ._cluster import Cluster
from ._errors import ApiError, PlatformError
from ._fields import identity
from ._manifest import Ref
from ._plan import CREATE, DELETE, UPDATE, Action, Plan
from ._types import ResourceType
from ._wait import Waiter

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

    @classmethod
    def of(cls, action: Action) -> Entry:
        rtype, ref = action.rtype, action.ref
        return cls(
            action.verb, rtype.group, rtype.version, rtype.kind, rtype.plural, rtype.namespaced,
            ref.namespace, ref.name, action.wave, action.before,
            (action.live or {}).get("spec", {}).get("replicas") if action.hold_replicas is not None else None,
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
    cluster: Cluster, plan: Plan, platform: str, force: bool, progress: t.Callable[[str], None]
) -> dict[Action, dict]:
    """Creates and updates, wave by wave; {action: the object as the server has it now}. The first refusal ends it
    (ApiError naming the object)."""
    done: dict[Action, dict] = {}
    for wave in plan.waves():
        progress(f"applying {len(wave)} objects ({_kinds(wave)})")
        done.update(zip(wave, cluster.each(lambda action: _apply_one(cluster, action, force), wave)))
        definitions = {a.ref: a.rtype for a in wave if a.ref.kind == "CustomResourceDefinition"}
        Waiter(cluster, definitions, platform, progress).run(60)
    return done


def apply_deletes(cluster: Cluster, plan: Plan) -> None:
    """Prunes what the ledger owns and the bundle no longer has."""
    for action in plan.deletes():
        cluster.delete(action.rtype, action.ref.namespace, action.ref.name, (action.live or {})["metadata"]["uid"])


def _apply_one(cluster: Cluster, action: Action, force: bool) -> dict:
    if action.desired is None:
        raise AssertionError(f"{action.ref}: a {action.verb} without a desired state")
    try:
        if action.hold_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.hold_replicas)
        after = cluster.apply(action.rtype, action.desired.body, force)
        if action.initial_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.initial_replicas)
    except ApiError as exc:
        raise explain(exc, action) from exc
    return after


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


def restore(cluster: Cluster, journal: list[Entry], started: str) -> Restored:
    """Undoes a run from its journal, in reverse order. Goes on after an error: the more is back, the better.

    `started`: the server's time (RFC 3339) when the run began; an object older than that was there before, so it is not
    deleted even though the run thought it was creating it: only our fields leave it.
    """
    report = Restored()
    for wave in sorted({entry.wave for entry in journal}, reverse=True):
        batch = [entry for entry in journal if entry.wave == wave]
        cluster.each(lambda entry: _undo(cluster, entry, started, report), batch)
    _wait_until_gone(cluster, journal, report)
    return report


def _undo(cluster: Cluster, entry: Entry, started: str, report: Restored) -> None:
    try:
        if entry.replicas is not None:
            cluster.hold_replicas(entry.rtype, entry.namespace, entry.name, entry.replicas)
        if entry.verb in (UPDATE, DELETE):
            cluster.apply(entry.rtype, t.cast(dict, entry.before), force=True)
            report.back.append(str(entry.ref))
        elif entry.verb == CREATE:
            _undo_create(cluster, entry, started, report)
    except PlatformError as exc:
        report.errors.append(f"{entry.ref}: {exc.message}")


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
