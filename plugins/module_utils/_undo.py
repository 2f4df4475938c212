# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a run, and putting everything back from it."""
from __future__ import annotations

import dataclasses
import time
import typing as t

from ._apply import Check, delete_and_wait, let_go, until_in_force, wait_until_gone
from ._cluster import Cluster
from ._errors import ApiError, LockLost, PlatformError
from ._fields import entries_of_others, identity, images_of_others, is_scaled, other_managers, own_entry, owned_fields, owners_again
from ._health import not_ready
from ._manifest import ANNOTATION_ONE_WAY, LABEL_PLATFORM, Ref
from ._occupied import foreign_resources, occupied
from ._plan import CREATE, DELETE, ORPHAN, REPLACEABLE, UPDATE, Action, Plan
from ._types import ResourceType

GONE_SECONDS = 120.0  # how long an undo waits for what is being deleted, for all of it together


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
    owners: list = dataclasses.field(default_factory=list)  # of what is taken by force: our entry of managedFields and those of others

    @classmethod
    def of(cls, action: Action) -> Entry:
        rtype, ref, live = action.rtype, action.ref, action.live or {}
        return cls(
            action.verb, rtype.group, rtype.version, rtype.kind, rtype.plural, rtype.namespaced,
            ref.namespace, ref.name, action.wave, action.before,
            live["spec"].get("replicas") if action.hold_replicas is not None or (action.verb == DELETE and is_scaled(live)) else None,
            action.others, live.get("metadata", {}).get("uid", ""),
            bool(action.desired and ANNOTATION_ONE_WAY in action.desired.body["metadata"].get("annotations", {})), action.forced,
            [entry for entry in (own_entry(live), *entries_of_others(live)) if entry] if action.forced and action.verb == UPDATE else [],
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
            until_in_force(entry.ref for entry in batch)
    _wait_until_gone(cluster, journal, report)
    return report


@dataclasses.dataclass
class Undo:
    """Undoes single writes. `ours`: what the run has written, without what turns out to be somebody else's. `until`: when the time is
    over, by the monotonic clock, that everything together may take to be gone."""

    cluster: Cluster
    platform: str
    ours: set[Ref]
    check: Check
    report: Restored
    until: float = dataclasses.field(default_factory=lambda: time.monotonic() + GONE_SECONDS)

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
            elif (entry.verb, entry.ref.builtin, exc.status) == (UPDATE, "PersistentVolumeClaim", 422):
                self.report.kept.append(f"{entry.ref}: a claim that was made larger does not get smaller again: {exc.message}")
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
        elif entry.owners:
            self._give_back(entry, after)
        self.report.back.append(str(entry.ref))

    def _give_back(self, entry: Entry, after: dict, attempts: int = 10) -> None:
        """Makes what was put back by force its owners' own again: drift is to go on saying who changed what, and when."""
        owners = owners_again(after["metadata"]["managedFields"], entry.owners)
        if owners == after["metadata"]["managedFields"]:
            return
        change = {"metadata": {"resourceVersion": after["metadata"]["resourceVersion"], "managedFields": owners}}
        try:
            self.cluster.patch(entry.rtype, entry.namespace, entry.name, change)
        except ApiError as exc:
            newer = self.cluster.get(entry.rtype, entry.namespace, entry.name) if exc.status == 409 and attempts > 1 else None
            if newer:
                self._give_back(entry, newer, attempts - 1)
            else:  # the values are back, and that is what matters
                self.report.kept.append(f"{entry.ref}: as it was, but for whose its fields are: {exc.message}")

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
            if exc.status != 422 or "immutable" not in exc.message or entry.ref.builtin not in REPLACEABLE:
                raise  # no reason to delete what may have pods, data or other objects of its own
            live = self.cluster.get(entry.rtype, entry.namespace, entry.name)
            if live is None or live["metadata"].get("labels", {}).get(LABEL_PLATFORM) != self.platform:
                raise
            entry.others = images_of_others(live)
            delete_and_wait(self.cluster, entry.rtype, entry.ref, live["metadata"]["uid"], self._seconds())
            return self.cluster.apply(entry.rtype, before, force=True)
        if after["metadata"].get("deletionTimestamp"):
            # Still on its way out (a pruned namespace takes its time): what was applied now goes with it.
            wait_until_gone(self.cluster, entry.rtype, entry.ref, self._seconds())
            after = self.cluster.apply(entry.rtype, before, force=True)
        return after

    def _seconds(self) -> float:
        """How long to wait for one object. One that goes at once is given a moment also when the time is over."""
        return max(1.0, self.until - time.monotonic())

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
        why = self._kept(entry, live)
        if why:
            if entry.ref.builtin == "Namespace" and occupied(self.cluster, entry.name, self.platform, self.ours, claims=False):
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

    def _kept(self, entry: Entry, live: dict) -> str:
        if entry.ref.builtin == "PersistentVolumeClaim":
            return "it holds data"
        if entry.ref.builtin == "CustomResourceDefinition":
            return foreign_resources(self.cluster, live, self.ours)
        return occupied(self.cluster, entry.name, self.platform, self.ours) if entry.ref.builtin == "Namespace" else ""


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
