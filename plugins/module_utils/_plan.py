# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure planning: desired objects, live objects and the ledger's record in, a list of actions out."""
from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._errors import InvalidInput
from ._fields import applied_fingerprint, before_image, before_image_forced, replicas_to_hold
from ._manifest import LAST_WAVE, WAVES, Desired, Ref, hpa_targets
from ._types import ResourceType

CREATE, UPDATE, DELETE, UNCHANGED, KEEP = "create", "update", "delete", "unchanged", "keep"
WRITES = (CREATE, UPDATE, DELETE)
# What holds data, or takes everything inside it along: removed only when told to.
PROTECTED = ("PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition")

# {component: {record key: [desired fingerprint, applied fingerprint]}}, what the ledger knows of the objects it owns
Record = t.Dict[str, t.Dict[str, t.List[str]]]


def record_key(ref: Ref) -> str:
    return "/".join(ref)


def ref_from_key(key: str) -> Ref:
    return Ref(*key.split("/", 3))


@dataclasses.dataclass(eq=False)
class Action:
    """What shall happen to one object. `pending` says why the server cannot check it yet; '' when it can."""

    verb: str
    ref: Ref
    component: str
    rtype: ResourceType
    wave: int
    desired: Desired | None = None
    live: dict | None = None
    pending: str = ""
    initial_replicas: int | None = None
    hold_replicas: int | None = None  # see replicas_to_hold
    forced: bool = False

    @property
    def before(self) -> dict | None:
        """The apply configuration that undoes this action; None when there is nothing to put back."""
        if self.live is None:
            return None
        if self.forced and self.desired:
            return before_image_forced(self.live, self.desired.body)
        return before_image(self.live)


@dataclasses.dataclass
class Plan:
    actions: list[Action]

    @property
    def writes(self) -> list[Action]:
        return [action for action in self.actions if action.verb in WRITES]

    def waves(self) -> list[list[Action]]:
        """Creates and updates, in the order they may be sent; those of one wave all at once."""
        by_wave: dict[int, list[Action]] = collections.defaultdict(list)
        for action in self.actions:
            if action.verb in (CREATE, UPDATE):
                by_wave[action.wave].append(action)
        return [by_wave[wave] for wave in sorted(by_wave)]

    def deletes(self) -> list[Action]:
        return sorted((a for a in self.actions if a.verb == DELETE), key=lambda action: -action.wave)

    def summary(self) -> dict[str, dict[str, int]]:
        """{component: {create, update, delete, unchanged}}; kept objects count as unchanged."""
        table: dict[str, dict[str, int]] = {}
        for action in self.actions:
            row = table.setdefault(action.component, dict.fromkeys((CREATE, UPDATE, DELETE, UNCHANGED), 0))
            row[UNCHANGED if action.verb == KEEP else action.verb] += 1
        return table


def resolve(desired: dict[Ref, Desired], types: dict[tuple[str, str], ResourceType]) -> dict[Ref, tuple[ResourceType, str]]:
    """{ref: (type, why it is pending)}. A kind whose CRD is in the bundle is pending; an unknown kind is an error."""
    coming = dict(_types_to_come(item.body for item in desired.values()))
    resolved, errors = {}, []
    for ref, item in desired.items():
        key = (item.body["apiVersion"], ref.kind)
        rtype, pending = types.get(key), ""
        if rtype is None and key in coming:
            rtype, pending = coming[key], "its CustomResourceDefinition is created in the same run"
        where = f"{item.component}{f' ({item.source})' if item.source else ''}: {ref}"
        if rtype is None:
            errors.append(f"{where}: the cluster knows no {ref.kind} in {key[0]}; install its CustomResourceDefinition or fix apiVersion")
        elif rtype.namespaced and not ref.namespace:
            errors.append(f"{where}: metadata.namespace is missing; {ref.kind} lives in a namespace")
        elif not rtype.namespaced and ref.namespace:
            errors.append(f"{where}: metadata.namespace must go; {ref.kind} is cluster-scoped")
        else:
            resolved[ref] = (rtype, pending)
    if errors:
        raise InvalidInput("the manifests do not fit the cluster, nothing was written:\n- " + "\n- ".join(errors), errors=errors)
    return resolved


def _types_to_come(bodies: t.Iterable[dict]) -> t.Iterator[tuple[tuple[str, str], ResourceType]]:
    for body in bodies:
        if body["kind"] == "CustomResourceDefinition":
            spec = body["spec"]
            for version in spec.get("versions", []):
                names = spec["names"]
                rtype = ResourceType(spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced")
                yield (rtype.api_version, rtype.kind), rtype


def make_plan(
    desired: dict[Ref, Desired],
    resolved: dict[Ref, tuple[ResourceType, str]],
    live: dict[Ref, dict],
    record: Record,
    scope: t.Collection[str],
    owned_types: dict[tuple[str, str], ResourceType],
    prune: bool = True,
    prune_protected: bool = False,
) -> Plan:
    """Compares what shall be with what is.

    `scope`: the components this run speaks for; what the record holds under them and the bundle no longer does is pruned.
    `owned_types`: {(group, kind): type} for recorded objects that are not in the bundle.
    """
    targets = hpa_targets(item.body for item in desired.values())
    known = {key: prints for objects in record.values() for key, prints in objects.items()}
    created_namespaces = {ref.name for ref in desired if ref.kind == "Namespace" and ref not in live}
    actions = []
    for ref, item in desired.items():
        rtype, pending = resolved[ref]
        current = live.get(ref)
        if not pending and ref.namespace in created_namespaces:
            pending = "its Namespace is created in the same run"
        action = Action(CREATE, ref, item.component, rtype, item.wave, item, current, pending)
        if current is None:
            action.initial_replicas = targets.get((ref.namespace, ref.kind, ref.name))
        else:
            same = known.get(record_key(ref)) == [item.fingerprint, applied_fingerprint(current)]
            action.verb, action.pending = (UNCHANGED if same else UPDATE), ""
            action.hold_replicas = None if same else replicas_to_hold(current, item.body)
        actions.append(action)
    if prune:
        actions += _leftovers(desired, live, record, scope, owned_types, prune_protected)
    return Plan(actions)


def _leftovers(
    desired: dict[Ref, Desired],
    live: dict[Ref, dict],
    record: Record,
    scope: t.Collection[str],
    owned_types: dict[tuple[str, str], ResourceType],
    prune_protected: bool,
) -> t.Iterator[Action]:
    for component in scope:
        for key in record.get(component, {}):
            ref = ref_from_key(key)
            if ref in desired or ref not in live or (ref.group, ref.kind) not in owned_types:
                continue
            verb = KEEP if ref.kind in PROTECTED and not prune_protected else DELETE
            rtype = owned_types[ref.group, ref.kind]
            yield Action(verb, ref, component, rtype, WAVES.get(ref.kind, LAST_WAVE), live=live[ref])
