# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds what was changed by hand since the last release and, when told to, puts it back as a release of its own."""
from __future__ import annotations

import typing as t

from ..checks.refusals import explain
from ..engine.ledger import State
from ..engine.release import Releaser, Target
from ..errors import ApiError, Busy, InvalidInput, NodesFailed, NotPermitted, PlatformError, ReleaseFailed
from ..fleet.fleet import COMPONENT
from ..fleet.node_drift import UNSEEN, node_findings, put_back
from ..objects.fields import spec_of
from ..objects.manifest import hpa_targets
from ..plan.drift import ADDED, CHANGED, DELETED, REPLICAS, Finding, findings
from ..plan.plan import CREATE, UNCHANGED, UPDATE, Action, Plan, refuse_foreign


def drift(releaser: Releaser, fix: bool, components: list[str] | None, ignored: t.Collection[str]) -> dict:
    """The result of the module `drift`. Without `fix` nothing is written."""
    options = releaser.options
    preview = options.check
    options.check = preview or not fix  # looking repairs nothing
    state = releaser.load()
    current = state.deployed
    chosen = set(components or current["components"])
    unknown = chosen - set(current["components"])
    if unknown:
        raise InvalidInput(f"no such component in release {current['number']}: {', '.join(sorted(unknown))}")
    options.force = True
    target = Target(releaser.described(current, chosen), chosen, lambda _ref: True, current["number"], back=True, repair=True)
    plan = releaser.plan(target, state)
    found = _find(releaser, plan, ignored)
    pools = [item.body for item in target.desired.values() if item.component == COMPONENT]
    nodes = node_findings(releaser.cluster, pools, options.platform)
    differences = found + (nodes or [])
    result = {
        "changed": False,
        "platform": options.platform,
        "server": releaser.cluster.server,
        "release": current["number"],
        "checked": sum(action.desired is not None for action in plan.actions),
        "drift": [finding.facts() for finding in differences],
        "drift_lines": [finding.line() for finding in differences],
        "interrupted": releaser.repaired if options.check else None,
        "fixed": 0,
        "not_ready": [],
        "requests": dict(releaser.cluster.requests),
    }
    if options.diff:
        result["diff"] = [_diff(finding) for finding in differences]
    if nodes is None:
        result["warnings"] = [f"not compared: {UNSEEN}"]
    if not fix or not differences:
        return result
    live = {action.ref: action.live for action in plan.actions if action.live}
    refuse_foreign(target.desired, live, {}, options.platform, force=False)  # what another platform has made its own is not taken back
    result.update(changed=True, fixed=len(differences))
    _only(plan, found)
    releaser.permit(plan)
    if preview:
        return result
    return _mended(releaser, plan, target, state, result, bool(found), {finding.ref.name for finding in nodes or []})


def _mended(releaser: Releaser, plan: Plan, target: Target, state: State, result: dict, objects: bool, nodes: set[str]) -> dict:
    """Puts back what differs: objects, as a release of its own, and nodes. That one fails is no reason to leave the other as it is."""
    errors: list[PlatformError] = []
    try:
        if objects:
            result = releaser.carry_out(plan, state, releaser.vector(target, state), target, result)
    except ReleaseFailed as exc:
        errors.append(exc)
    try:
        if nodes:
            put_back(releaser.cluster, releaser.ledger, releaser.options.platform, nodes, releaser.options.facts["by"])
    except (NodesFailed, InvalidInput, NotPermitted, Busy) as exc:
        errors.append(exc)
    if len(errors) > 1:
        raise ReleaseFailed("\n".join(error.message for error in errors), problems=[error.message for error in errors])
    if errors:
        raise errors[0]
    return {**result, "requests": dict(releaser.cluster.requests)}


def _find(releaser: Releaser, plan: Plan, ignored: t.Collection[str]) -> list[Finding]:
    scaled = hpa_targets(action.desired.body for action in plan.actions if action.desired)
    refused: list[Action] = []

    def look(action: Action) -> list[Finding]:
        if action.verb == CREATE:
            return [Finding(action.ref, action.component, DELETED)]
        if action.live is None:
            return []  # a Job that cleaned up after itself
        key = (action.ref.namespace, action.ref.kind, action.ref.name)
        by_autoscaler, least = action.leave_replicas or key in scaled, scaled.get(key, 0)
        try:
            expected = action.live if action.verb == UNCHANGED else _expected(releaser, action)
        except ApiError as exc:
            if exc.status == 403:
                refused.append(action)
            return [Finding(action.ref, action.component, CHANGED, expected="as released", found=explain(exc, action).message)]
        return findings(action.ref, action.component, action.live, expected, by_autoscaler, ignored, action.taken_over, least)

    described = [action for action in plan.actions if action.desired]
    looked = [finding for found in releaser.cluster.each(look, described) for finding in found]
    if refused:
        releaser.permit(plan)  # who may not do this sees no drift; a refusal by admission is one
    return looked


def _expected(releaser: Releaser, action: Action) -> dict:
    """What the server would make of the description now: defaults and normalised values are then the same on both sides."""
    return releaser.cluster.apply(action.rtype, action.body, force=True, dry_run=True)


def _only(plan: Plan, found: list[Finding]) -> None:
    """Makes the plan write just the objects that differ, and take away what was added."""
    differing = {finding.ref for finding in found}
    for action in plan.actions:
        if action.desired and action.verb in (UNCHANGED, UPDATE):
            action.verb = UPDATE if action.ref in differing else UNCHANGED
            action.strip = tuple(f.path for f in found if f.ref == action.ref and f.kind == ADDED)
            switched_off = [
                f.expected for f in found
                if (f.ref, f.kind, f.path) == (action.ref, CHANGED, REPLICAS) and "replicas" not in spec_of(action.body)
            ]
            action.hold_replicas = next(iter(switched_off), action.hold_replicas)


def _diff(finding: Finding) -> dict:
    facts = finding.facts()
    header = f"{facts['component']}: {facts['object']} {facts['field']}".rstrip()
    if finding.kind == DELETED:
        facts["expected"] = f"the {finding.ref.kind} itself"
    shown = {side: f"{facts[key]}\n" if key in facts else "" for side, key in (("before", "found"), ("after", "expected"))}
    return {"before_header": f"{header} (live)", "after_header": f"{header} (released)", **shown}
