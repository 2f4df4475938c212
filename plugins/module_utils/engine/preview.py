# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan means, for people (diff, summary lines) and for machines (changes). Secret values never leave here."""
from __future__ import annotations

import typing as t

from ..checks.refusals import explain
from ..cluster.api import Cluster
from ..errors import ApiError, InvalidInput
from ..objects.fields import before_image, changed_paths, other_managers, spec_of
from ..objects.kinds import KEEPS
from ..objects.manifest import LABEL_COMPONENT, LABEL_PLATFORM
from ..objects.masks import masked_pair
from ..plan.plan import CREATE, DELETE, ORPHAN, UNCHANGED, UPDATE, Action, Plan, is_policy

OUR_LABELS = (LABEL_PLATFORM, LABEL_COMPONENT)


def _changes_fixed(action: Action) -> bool:
    """Whether an update is of a field that its kind keeps, or of what was made immutable."""
    live, body = action.live or {}, action.body
    pairs = [(spec_of(body).get(field), spec_of(live).get(field)) for field in KEEPS.get(action.ref.builtin, ())]
    if action.ref.builtin == "Secret":
        pairs.append((body.get("type"), live.get("type")))
    return bool(live.get("immutable")) or any(wanted is not None and wanted != found for wanted, found in pairs)


def dry_run(cluster: Cluster, plan: Plan, force: bool, kinds: t.Collection[str] | None = None) -> dict[Action, dict]:
    """Asks the server what it would make of every create and update, without writing: {action: the object as it would be}. `kinds`: only the updates of these
    kinds, and those of fields that cannot be changed; None for everything.

    What cannot be judged yet, because its namespace, role or policy comes in the same run, is left out and says so in `action.pending`. Raises one
    InvalidInput with all refusals; ApiError for a token that has expired (401); Unreachable.
    """
    errors: list[str] = []
    # How a refusal names its policy: in quotes by the API server, in brackets by Gatekeeper.
    changing = [form % a.ref.name for a in plan.actions if a.verb == UPDATE and is_policy(a.ref) for form in ("'%s'", "[%s]")]

    def attempt(action: Action) -> tuple[Action, dict] | None:
        try:
            # Replicas that the real run hands over first would be a conflict here.
            forced = force or action.hold_replicas is not None
            return action, cluster.apply(action.rtype, action.body, forced, dry_run=True)
        except ApiError as exc:
            if exc.status == 401:
                raise
            if exc.status == 404 and action.verb == CREATE:
                action.pending = f"its {'Role' if 'rolebindings' in exc.message else 'Namespace'} does not exist yet"
            elif any(policy in exc.message for policy in changing):
                action.pending = "a policy that refuses it today changes in the same run"
            else:
                errors.append(explain(exc, action).message)
            return None

    asked = [a for a in plan.actions if a.verb in (CREATE, UPDATE) and not a.pending]
    asked = asked if kinds is None else [a for a in asked if a.verb == UPDATE and (a.ref.builtin in kinds or _changes_fixed(a))]
    answers = [answer for answer in cluster.each(attempt, asked) if answer]
    if errors:
        raise InvalidInput("the API server would refuse this, nothing was written:\n- " + "\n- ".join(errors), errors=errors)
    return dict(answers)


def change(action: Action, after: dict | None) -> dict:
    """One write for machines, as {component, action, kind, namespace, name, fields, pending, taken_over}. `after`: the object as the server has it, or would
    have it; None when that is not known. `fields`: the paths that an update changes."""
    fields: list[str] = []
    if action.verb == UPDATE and after is not None:
        fields = changed_paths(action.before or {}, before_image(after))
    elif action.verb == UPDATE and action.desired:
        fields = changed_paths(action.before or {}, action.body)
    return {
        "component": action.component,
        "action": action.verb,
        "kind": action.ref.kind,
        "namespace": action.ref.namespace,
        "name": action.ref.name,
        "fields": fields,
        "pending": action.pending,
        "taken_over": action.newly_taken_over,
    }


def object_diff(action: Action, after: dict | None) -> dict:
    """One entry of Ansible's `diff`: before and after as YAML, of the fields that are ours. Values of Secrets are hidden; a key whose value changes is
    marked. `after`: as for `change`."""
    old = {} if action.verb == CREATE else action.before or {}
    if action.verb == ORPHAN:
        old = {"metadata": {"labels": {key: value for key, value in action.live["metadata"].get("labels", {}).items() if key in OUR_LABELS}}}
    new = {} if action.verb in (DELETE, ORPHAN) else before_image(after) if after else action.body
    old, new = masked_pair(old, new)
    note = f" (pending: {action.pending})" if action.pending else ""
    note += _taken_note(action)
    return {
        "before_header": f"{action.component}: {action.ref}",
        "after_header": f"{action.component}: {action.ref}{note}",
        "before": _yaml(old),
        "after": _yaml(new),
    }


def _taken_note(action: Action) -> str:
    """That an object was there before the platform, and what becomes of it."""
    if action.verb == ORPHAN:
        return " (it was there before the platform: it stays, without our labels)"
    makers = ", ".join(other_managers(action.live or {})) or "nobody known"
    return f" (taken over: made by {makers}; never deleted)" if action.newly_taken_over else ""


def _yaml(obj: dict) -> str:
    import yaml

    return yaml.safe_dump(obj, sort_keys=True, width=160, allow_unicode=True) if obj else ""


def summary_lines(summary: dict[str, dict[str, int]]) -> list[str]:
    """A line for each component, such as `namespaces  +3 ~0 -0 =2`: created, updated, deleted, unchanged. `summary`: as `Plan.summary` returns it."""
    width = max(map(len, summary), default=0)
    signs = ((CREATE, "+"), (UPDATE, "~"), (DELETE, "-"), (UNCHANGED, "="))
    return [
        f"{component:<{width}}  " + " ".join(f"{sign}{row[verb]}" for verb, sign in signs)
        for component, row in sorted(summary.items())
    ]
