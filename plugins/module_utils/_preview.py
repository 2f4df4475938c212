# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan means, for people (diff, summary lines) and for machines (changes). Secret values never leave here."""
from __future__ import annotations

import typing as t

from ._refusals import explain
from ._cluster import Cluster
from ._errors import ApiError, InvalidInput
from ._fields import before_image, changed_paths, other_managers, spec_of
from ._manifest import LABEL_COMPONENT, LABEL_PLATFORM
from ._plan import CREATE, DELETE, ORPHAN, UNCHANGED, UPDATE, Action, Plan, is_policy

OUR_LABELS = (LABEL_PLATFORM, LABEL_COMPONENT)
HIDDEN, HIDDEN_CHANGED = "(hidden)", "(hidden, changed)"


# Kinds with fields that cannot be changed: a run asks about them before its first write, as a preview asks about everything.
UNCHANGEABLE = frozenset((
    "Job", "StatefulSet", "PersistentVolumeClaim", "RoleBinding", "ClusterRoleBinding", "StorageClass", "PriorityClass", "CustomResourceDefinition",
))

# Of others the fields that cannot be changed, which are asked about where they would be.
_FIXED = {"Deployment": ("selector",), "DaemonSet": ("selector",), "ReplicaSet": ("selector",), "Service": ("clusterIP", "clusterIPs")}


def _changes_fixed(action: Action) -> bool:
    """Whether an update is of a field that its kind keeps, or of what was made immutable."""
    live, body = action.live or {}, action.body
    pairs = [(spec_of(body).get(field), spec_of(live).get(field)) for field in _FIXED.get(action.ref.builtin, ())]
    if action.ref.builtin == "Secret":
        pairs.append((body.get("type"), live.get("type")))
    return bool(live.get("immutable")) or any(wanted is not None and wanted != found for wanted, found in pairs)


def dry_run(cluster: Cluster, plan: Plan, force: bool, kinds: t.Collection[str] | None = None) -> dict[Action, dict]:
    """{action: what the server would make of it} for every create and update it can judge now. `kinds`: only updates of these, and of
    fields that cannot be changed.

    All refusals are collected into one InvalidInput.
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
    """One write for machines: {component, action, kind, namespace, name, fields, pending}."""
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


def diff(action: Action, after: dict | None) -> dict:
    """One Ansible diff: before and after as YAML of the fields that are ours, Secret values hidden."""
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


def masked_pair(old: dict, new: dict) -> tuple[dict, dict]:
    """Both sides with the values of a Secret hidden; a key whose value differs still shows as changed."""
    if "Secret" not in (old.get("kind"), new.get("kind")):
        return old, new
    was, now = old.get("data") or {}, new.get("data") or {}
    if not (isinstance(was, dict) and isinstance(now, dict)):  # of another API group
        was, now = {"": was}, {"": now}
    shown_old = {key: HIDDEN for key in was}
    shown_new = {key: HIDDEN if was.get(key) == value or key not in was else HIDDEN_CHANGED for key, value in now.items()}
    return ({**old, "data": shown_old} if was else old), ({**new, "data": shown_new} if now else new)


def _yaml(obj: dict) -> str:
    import yaml

    return yaml.safe_dump(obj, sort_keys=True, width=160, allow_unicode=True) if obj else ""


def summary_lines(summary: dict[str, dict[str, int]]) -> list[str]:
    """`namespaces  +3 ~0 -0 =2`, a line per component."""
    width = max(map(len, summary), default=0)
    signs = ((CREATE, "+"), (UPDATE, "~"), (DELETE, "-"), (UNCHANGED, "="))
    return [
        f"{component:<{width}}  " + " ".join(f"{sign}{row[verb]}" for verb, sign in signs)
        for component, row in sorted(summary.items())
    ]
