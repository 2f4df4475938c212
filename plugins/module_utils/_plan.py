# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure planning: desired objects, live objects and the ledger's record in, a list of actions out."""
from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._errors import InvalidInput
from ._fields import (
    Path, applied_fingerprint, before_image, before_image_forced, fieldset, images_of_others, is_scaled, owned_fields, replicas_to_hold, spec_of,
)
from ._manifest import ANNOTATION_ONE_WAY, LABEL_PLATFORM, LAST_WAVE, WAVES, Desired, Ref, hpa_targets, own_kind, scale_targets
from ._order import Order
from ._types import ResourceType

CREATE, UPDATE, DELETE, UNCHANGED, KEEP = "create", "update", "delete", "unchanged", "keep"
ORPHAN = "orphan"  # what was there before us stays when the platform goes, without our labels
WRITES = (CREATE, UPDATE, DELETE, ORPHAN)
DATA = ("PersistentVolumeClaim", "PersistentVolume")
# What holds data, or takes everything inside it along: removed only when told to.
PROTECTED = (*DATA, "Namespace", "CustomResourceDefinition")
# What a way back may delete and make anew where the server takes no change back: nothing goes with it but itself.
REPLACEABLE = ("ConfigMap", "Secret")

# {component: {record key: [desired fingerprint, applied fingerprint]}}, what the ledger knows of the objects it owns. A third element,
# TAKEN_OVER, says that the object was there before the platform: it is never deleted.
TAKEN_OVER = "taken over"
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
    leave_replicas: bool = False  # an autoscaler that is not in the bundle has set them
    taken_over: bool = False  # it was there before the platform, and nobody's
    newly_taken_over: bool = False  # and this run is the first to write to it, or the first since it was let go
    after: dict | None = None  # the object of this name that is being deleted, and has to be gone first
    replace: bool = False  # deleted and made anew: the server takes no change of it
    forced: bool = False
    strip: tuple[Path, ...] = ()  # fields of other managers to be removed, see _drift

    @property
    def body(self) -> dict:
        """The manifest to be applied."""
        body = self.desired.sent if self.desired else {}
        if not self.leave_replicas:
            return body
        return {**body, "spec": {key: value for key, value in body["spec"].items() if key != "replicas"}}

    @property
    def before(self) -> dict | None:
        """The apply configuration that undoes this action; None when there is nothing to put back."""
        if self.live is None:
            return None
        if self.forced and self.desired:
            return before_image_forced(self.live, self.body, fieldset(self.strip) or None)
        return before_image(self.live)

    @property
    def others(self) -> list[tuple[str, dict]]:
        """What other managers lose when the object is deleted: (manager, apply configuration)."""
        return images_of_others(self.live) if (self.verb == DELETE or self.replace) and self.live else []


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

    def first(self) -> list[Action]:
        """Autoscalers that are removed from what gets replicas of its own: they would set them back while they are there."""
        freed = {(a.ref.namespace, a.ref.kind, a.ref.name) for a in self.actions if a.desired and "replicas" in spec_of(a.desired.body)}
        return [a for a in self.actions if a.verb == DELETE and a.live and not freed.isdisjoint(scale_targets([a.live]))]

    def deletes(self, order: Order = Order({})) -> list[list[Action]]:
        """Batches in reverse: components that come after others go before them, and of each what was written last. Data goes just before
        the namespaces that would take it along, and these go when everything else has."""
        stage = {name: number for number, names in enumerate(order.stages()) for name in names}
        batches: dict[tuple[float, float], list[Action]] = collections.defaultdict(list)
        first = self.first()
        for action in self.actions:
            if action.verb in (DELETE, ORPHAN) and action not in first:
                wave = 0.5 if action.ref.kind in DATA else action.wave
                batches[stage.get(action.component, 0) if wave >= 1 else -1, wave].append(action)
        return [batches[key] for key in sorted(batches, reverse=True)]

    def summary(self) -> dict[str, dict[str, int]]:
        """{component: {create, update, delete, unchanged}}; kept objects count as unchanged, those let go as deleted."""
        table: dict[str, dict[str, int]] = {}
        for action in self.actions:
            row = table.setdefault(action.component, dict.fromkeys((CREATE, UPDATE, DELETE, UNCHANGED), 0))
            row[{KEEP: UNCHANGED, ORPHAN: DELETE}.get(action.verb, action.verb)] += 1
        return table

    def record(self, afters: dict[Action, dict], known: Record, scope: t.Collection[str]) -> Record:
        """The ledger's record of the components in scope: prints of what was applied (`afters`), the known ones of the rest."""
        prints = {key: found for objects in known.values() for key, found in objects.items()}
        record: Record = {name: {} for name in scope}
        for action in self.actions:
            key, after = record_key(action.ref), afters.get(action)
            if after is not None and action.desired:
                mark = [TAKEN_OVER] if action.taken_over else []
                record[action.component][key] = [action.desired.fingerprint, applied_fingerprint(after), *mark]
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
        if (kind := own_kind(body)) == "CustomResourceDefinition":
            spec = body["spec"]
            for version in spec.get("versions", []):
                names = spec["names"]
                rtype = ResourceType(spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced")
                yield (rtype.api_version, rtype.kind), rtype
        elif kind == "ConstraintTemplate":  # Gatekeeper makes a definition of it
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
    platform: str = "",
) -> Plan:
    """Compares what shall be with what is.

    `scope`: the components this run speaks for; what the record holds under them and the bundle no longer does is pruned.
    `owned_types`: {(group, kind): type} for recorded objects that are not in the bundle. `spared`: which of those stay. `platform`: what
    carries another platform's label is no longer ours to remove.
    """
    targets = hpa_targets(item.body for item in desired.values())
    known = {key: prints for objects in record.values() for key, prints in objects.items()}
    live, dying = _without_dying(live)
    created_namespaces = {ref.name: ref in dying for ref in desired if ref.builtin == "Namespace" and ref not in live}
    ours = {ref: obj for ref, obj in live.items() if not platform or (_owner(obj) in ("", platform) and not is_stranger(obj))}
    leftovers = list(_leftovers(desired, ours, record, scope, owned_types, spared))
    freed = scale_targets(a.live for a in leftovers if a.verb == DELETE and a.live)
    actions = []
    for ref, item in desired.items():
        rtype, pending = resolved[ref]
        current = live.get(ref)
        if ref in dying:
            pending = "what has its name is being deleted, and has to be gone first"
        elif not pending and ref.namespace in created_namespaces:
            pending = f"its Namespace is {'being deleted, and made anew' if created_namespaces[ref.namespace] else 'created'} in the same run"
        action = Action(CREATE, ref, item.component, rtype, item.wave, item, current, pending, after=dying.get(ref))
        if current is None and _done(item, known.get(record_key(ref))):
            action.verb = UNCHANGED
        elif current is None:
            action.initial_replicas = targets.get((ref.namespace, ref.kind, ref.name))
        else:
            _compare(action, current, known.get(record_key(ref), []), (ref.namespace, ref.kind, ref.name) in freed)
        actions.append(action)
    _note_new_schemas(actions)
    return Plan([*actions, *leftovers])


def _without_dying(live: dict[Ref, dict]) -> tuple[dict[Ref, dict], dict[Ref, dict]]:
    """(what is there, what is being deleted): nothing that is on its way out counts as there, nor what is in a namespace that is."""
    leaving = {ref.name for ref, obj in live.items() if ref.builtin == "Namespace" and obj["metadata"].get("deletionTimestamp")}
    dying = {ref for ref, obj in live.items() if obj["metadata"].get("deletionTimestamp") or ref.namespace in leaving}
    return {ref: obj for ref, obj in live.items() if ref not in dying}, {ref: live[ref] for ref in dying}


def _compare(action: Action, current: dict, known: list[str], freed: bool) -> None:
    """What an object that is there needs. `known`: what the ledger says of it. `freed`: this run removes its autoscaler."""
    item = t.cast(Desired, action.desired)
    wanted = spec_of(item.body).get("replicas")
    action.leave_replicas = wanted is not None and not freed and is_scaled(current)
    prints = [applied_fingerprint(current), *([applied_fingerprint(current, wanted)] if action.leave_replicas else [])]
    same = known[:1] == [item.fingerprint] and known[1:2] and known[1] in prints
    action.verb, action.pending = (UNCHANGED if same else UPDATE), ""
    action.newly_taken_over = is_stranger(current) or (not known and not (_owner(current) and owned_fields(current)))
    action.taken_over = action.newly_taken_over or known[2:] == [TAKEN_OVER]
    action.hold_replicas = None if same else replicas_to_hold(current, action.body, freed)


def _owner(obj: dict) -> str:
    """Name of the platform that says the object is its own; '' when none does."""
    return obj["metadata"].get("labels", {}).get(LABEL_PLATFORM, "")


def is_stranger(obj: dict) -> bool:
    """Whether only others made this object: it has neither a platform's label nor a field of ours. Where ours was deleted, somebody may
    have made their own under its name."""
    return not _owner(obj) and not owned_fields(obj)


def refuse_foreign(desired: dict[Ref, Desired], live: dict[Ref, dict], record: Record, platform: str, force: bool) -> None:
    """Raises InvalidInput naming what belongs to another platform. `force` takes back what the ledger says is ours."""
    known = {key for objects in record.values() for key in objects}
    errors = []
    for ref, item in desired.items():
        owner = _owner(live[ref]) if ref in live else ""
        if owner not in ("", platform) and not (force and record_key(ref) in known):
            errors.append(f"{item.where} belongs to platform {owner}; give it another name, or have that platform remove it first")
    if errors:
        text = "\n- ".join(["another platform owns what this one would write, nothing was written:", *errors])
        raise InvalidInput(text, errors=errors)


def refuse_irreversible(plan: Plan) -> None:
    """Raises InvalidInput for a CustomResourceDefinition that could not be brought back to what it is now, or not be changed at all.

    Its objects count as stored in a version from the moment on that it is the storage version; from then on a definition without
    that version is refused (kubernetes.io, "Versions in CustomResourceDefinitions").
    """
    errors = [text for action in plan.actions if action.verb == UPDATE and action.ref.builtin == "CustomResourceDefinition" for text in _stored(action)]
    if errors:
        raise InvalidInput("this cannot be undone, nothing was written:\n- " + "\n- ".join(errors), errors=errors)


def note_replacements(plan: Plan) -> None:
    """On a way back: what the server takes no change of is deleted and made anew."""
    for action in plan.actions:
        if action.verb == UPDATE and action.ref.builtin in REPLACEABLE and action.live and action.live.get("immutable"):
            fields = ("data", "binaryData", "immutable")
            body = action.desired.body if action.desired else {}
            action.replace = any((action.live.get(name) or None) != (body.get(name) or None) for name in fields)
            action.pending = "it is immutable: it is deleted and made anew" if action.replace else action.pending


def _stored(action: Action) -> t.Iterator[str]:
    item, live = t.cast(Desired, action.desired), t.cast(dict, action.live)
    served = {version["name"] for version in live["spec"].get("versions", [])}
    described = item.body["spec"].get("versions", [])
    storage = next((version["name"] for version in described if version.get("storage")), "")
    lost = [name for name in live.get("status", {}).get("storedVersions") or [] if name not in {version["name"] for version in described}]
    if lost:
        yield f"{item.where}: objects may be stored in version {', '.join(lost)} (status.storedVersions), which spec.versions no longer has; keep it there"
    elif storage and storage not in served and ANNOTATION_ONE_WAY not in item.body["metadata"].get("annotations", {}):
        yield (
            f"{item.where}: version {storage} would be new and the storage version at once, and going back is refused as soon as that is so; add it"
            f" in one release and make it the storage version in the next, or say by the annotation {ANNOTATION_ONE_WAY} that there is no way back"
        )


def _note_new_schemas(actions: list[Action]) -> None:
    """A custom resource whose definition changes in this run would be judged by the old schema: it is pending."""
    updated = {
        (action.desired.body["spec"]["group"], action.desired.body["spec"]["names"]["kind"])
        for action in actions
        if action.ref.builtin == "CustomResourceDefinition" and action.verb == UPDATE and action.desired
    }
    for action in actions:
        if (action.ref.group, action.ref.kind) in updated and action.verb in (CREATE, UPDATE):
            action.pending = action.pending or "its CustomResourceDefinition is updated in the same run"


def _done(item: Desired, known: list[str] | None) -> bool:
    """Whether an object is missing because it did its work: a Job that cleans up after itself."""
    cleans_up = item.ref.builtin == "Job" and "ttlSecondsAfterFinished" in spec_of(item.body)
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
            taken_over = record[component][key][2:] == [TAKEN_OVER]
            verb = KEEP if spared(ref) else ORPHAN if taken_over else DELETE
            rtype = owned_types[ref.group, ref.kind]
            yield Action(verb, ref, component, rtype, WAVES.get(ref.kind, LAST_WAVE), live=live[ref], taken_over=taken_over)
