# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the live objects of a platform: one LIST per kind, and a GET for what should have been in it and was not."""
from __future__ import annotations

import collections
import typing as t

from ..cluster.api import Cluster
from ..errors import ApiError
from ..objects.fields import own_entry
from ..objects.manifest import LABEL_PLATFORM, Ref
from ..objects.types import NAMESPACES, SECRETS, ResourceType, group_kind, ref_of
from ..plan.record import Record, ref_from_key

ONE_BY_ONE = 4  # namespaces whose Secrets, or objects outside of namespaces of one kind, that are asked for one by one
MANY = 20  # objects of one kind and namespace to be looked for: then a list of names is less than a GET each

Types = t.Mapping[Ref, ResourceType]


def recorded_types(cluster: Cluster, record: Record) -> dict[Ref, ResourceType]:
    """{object: its type} for all that the ledger says is ours, without objects whose kind the API server no longer serves. Raises ApiError,
    Unreachable."""
    served = group_kind(cluster.types().values())
    refs = (ref_from_key(key) for objects in record.values() for key in objects)
    return {ref: served[ref.group, ref.kind] for ref in refs if (ref.group, ref.kind) in served}


def observe(cluster: Cluster, platform: str, record: Record, wanted: Types | None = None) -> dict[Ref, dict]:
    """Reads what is live: {object: its manifest with managedFields}, for everything that is in the record or in `wanted`, whoever made it. Objects that are
    not there are left out.

    One LIST for each kind, or for each kind and namespace where the identity may not list further; a GET for what should have been in a list and was not. An
    object is read in the version of its API in which we applied it last, because its managedFields name our fields in that version. `wanted`: {object: type}.
    Raises ApiError, Unreachable.
    """
    refs = {**recorded_types(cluster, record), **(wanted or {})}
    live = _labelled(cluster, platform, refs)
    lacking = {ref: rtype for ref, rtype in refs.items() if ref not in live}
    live.update(_unlabelled(cluster, lacking, refs, live))
    live.update(_in_applied_version(cluster, live))
    return live


def _labelled(cluster: Cluster, platform: str, refs: Types) -> dict[Ref, dict]:
    """What carries our label: a list for each kind, or for each kind and namespace where the identity may not look further."""
    kinds = {(rtype.group, rtype.kind): rtype for rtype in refs.values()}  # one version of each will do
    spaces: dict[ResourceType, set[str]] = collections.defaultdict(set)
    for ref, rtype in refs.items():
        spaces[kinds[rtype.group, rtype.kind]].add(ref.namespace)
    selector = f"{LABEL_PLATFORM}={platform}"

    def look(asked: tuple[ResourceType, str]) -> list[dict] | None:
        """None where the identity may not look in all namespaces, or at a whole kind that is in none."""
        try:
            return cluster.list(asked[0], selector, asked[1])
        except ApiError as exc:
            if exc.status == 403 and not asked[1]:
                return None
            raise

    wide = [(rtype, name) for rtype, names in spaces.items() for name in ([""] if _in_one_request(rtype, names) else names)]
    lists = cluster.each(look, wide)
    refused = [rtype for (rtype, _name), found in zip(wide, lists) if found is None]
    narrow = [(rtype, name) for rtype in refused if rtype.namespaced for name in sorted(spaces[rtype])]
    asked, answers = [*wide, *narrow], [*lists, *cluster.each(look, narrow)]
    return {ref_of(rtype, obj): obj for (rtype, _name), found in zip(asked, answers) for obj in found or ()}


def _in_one_request(rtype: ResourceType, namespaces: t.Collection[str]) -> bool:
    """Secrets of other people's namespaces are not asked for where a few requests more can do without."""
    return len(namespaces) > (ONE_BY_ONE if (rtype.group, rtype.kind) == (SECRETS.group, SECRETS.kind) else 1)


def _unlabelled(cluster: Cluster, lacking: Types, refs: Types, live: dict[Ref, dict]) -> dict[Ref, dict]:
    """Those of `lacking` that are there all the same: somebody took our label off, or made them before us."""
    found = _read(cluster, _listed(cluster, {ref: rtype for ref, rtype in lacking.items() if not rtype.namespaced}))
    known = {ref.name for ref in refs if ref.kind == NAMESPACES.kind and not ref.group}
    there = {ref.name for ref in (*live, *found) if ref.kind == NAMESPACES.kind and not ref.group}
    inside = {ref: rtype for ref, rtype in lacking.items() if rtype.namespaced}
    # Nothing is in a namespace that is not there.
    inside = {ref: rtype for ref, rtype in inside.items() if ref.namespace in there or ref.namespace not in known}
    return {**found, **_read(cluster, _listed(cluster, inside))}


def _listed(cluster: Cluster, wanted: Types) -> dict[Ref, ResourceType]:
    """`wanted`; where many of a kind and namespace are looked for, only those of them whose names a list has."""
    groups: dict[tuple[ResourceType, str], list[Ref]] = collections.defaultdict(list)
    for ref, rtype in wanted.items():
        groups[rtype, ref.namespace].append(ref)
    many = [(rtype, space, refs) for (rtype, space), refs in groups.items() if len(refs) > (MANY if rtype.namespaced else ONE_BY_ONE)]
    asked = {ref for _rtype, _space, refs in many for ref in refs}
    there = {ref for here in cluster.each(lambda item: _named(cluster, *item), many) for ref in here}
    return {ref: rtype for ref, rtype in wanted.items() if ref not in asked or ref in there}


def _named(cluster: Cluster, rtype: ResourceType, namespace: str, wanted: t.Collection[Ref]) -> list[Ref]:
    """Those of many objects that are there, by their names alone; all of them where the identity may not list the kind."""
    try:
        names = {obj["metadata"]["name"] for obj in cluster.list(rtype, "", namespace, metadata=True)}
    except ApiError as exc:
        if exc.status != 403:
            raise
        return list(wanted)
    return [ref for ref in wanted if ref.name in names]


def _read(cluster: Cluster, refs: Types) -> dict[Ref, dict]:
    found = cluster.each(lambda ref: cluster.get(refs[ref], ref.namespace, ref.name), refs)
    return {ref: obj for ref, obj in zip(refs, found) if obj}


def _in_applied_version(cluster: Cluster, live: dict[Ref, dict]) -> dict[Ref, dict]:
    served = cluster.types()
    other: dict[Ref, ResourceType] = {}
    for ref, obj in live.items():
        version = own_entry(obj).get("apiVersion", obj["apiVersion"])
        if version != obj["apiVersion"] and (version, ref.kind) in served:
            other[ref] = served[version, ref.kind]
    return _read(cluster, other)
