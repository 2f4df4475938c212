# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of work of one release: validate, observe, plan, (preview), journal, apply, wait, prune, record."""
from __future__ import annotations

import dataclasses
import getpass
import os
import socket
import time
import typing as t
import uuid

from ._apply import Entry, Restored, apply_deletes, apply_plan, entries, restore
from ._cluster import Cluster
from ._errors import Busy, InvalidInput, PlatformError, ReleaseFailed
from ._fields import applied_fingerprint
from ._health import WORKLOADS, not_ready
from ._ledger import DEPLOYED, FAILED, Ledger, State, busy
from ._manifest import LABEL_PLATFORM, Desired, Ref, prepare
from ._plan import KEEP, UNCHANGED, Action, Plan, make_plan, record_key, ref_from_key, resolve
from ._preview import change, diff, dry_run, summary_lines
from ._types import ResourceType, group_kind, ref_of
from ._wait import Waiter

JOURNAL_MARGIN = 180.0  # seconds a run may need beyond its wait: applying, restoring, a slow API server
SETTLE_SECONDS = 60.0  # how long a restored platform is given to be ready again


@dataclasses.dataclass
class Options:
    """How a release is to be made; the meaning of each is in the module's documentation."""

    platform: str
    check: bool = False
    diff: bool = False
    wait: bool = True
    wait_timeout: float = 600.0
    prune: bool = True
    prune_protected: bool = False
    complete: bool = False
    force: bool = False
    keep: int = 10
    facts: dict[str, str] = dataclasses.field(default_factory=dict)


class Releaser:
    """Makes releases of one platform on one cluster."""

    def __init__(self, cluster: Cluster, ledger: Ledger, options: Options, progress: t.Callable[[str], None]) -> None:
        self.cluster, self.ledger, self.options, self.progress = cluster, ledger, options, progress
        self.run_id = uuid.uuid4().hex
        self.repaired: dict | None = None

    # --- entry points ------------------------------------------------------------------------------------------------

    def deploy(self, bundle: dict[str, list[dict]]) -> dict:
        """Makes the platform what the bundle says. Returns the module's result."""
        desired = prepare(bundle, self.options.platform)
        self.cluster.types()  # the first request: a wrong address or an expired token ends here
        return self._release(desired, set(bundle), self._load())

    def roll_back(self, to: str, components: list[str] | None) -> dict:
        """Returns to a kept release, whole or some components of it."""
        self.cluster.types()
        state = self._load()
        target = state.find(to)
        unknown = set(components or []) - {*target["components"], *state.record}
        if unknown:
            raise InvalidInput(f"no such component in release {target['number']}: {', '.join(sorted(unknown))}")
        chosen = set(components) if components else {*target["components"], *state.record}
        wanted = {name: rev for name, rev in target["components"].items() if name in chosen}
        bundle = {name: self.ledger.manifests(name, rev) for name, rev in wanted.items()}
        desired = prepare(bundle, self.options.platform)
        return self._release(desired, chosen, state, rolled_back_to=target["number"])

    # --- the order of work -------------------------------------------------------------------------------------------

    def _release(self, desired: dict[Ref, Desired], scope: set[str], state: State, rolled_back_to: int | None = None) -> dict:
        if self.options.complete:
            scope = scope | set(state.record)
        resolved = resolve(desired, self.cluster.types())
        live = self._observe(desired, resolved, state)
        plan = make_plan(
            desired, resolved, live, state.record, scope, group_kind(self.cluster.types().values()),
            self.options.prune, self.options.prune_protected,
        )
        vector = self._vector(desired, scope, state)
        result = self._result(plan, state)
        if self.options.check:
            return self._preview(plan, state, vector, result)
        if not plan.writes:
            self._wait(plan, self.options.wait_timeout)
            return self._finished(result)
        afters = self._transact(plan, state, vector, scope, rolled_back_to)
        result.update(release=state.releases[-1]["number"], **self._changes(plan, afters))
        return self._finished(result)

    def _load(self) -> State:
        """The state, after repairing what a killed run left behind."""
        state, journal = self.ledger.load()
        if journal is None:
            return state
        if state.releases and state.releases[-1].get("run") == journal["run"]:
            self._unless_checking(self.ledger.close_journal)  # it was recorded; only its last step is missing
            return state
        if _alive(journal):
            raise busy(journal)
        self.progress(f"repairing: the run of {journal['by']} at {journal['at']} did not end; restoring the state before it")
        self._unless_checking(lambda: self._repair(journal))
        self.repaired = {name: journal[name] for name in ("by", "at")}
        return state

    def _unless_checking(self, write: t.Callable[[], object]) -> None:
        if not self.options.check:
            write()

    def _repair(self, journal: dict) -> None:
        report = restore(self.cluster, [Entry(**entry) for entry in journal["entries"]], journal["at"])
        if report.errors:
            raise ReleaseFailed("a killed run could not be undone: " + "; ".join(report.errors), restored=dataclasses.asdict(report))
        self.ledger.close_journal()

    def _observe(self, desired: dict[Ref, Desired], resolved: dict[Ref, tuple[ResourceType, str]], state: State) -> dict[Ref, dict]:
        """Live objects that carry our label, one LIST per type; with force, also those we are about to take over."""
        served = group_kind(self.cluster.types().values())
        rtypes = {(r.group, r.kind): r for r, pending in resolved.values() if not pending}
        for objects in state.record.values():
            for key in objects:
                ref = ref_from_key(key)
                if (ref.group, ref.kind) in served:
                    rtypes.setdefault((ref.group, ref.kind), served[ref.group, ref.kind])
        selector = f"{LABEL_PLATFORM}={self.options.platform}"
        lists = self.cluster.each(lambda rtype: [(ref_of(rtype, o), o) for o in self.cluster.list(rtype, selector)], rtypes.values())
        live = {ref: obj for found in lists for ref, obj in found}
        if self.options.force:
            missing = [(ref, resolved[ref][0]) for ref in desired if ref not in live and not resolved[ref][1]]
            found = self.cluster.each(lambda item: self.cluster.get(item[1], item[0].namespace, item[0].name), missing)
            live.update({ref: obj for (ref, _rtype), obj in zip(missing, found) if obj})
        return live

    def _vector(self, desired: dict[Ref, Desired], scope: set[str], state: State) -> dict[str, tuple[int, bool, list[dict]]]:
        """{component: (revision, whether it is new, manifests)} of the components in scope that have manifests."""
        bodies: dict[str, list[dict]] = {}
        for ref, item in sorted(desired.items()):
            bodies.setdefault(item.component, []).append(item.body)
        return {name: (*state.revision_for(name, manifests), manifests) for name, manifests in bodies.items() if name in scope}

    # --- preview -----------------------------------------------------------------------------------------------------

    def _preview(self, plan: Plan, state: State, vector: dict, result: dict) -> dict:
        afters = dry_run(self.cluster, plan, self.options.force)
        result.update(self._changes(plan, afters))
        if plan.writes:
            result["ledger"] = self._planned_ledger(state, {name: rev for name, (rev, new, _m) in vector.items() if new})
        return self._finished(result)

    def _planned_ledger(self, state: State, revisions: dict[str, int]) -> list[str]:
        """The ledger's own objects that the real run would create, named like the others."""
        first = not state.releases
        names = self.ledger.planned_secrets(revisions, first)
        secrets = [f"Secret {self.ledger.namespace}/{name}" for name in names]
        return [f"Namespace {self.ledger.namespace}", *secrets] if first else secrets

    # --- the transaction ---------------------------------------------------------------------------------------------

    def _transact(
        self, plan: Plan, state: State, vector: dict, scope: set[str], rolled_back_to: int | None
    ) -> dict[Action, dict]:
        for action in plan.writes:
            action.forced = self.options.force
        created = self.ledger.ensure_namespace()
        started, journal = self.cluster.server_time, entries(plan)
        self.ledger.open_journal(self._journal(started, journal))
        if self.ledger.state_version() != state.resource_version:
            self.ledger.close_journal()
            raise Busy("another run changed this platform while this one was planning. Nothing was written; run again")
        release = self._entry(state, started, rolled_back_to)
        try:
            afters = apply_plan(self.cluster, plan, self.options.platform, self.options.force, self.progress)
            self._wait(plan, self.options.wait_timeout)
            apply_deletes(self.cluster, plan)
            self._record(plan, afters, state, vector, scope, release)
        except BaseException as exc:
            raise self._undo(exc, plan, journal, started, state, release, created) from exc
        self.ledger.close_journal()
        return afters

    def _journal(self, started: str, journal: list[Entry]) -> dict:
        return {
            "run": self.run_id,
            "by": self.options.facts["by"],
            "at": started,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "expires": time.time() + self.options.wait_timeout + JOURNAL_MARGIN,
            "entries": [dataclasses.asdict(entry) for entry in journal],
        }

    def _entry(self, state: State, started: str, rolled_back_to: int | None) -> dict:
        entry = {"number": state.next_number, "status": DEPLOYED, "at": started, "run": self.run_id, **self.options.facts}
        return {**entry, "rolled_back_to": rolled_back_to} if rolled_back_to else entry

    def _wait(self, plan: Plan, timeout: float) -> None:
        if self.options.wait:
            wanted = {a.ref: a.rtype for a in plan.actions if a.desired and a.ref.kind in WORKLOADS and not _settled(a)}
            Waiter(self.cluster, wanted, self.options.platform, self.progress).run(timeout)

    def _record(
        self, plan: Plan, afters: dict[Action, dict], state: State, vector: dict, scope: set[str], release: dict
    ) -> None:
        for name, (revision, new, manifests) in vector.items():
            if new:
                self.ledger.save_revision(name, revision, manifests)
        before = state.current["components"] if state.current else {}
        outside = {name: revision for name, revision in before.items() if name not in scope}
        release["components"] = {**outside, **{name: revision for name, (revision, _new, _m) in vector.items()}}
        release["changes"] = plan.summary()
        after = State([*state.releases, release], {**state.record, **_recorded(plan, afters, state, scope)}, state.revisions)
        for name, (revision, new, manifests) in vector.items():
            if new:
                number_prints = {str(revision): after.revision_print(manifests)}
                after.revisions = {**after.revisions, name: {**after.revisions.get(name, {}), **number_prints}}
        after.record = {name: objects for name, objects in after.record.items() if objects}
        self.ledger.save(after, self.options.keep)
        state.releases, state.record, state.revisions = after.releases, after.record, after.revisions

    def _undo(
        self, exc: BaseException, plan: Plan, journal: list[Entry], started: str, state: State, release: dict, created: bool
    ) -> ReleaseFailed:
        """Puts everything back and says so; the error to raise."""
        why = exc.message if isinstance(exc, PlatformError) else f"{type(exc).__name__}: {exc}"
        self.progress("failed, restoring the state before")
        report = restore(self.cluster, journal, started)
        settled = "" if report.errors else self._settle(plan)
        if not report.errors:
            self._record_failure(state, release, why, created)
        facts = exc.facts if isinstance(exc, PlatformError) else {}
        outcome = _outcome(report, settled)
        return ReleaseFailed(
            f"release {release['number']} failed. {outcome}\n{why}", restored=dataclasses.asdict(report),
            problems=facts.get("problems", []), requests=dict(self.cluster.requests),
        )

    def _settle(self, plan: Plan) -> str:
        """Waits until the workloads that were there before are ready again; '' when they are, else what is not."""
        wanted = {a.ref: a.rtype for a in plan.writes if a.live and a.ref.kind in WORKLOADS and not not_ready(a.live)}
        try:
            Waiter(self.cluster, wanted, self.options.platform, self.progress).run(SETTLE_SECONDS)
        except PlatformError as exc:
            return exc.message
        return ""

    def _record_failure(self, state: State, release: dict, why: str, created: bool) -> None:
        if created:
            self.ledger.remove_namespace()  # nothing was ever deployed here: leave nothing
            return
        failure = {**release, "status": FAILED, "error": why.splitlines()[0], "components": {}}
        state.releases = [*state.releases, failure]
        self.ledger.save(state, self.options.keep)
        self.ledger.close_journal()

    # --- results -----------------------------------------------------------------------------------------------------

    def _result(self, plan: Plan, state: State) -> dict:
        current = state.current
        return {
            "changed": bool(plan.writes or self.repaired),
            "repaired": self.repaired,
            "release": current["number"] if current else None,
            "previous": current["number"] if current else None,
            "platform": self.options.platform,
            "server": self.cluster.server,
            "summary": plan.summary(),
            "summary_lines": summary_lines(plan.summary()),
            "changes": [],
            "kept": [str(a.ref) for a in plan.actions if a.verb == KEEP],
            "ledger": [],
        }

    def _changes(self, plan: Plan, afters: dict[Action, dict]) -> dict:
        found: dict[str, t.Any] = {"changes": [change(a, afters.get(a)) for a in plan.writes]}
        if self.options.diff:
            found["diff"] = [diff(a, afters.get(a)) for a in plan.writes]
        return found

    def _finished(self, result: dict) -> dict:
        return {**result, "requests": dict(self.cluster.requests)}


def _settled(action: Action) -> bool:
    return action.verb == UNCHANGED and action.live is not None and not not_ready(action.live)


def _recorded(plan: Plan, afters: dict[Action, dict], state: State, scope: set[str]) -> dict:
    """The record of the components in scope after the plan: fingerprints of what was applied, old ones of what was not."""
    known = {key: prints for objects in state.record.values() for key, prints in objects.items()}
    record: dict[str, dict[str, list[str]]] = {name: {} for name in scope}
    for action in plan.actions:
        key, after = record_key(action.ref), afters.get(action)
        if after is not None and action.desired:
            record[action.component][key] = [action.desired.fingerprint, applied_fingerprint(after)]
        elif action.verb in (UNCHANGED, KEEP) and key in known:
            record[action.component][key] = known[key]
    return record


def _alive(journal: dict) -> bool:
    """Whether the run that wrote this journal may still be writing. On its own host that can be looked up."""
    gone = journal.get("host") == socket.gethostname() and os.path.isdir("/proc") and not os.path.exists(f"/proc/{journal['pid']}")
    return not gone and time.time() < journal.get("expires", 0)


def _outcome(report: Restored, unsettled: str) -> str:
    done = f"{len(report.back)} objects put back, {len(report.removed)} removed"
    kept = f", {len(report.kept)} kept because they hold data" if report.kept else ""
    if report.errors:
        return f"NOT everything could be restored ({done}{kept}); the next run tries again: " + "; ".join(report.errors)
    if unsettled:
        return f"The state before is restored ({done}{kept}), but it is not ready yet: {unsettled}"
    return f"The state before is restored ({done}{kept})."


def who() -> str:
    """user@host of this controller, for the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
