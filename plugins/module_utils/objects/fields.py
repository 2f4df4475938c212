# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure functions over `metadata.managedFields`: which part of a live object is ours, and what differs.

The format is FieldsV1 of Kubernetes' server-side apply (structured-merge-diff): `f:<name>` a field, `k:{...}` a list item
by its key fields, `v:<value>` an item of a set, `i:<n>` an item by position, `.` the container itself.
"""
from __future__ import annotations

import copy
import hashlib
import json
import re
import typing as t

MANAGER = "genai.platform"
# Holds `spec.replicas` on its way to and from an autoscaler: a field that nobody owns falls back to its default, one pod.
REPLICAS_MANAGER = f"{MANAGER}-replicas"
AUTOSCALER_MANAGER = "kube-controller-manager"
PEOPLE = "kubectl"  # begins the names of the managers that a person's commands have
# The cluster's own parts write into objects all day: what they own is neither drift nor worth restoring. fnmatch patterns.
CONTROLLERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "cloud-controller-manager")
ABSENT = object()  # differs from every value, null included


def spec_of(obj: dict) -> dict:
    """The spec; {} where a custom resource has something else under that name."""
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def own_entry(live: dict, manager: str = MANAGER) -> dict:
    """The entry of managedFields that says what `manager` applied, and in which version of the API; `{}` when it applied nothing."""
    for entry in live.get("metadata", {}).get("managedFields") or []:
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return entry
    return {}


def owned_fields(live: dict, manager: str = MANAGER) -> dict:
    """FieldsV1 of what `manager` owns in `live` through apply; `{}` when it owns nothing."""
    return own_entry(live, manager).get("fieldsV1") or {}


def entries_of_others(live: dict) -> list[dict]:
    """The entries of managedFields of who else wrote to `live`, the cluster's own parts and statuses aside."""
    ours = (MANAGER, REPLICAS_MANAGER, *CONTROLLERS)
    entries = live.get("metadata", {}).get("managedFields") or []
    return [entry for entry in entries if entry.get("manager") not in ours and entry.get("subresource") != "status"]


def other_managers(live: dict) -> list[str]:
    """The names of who else wrote to `live`."""
    return sorted({entry.get("manager") or "unknown" for entry in entries_of_others(live)})


def is_scaled(live: dict) -> bool:
    """Whether an autoscaler, in the bundle or not, has set the replicas: they are its own from then on.

    People scale through the same subresource (kubectl scale); what they set is a hand edit. A number that is ours too is agreed on.
    """
    owners = [e for e in live["metadata"].get("managedFields") or [] if _owns_replicas(e)]
    agreed = any(e["manager"] == MANAGER for e in owners)
    return not agreed and any(e.get("subresource") == "scale" and not e["manager"].startswith(PEOPLE) for e in owners)


def replicas_to_hold(live: dict, desired: dict, freed: bool = False) -> int | None:
    """Replicas to apply under REPLICAS_MANAGER before `desired` is applied; None when there is nothing to hand over.

    Leaving the field to an autoscaler, the live value is held, or removing ours would reset it. `freed`: this run removes the
    autoscaler; then the desired value is held, which ends the autoscaler's claim, even if it is the live one: until it is gone, it
    may write another. A number that anybody else set stays a conflict.
    """
    current, wanted = spec_of(live).get("replicas"), spec_of(desired).get("replicas")
    owners = {e.get("manager") for e in live["metadata"].get("managedFields") or [] if _owns_replicas(e)}
    if wanted is None:
        return current if MANAGER in owners and REPLICAS_MANAGER not in owners else None
    others = owners - {MANAGER}
    ours = others == {REPLICAS_MANAGER} or (freed and others <= {REPLICAS_MANAGER, AUTOSCALER_MANAGER})
    return wanted if others and ours and (freed or wanted != current) else None


def _owns_replicas(entry: dict) -> bool:
    return "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})


def project(live: t.Any, fields: dict) -> t.Any:
    """The part of `live` that FieldsV1 `fields` names. A leaf (`{}`) takes the whole value.

    Fields that are gone from `live` are left out, so the projection of an object somebody edited differs from the one
    taken when it was applied.
    """
    named = {key: sub for key, sub in fields.items() if key != "."}
    if not fields:
        return copy.deepcopy(live)
    if isinstance(live, dict):
        return {key[2:]: project(live[key[2:]], sub) for key, sub in named.items() if key[:2] == "f:" and key[2:] in live}
    if isinstance(live, list):
        found = [hit for hit in (_item(live, key, sub) for key, sub in named.items()) if hit is not None]
        return [value for _index, value in sorted(found, key=lambda hit: hit[0])]
    return copy.deepcopy(live)


def _item(items: list, key: str, sub: dict) -> tuple[int, t.Any] | None:
    """The list item that a `k:`, `v:` or `i:` element names, with its position, the first if there are more; None when it is gone."""
    index = next(positions(items, key), None)
    if index is None or key[:2] == "v:":
        return None if index is None else (index, items[index])
    # The key fields travel along even where the server defaulted them: apply needs them to find the item again.
    named = json.loads(key[2:]) if key[:2] == "k:" else {}
    return index, {**named, **project(items[index], sub)} if named else project(items[index], sub)


def positions(items: list, key: str) -> t.Iterator[int]:
    """Where the items are that a `k:`, `v:` or `i:` element names. A list may hold a name twice: it is by an update that it does."""
    prefix, rest = key[:2], key[2:]
    if prefix not in ("k:", "v:", "i:"):
        return  # a field of what was an object when this was written, and is a list by now
    wanted = json.loads(rest)
    for index, item in enumerate(items):
        keyed = prefix == "k:" and isinstance(item, dict) and all(item.get(name) == value for name, value in wanted.items())
        if keyed or (prefix == "v:" and item == wanted) or (prefix == "i:" and index == wanted):
            yield index


def identity(obj: dict) -> dict:
    """The smallest apply configuration of an object: applying it gives up every field we own."""
    meta = {key: obj["metadata"][key] for key in ("name", "namespace") if obj["metadata"].get(key)}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta}


def before_image(live: dict, also: dict | None = None) -> dict:
    """The apply configuration that puts our part of `live` back: identity plus every field we own in it, and those that
    the FieldsV1 `also` names.

    What we own is named in the words of one version of the API. An object that can no longer be read in it is taken whole: rather
    too much than a field lost.
    """
    if own_entry(live).get("apiVersion", live["apiVersion"]) != live["apiVersion"]:
        return _whole(live)
    return _image(live, union(owned_fields(live) or {".": {}}, also or {".": {}}))


def _whole(live: dict) -> dict:
    image = {**identity(live), **{key: copy.deepcopy(value) for key, value in live.items() if key not in ("metadata", "status")}}
    image["metadata"].update({key: dict(live["metadata"][key]) for key in ("labels", "annotations") if live["metadata"].get(key)})
    return image


def _image(live: dict, fields: dict) -> dict:
    image, part = identity(live), project(live, fields)
    image["metadata"].update(part.pop("metadata", {}))
    return {**image, **part}


def images_of_others(live: dict) -> list[tuple[str, dict]]:
    """[(manager, apply configuration)] of what people and other tools own in `live`: needed to make it again."""
    fields: dict[str, dict] = {}
    for entry in live["metadata"].get("managedFields") or []:
        manager, named = entry["manager"], entry.get("fieldsV1") or {}
        if manager not in (MANAGER, REPLICAS_MANAGER, *CONTROLLERS) and not entry.get("subresource"):
            fields[manager] = union(fields[manager], named) if manager in fields else named
    return [(manager, _image(live, named)) for manager, named in fields.items()]


def owners_again(now: list[dict], before: list[dict]) -> list[dict]:
    """managedFields of an object to which we have put back by force what others had in it: theirs is theirs again, with its time.

    `now`: as the server has them; `before`: our own entry and those of others from before the run. What others have written since stays.
    """
    known = {_who(entry): entry for entry in before}
    found = [{**entry, **_regained(entry, known.pop(_who(entry)))} if _who(entry) in known else entry for entry in now]
    return [entry for entry in [*found, *known.values()] if entry.get("manager") != MANAGER or entry in before]


def _regained(entry: dict, before: dict) -> dict:
    if entry.get("manager") == MANAGER:
        return before
    both = union(before.get("fieldsV1") or {".": {}}, entry.get("fieldsV1") or {".": {}})
    return before if both == before.get("fieldsV1") else {"fieldsV1": both}


def _who(entry: dict) -> tuple:
    """What tells the entries of managedFields apart."""
    return tuple(entry.get(field, "") for field in ("manager", "operation", "apiVersion", "subresource"))


def before_image_forced(live: dict, desired: dict, also: dict | None = None) -> dict:
    """As `before_image`, plus what `desired` would take from other managers by force."""
    return _merged(before_image(live, also), _overlap(live, desired))


def union(one: dict, other: dict) -> dict:
    """What either FieldsV1 tree names; a leaf names all below it."""
    if not one or not other:
        return {}
    return {key: union(one[key], other[key]) if key in one and key in other else {**one, **other}[key] for key in {**one, **other}}


def _overlap(live: t.Any, desired: t.Any) -> t.Any:
    """The part of `live` under the field names that `desired` sets; lists are taken whole."""
    if isinstance(live, dict) and isinstance(desired, dict):
        return {key: _overlap(live[key], sub) for key, sub in desired.items() if key in live}
    return copy.deepcopy(live)


def _merged(base: t.Any, extra: t.Any) -> t.Any:
    if isinstance(base, dict) and isinstance(extra, dict):
        return {key: _merged(base[key], extra[key]) if key in base and key in extra else {**base, **extra}[key]
                for key in {**base, **extra}}
    return extra


def fingerprint(value: t.Any) -> str:
    """A short stable hash of any JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def applied_fingerprint(live: dict, replicas: int | None = None) -> str:
    """Hash of what we own in `live`. It changes when anybody edits, removes or takes over a field of ours.

    `replicas`: what we applied before an autoscaler took them over; its number is not to look like a hand edit.
    """
    image = before_image(live)
    if replicas is not None:
        image.setdefault("spec", {})["replicas"] = replicas
    return fingerprint(image)


def changed_paths(before: t.Any, after: t.Any, path: str = "") -> list[str]:
    """Paths of the fields that differ, e.g. `spec.template.spec.containers[0].image`; lists compare by position."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            hit
            for key in sorted({*before, *after})
            for hit in changed_paths(before.get(key, ABSENT), after.get(key, ABSENT), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [hit for i, pair in enumerate(zip(before, after)) for hit in changed_paths(*pair, path=f"{path}[{i}]")]
    return [] if before == after else [path]


# --- single fields ---------------------------------------------------------------------------------------------------

Path = t.Tuple[str, ...]  # of FieldsV1 elements, e.g. ("f:spec", "f:containers", 'k:{"name":"api"}', "f:image")


def leaves(fields: dict, path: Path = ()) -> t.Iterator[Path]:
    """The paths of a FieldsV1 tree that carry a value of their own."""
    named = {key: sub for key, sub in fields.items() if key != "."}
    if not named and path:
        yield path
    for key, sub in named.items():
        yield from leaves(sub, (*path, key))


def subtree(fields: dict, path: Path) -> dict | None:
    """What a FieldsV1 tree says below `path`; None when it does not name it. An ancestor that is a leaf names all below it."""
    for key in path:
        if not fields:
            return {}
        if key not in fields:
            return None
        fields = fields[key]
    return fields


def fieldset(paths: t.Iterable[Path]) -> dict:
    """The FieldsV1 tree that names just these paths."""
    tree: dict = {}
    for path in paths:
        node = tree
        for key in path:
            node = node.setdefault(key, {})
    return tree


def steps(obj: t.Any, path: Path) -> list[str | int] | None:
    """A FieldsV1 path as keys and list positions in `obj`; None when it leads nowhere."""
    found: list[str | int] = []
    for element in path:
        step: str | int | None = None
        if element[:2] == "f:" and isinstance(obj, dict) and element[2:] in obj:
            step = element[2:]
        elif isinstance(obj, list):
            hit = _item(obj, element, {})
            step = None if hit is None else hit[0]
        if step is None:
            return None
        found.append(step)
        obj = obj[step]
    return found


def value_at(obj: t.Any, path: Path) -> t.Any:
    """The value a FieldsV1 path leads to; ABSENT when there is none."""
    found = steps(obj, path)
    if found is None:
        return ABSENT
    for step in found:
        obj = obj[step]
    return obj


def repeated(obj: t.Any, fields: dict, path: Path = ()) -> t.Iterator[tuple[Path, list]]:
    """(path, items) of what FieldsV1 `fields` names once, and a list in `obj` holds more than once."""
    for key, sub in fields.items():
        found = [obj[index] for index in positions(obj, key)] if isinstance(obj, list) else []
        if len(found) > 1:
            yield (*path, key), found
        yield from repeated(value_at(obj, (key,)), sub, (*path, key))


def path_text(path: Path) -> str:
    """`spec.containers[name=api].image`"""
    text = ""
    for element in path:
        kind, rest = element[:2], element[2:]
        if kind == "f:":
            text += f".{rest}" if re.fullmatch(r"[\w-]+", rest) else f"[{rest}]"
        elif kind == "k:":
            text += "[" + ",".join(f"{name}={value}" for name, value in json.loads(rest).items()) + "]"
        else:
            text += f"[{rest}]"
    return text.lstrip(".")


def removals(obj: dict, paths: t.Iterable[Path]) -> list[dict]:
    """The JSON Patch (RFC 6902) that removes these paths from `obj`, and only from this very version of it."""
    found = [found for found in (steps(obj, path) for path in paths) if found]
    # Later list items first, or removing one would move the others.
    found.sort(key=lambda keys: [(isinstance(key, int), key if isinstance(key, int) else 0, str(key)) for key in keys], reverse=True)
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": obj["metadata"]["resourceVersion"]}
    return [test, *({"op": "remove", "path": "".join(f"/{_escaped(key)}" for key in keys)} for keys in found)] if found else []


def _escaped(key: str | int) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")
