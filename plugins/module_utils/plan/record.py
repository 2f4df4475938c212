# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's record of the objects it owns, and how it names them. Pure."""
from __future__ import annotations

import typing as t

from ..objects.manifest import Ref

# {component: {record key: [desired fingerprint, applied fingerprint]}}, what the ledger knows of the objects it owns. A third element,
# TAKEN_OVER, says that the object was there before the platform: it is never deleted.
TAKEN_OVER = "taken over"
Record = t.Dict[str, t.Dict[str, t.List[str]]]


def record_key(ref: Ref) -> str:
    """The name of an object in the record: `group/kind/namespace/name`."""
    return "/".join(ref)


def ref_from_key(key: str) -> Ref:
    """The object that a name in the record stands for."""
    return Ref(*key.split("/", 3))


def merged_record(known: Record, new: Record) -> Record:
    """The record after a run. `known`: before it; `new`: of the components that the run spoke for. An object that moved to another component is in the new
    one only."""
    claimed = {key for objects in new.values() for key in objects}
    outside = {name: {key: prints for key, prints in objects.items() if key not in claimed} for name, objects in known.items() if name not in new}
    return {name: objects for name, objects in {**outside, **new}.items() if objects}
