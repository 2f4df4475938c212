# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a platform: everything the ledger owns, but no data unless told to, and nothing that holds what is not ours."""
from __future__ import annotations

import re
import typing as t

from ._cluster import Cluster
from ._errors import TimedOut
from ._ledger import State
from ._manifest import Ref
from ._observe import observe, recorded_types
from ._occupied import CLAIMS, occupied
from ._plan import DATA, TAKEN_OVER, ref_from_key
from ._release import Releaser
from ._types import ResourceType, group_kind, ref_of

GONE_SECONDS = 300.0
WAS_THERE = "it was there before the platform; only our labels go"


def teardown(releaser: Releaser, data: bool, forget: bool) -> dict:
    """Removes the platform and waits until it is gone. `data`: the claims too; `forget`: the ledger too."""
    cluster, ledger = releaser.cluster, releaser.ledger
    state = releaser.load()
    live = observe(cluster, releaser.options.platform, state.record)
    live = {ref: obj for ref, obj in live.items() if not obj["metadata"].get("deletionTimestamp")}
    owned = {ref: rtype for ref, rtype in recorded_types(cluster, state.record).items() if ref in live}
    taken = {ref_from_key(key) for objects in state.record.values() for key, prints in objects.items() if prints[2:] == [TAKEN_OVER]}
    claims = _claims_of_sets(cluster, state, live) if data else []
    kept = _kept(releaser, {ref: rtype for ref, rtype in owned.items() if ref not in taken}, live, {ref for _component, ref in claims}, data)
    result = releaser.tear_down(state, kept.__contains__)
    result["kept"] = [f"{ref}: {why}" for ref, why in sorted({**kept, **{ref: WAS_THERE for ref in taken if ref in owned}}.items())]
    result["changes"] += [_claim_change(component, ref) for component, ref in claims]
    result["changed"] = result["changed"] or bool(claims)
    if forget and not kept:
        stays = ledger.namespace_stays()
        result["ledger"] = ["removed", *([f"Namespace {ledger.namespace} stays: {stays}"] if stays else [f"Namespace {ledger.namespace} removed"])]
    if releaser.options.check:
        return result
    for _component, ref in claims:
        cluster.delete(CLAIMS, ref.namespace, ref.name)
    going = [(rtype, ref) for ref, rtype in owned.items() if ref not in kept and ref not in taken]
    _until_gone(releaser, [*going, *((CLAIMS, ref) for _component, ref in claims)], {ref: live[ref]["metadata"]["uid"] for ref in owned})
    if forget and not kept:
        ledger.forget()
        result["changed"] = True
    return {**result, "requests": dict(cluster.requests)}


def _kept(releaser: Releaser, owned: dict[Ref, ResourceType], live: dict[Ref, dict], claims: set[Ref], data: bool) -> dict[Ref, str]:
    """{object: why it stays}. `claims`: those of our StatefulSets, which go with the data."""
    kept = {}
    for ref in owned:
        if ref.kind in DATA and not data:
            kept[ref] = "it holds data"
        elif ref.kind == "CustomResourceDefinition" and _foreign_resources(releaser.cluster, live[ref], owned):
            kept[ref] = "there are resources of its kind that are not ours"
    spaces = [ref for ref in owned if ref.kind == "Namespace"]
    ours = {*owned, *claims}
    found = releaser.cluster.each(lambda ref: occupied(releaser.cluster, ref.name, releaser.options.platform, ours, claims=not data), spaces)
    return {**kept, **{ref: why for ref, why in zip(spaces, found) if why}}


def _foreign_resources(cluster: Cluster, definition: dict, owned: t.Container[Ref]) -> bool:
    spec = definition["spec"]
    rtype = group_kind(cluster.types().values()).get((spec["group"], spec["names"]["kind"]))
    return rtype is not None and any(ref_of(rtype, obj) not in owned for obj in cluster.list(rtype, metadata=True))


def _claims_of_sets(cluster: Cluster, state: State, live: dict[Ref, dict]) -> list[tuple[str, Ref]]:
    """(component, claim) of the claims that StatefulSets of ours made from their templates; they are in no manifest."""
    found = []
    for component, objects in state.record.items():
        sets = (ref for ref in map(ref_from_key, objects) if ref.kind == "StatefulSet" and ref in live)
        for ref in sets:
            templates = [re.escape(c["metadata"]["name"]) for c in live[ref]["spec"].get("volumeClaimTemplates") or []]
            name = re.compile(rf"({'|'.join(templates)})-{re.escape(ref.name)}-\d+")
            claims = cluster.list(CLAIMS, "", ref.namespace) if templates else []
            found += [(component, ref_of(CLAIMS, claim)) for claim in claims if name.fullmatch(claim["metadata"]["name"])]
    return found


def _claim_change(component: str, ref: Ref) -> dict:
    change = {"component": component, "action": "delete", "kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
    return {**change, "fields": [], "pending": ""}


def _until_gone(releaser: Releaser, objects: list[tuple[ResourceType, Ref]], uids: dict[Ref, str]) -> None:
    releaser.progress(f"waiting until {len(objects)} objects are gone")
    left = releaser.cluster.gone(objects, GONE_SECONDS, uids)
    if left:
        names = ", ".join(map(str, left[:5]))
        raise TimedOut(f"deleted, but still there after {GONE_SECONDS:.0f} s: {names}. Their metadata.finalizers name who holds them")
