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
import typing as t

MANAGER = "genai.platform"
# Holds `spec.replicas` on its way to and from an autoscaler: a field that nobody owns falls back to its default, one pod.
REPLICAS_MANAGER = f"{MANAGER}-replicas"
_AUTOSCALER = "kube-controller-manager"
_ABSENT = object()  # differs from every value, null included


def owned_fields(live: dict, manager: str = MANAGER) -> dict:
    """FieldsV1 of what `manager` owns in `live` through apply; `{}` when it owns nothing."""
    for entry in live.get("metadata", {}).get("managedFields") or []:
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return entry.get("fieldsV1") or {}
    return {}


def replicas_to_hold(live: dict, desired: dict) -> int | None:
    """Replicas to apply under REPLICAS_MANAGER before `desired` is applied; None when there is nothing to hand over.

    Leaving the field to an autoscaler, the live value is held, or removing ours would reset it. Taking it back from an
    autoscaler, the desired value is held, which ends the autoscaler's claim. A number set by anybody else stays a conflict.
    """
    current, wanted = live.get("spec", {}).get("replicas"), desired.get("spec", {}).get("replicas")
    owners = {e.get("manager") for e in live["metadata"].get("managedFields") or [] if _owns_replicas(e)}
    if wanted is None:
        return current if MANAGER in owners and REPLICAS_MANAGER not in owners else None
    others = owners - {MANAGER}
    return wanted if others and others <= {REPLICAS_MANAGER, _AUTOSCALER} and wanted != current else None


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
    """The list item that a `k:`, `v:` or `i:` element names, with its position; None when it is gone."""
    prefix, rest = key[:2], key[2:]
    wanted = json.loads(rest)
    for index, item in enumerate(items):
        if prefix == "k:" and isinstance(item, dict) and all(item.get(name) == value for name, value in wanted.items()):
            # The key fields travel along even where the server defaulted them: apply needs them to find the item again.
            return index, {**wanted, **project(item, sub or {".": {}})}
        if prefix == "v:" and item == wanted:
            return index, item
        if prefix == "i:" and index == wanted:
            return index, project(item, sub)
    return None


def identity(obj: dict) -> dict:
    """The smallest apply configuration of an object: applying it gives up every field we own."""
    meta = {key: obj["metadata"][key] for key in ("name", "namespace") if obj["metadata"].get(key)}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta}


def before_image(live: dict) -> dict:
    """The apply configuration that puts our part of `live` back: identity plus every field we own in it."""
    image = identity(live)
    ours = project(live, owned_fields(live) or {".": {}})
    image["metadata"].update(ours.pop("metadata", {}))
    image.update(ours)
    return image


def before_image_forced(live: dict, desired: dict) -> dict:
    """As `before_image`, plus what `desired` would take from other managers by force."""
    return _merged(before_image(live), _overlap(live, desired))


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


def applied_fingerprint(live: dict) -> str:
    """Hash of what we own in `live`. It changes when anybody edits, removes or takes over a field of ours."""
    return fingerprint(before_image(live))


def changed_paths(before: t.Any, after: t.Any, path: str = "") -> list[str]:
    """Paths of the fields that differ, e.g. `spec.template.spec.containers[0].image`; lists compare by position."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            hit
            for key in sorted({*before, *after})
            for hit in changed_paths(before.get(key, _ABSENT), after.get(key, _ABSENT), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [hit for i, pair in enumerate(zip(before, after)) for hit in changed_paths(*pair, path=f"{path}[{i}]")]
    return [] if before == after else [path]
