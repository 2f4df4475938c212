# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure planning: desired objects, live objects and the ledger's record in, a list of actions out."""
from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._errors import InvalidInput
from ._fields import Path, applied_fingerprint, before_image, before_image_forced, fieldset, images_of_others, replicas_to_hold
from ._manifest import LAST_WAVE, WAVES, Desired, Ref, hpa_targets
from ._types import ResourceType

CREATE, UPDATE, DELETE, UNCHANGED, KEEP = "create", "update", "delete", "unchanged", "keep"
WRITES = (CREATE, UPDATE, DELETE)
DATA = ("PersistentVolumeClaim", "PersistentVolume")
# What holds data, or takes everything inside it along: removed only when told to.
PROTECTED = (*DATA, "Namespace", "CustomResourceDefinition")

# {component: {record key: [desired fingerprint, applied fingerprint]}}, what the ledger knows of the objects it owns
Record = t.Dict[str, t.Dict[str, t.List[str]]]


def is_policy(ref: Ref) -> bool:
    """Whether other objects may be refused because of this one: a rule of the API server's, or of Gatekeeper's."""
    return ref.kind.startswith("ValidatingAdmissionPolicy") or ref.group == "constraints.gatekeeper.sh"


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
    strip: tuple[Path, ...] = ()  # fields of other managers to be removed, see _drift

    @property
    def before(self) -> dict | None:
        """The apply configuration that undoes this action; None when there is nothing to put back."""
        if self.live is None:
            return None
        if self.forced and self.desired:
            return before_image_forced(self.live, self.desired.body, fieldset(self.strip) or None)
        return before_image(self.live)

    @property
    def others(self) -> list[tuple[str, dict]]:
        """What other managers lose when the object is deleted: (manager, apply configuration)."""
        return images_of_others(self.live) if self.verb == DELETE and self.live else []


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

    def deletes(self) -> list[list[Action]]:
        """Batches in reverse order of waves; data goes just before the namespaces that would take it along."""
        batches: dict[float, list[Action]] = collections.defaultdict(list)
        for action in self.actions:
            if action.verb == DELETE:
                batches[0.5 if action.ref.kind in DATA else action.wave].append(action)
        return [batches[wave] for wave in sorted(batches, reverse=True)]

    def summary(self) -> dict[str, dict[str, int]]:
        """{component: {create, update, delete, unchanged}}; kept objects count as unchanged."""
        table: dict[str, dict[str, int]] = {}
        for action in self.actions:
            row = table.setdefault(action.component, dict.fromkeys((CREATE, UPDATE, DELETE, UNCHANGED), 0))
            row[UNCHANGED if action.verb == KEEP else action.verb] += 1
        return table

    def record(self, afters: dict[Action, dict], known: Record, scope: t.Collection[str]) -> Record:
        """The ledger's record of the components in scope: prints of what was applied (`afters`), the known ones of the rest."""
        prints = {key: found for objects in known.values() for key, found in objects.items()}
        record: Record = {name: {} for name in scope}
        for action in self.actions:
            key, after = record_key(action.ref), afters.get(action)
            if after is not None and action.desired:
                record[action.component][key] = [action.desired.fingerprint, applied_fingerprint(after)]
            elif action.verb in (UNCHANGED, KEEP) and key in prints:
                record[action.component][key] = prints[key]
        return record


def merged(known: Record, new: Record) -> Record:
    """The record after a run that spoke for the components in `new`; an object that moved belongs to its new component alone."""
    claimed = {key for objects in new.values() for key in objects}
    outside = {name: {key: prints for key, prints in objects.items() if key not in claimed} for name, objects in known.items() if name not in new}
    return {name: objects for name, objects in {**outside, **new}.items() if objects}


def resolve(desired: dict[Ref, Desired], types: dict[tuple[str, str], ResourceType]) -> dict[Ref, tuple[ResourceType, str]]:
    """{ref: (type, why it is pending)}. A kind whose definition is in the bundle is pending; an unknown kind is an error."""
    coming = dict(_types_to_come(item.body for item in desired.values()))
    resolved, errors = {}, []
    for ref, item in desired.items():
        key = (item.body["apiVersion"], ref.kind)
        rtype, pending = types.get(key), ""
        if rtype is None and key in coming:
            rtype, pending = coming[key], "its CustomResourceDefinition is created in the same run"
        where = item.where
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
        elif body["kind"] == "ConstraintTemplate":  # Gatekeeper makes a definition of it
            kind = body["spec"]["crd"]["spec"]["names"]["kind"]
            rtype = ResourceType("constraints.gatekeeper.sh", "v1beta1", kind, kind.lower(), False)
            yield (rtype.api_version, rtype.kind), rtype


def make_plan(
    desired: dict[Ref, Desired],
    resolved: dict[Ref, tuple[ResourceType, str]],
    live: dict[Ref, dict],
    record: Record,
    scope: t.Collection[str],
    owned_types: dict[tuple[str, str], ResourceType],
    spared: t.Callable[[Ref], bool] = lambda ref: ref.kind in PROTECTED,
) -> Plan:
    """Compares what shall be with what is.

    `scope`: the components this run speaks for; what the record holds under them and the bundle no longer does is pruned.
    `owned_types`: {(group, kind): type} for recorded objects that are not in the bundle. `spared`: which of those stay.
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
        if current is None and _done(item, known.get(record_key(ref))):
            action.verb = UNCHANGED
        elif current is None:
            action.initial_replicas = targets.get((ref.namespace, ref.kind, ref.name))
        else:
            same = known.get(record_key(ref)) == [item.fingerprint, applied_fingerprint(current)]
            action.verb, action.pending = (UNCHANGED if same else UPDATE), ""
            action.hold_replicas = None if same else replicas_to_hold(current, item.body)
        actions.append(action)
    _note_new_schemas(actions)
    actions += _leftovers(desired, live, record, scope, owned_types, spared)
    return Plan(actions)


def _note_new_schemas(actions: list[Action]) -> None:
    """A custom resource whose definition changes in this run would be judged by the old schema: it is pending."""
    updated = {
        (action.desired.body["spec"]["group"], action.desired.body["spec"]["names"]["kind"])
        for action in actions
        if action.ref.kind == "CustomResourceDefinition" and action.verb == UPDATE and action.desired
    }
    for action in actions:
        if (action.ref.group, action.ref.kind) in updated and action.verb in (CREATE, UPDATE):
            action.pending = action.pending or "its CustomResourceDefinition is updated in the same run"


def _done(item: Desired, known: list[str] | None) -> bool:
    """Whether an object is missing because it did its work: a Job that cleans up after itself."""
    cleans_up = item.ref.kind == "Job" and "ttlSecondsAfterFinished" in item.body.get("spec", {})
    return cleans_up and known is not None and known[0] == item.fingerprint


def _leftovers(
    desired: dict[Ref, Desired],
    live: dict[Ref, dict],
    record: Record,
    scope: t.Collection[str],
    owned_types: dict[tuple[str, str], ResourceType],
    spared: t.Callable[[Ref], bool],
) -> t.Iterator[Action]:
    for component in scope:
        for key in record.get(component, {}):
            ref = ref_from_key(key)
            if ref in desired or ref not in live or (ref.group, ref.kind) not in owned_types:
                continue
            verb = KEEP if spared(ref) else DELETE
            rtype = owned_types[ref.group, ref.kind]
            yield Action(verb, ref, component, rtype, WAVES.get(ref.kind, LAST_WAVE), live=live[ref])
