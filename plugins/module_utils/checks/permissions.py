# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan needs to be allowed, found out before the first write instead of by a refusal in the middle.

One request tells what the identity may do in all namespaces, one more what it may do in each namespace where that is not enough.
Such a list may be incomplete (an authorizer behind a webhook tells none), so that nothing counts as missing before the server was
asked about it alone.
"""
from __future__ import annotations

import itertools
import typing as t

from ..cluster.api import Cluster
from ..errors import ApiError, NotPermitted
from ..objects.kinds import DEFINITIONS, RBAC, ROLES, WAITED, WORKLOADS
from ..objects.manifest import Ref
from ..objects.types import ResourceType, group_kind
from ..plan.plan import CREATE, DELETE, ORPHAN, UNCHANGED, UPDATE, Action, Plan
from ..plan.verdict import scope

# The verbs that an action needs, those that undo it among them.
VERBS = {CREATE: ("create", "delete", "get", "patch"), UPDATE: ("get", "patch"), DELETE: ("create", "delete", "get", "patch"), ORPHAN: ("get", "patch")}
LEDGER_VERBS = ("create", "delete", "get", "list", "patch")
NOWHERE = "-"  # no namespace can have this name: what holds in it holds in all
FIX = (
    "Have a cluster admin run bootstrap_rbac.yml, which grants what the roles of this collection need (deployer_rules adds to it)."
    " For what is in a namespace, a RoleBinding there is enough"
)

Rule = t.Dict[str, t.Any]  # of a role: {verbs, apiGroups, resources, resourceNames} or {verbs, nonResourceURLs}
RulesOf = t.Dict[Ref, t.Any]  # as the manifests have them: lists of rules, if all is well


class Permission(t.NamedTuple):
    """A verb on a resource. `resource` may be `pods/log`, or the path of a URL; `namespace` is '' for all of them.

    `unless`: another permission that makes this one unnecessary.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""
    unless: Permission | None = None


# --- what is needed: pure --------------------------------------------------------------------------------------------


def of_reading(read: t.Iterable[tuple[ResourceType, str]]) -> set[Permission]:
    """What listing (type, namespace) needs; the namespace is '' for a type without any, and where all namespaces are listed."""
    return {Permission("list", rtype.group, rtype.plural, namespace) for rtype, namespace in read}


def of_actions(actions: t.Iterable[Action], roles: RulesOf, waiting: bool) -> set[Permission]:
    """What the writes among `actions` need, and to wait for the others. `roles`: the rules of the roles that bindings name, as far as
    they are known."""
    needs: set[Permission] = set()
    for action in actions:
        ref, rtype = action.ref, action.rtype
        namespace = ref.name if ref.builtin == "Namespace" else ref.namespace
        needs.update(Permission(verb, rtype.group, rtype.plural, namespace, ref.name) for verb in VERBS.get(action.verb, ()))
        if action.verb == CREATE and ref.builtin == "Namespace":
            needs.add(Permission("list", "", "persistentvolumeclaims", ref.name))  # one with data is not removed again
        if action.verb in (CREATE, UPDATE) and action.desired:
            needs |= _of_granting(action.desired.body, ref, roles) | _of_waiting(ref, rtype, waiting)
            if rtype.group == "route.openshift.io":  # who gives a Route its host needs that right, too
                needs |= {Permission(verb, rtype.group, "routes/custom-host", namespace) for verb in ("create", "update")}
        elif action.verb == UNCHANGED:
            needs |= _of_waiting(ref, rtype, waiting)
    return needs


def of_ledger(namespace: str) -> set[Permission]:
    secrets = {Permission(verb, "", "secrets", namespace) for verb in LEDGER_VERBS}
    return secrets | {Permission("get", "", "namespaces", namespace, namespace)}


def _of_waiting(ref: Ref, rtype: ResourceType, waiting: bool) -> set[Permission]:
    """To see when it is ready, why it never will be, and to say so. Nothing that only the whole cluster can be asked for."""
    if ref.builtin not in DEFINITIONS and not (waiting and ref.builtin in WAITED):
        return set()
    needs = {Permission("watch", rtype.group, rtype.plural, ref.namespace)}
    if ref.builtin in WAITED:
        needs.add(Permission("list", "", "events", ref.namespace))
    if ref.builtin in WORKLOADS:
        needs |= {Permission(verb, "", "pods", ref.namespace) for verb in ("list", "watch")} | {Permission("get", "", "pods/log", ref.namespace)}
    if ref.builtin == "Deployment":
        needs.add(Permission("get", "apps", "replicasets", ref.namespace))
    if ref.builtin == "StatefulSet":
        needs.add(Permission("create", "", "pods/eviction", ref.namespace))
    return needs


def _of_granting(body: dict, ref: Ref, roles: RulesOf) -> set[Permission]:
    """Nobody can give away what they may not do themselves, unless they may `escalate` a role or `bind` to it."""
    if ref.group != RBAC:
        return set()
    if ref.builtin in ROLES:
        unless = Permission("escalate", RBAC, ROLES[ref.kind], ref.namespace, ref.name)
        return _of_rules(body.get("rules"), ref.namespace, unless)
    role = bound(body, ref.namespace)
    if role is None:
        return set()
    unless = Permission("bind", RBAC, ROLES[role.kind], ref.namespace, role.name)
    return _of_rules(roles[role], ref.namespace, unless) if role in roles else {unless}


def bound(binding: dict, namespace: str) -> Ref | None:
    """The role that a RoleBinding or ClusterRoleBinding names; None where it names none, which is the API server's to refuse."""
    role = binding.get("roleRef")
    if not isinstance(role, dict) or role.get("kind") not in ROLES:
        return None
    return Ref(RBAC, role["kind"], namespace if role["kind"] == "Role" else "", str(role.get("name")))


def _of_rules(rules: t.Any, namespace: str, unless: Permission) -> set[Permission]:
    needs = set()
    for rule in rules if isinstance(rules, list) else ():
        verbs, names = _words(rule, "verbs"), _words(rule, "resourceNames") or [""]
        resources = itertools.product(verbs, _words(rule, "apiGroups"), _words(rule, "resources"), [namespace], names)
        urls = itertools.product(verbs, [""], _words(rule, "nonResourceURLs"), [""], [""])
        needs.update(Permission(*each, unless) for each in (*resources, *urls))
    return needs


def _words(rule: t.Any, key: str) -> list[str]:
    found = rule.get(key) if isinstance(rule, dict) else None
    return [word for word in found if isinstance(word, str)] if isinstance(found, list) else []


def covered(need: Permission, rules: list[Rule]) -> bool:
    """Whether the rules allow it, or what makes it unnecessary."""
    return any(_allows(rule, need) for rule in rules) or (need.unless is not None and covered(need.unless, rules))


def _allows(rule: Rule, need: Permission) -> bool:
    if need.verb not in (verbs := _words(rule, "verbs")) and "*" not in verbs:
        return False
    if need.resource.startswith("/"):
        urls = _words(rule, "nonResourceURLs")
        return any(url == need.resource or (url.endswith("*") and need.resource.startswith(url[:-1])) for url in urls)
    kind, _slash, sub = need.resource.partition("/")
    accepted = {need.resource, "*", f"*/{sub}" if sub else kind}
    named = _words(rule, "resourceNames")
    return (
        not {need.group, "*"}.isdisjoint(_words(rule, "apiGroups"))
        and not accepted.isdisjoint(_words(rule, "resources"))
        and (not named or need.name in named)
    )


def permission_lines(needs: t.Iterable[Permission]) -> list[str]:
    """For people: `create, patch deployments.apps in namespace web`, a line per resource and namespace."""
    table: dict[tuple[str, str, str], set[str]] = {}
    for need in needs:
        resource = need.resource + (f".{need.group}" if need.group else "")
        name = need.name if need.verb in ("bind", "escalate") or need.unless else ""
        table.setdefault((resource, need.namespace, name), set()).add(need.verb)
    return [
        f"{', '.join(sorted(verbs))} {resource}{f' {name}' if name else ''} {f'in namespace {namespace}' if namespace else 'in all namespaces'}"
        for (resource, namespace, name), verbs in sorted(table.items())
    ]


# --- asking ----------------------------------------------------------------------------------------------------------


def permit(cluster: Cluster, plan: Plan, ledger_namespace: str, waiting: bool, read: t.Iterable[tuple[ResourceType, str]] = ()) -> None:
    """Raises NotPermitted when the identity may not do all that carrying out the plan, and undoing it, needs.

    `read`: (type, namespace) of what has to be listed as well, see `of_reading`.
    """
    hoped = scope(plan).hoped
    actions = [*plan.writes, *(action for action in plan.actions if action.ref in hoped)]
    require(cluster, of_actions(actions, _roles(cluster, plan), waiting) | of_ledger(ledger_namespace) | of_reading(read))


def require(cluster: Cluster, needs: t.Collection[Permission]) -> None:
    """Raises NotPermitted, naming everything that is missing. One request where nothing is and the rights hold in all namespaces."""
    try:
        lacking = missing_permissions(cluster, needs)
    except ApiError as exc:
        if exc.status in (403, 404, 405):
            return  # who may not even ask, learns it from the API server's refusals
        raise
    if lacking:
        named = permission_lines(lacking)
        text = "\n- ".join(["the identity used may not do what this run needs, nothing was written:", *named])
        raise NotPermitted(f"{text}\n{FIX}", missing=named)


def missing_permissions(cluster: Cluster, needs: t.Collection[Permission]) -> list[Permission]:
    everywhere = cluster.rules(NOWHERE)
    left = [need for need in needs if not covered(need, everywhere)]
    namespaces = sorted({need.namespace for need in left if need.namespace})
    rules = dict(zip(namespaces, cluster.each(cluster.rules, namespaces)))
    left = [need for need in left if not covered(need, rules.get(need.namespace, []))]
    asked = {need._replace(name=""): need for need in left}  # one question for all names of a resource: with one of them
    answers = dict(zip(asked, cluster.each(lambda need: _may(cluster, need), asked.values())))
    return [need for need in left if not answers[need._replace(name="")]]


def _may(cluster: Cluster, need: Permission) -> bool:
    return cluster.may(*need[:-1]) or (need.unless is not None and _may(cluster, need.unless))


def _roles(cluster: Cluster, plan: Plan) -> RulesOf:
    """The rules of the roles that bindings to be written name: out of the plan, else out of the cluster."""
    bodies = {a.ref: a.desired.body for a in plan.actions if a.desired and a.ref.group == RBAC}
    named = {bound(bodies[a.ref], a.ref.namespace) for a in plan.writes if a.ref in bodies and a.ref.builtin not in ROLES}
    foreign = sorted(ref for ref in named if ref and ref not in bodies)
    found = cluster.each(lambda ref: _look_up(cluster, ref), foreign)
    return {ref: role.get("rules") for ref, role in [*bodies.items(), *zip(foreign, found)] if role}


def _look_up(cluster: Cluster, ref: Ref) -> dict | None:
    try:
        return cluster.get(group_kind(cluster.types().values())[ref.group, ref.kind], ref.namespace, ref.name)
    except ApiError as exc:
        if exc.status == 403:
            return None
        raise
