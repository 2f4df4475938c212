# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thin layer that acts: applies a plan in waves, and prunes."""
from __future__ import annotations

import time
import typing as t

from ..checks.refusals import explain, unanswered
from ..cluster.api import Cluster
from ..errors import ApiError, TimedOut, Unreachable
from ..objects.fields import own_entry, removals, spec_of
from ..objects.kinds import DEFINITIONS, ROUTES, WEBHOOKS, WORKLOADS
from ..objects.manifest import LABEL_COMPONENT, LABEL_PLATFORM, Ref
from ..objects.types import ResourceType
from ..plan.order import Order
from ..plan.plan import CREATE, ORPHAN, UPDATE, Action, Plan, is_policy
from .wait import Waiter

# An API server looks for changed policies every second, and compiles them; of webhooks it hears a moment after they were written.
POLICY_SECONDS = 2.5
# Gateways, meshes and ingress controllers gather changes for a moment, and hand them to their proxies one after the other.
ROUTE_SECONDS = 5.0
# How long a webhook whose workloads are ready may still not answer.
WEBHOOK_SECONDS = 30.0
# How long what somebody deletes in mid-run may take to be gone, before it is made anew.
GONE_SECONDS = 60.0


Check = t.Callable[[], None]  # raises LockLost when the run must not go on


def apply_plan(
    cluster: Cluster, plan: Plan, platform: str, force: bool, progress: t.Callable[[str], None], check: Check, is_early: t.Callable[[ApiError], bool]
) -> tuple[dict[Action, dict], dict[Action, ApiError]]:
    """Creates and updates the objects of a plan, wave by wave; those of one wave at the same time. Before that, autoscalers go that would set replicas of
    this plan back.

    `force`: fields of other managers that differ are taken over. `progress` gets a line for people before each wave. `check` is called before each write, and
    raises LockLost once the run must not go on. `is_early`: whether a refusal means that the object is only too early, for instance because its webhook does
    not run yet.

    Returns ({action: the object as the server has it now}, {action: the refusal of what is too early}). Raises ApiError, naming the object, for any other
    refusal; Unreachable; Hopeless or TimedOut when a definition that was written is not served.
    """
    done: dict[Action, dict] = {}
    early: dict[Action, ApiError] = {}
    first = plan.first()
    if first:
        _delete(cluster, first, progress, check)
        cluster.gone([(action.rtype, action.ref) for action in first])
    for wave in plan.waves():
        progress(f"applying {len(wave)} objects ({_kinds(wave)})")
        afters = dict(zip(wave, cluster.each(lambda action: _apply_unless(cluster, action, force, check, is_early), wave)))
        refused = {action: after for action, after in afters.items() if isinstance(after, ApiError)}
        for action, why in refused.items():
            progress(f"{action.ref}: tried again when the workloads are ready: {why.message.splitlines()[0]}")
        early.update(refused)
        done.update({action: after for action, after in afters.items() if action not in refused})
        definitions = {a.ref: a.rtype for a in wave if a.ref.builtin in DEFINITIONS and a in done}
        Waiter(cluster, definitions, platform, progress).run(60)
        until_in_force(action.ref for action in wave)
    return done, early


def apply_early(
    cluster: Cluster, early: list[Action], force: bool, progress: t.Callable[[str], None], check: Check
) -> tuple[dict[Action, dict], dict[Action, ApiError]]:
    """Applies what was too early in `apply_plan`, now that the workloads are ready. Tries again as long as each round gets more done, and for up to
    WEBHOOK_SECONDS while a webhook does not answer: the API server may need a moment to reach it, and cert-manager to give it its certificate.

    Returns ({action: the object as the server has it now}, {action: the refusal of what is still refused}). Raises ApiError only for a token that has expired
    (401); Unreachable; LockLost from `check`.
    """
    progress(f"applying {len(early)} objects ({_kinds(early)})")
    done: dict[Action, dict] = {}
    deadline = time.monotonic() + WEBHOOK_SECONDS
    while True:
        known, refused = len(done), {}
        for wave in Plan([action for action in early if action not in done]).waves():
            afters = dict(zip(wave, cluster.each(lambda action: _apply_unless(cluster, action, force, check, lambda _exc: True), wave)))
            refused.update({action: after for action, after in afters.items() if isinstance(after, ApiError)})
            done.update({action: after for action, after in afters.items() if action not in refused})
        silent = any(unanswered(exc) for exc in refused.values()) and time.monotonic() < deadline
        if not refused or not (silent or len(done) > known):
            return done, refused
        time.sleep(1 if silent else 0)


def _apply_unless(cluster: Cluster, action: Action, force: bool, check: Check, tolerated: t.Callable[[ApiError], bool]) -> dict | ApiError:
    """The object as the server has it now, or why it was refused where that is tolerated."""
    try:
        return _apply_one(cluster, action, force, check)
    except ApiError as exc:
        if exc.status == 401 or not tolerated(exc):
            raise
        return exc


def hold_again(cluster: Cluster, plan: Plan, afters: dict[Action, dict], check: Check) -> None:
    """Sets replicas that this run took back from an autoscaler once more where they differ: an autoscaler that was at work when it was removed may have
    written again. Updates `afters`, which is {action: the object as the server has it now}. Raises ApiError, Unreachable, and LockLost from `check`."""
    for action in plan.writes:
        if action.hold_replicas is None or action not in afters or "replicas" not in spec_of(action.body):
            continue
        live = cluster.get(action.rtype, action.ref.namespace, action.ref.name)
        if live and live["spec"].get("replicas") != action.hold_replicas:
            check()
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.hold_replicas)
            afters[action] = cluster.apply(action.rtype, action.body, force=True)


def apply_deletes(cluster: Cluster, plan: Plan, progress: t.Callable[[str], None], check: Check, order: Order, seconds: float) -> None:
    """Prunes what the ledger owns and the bundle no longer has, backwards. Raises TimedOut for what is still there after `seconds`, although
    what goes next is needed until it is gone."""
    batches = plan.deletes(order)
    everything = [action for batch in batches for action in batch]
    _until_rerouted([action for action in plan.actions if action.verb in (CREATE, UPDATE)], everything)
    for number, batch in enumerate(batches):
        next_ones = [action for later in batches[number + 1:] for action in later]
        awaited = [action for action in batch if _goes_before(action, next_ones, order)]
        _delete(cluster, batch, progress, check, awaited)
        _await_removal(cluster, awaited, progress, seconds)
        until_in_force(action.ref for action in batch)
        if len(everything) < len(plan.actions):  # else nobody is to be served any more
            _until_rerouted(batch, next_ones)


def _until_rerouted(changed: list[Action], going: list[Action]) -> None:
    """Sleeps ROUTE_SECONDS if a route has changed and a Service or its pods go next: the API has no signal that every proxy goes by the new one."""
    if any((action.ref.group, action.ref.kind) in ROUTES for action in changed):
        if any(action.ref.builtin in ("Service", *WORKLOADS) for action in going):
            time.sleep(ROUTE_SECONDS)


def _goes_before(action: Action, later: list[Action], order: Order) -> bool:
    """Whether an object has to be gone before the removal goes on: pods of a component that comes after another, as long as that is there;
    and a custom resource, whose operator may have to clean up, and whose definition would take it along."""
    if not action.ref.builtin:
        return any(each.ref.builtin in (*WORKLOADS, *DEFINITIONS) for each in later)
    ahead = order.before.get(action.component, frozenset())
    return action.ref.builtin in WORKLOADS and any(each.component in ahead for each in later)


def _await_removal(cluster: Cluster, awaited: list[Action], progress: t.Callable[[str], None], seconds: float) -> None:
    if not awaited:
        return
    progress(f"waiting until {len(awaited)} objects are gone ({_kinds(awaited)})")
    uids = {action.ref: (action.live or {})["metadata"]["uid"] for action in awaited}
    left = cluster.gone([(action.rtype, action.ref) for action in awaited], seconds, uids)
    if left:
        now = {action.ref: cluster.get(action.rtype, action.ref.namespace, action.ref.name) for action in awaited if action.ref in left}
        held = "; ".join(f"{ref}: {held_by(live)}" for ref, live in now.items() if live)
        raise TimedOut(f"deleted, but still there after {seconds:.0f} s, and what it needs until then goes next: {held}")


def _delete(
    cluster: Cluster, batch: list[Action], progress: t.Callable[[str], None], check: Check, awaited: t.Collection[Action] = ()
) -> None:
    progress(f"deleting {len(batch)} objects ({_kinds(batch)})")
    cluster.each(lambda action: _delete_one(cluster, action, check, action in awaited), batch)


def until_in_force(written: t.Iterable[Ref]) -> None:
    """Sleeps POLICY_SECONDS if a policy or a webhook is among what was written: the API has no signal that every API server judges by the new one."""
    if any(is_policy(ref) or ref.builtin in WEBHOOKS for ref in written):
        time.sleep(POLICY_SECONDS)


def _delete_one(cluster: Cluster, action: Action, check: Check, foreground: bool) -> None:
    check()
    ref, uid = action.ref, (action.live or {})["metadata"]["uid"]
    try:
        if action.verb == ORPHAN:
            let_go(cluster, action.rtype, ref, uid)
        else:
            cluster.delete(action.rtype, ref.namespace, ref.name, uid, foreground)
    except ApiError as exc:
        now = cluster.get(action.rtype, ref.namespace, ref.name) if exc.status in (404, 409) else action.live
        if now and now["metadata"]["uid"] == uid:  # else it is gone, and what has its name by now is another object
            raise explain(exc, action) from exc


def let_go(cluster: Cluster, rtype: ResourceType, ref: Ref, uid: str) -> None:
    """Takes our labels off an object that was there before the platform, and leaves the rest of it as it is. `uid`: of that very object. Raises ApiError (404
    or 409 when the object is gone or another has its name), Unreachable."""
    labels = {LABEL_PLATFORM: None, LABEL_COMPONENT: None}
    cluster.patch(rtype, ref.namespace, ref.name, {"metadata": {"uid": uid, "labels": labels}})


def _apply_one(cluster: Cluster, action: Action, force: bool, check: Check) -> dict:
    if action.desired is None:
        raise AssertionError(f"{action.ref}: a {action.verb} without a desired state")
    check()
    try:
        if action.verb == CREATE and action.ref.builtin == "Namespace":
            _refuse_made_meanwhile(cluster, action)
        if action.replace:
            delete_and_wait(cluster, action.rtype, action.ref, (action.live or {})["metadata"]["uid"])
        if action.hold_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.hold_replicas)
        after = cluster.apply(action.rtype, action.body, force)
        if after["metadata"].get("deletionTimestamp"):  # since it was planned for, and what was applied goes with it
            wait_until_gone(cluster, action.rtype, action.ref, GONE_SECONDS)
            after = cluster.apply(action.rtype, action.body, force)
        if action.verb == CREATE and _was_there(cluster, after):
            action.taken_over = action.newly_taken_over = True
        after = _stripped(cluster, action, after)
        if action.initial_replicas is not None:
            cluster.hold_replicas(action.rtype, action.ref.namespace, action.ref.name, action.initial_replicas)
    except ApiError as exc:
        raise explain(exc, action) from exc
    except Unreachable as exc:
        raise Unreachable(f"{action.desired.where}: {exc.message}", **exc.facts) from exc
    return after


def _was_there(cluster: Cluster, after: dict) -> bool:
    """Whether somebody made an object between plan and write. Where the answer that it was created may have been lost, its own times tell."""
    meta = after["metadata"]
    return meta["uid"] not in cluster.created and own_entry(after).get("time", "") > meta["creationTimestamp"]


def _refuse_made_meanwhile(cluster: Cluster, action: Action) -> None:
    """Raises ApiError for a Namespace that others have made by now: whose it is has to be asked first, and all platforms apply by the same
    name. The ledger may be in it, and then this run has made it."""
    found = cluster.get(action.rtype, "", action.ref.name)
    if found and found["metadata"]["uid"] not in cluster.created:
        raise ApiError("it was made by somebody else while this run was planning; run again", 409)


def delete_and_wait(cluster: Cluster, rtype: ResourceType, ref: Ref, uid: str, seconds: float = 60.0) -> None:
    """Deletes an object and returns once it is gone. Sends its requests itself and never through the cluster's thread pool, because it runs in a thread of
    that pool. Raises ApiError, Unreachable; TimedOut, naming the finalizers, after `seconds`."""
    cluster.delete(rtype, ref.namespace, ref.name, uid)
    wait_until_gone(cluster, rtype, ref, seconds)


def wait_until_gone(cluster: Cluster, rtype: ResourceType, ref: Ref, seconds: float) -> None:
    """Returns once an object that is being deleted is gone; at once when it is there and not being deleted. Raises TimedOut, naming the finalizers, when it
    is still there after `seconds`; ApiError, Unreachable."""
    deadline = time.monotonic() + seconds
    while True:
        live = cluster.get(rtype, ref.namespace, ref.name)
        if live is None or not live["metadata"].get("deletionTimestamp"):
            return
        if time.monotonic() >= deadline:
            raise TimedOut(f"{ref}: {held_by(live)}, still after {seconds:.0f} s")
        time.sleep(0.25)


def held_by(live: dict) -> str:
    """Says for people why an object that is being deleted is still there: since when, and which finalizers or contents hold it. `live`: the object as it was
    read last."""
    meta = live["metadata"]
    names = [*(meta.get("finalizers") or []), *((live.get("spec") or {}).get("finalizers") or [] if live.get("kind") == "Namespace" else [])]
    conditions = (live.get("status") or {}).get("conditions") or []
    content = [c.get("message", "") for c in conditions if c.get("status") == "True" and c.get("type", "").endswith("Remaining")]
    held = f", held by {', '.join(names)}" if names else ""
    # A Namespace's controller comes to what is in it seconds after the Namespace was deleted.
    since = f"it is being deleted since {meta['deletionTimestamp']}" if meta.get("deletionTimestamp") else "its Namespace is being deleted"
    return f"{since}{held}{': ' + ' '.join(content) if content else ''}"


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


def _kinds(actions: list[Action]) -> str:
    return ", ".join(sorted({action.ref.kind for action in actions}))
