# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run must not do by accident: release less than it means to, or delete or change too much of what is there. Pure."""
from __future__ import annotations

import re
import typing as t

from ._errors import InvalidInput
from ._plan import DELETE, Plan, Record, record_key

FEW = 5  # a percentage never means fewer: of a handful it would forbid everything
NAMED = 10  # in a line for people


def limit(most: str, known: int, option: str = "max_deleted") -> int:
    """How many of `known` may be touched. `most`: a number, or a percentage, which is rounded up and never means fewer than FEW."""
    hit = re.fullmatch(r"(\d+)(%?)", most)
    if not hit:
        raise InvalidInput(f"{option}={most!r} is neither a number nor a percentage")
    return max(FEW, -(-known * int(hit[1]) // 100)) if hit[2] else int(hit[1])


def named(names: t.Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def refuse_undescribed(bundle: dict[str, list[dict]], components: t.Collection[str] | None) -> None:
    """Raises InvalidInput for a bundle that is not all that the run means to release."""
    if not isinstance(bundle, dict):
        return  # `prepare` says it
    lacking = [name for name in components or () if name not in bundle]
    if lacking:
        raise InvalidInput(
            f"not described in this run: {', '.join(lacking)}. The list of components names them (common_components), but their roles did not run:"
            " the play was started in the middle, stepped through, or has no such role. Nothing was written. Run the whole play, limit it to"
            " some components with --tags, or take them out of the list", missing=lacking,
        )


def refuse_empty(objects: t.Sized) -> None:
    """Raises InvalidInput for the whole platform's bundle without any object, whatever components it names."""
    if not objects:
        raise InvalidInput("the bundle is empty: no role has described anything, so there is nothing to release. teardown.yml removes a platform")


def refuse_too_many_deletions(plan: Plan, record: Record, scope: t.Container[str], most: str) -> None:
    """Raises InvalidInput when more of what the ledger owns would go than `max_deleted` allows; or all of it, but what is kept for the
    data or the objects in it. `scope`: the components that the run speaks for."""
    owned = sum(map(len, record.values()))
    leaving = [str(action.ref) for action in plan.actions if action.verb == DELETE]
    stays = {record_key(action.ref) for action in plan.actions if action.desired} | {key for name in record if name not in scope for key in record[name]}
    known = {key for objects in record.values() for key in objects}
    allowed = limit(most, owned)
    if len(leaving) > allowed or (leaving and stays.isdisjoint(known) and most != "100%"):
        why = f"max_deleted={most} allows {allowed}" if len(leaving) > allowed else "nothing that it owns would be described any more"
        raise InvalidInput(
            f"{len(leaving)} of the {owned} objects that the ledger owns would be deleted, and {why}."
            f" Nothing was written. They are {named(leaving)}. If that is meant: -e common_max_deleted=100%", would_delete=leaving,
        )
