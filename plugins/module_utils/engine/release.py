# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of work of one release: validate, observe, plan, (preview), journal, apply, wait, prune, record."""
from __future__ import annotations

import dataclasses
import datetime
import typing as t
import uuid

from ..checks.consistency import refuse_contradictions
from ..checks.occupied import foreign_resources, occupied
from ..checks.permissions import permit
from ..cluster.api import Cluster
from ..errors import ApiError, Busy, Interrupted, InvalidInput, LockLost, PlatformError, ReleaseFailed, TimedOut, Told
from ..objects.health import not_ready
from ..objects.kinds import PROTECTED, UNCHANGEABLE, WORKLOADS
from ..objects.manifest import LABEL_COMPONENT, Desired, Ref, hpa_targets, leave_replicas, one_way, prepare
from ..objects.references import missing_references
from ..objects.types import NAMESPACES, PODS, ResourceType, group_kind
from ..plan.limit import refuse_empty, refuse_too_many_deletions, refuse_undescribed
from ..plan.order import After, Order
from ..plan.plan import CREATE, DELETE, KEEP, UNCHANGED, UPDATE, Action, Plan, make_plan, note_replacements, refuse_foreign, refuse_irreversible, resolve
from ..plan.record import TAKEN_OVER, merged_record, ref_from_key
from ..plan.verdict import Before, Scope, before, scope, unready_of
from .apply import apply_deletes, held_by, hold_again
from .course import Course
from .evict import Leaving, revisions_left
from .ledger import DEPLOYED, FAILED, Ledger, State, busy
from .lock import Lock, alive
from .observe import observe, recorded_types
from .patience import Patience, patience
from .preview import change, dry_run, object_diff, summary_lines
from .undo import Entry, Restored, entries, restore
from .wait import Waiter

ADMISSION_SECONDS = 2  # until the API server judges pods by a quota or a label that has just been written
NAMED_DYING = 5
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
    max_deleted: str = "25%"
    force: bool = False
    allow_one_way: bool = False
    references: bool = True
    consistency: bool = True
    keep: int = 10
    patience: Patience = patience(None)
    after: After = dataclasses.field(default_factory=dict)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Target:
    """What a run is to make of the platform. `scope`: the components it speaks for; `spared`: which leftovers stay.

    `references`: whether everything that its objects name has to be there. Going back must not fail for that.
    `limited`: whether `max_deleted` holds. A rollback or a teardown says itself what goes. `back`: whether this is a way back, on which
    what the server takes no change of is made anew, and pods of the revision that is left may be evicted. `repair`: whether it puts
    right what others changed: that stays, also where it is not enough. `after`: see Order.
    """

    desired: dict[Ref, Desired]
    scope: set[str]
    spared: t.Callable[[Ref], bool]
    rolled_back_to: int | None = None
    references: bool = False
    limited: bool = False
    back: bool = False
    repair: bool = False
    after: After = dataclasses.field(default_factory=dict)

    def order(self, plan: Plan) -> Order:
        """What of the plan comes after what."""
        return Order.of(self.after, {action.component for action in plan.actions})


class Releaser:
    """Makes releases of one platform on one cluster."""

    def __init__(self, cluster: Cluster, ledger: Ledger, options: Options, progress: t.Callable[[str], None]) -> None:
        self.cluster, self.ledger, self.options, self.progress = cluster, ledger, options, progress
        self.lock = Lock(cluster, ledger)
        self.run_id = uuid.uuid4().hex
        self.repaired: dict | None = None
        self._components: dict[Ref, str] = {}
        self.refused: list[str] = []  # what a repair could not put back
        self.not_ready: list[str] = []  # what is not ready when the run ends, and failed nothing

    # --- entry points ------------------------------------------------------------------------------------------------

    def deploy(self, bundle: dict[str, list[dict]], components: t.Collection[str] | None = None) -> dict:
        """Makes the platform what the bundle says. Returns the result of the module.

        `bundle`: {component: [manifests]}. `components`: what the run means to release. A component that the bundle lacks is an error: nothing is pruned for
        having been left out of a run.

        Raises before the first write: InvalidInput, WrongCluster, NotPermitted, Busy, TimedOut (something that is being deleted does not go), ApiError,
        Unreachable. After it: ReleaseFailed, which says whether the state before was restored; LockLost, when another run has taken over and restores.
        """
        refuse_undescribed(bundle, components)
        Order.of(self.options.after, bundle)
        desired = prepare(bundle, self.options.platform)
        if not bundle:
            refuse_empty(desired)
        if self.options.consistency:
            refuse_contradictions(desired)
        state = self.load()
        scope = set(bundle) | (set(state.record) if self.options.complete else set())
        after = self._after(bundle, scope, state)
        return self._release(Target(desired, scope, self._spared, references=self.options.references, limited=True, after=after), state)

    def _after(self, bundle: t.Collection[str], scope: set[str], state: State) -> After:
        """What comes after what: of components that are dropped as the ledger knows it, and nothing comes after these any more."""
        dropped, known = scope - set(bundle), (state.current or {}).get("after", {})
        given = {name: set(others) - dropped for name, others in self.options.after.items()}
        return {**given, **{name: known[name] for name in dropped if name in known}}

    def roll_back(self, to: str, components: list[str] | None) -> dict:
        """Returns to a kept release. `to`: its number, or `previous`; `components`: only these, None for all. Returns the result of the module, with the
        number of that release as `returns_to`. Raises as `deploy`; InvalidInput also when changes lie between that going back does not undo, and
        `allow_one_way` is not set."""
        state = self.load()
        target = state.find(to)
        unknown = set(components or []) - {*target["components"], *state.record}
        if unknown:
            raise InvalidInput(f"no such component in release {target['number']}: {', '.join(sorted(unknown))}")
        chosen = set(components) if components else {*target["components"], *state.record}
        crossed = state.one_way_since(target, chosen)
        if crossed and not self.options.allow_one_way:
            raise InvalidInput(
                f"release {target['number']} lies before changes that cannot be undone by going back:\n- " + "\n- ".join(crossed)
                + "\nUndo them by hand or restore a backup, then set allow_one_way", one_way=crossed,
            )
        # A return of some components is a state of its own: what came before it is what it changed.
        number = None if components else target["number"]
        after = {**(state.current or {}).get("after", {}), **target.get("after", {})}
        result = self._release(Target(self.described(target, chosen), chosen, self._spared, number, back=True, after=after), state)
        return {**result, "returns_to": target["number"]}

    def tear_down(self, state: State, spared: t.Callable[[Ref], bool]) -> dict:
        """Removes everything that was released but what `spared` names, as a release of its own: the ledger stays, so that even this can be undone. Returns
        the result of the module. Raises as `deploy`."""
        return self._release(Target({}, set(state.record), spared, after=(state.current or {}).get("after", {})), state)

    # --- the order of work -------------------------------------------------------------------------------------------

    def _release(self, target: Target, state: State) -> dict:
        plan = self.plan(target, state)
        if target.limited:
            refuse_too_many_deletions(plan, state.record, target.scope, self.options.max_deleted)
            if self.options.complete:
                refuse_empty(target.desired)
        vector = self.vector(target, state)
        result = self._result(plan, state, target.order(plan).stages())
        if plan.writes:
            self.permit(plan)
        if self.options.check:
            return self._preview(plan, state, vector, result)
        if not plan.writes:
            self.not_ready = self._beside(scope(plan).beside) if self.options.wait else []
            return self._finished(result)
        dry_run(self.cluster, plan, self.options.force, UNCHANGEABLE)
        return {**self.carry_out(plan, state, vector, target, result), **self._planned(plan, result["order"])}

    def permit(self, plan: Plan, read: t.Iterable[tuple[ResourceType, str]] = ()) -> None:
        """Raises NotPermitted, naming all that is missing, when the identity may not do what the plan, its undo, or listing what is in `read`, needs. `read`:
        (type, namespace), with '' for all namespaces."""
        permit(self.cluster, plan, self.ledger.namespace, self.options.wait, read)

    def carry_out(self, plan: Plan, state: State, vector: dict, target: Target, result: dict) -> dict:
        """Carries out a plan as one transaction and records it as a release. `vector`: see `vector`; `result`: as `_result` began it. Returns the result of
        the module. Raises ReleaseFailed, LockLost, and what `deploy` raises before the first write."""
        afters = self._transact(plan, state, vector, target)
        if self.refused:
            raise ReleaseFailed(
                f"release {state.releases[-1]['number']} put back {len(afters)} objects, and {len(self.refused)} stay as they were:\n- "
                + "\n- ".join(self.refused), problems=self.refused, requests=dict(self.cluster.requests),
            )
        result.update(release=state.releases[-1]["number"], changed=True, **self._changes(plan, afters))
        return self._finished(result)

    def load(self) -> State:
        """Reads the ledger. If an earlier run was killed, its writes are undone first (not in check mode, where it is only told). Returns the state. Raises
        Busy while that run may be alive; ReleaseFailed when it could not be undone; WrongCluster, InvalidInput, ApiError, Unreachable."""
        self.cluster.types()  # the first request: a wrong address or an expired token ends here
        state, journal = self.ledger.load()
        if journal is None:
            return state
        if state.releases and state.releases[-1].get("run") == journal["run"]:
            self._unless_checking(lambda: self.ledger.close_journal(journal["uid"]))  # it was recorded; only its last step is missing
            return state
        if alive(journal, journal["renewed"], self.cluster.server_time):
            raise busy(journal)
        self.progress(f"repairing: the run of {journal['by']} at {journal['at']} did not end; restoring the state before it")
        self._unless_checking(lambda: self._repair(journal))
        self.repaired = {name: journal[name] for name in ("by", "at")}
        return state

    def _unless_checking(self, write: t.Callable[[], object]) -> None:
        if not self.options.check:
            write()

    def _repair(self, journal: dict) -> None:
        self.lock.take_over(journal)
        journalled = [Entry.read(entry) for entry in journal["entries"]]
        report = restore(self.cluster, journalled, self.options.platform, self.lock.check)
        if report.errors:
            self.lock.abandon()
            raise ReleaseFailed(
                "an earlier run could not be undone: " + "; ".join(report.errors) + ". Remove the cause and run again; unlock.yml (with --check"
                " first) shows what is not as it was before that run, and goes on without it", restored=dataclasses.asdict(report),
            )
        self.lock.release()
        # What is planned next looks at what runs, and a run with nothing to write waits for nothing by itself. Without the lock: should
        # others write meanwhile, this run finds that out when it takes it for its own work.
        back = {entry.ref: entry.rtype for entry in journalled if entry.before and entry.ref.builtin in WORKLOADS}
        unsettled = self._settle(back, {}) if self.options.wait else ""
        if unsettled:
            self.progress(f"the state before it is restored, but not ready yet: {unsettled}")

    def described(self, release: dict, components: t.Collection[str]) -> dict[Ref, Desired]:
        """The objects of some components as a kept release describes them. `release`: an entry of `State.releases`. Raises InvalidInput when the ledger has
        lost a revision; ApiError, Unreachable."""
        revisions = [item for item in release["components"].items() if item[0] in components]
        manifests = self.cluster.each(lambda item: self.ledger.manifests(*item), revisions)
        return prepare({name: found for (name, _rev), found in zip(revisions, manifests)}, self.options.platform)

    def plan(self, target: Target, state: State) -> Plan:
        """Compares what shall be with what is live and writes nothing. Raises InvalidInput for what cannot be released: an unknown kind, another platform's
        object, a change that could not be undone, a name that nothing has; NotPermitted when the identity may not read it; ApiError, Unreachable."""
        types = self.cluster.types()
        resolved = resolve(target.desired, types)
        live = self._live(target, state, resolved)
        others = (obj for obj in live.values() if obj["metadata"].get("labels", {}).get(LABEL_COMPONENT) not in target.scope)
        leave_replicas(target.desired, hpa_targets(others))  # those in the bundle are seen to already
        platform = self.options.platform
        refuse_foreign(target.desired, live, state.record, platform, self.options.force)
        if not target.repair:
            self._refuse_leaving(target.desired)
        plan = make_plan(target.desired, resolved, live, state.record, target.scope, group_kind(types.values()), target.spared, platform)
        refuse_irreversible(plan)
        self._components = {action.ref: action.component for action in plan.actions}
        if target.back:
            note_replacements(plan)
        if target.limited or target.back:
            self._keep_what_others_use(plan, state, target)
        if target.references:
            self._refuse_dangling(target.desired, plan, live)
        return plan

    def _keep_what_others_use(self, plan: Plan, state: State, target: Target) -> None:
        """Turns the removal of a namespace or a definition into keeping it where anybody else's would go with it. (A teardown has looked
        by itself, for it counts claims otherwise.)"""
        taken = {ref_from_key(key).namespace for objects in state.record.values() for key, prints in objects.items() if prints[2:] == [TAKEN_OVER]}
        ours = {ref_from_key(key) for objects in state.record.values() for key in objects}
        outside = {ref_from_key(key).namespace: name for name, objects in state.record.items() if name not in target.scope for key in objects}
        staying = {**outside, **{ref.namespace: item.component for ref, item in target.desired.items()}}
        staying.pop("", None)

        def used(action: Action) -> str:
            if action.ref.name in staying:
                return f"component {staying[action.ref.name]} still has something in it"
            if action.ref.builtin == "CustomResourceDefinition":
                return foreign_resources(self.cluster, t.cast(dict, action.live), ours)
            why = occupied(self.cluster, action.ref.name, self.options.platform, ours, claims=False)
            return why or ("it holds what was there before the platform" if action.ref.name in taken else "")

        going = [action for action in plan.actions if action.verb == DELETE and action.ref.builtin in ("Namespace", "CustomResourceDefinition")]
        for action, why in zip(going, self.cluster.each(used, going)):
            if why:
                action.verb, action.pending = KEEP, why

    def _live(self, target: Target, state: State, resolved: dict[Ref, tuple[ResourceType, str]]) -> dict[Ref, dict]:
        wanted = {ref: rtype for ref, (rtype, pending) in resolved.items() if not pending}
        try:
            return observe(self.cluster, self.options.platform, state.record, wanted)
        except ApiError as exc:
            if exc.status == 403:  # not only this one is to be named: all that may be needed, as if nothing were there yet
                anew = Plan([Action(CREATE, ref, item.component, resolved[ref][0], item.wave, item) for ref, item in target.desired.items()])
                listed = {**wanted, **recorded_types(self.cluster, state.record)}
                self.permit(anew, {(rtype, ref.namespace if rtype.namespaced else "") for ref, rtype in listed.items()})
            raise

    def _refuse_leaving(self, desired: dict[Ref, Desired]) -> None:
        """Raises InvalidInput for objects in a namespace that is being deleted and that this run does not make anew."""
        spaces = sorted({ref.namespace for ref in desired} - {ref.name for ref in desired if ref.builtin == "Namespace"} - {""})
        found = self.cluster.each(self._leaving_namespace, spaces)
        errors = [f"Namespace {name}: {held_by(live)}" for name, live in zip(spaces, found) if live]
        if errors:
            text = "\n- ".join(["what this run would write is in a namespace that goes, with all that is in it; nothing was written:", *errors])
            raise InvalidInput(f"{text}\nRun again when it is gone and made anew", errors=errors)

    def _leaving_namespace(self, name: str) -> dict | None:
        """The Namespace, if it is being deleted as far as we may know."""
        try:
            found = self.cluster.get(NAMESPACES, "", name)
        except ApiError as exc:
            if exc.status == 403:
                return None
            raise
        return found if found and found["metadata"].get("deletionTimestamp") else None

    def _refuse_dangling(self, desired: dict[Ref, Desired], plan: Plan, live: dict[Ref, dict]) -> None:
        """Raises one InvalidInput that lists what objects to be written name and what will not be there."""
        leaving = {action.ref for action in plan.actions if action.verb == DELETE}
        written = {action.ref for action in plan.actions if action.verb in (CREATE, UPDATE)}
        needs = [need for need in missing_references(desired) if need.ref in leaving or (need.by.ref in written and need.ref not in live)]
        unknown = {need.ref for need in needs} - leaving
        absent = {ref for ref, found in zip(unknown, self.cluster.each(self._exists, unknown)) if not found}
        errors = [
            f"{need}, which {'this release removes' if need.ref in leaving else 'is neither in the bundle nor in the cluster'};"
            " fix the name, add it, or mark it optional"
            for need in needs if need.ref in leaving | absent
        ]
        if errors:
            raise InvalidInput("the manifests name objects that are missing, nothing was written:\n- " + "\n- ".join(errors), errors=errors)

    def _exists(self, ref: Ref) -> bool:
        """Whether an object is in the cluster; yes where we may not look."""
        rtype = group_kind(self.cluster.types().values()).get((ref.group, ref.kind))
        try:
            return rtype is not None and self.cluster.get(rtype, ref.namespace, ref.name) is not None
        except ApiError as exc:
            if exc.status == 403:
                return True
            raise

    def _spared(self, ref: Ref) -> bool:
        return not self.options.prune or (ref.kind in PROTECTED and not self.options.prune_protected)

    def vector(self, target: Target, state: State) -> dict[str, tuple[int, bool, list[dict]]]:
        """{component: (number of its revision, whether it is new, manifests)} for the components in scope that have manifests."""
        bodies: dict[str, list[dict]] = {}
        for ref, item in sorted(target.desired.items()):
            bodies.setdefault(item.component, []).append(item.sent)
        return {name: (*state.revision_for(name, manifests), manifests) for name, manifests in bodies.items() if name in target.scope}

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

    def _transact(self, plan: Plan, state: State, vector: dict, target: Target) -> dict[Action, dict]:
        """Journals, writes, waits, prunes and records; {action: the object as it is now}. On any error the state before is restored,
        and a ReleaseFailed raised. Only when the lock is lost nothing is restored here: another run does it, or has."""
        for action in plan.writes:
            action.forced = self.options.force
        self._until_dying_are_gone(plan)
        created = self.ledger.ensure_namespace()
        # A repair is never undone, by nobody: what was there before is what it mends.
        started, journal = self.cluster.server_time, [] if target.repair else entries(plan)
        self._acquire(self._journal(started, journal), state)
        release = self._entry(state, started, target)
        try:
            leaving = self._leaving(plan) if target.back else {}
            reading = self._before(plan, target)
            afters = self._applied(plan, target, leaving, reading)
            hold_again(self.cluster, plan, afters, self.lock.check)
            if target.limited or target.back:
                self._keep_what_others_use(plan, state, target)  # somebody may have moved in while the run waited
            apply_deletes(self.cluster, plan, self.progress, self.lock.check, target.order(plan), self.options.wait_timeout)
            self.lock.check()
            self._record(plan, afters, state, vector, target, release)
        except LockLost:
            self.lock.stop()  # the run that took over has restored, or will
            raise
        except BaseException as exc:
            raise self._undo(exc, plan, journal, state, release, target, created) from exc
        try:
            self.lock.release()
        except (PlatformError, Interrupted) as exc:  # it is recorded, and the next run removes the journal of a recorded run
            self.progress(f"the release is done; its journal could not be removed: {exc.message}")
        return afters

    def _applied(self, plan: Plan, target: Target, leaving: Leaving, reading: Before) -> dict[Action, dict]:
        """Writes each component once those before it are ready, and waits for all; {action: the object as it is now}. A repair goes on after
        any refusal, and what is refused stays as it is."""
        course = Course(
            self.cluster, plan, target.order(plan), self.options.platform, self.options.force, self.progress, self.lock.check, target.repair
        )
        if self.options.wait:
            self._wait(course, target, leaving, reading)
        else:
            while course.go_on(()):
                pass
            course.finish({})
        self.refused += [f"{exc.message}{self._made_anew(action)}" for action, exc in course.refused.items()]
        for action in course.refused:
            action.verb = UNCHANGED
        return course.afters

    def _made_anew(self, action: Action) -> str:
        """Puts back what a repair deleted to make it anew, which was refused then; says what became of it."""
        if not action.replace:
            return ""
        report = restore(self.cluster, [Entry.of(action)], self.options.platform, self.lock.check)
        said = f"could not be put back: {'; '.join(report.errors)}" if report.errors else "is back as it was found"
        return f" It was deleted to be made anew, and {said}"

    def _acquire(self, journal: dict, state: State) -> None:
        """Takes the lock, and gives it back unless the state is still the one that was planned on."""
        self.lock.acquire(journal)
        try:
            if self.ledger.state_version() != state.resource_version:
                raise Busy("another run changed this platform while this one was planning. Nothing was written; run again")
        except BaseException:
            self.lock.release()
            raise

    def _until_dying_are_gone(self, plan: Plan) -> None:
        """What is being deleted is not there, but its name is taken until it is gone. Raises TimedOut before anything is written."""
        dying = {action.ref: action for action in plan.writes if action.after}
        if not dying:
            return
        for action in dying.values():
            self.progress(f"{action.ref}: {held_by(t.cast(dict, action.after))}; waiting until it is gone")
        uids = {ref: t.cast(dict, action.after)["metadata"]["uid"] for ref, action in dying.items()}
        left = self.cluster.gone([(action.rtype, ref) for ref, action in dying.items()], self.options.wait_timeout, uids)
        if left:
            # Read anew: what holds a namespace is only known once its controller has tried to empty it.
            now = self.cluster.each(lambda ref: self.cluster.get(dying[ref].rtype, ref.namespace, ref.name) or dying[ref].after, sorted(left)[:NAMED_DYING])
            still = "; ".join(f"{ref}: {held_by(live)}" for ref, live in zip(sorted(left), now))
            raise TimedOut(f"still being deleted after {self.options.wait_timeout:.0f} s, nothing was written: {still}. Remove what holds it, then run again")

    def _journal(self, started: str, journal: list[Entry]) -> dict:
        lines = [dataclasses.asdict(entry) for entry in journal]
        return {"run": self.run_id, "by": self.options.facts["by"], "at": started, "entries": lines}

    def _entry(self, state: State, started: str, target: Target) -> dict:
        entry = {"number": state.next_number, "status": DEPLOYED, "at": started, "run": self.run_id, **self.options.facts}
        return {**entry, "rolled_back_to": target.rolled_back_to} if target.rolled_back_to else entry

    def _before(self, plan: Plan, target: Target) -> Before:
        """A reading of what is not ready before the first write, of all that will be waited for."""
        unready = unready_of(plan, self._scope(plan, target).wanted) if self.options.wait else {}
        spaces = sorted({ref.namespace for ref in unready if ref.builtin in WORKLOADS})
        return before(unready, [pod for space in spaces for pod in self.cluster.items(PODS, "", space)])

    def _wait(self, course: Course, target: Target, leaving: Leaving, reading: Before) -> None:
        """Carries out a course, waits for what it writes, and notes what is not ready and fails nothing."""
        waited = self._scope(course.plan, target)
        waiter = self._waiter({}, leaving)
        waiter.before, waiter.hoped = reading, waited.wanted if target.repair else set(filter(reading.was_broken, waited.hoped))

        def more(unready: t.Collection[Ref]) -> dict[Ref, ResourceType]:
            found: dict[Ref, ResourceType] = {}
            holding = [ref for ref in unready if not (target.back and ref in waiter.left)]
            while written := course.go_on([*holding, *found]):
                found.update({a.ref: waited.wanted[a.ref] for a in written if a.ref in waited.wanted and course.is_there(a)})
                waiter.after = self._in_force()
            return found

        waiter.run(self.options.wait_timeout, more)
        course.finish(waiter.left)
        self.not_ready = [*waiter.left.values(), *self._beside(waited.beside)]

    def _scope(self, plan: Plan, target: Target) -> Scope:
        """What a run waits for. A way back is not held up by what it does not write."""
        return scope(plan, None if target.back else target.order(plan))

    def _beside(self, others: dict[Ref, ResourceType]) -> list[str]:
        """What was not ready before and is not now: this run did not write to it, and does not fail if it cannot be looked at."""
        try:
            now = [*zip(others, self.cluster.each(lambda ref: self.cluster.get(others[ref], ref.namespace, ref.name), others))]
        except PlatformError as exc:
            return [f"what was not ready before could not be looked at: {exc.message}"]
        found = {ref: not_ready({**live, "kind": ref.kind}) for ref, live in now if live}
        return [f"{ref}: {reason}, as before this run; verify.yml says why" for ref, reason in sorted(found.items()) if reason]

    def _waiter(self, wanted: dict[Ref, ResourceType], leaving: Leaving) -> Waiter:
        """For workloads whose controllers may have been refused pods until now, and try again only after a while. `leaving`: on a way
        back, the revisions of each StatefulSet that are left."""
        def patient(ref: Ref, reason: str) -> float:
            return self.options.patience(self._components.get(ref, ""), reason)

        return Waiter(
            self.cluster, wanted, self.options.platform, self.progress, leaving=leaving, after=self._in_force(), patience=patient
        )

    def _in_force(self) -> str:
        """RFC 3339: when what was written until now counts for admission, too."""
        form = "%Y-%m-%dT%H:%M:%SZ"
        return (datetime.datetime.strptime(self.cluster.server_time, form) + datetime.timedelta(seconds=ADMISSION_SECONDS)).strftime(form)

    def _record(
        self, plan: Plan, afters: dict[Action, dict], state: State, vector: dict, target: Target, release: dict
    ) -> None:
        fresh = [(name, revision, manifests) for name, (revision, new, manifests) in vector.items() if new]
        self.cluster.each(lambda item: self.ledger.save_revision(*item), fresh)
        current = state.current or {"components": {}}
        for field, values in (
            ("components", {name: revision for name, (revision, _new, _m) in vector.items()}),
            ("one_way", one_way(action.desired for action in plan.actions if action.desired)),
            ("after", {name: sorted(others) for name, others in target.after.items() if name in vector and others}),
        ):
            outside = {name: value for name, value in current.get(field, {}).items() if name not in target.scope}
            release[field] = {**outside, **values}
        release["changes"] = plan.summary()
        if self.refused:  # what it put back is noted, and no release to return to is pushed out
            release.update(status=FAILED, error=self.refused[0].splitlines()[0], components={})
        after = State([*state.releases, release], merged_record(state.record, plan.record(afters, state.record, target.scope)), dict(state.revisions))
        for name, revision, manifests in fresh:
            prints = {**after.revisions.get(name, {}), str(revision): after.revision_print(manifests)}
            after.revisions = {**after.revisions, name: prints}
        self.ledger.save(after, self.options.keep)
        state.releases, state.record, state.revisions = after.releases, after.record, after.revisions

    def _undo(
        self, exc: BaseException, plan: Plan, journal: list[Entry], state: State, release: dict, target: Target, created: bool
    ) -> PlatformError:
        """Puts everything back and says so; the error to raise."""
        why = exc.message if isinstance(exc, Told) else f"{type(exc).__name__}: {exc}"
        self.progress("failed, what was put back stays" if target.repair else "failed, restoring the state before")
        crossed = [mark for marks in one_way(a.desired for a in plan.writes if a.desired).values() for mark in marks]
        try:
            leaving = self._leaving(plan)
            report = self._restored(journal)
            settled = "" if report.errors or target.repair else self._settled(plan, leaving)
            if not report.errors:
                self.lock.check()
        except LockLost as lost:
            self.lock.stop()
            return LockLost(f"release {release['number']} failed: {why}\nIt could not restore everything: {lost.message}")
        (self.lock.abandon if report.errors else self.lock.stop)()
        if not report.errors:
            self._record_failure(state, release, why, created)
        facts = exc.facts if isinstance(exc, Told) else {}
        outcome = "What it put back stays; run again for the rest." if target.repair else report.outcome(settled)
        if crossed:
            outcome += " It may have carried out changes that cannot be undone: " + "; ".join(crossed) + "."
        return ReleaseFailed(
            f"release {release['number']} failed. {outcome}\n{why}", restored=dataclasses.asdict(report),
            problems=facts.get("problems", []), requests=dict(self.cluster.requests),
        )

    def _restored(self, journal: list[Entry]) -> Restored:
        """Restores, and goes on with it when told to stop meanwhile: that is what stopping means here, and it is told only once."""
        try:
            return restore(self.cluster, journal, self.options.platform, self.lock.check)
        except Interrupted:
            return restore(self.cluster, journal, self.options.platform, self.lock.check)

    def _leaving(self, plan: Plan) -> Leaving:
        sets = {action.ref: action.rtype for action in plan.writes if action.live and action.ref.builtin == "StatefulSet"}
        return revisions_left(self.cluster, sets)

    def _settled(self, plan: Plan, leaving: Leaving) -> str:
        """Waits until the workloads that were ready before are so again; '' when they are, else what is not."""
        wanted = {a.ref: a.rtype for a in plan.writes if a.live and a.ref.builtin in WORKLOADS and not not_ready(a.live)}
        try:
            return self._settle(wanted, leaving)
        except Interrupted as exc:
            return exc.message

    def _settle(self, wanted: dict[Ref, ResourceType], leaving: Leaving) -> str:
        """Waits for what was put back; '' when it is ready, else what is not."""
        try:
            self._waiter(wanted, leaving).run(SETTLE_SECONDS)
        except PlatformError as exc:
            return exc.message
        return ""

    def _record_failure(self, state: State, release: dict, why: str, created: bool) -> None:
        if created and not self.ledger.remove_namespace():
            return  # nothing was ever deployed here, and nothing is left
        failure = {**release, "status": FAILED, "error": why.splitlines()[0], "components": {}}
        state.releases = [*state.releases, failure]
        self.ledger.save(state, self.options.keep)
        self.lock.release()

    # --- results -----------------------------------------------------------------------------------------------------

    def _result(self, plan: Plan, state: State, stages: list[list[str]]) -> dict:
        current = state.current
        return {
            "changed": bool(plan.writes or self.repaired),
            "repaired": self.repaired,
            "release": current["number"] if current else None,
            "previous": current["number"] if current else None,
            "platform": self.options.platform,
            "server": self.cluster.server,
            **self._planned(plan, stages),
            "order": stages,
            "changes": [],
            "scaled": [str(a.ref) for a in plan.actions if a.leave_replicas],
            "ledger": [],
            "returns_to": None,
        }

    @staticmethod
    def _planned(plan: Plan, stages: list[list[str]]) -> dict:
        """What a plan comes to: numbers, in which order, what stays, and what was there before."""
        kept = [f"{a.ref}: {a.pending}" if a.pending else str(a.ref) for a in plan.actions if a.verb == KEEP]
        taken = [str(a.ref) for a in plan.writes if a.newly_taken_over]
        order = [f"in this order: {', then '.join(map(', '.join, stages))}"] if len(stages) > 1 else []
        lines = [*summary_lines(plan.summary()), *order]
        return {"summary": plan.summary(), "summary_lines": lines, "kept": kept, "taken_over": taken}

    def _changes(self, plan: Plan, afters: dict[Action, dict]) -> dict:
        found: dict[str, t.Any] = {"changes": [change(a, afters.get(a)) for a in plan.writes]}
        if self.options.diff:
            found["diff"] = [object_diff(a, afters.get(a)) for a in plan.writes]
        return found

    def _finished(self, result: dict) -> dict:
        return {**result, "not_ready": self.not_ready, "requests": dict(self.cluster.requests)}
