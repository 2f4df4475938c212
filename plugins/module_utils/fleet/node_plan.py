# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change on one node so that it has the labels and taints of its pool, and no stale ones of ours. Pure.

Nodes belong to many. A label key is ours when our field manager alone owns it. `spec.taints` is one field to field managers
(an atomic list): whoever writes it last owns all of it. So which taints are ours is kept in an annotation.

All platforms write with the same field manager, so another annotation names the one platform that a node belongs to. The first to
write to a node has it, until nothing of that platform is left on it.
"""
from __future__ import annotations

import dataclasses
import json
import typing as t

from .gpu import LABEL_POOL, Pool, Taint

NODE_MANAGER = "genai.platform-gpu"
ANNOTATION_TAINTS = "genai.platform/gpu-taints"
ANNOTATION_PLATFORM = "genai.platform/gpu-platform"


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Somebody else's label or taint in the place of ours."""

    node: str
    field: str  # label, or taint
    key: str
    wanted: str
    found: str
    manager: str

    def __str__(self) -> str:
        return f"{self.field} {self.key} is {self.found!r} by {self.manager}, not {self.wanted!r}"


@dataclasses.dataclass(frozen=True)
class NodePlan:
    """`patch`: a JSON Merge Patch, {} when nothing has to change. `before`, `after`: what it changes, {labels, taints}.
    `known`: whether anything on the node is ours already. `was`: the pool that we have put it into before, '' when none.
    `other`: the other platform that the node belongs to, '' when none; such a plan changes nothing."""

    name: str
    pool: str
    patch: dict
    before: dict
    after: dict
    conflicts: list[Conflict]
    known: bool
    was: str = ""
    other: str = ""


class _Part(t.NamedTuple):
    """What one kind of field (labels, or taints) adds to a plan. `known`: whether any is ours before, `stays`: whether any is afterwards."""

    before: t.Any
    after: t.Any
    conflicts: list[Conflict]
    known: bool
    stays: bool


def plan_node(node: dict, pool: Pool | None, platform: str, force: bool = False) -> NodePlan:
    """What has to change on a node of `pool`, or of none, for `platform`: nothing when the node belongs to another platform. `force`: what
    others have put in the place of ours is no conflict, it goes."""
    meta, said = node["metadata"], platform_of(node)
    if said not in ("", platform):
        return NodePlan(meta["name"], pool.name if pool else "", {}, _nothing(), _nothing(), [], False, other=said)
    managers = owners(node)
    labels = _labels(node, managers, pool.labels if pool else {}, force)
    taints, record, written = _taints(node, pool.taints if pool else (), force)
    known, stays = labels.known or taints.known or bool(said), labels.stays or taints.stays
    patch: dict = {}
    if labels.before != labels.after:
        patch["labels"] = {**dict.fromkeys(labels.before), **labels.after}
    if record is not None:
        patch["annotations"] = {ANNOTATION_TAINTS: record or None}
    body: dict = {"metadata": patch} if patch else {}
    if written is not None:
        body["spec"] = {"taints": written}
    # A node that an older version wrote has no such annotation: that alone is no reason to write to a whole fleet.
    if (said and not stays) or (body and stays and not said):
        patch["annotations"] = {**patch.get("annotations", {}), ANNOTATION_PLATFORM: platform if stays else None}
        body["metadata"] = patch
    if body:
        body["metadata"] = {**patch, "resourceVersion": meta["resourceVersion"]}
    return NodePlan(
        meta["name"], pool.name if pool else "", body,
        {"labels": labels.before, "taints": taints.before}, {"labels": labels.after, "taints": taints.after},
        labels.conflicts + taints.conflicts, known, _was(node, managers, known),
    )


def platform_of(node: dict) -> str:
    """The platform that the node's annotation names, '' when none."""
    return (node["metadata"].get("annotations") or {}).get(ANNOTATION_PLATFORM, "")


def _nothing() -> dict:
    return {"labels": {}, "taints": []}


def _was(node: dict, managers: dict[str, set[str]], known: bool) -> str:
    """The pool in the node's label, unless only others have written that."""
    said = (node["metadata"].get("labels") or {}).get(LABEL_POOL, "")
    return said if known and NODE_MANAGER in managers.get(LABEL_POOL, {NODE_MANAGER}) else ""


# --- labels ----------------------------------------------------------------------------------------------------------


def owners(node: dict) -> dict[str, set[str]]:
    """{label key: the field managers that own it}."""
    found: dict[str, set[str]] = {}
    for entry in node["metadata"].get("managedFields") or []:
        for key in ((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:labels") or {}:
            if key != ".":
                found.setdefault(key[2:], set()).add(entry["manager"])
    return found


def _labels(node: dict, managers: dict[str, set[str]], wanted: dict[str, str], force: bool) -> _Part:
    live = node["metadata"].get("labels") or {}
    mine = {key for key, names in managers.items() if names == {NODE_MANAGER} and key in live}
    changed = {key: value for key, value in wanted.items() if live.get(key) != value}
    foreign = sorted(key for key in changed if key in live and key not in mine and not force)
    conflicts = [
        Conflict(node["metadata"]["name"], "label", key, wanted[key], live[key], ", ".join(sorted(managers.get(key) or {"nobody known"})))
        for key in foreign
    ]
    after = {key: value for key, value in changed.items() if key not in foreign}
    before = {key: live[key] for key in live if key in after or key in mine - wanted.keys()}
    return _Part(before, after, conflicts, bool(mine), bool(after or mine & wanted.keys()))


# --- taints ----------------------------------------------------------------------------------------------------------


def _taints(node: dict, wanted: t.Sequence[Taint], force: bool) -> tuple[_Part, str | None, list[dict] | None]:
    """(the part, the annotation's new text, the node's new taints); None for what stays as it is."""
    live, recorded = node.get("spec", {}).get("taints") or [], recorded_taints(node) | ({taint.id for taint in wanted} if force else set())
    others = {Taint.of(item).id: Taint.of(item) for item in live if Taint.of(item).id not in recorded}
    ours = {taint.id: taint for taint in wanted if taint.id not in others}
    manager = ", ".join(sorted(_taint_managers(node))) or "nobody known"
    conflicts = [
        Conflict(node["metadata"]["name"], "taint", taint.id, taint.value, others[taint.id].value, manager)
        for taint in wanted if taint.id in others and others[taint.id] != taint
    ]
    before = {Taint.of(item).id: Taint.of(item) for item in live if Taint.of(item).id in recorded}
    part = _Part(sorted(map(str, before.values())), sorted(map(str, ours.values())), conflicts, bool(recorded), bool(ours))
    # What somebody else added stays where it is, with all that it says.
    written = [item for item in live if Taint.of(item).id in others or Taint.of(item) == ours.get(Taint.of(item).id)]
    kept = {Taint.of(item).id for item in written}
    written += [_as_dict(taint) for taint_id, taint in sorted(ours.items()) if taint_id not in kept]
    text = json.dumps(sorted(ours)) if ours else ""
    said = (node["metadata"].get("annotations") or {}).get(ANNOTATION_TAINTS, "")
    return part, None if text == said else text, None if before == ours else written


def recorded_taints(node: dict) -> set[str]:
    """Ids of the taints that we added; none when somebody has spoilt the annotation."""
    said = (node["metadata"].get("annotations") or {}).get(ANNOTATION_TAINTS, "[]")
    try:
        return {item for item in json.loads(said) if isinstance(item, str)}
    except (ValueError, TypeError):
        return set()


def _taint_managers(node: dict) -> set[str]:
    entries = node["metadata"].get("managedFields") or []
    return {entry["manager"] for entry in entries if "f:taints" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})}


def _as_dict(taint: Taint) -> dict:
    return {"key": taint.key, **({"value": taint.value} if taint.value else {}), "effect": taint.effect}
