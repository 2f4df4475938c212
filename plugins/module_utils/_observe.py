# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the live objects of a platform: one LIST per kind, and a GET only for what should have been in it and was not."""
from __future__ import annotations

import typing as t

from ._cluster import Cluster
from ._manifest import LABEL_PLATFORM, Ref
from ._plan import Record, ref_from_key
from ._types import ResourceType, group_kind, ref_of


def recorded_types(cluster: Cluster, record: Record) -> dict[Ref, ResourceType]:
    """The objects that the ledger says are ours, with their types; without those whose kind is no longer served."""
    served = group_kind(cluster.types().values())
    refs = (ref_from_key(key) for objects in record.values() for key in objects)
    return {ref: served[ref.group, ref.kind] for ref in refs if (ref.group, ref.kind) in served}


def observe(
    cluster: Cluster, platform: str, record: Record, wanted: t.Mapping[Ref, ResourceType] | None = None, foreign: bool = False
) -> dict[Ref, dict]:
    """{ref: live object} of everything recorded, and of `wanted` as far as it carries our label.

    `foreign`: look for `wanted` objects without our label too, one GET each.
    """
    recorded, wanted = recorded_types(cluster, record), wanted or {}
    rtypes = {(rtype.group, rtype.kind): rtype for rtype in (*recorded.values(), *wanted.values())}
    selector = f"{LABEL_PLATFORM}={platform}"
    lists = cluster.each(lambda rtype: [(ref_of(rtype, obj), obj) for obj in cluster.list(rtype, selector)], rtypes.values())
    live = {ref: obj for found in lists for ref, obj in found}
    # Somebody may have taken our label off: an object must not look as if it were gone.
    missing = {ref: rtype for ref, rtype in {**recorded, **(wanted if foreign else {})}.items() if ref not in live}
    found = cluster.each(lambda ref: cluster.get(missing[ref], ref.namespace, ref.name), missing)
    live.update({ref: obj for ref, obj in zip(missing, found) if obj})
    return live
