# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changed by hand: pure comparison of a live object with what the server makes of its description.

Comparing with the server's own dry-run answer, not with the manifest, keeps defaults and normalised values out of it.
"""
from __future__ import annotations

import dataclasses
import fnmatch
import typing as t

from ..objects.fields import (
    ABSENT, AUTOSCALER_MANAGER, CONTROLLERS, MANAGER, REPLICAS_MANAGER, Path, leaves, owned_fields, path_text, repeated, subtree, value_at,
)
from ..objects.manifest import Ref
from ..objects.masks import HIDDEN

DELETED, CHANGED, REMOVED, ADDED = "deleted", "changed", "removed", "added"
NOBODY = "unknown (Kubernetes keeps no record of who removed something)"
REPLICAS: Path = ("f:spec", "f:replicas")
# What operators and garbage collection put into metadata is theirs.
_NOT_OURS = (("f:metadata", "f:finalizers"), ("f:metadata", "f:ownerReferences"))
_SHARED_MAPS = ("f:labels", "f:annotations")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One difference. `found` is what is live, `expected` what was released; ABSENT where there is nothing."""

    ref: Ref
    component: str
    kind: str
    path: Path = ()
    expected: t.Any = ABSENT
    found: t.Any = ABSENT
    by: str = NOBODY
    at: str = ""

    def facts(self) -> dict:
        """For machines: names, JSON values, Secrets hidden."""
        # Not only its data: kubectl keeps a copy of them in an annotation.
        hide = self.ref.kind == "Secret" and self.path[:2] != ("f:metadata", "f:labels")
        shown = {name: HIDDEN if hide else value for name, value in (("expected", self.expected), ("found", self.found)) if value is not ABSENT}
        return {
            "object": str(self.ref), "component": self.component, "kind": self.ref.kind, "namespace": self.ref.namespace,
            "name": self.ref.name, "change": self.kind, "field": path_text(self.path), "by": self.by, "at": self.at, **shown,
        }

    def line(self) -> str:
        """For people."""
        facts = self.facts()
        what = {
            DELETED: lambda: "deleted",
            CHANGED: lambda: f"{facts['field']}: {_short(facts['expected'])} became {_short(facts['found'])}",
            REMOVED: lambda: f"{facts['field']}: {_short(facts['expected'])} was removed",
            ADDED: lambda: f"{facts['field']}: {_short(facts['found'])} was added",
        }[self.kind]()
        return f"{self.component}: {self.ref}: {what}, by {self.by}{f' at {self.at}' if self.at else ''}"


def _short(value: t.Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def findings(
    ref: Ref, component: str, live: dict, expected: dict, scaled: bool, ignored: t.Collection[str] = (), taken_over: bool = False,
    least: int = 0,
) -> list[Finding]:
    """The differences between `live` and `expected` (the server's dry-run answer to a forced apply of the description).

    `scaled`: an autoscaler owns the replicas; `least`: its minimum. Without any it does nothing, so that none at all is no number of its
    own (and who set it is not known: Kubernetes keeps no owner of a scale of zero). `ignored`: patterns of further managers whose
    additions are no drift. `taken_over`: the object was there before the platform, and what others have in it is theirs.
    """
    ours = owned_fields(expected) or {".": {}}  # an empty tree would mean everything
    entries = live["metadata"].get("managedFields") or []
    found = []
    if least and live["spec"].get("replicas") == 0:
        found.append(Finding(ref, component, CHANGED, REPLICAS, least, 0))
    for path in leaves(ours):
        was, now = value_at(expected, path), value_at(live, path)
        if was == now or was is ABSENT:
            continue
        entry = _owning_manager(entries, path)
        if path == REPLICAS and (scaled or _is_autoscaler(entry)):
            continue
        found.append(Finding(ref, component, REMOVED if now is ABSENT else CHANGED, path, was, now, **written_by(entries, path)))
    twice = {path for path, _items in repeated(expected, ours)}
    for path, items in repeated(live, ours):  # the last of them counts, or the first: that depends on the field
        if path not in twice:
            found.append(Finding(ref, component, CHANGED, path, value_at(expected, path), items, **written_by(entries, path)))
    return found if taken_over else found + list(_additions(ref, component, live, ours, scaled, ignored))


def _additions(ref: Ref, component: str, live: dict, ours: dict, scaled: bool, ignored: t.Collection[str]) -> t.Iterator[Finding]:
    seen: set[Path] = set()
    for entry in sorted(live["metadata"].get("managedFields") or [], key=lambda e: e.get("time", ""), reverse=True):
        if entry["manager"] in (MANAGER, REPLICAS_MANAGER) or entry.get("subresource") == "status" or _matches(entry["manager"], ignored):
            continue
        for path in _added(entry.get("fieldsV1") or {}, ours):
            value = value_at(live, path)
            skip = value is ABSENT or path in seen or path[:2] in _NOT_OURS or (path == REPLICAS and scaled)
            if not skip:
                seen.add(path)
                yield Finding(ref, component, ADDED, path, found=value, by=entry["manager"], at=entry.get("time", ""))


def _added(fields: dict, ours: dict, path: Path = ()) -> t.Iterator[Path]:
    """The topmost paths of `fields` that `ours` does not name: a whole list item or struct is one addition, not one per
    field. Labels and annotations are taken one by one, because many managers share those maps."""
    for key, sub in fields.items():
        here = (*path, key)
        if key == ".":
            continue
        mine = subtree(ours, here)
        named = [name for name in sub if name != "."]
        if mine is None and (not named or ("." in sub and key not in _SHARED_MAPS)):
            yield here
        elif named and mine != {}:  # {}: we own the whole value, and compared it
            yield from _added(sub, ours, here)


def written_by(entries: list[dict], path: Path) -> dict[str, str]:
    """Who wrote the field last, we ourselves aside, and when; {} when managedFields does not know."""
    entry = _owning_manager(entries, path)
    return {"by": entry["manager"], "at": entry.get("time", "")} if entry else {}


def _owning_manager(entries: list[dict], path: Path) -> dict | None:
    """The manager that wrote the field last, we ourselves aside."""
    writers = [
        e for e in entries
        if e["manager"] not in (MANAGER, REPLICAS_MANAGER) and _names(e.get("fieldsV1") or {}, path)
    ]
    return max(writers, key=lambda entry: entry.get("time", ""), default=None)


def _names(fields: dict, path: Path) -> bool:
    """Whether a manager owns this field, something in it, or all that is around it."""
    for key in path:
        if key not in fields:
            return False
        fields = fields[key]
        if not fields:
            return True
    return True


def _is_autoscaler(entry: dict | None) -> bool:
    return bool(entry) and entry["manager"] == AUTOSCALER_MANAGER and entry.get("subresource") == "scale"  # type: ignore[index]


def _matches(manager: str, patterns: t.Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(manager, pattern) for pattern in (*CONTROLLERS, *patterns))
