# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a platform: everything the ledger owns, but no data unless told to, and nothing that holds what is not ours."""
from __future__ import annotations

import re

from ._cluster import Cluster
from ._errors import TimedOut
from ._ledger import State
from ._manifest import LABEL_PLATFORM, Ref
from ._observe import observe, recorded_types
from ._occupied import CLAIMS, foreign_resources, occupied
from ._plan import DATA, TAKEN_OVER, is_stranger, ref_from_key
from ._release import Releaser
from ._types import ResourceType, ref_of

GONE_SECONDS = 300.0
WAS_THERE = "it was there before the platform; only our labels go"


def teardown(releaser: Releaser, data: bool, forget: bool) -> dict:
    """Removes the platform and waits until it is gone. `data`: the claims too; `forget`: the ledger too."""
    cluster, ledger = releaser.cluster, releaser.ledger
    state = releaser.load()
    live = observe(cluster, releaser.options.platform, state.record)
    live = {ref: obj for ref, obj in live.items() if not obj["metadata"].get("deletionTimestamp")}
    owned = {ref: rtype for ref, rtype in recorded_types(cluster, state.record).items() if ref in live}
    others = _not_ours(releaser, state, {ref: live[ref] for ref in owned})
    owned = {ref: rtype for ref, rtype in owned.items() if ref not in others}
    claims = _claims_of_sets(cluster, state, {ref: live[ref] for ref in owned}) if data else []
    kept = _kept(releaser, owned, live, {ref for _component, ref in claims}, others, data)
    result = releaser.tear_down(state, kept.__contains__)
    result["kept"] = [f"{ref}: {why}" for ref, why in sorted({**kept, **others}.items())]
    result["changes"] += [_claim_change(component, ref) for component, ref in claims]
    result["changed"] = result["changed"] or bool(claims)
    if forget and not kept:
        stays = ledger.namespace_stays()
        result["ledger"] = ["removed", *([f"Namespace {ledger.namespace} stays: {stays}"] if stays else [f"Namespace {ledger.namespace} removed"])]
    if releaser.options.check:
        return result
    for _component, ref in claims:
        cluster.delete(CLAIMS, ref.namespace, ref.name)
    going = [(rtype, ref) for ref, rtype in owned.items() if ref not in kept]
    _until_gone(releaser, [*going, *((CLAIMS, ref) for _component, ref in claims)], {ref: live[ref]["metadata"]["uid"] for ref in owned})
    if forget and not kept:
        ledger.forget()
        result["changed"] = True
    return {**result, "requests": dict(cluster.requests)}


def _not_ours(releaser: Releaser, state: State, live: dict[Ref, dict]) -> dict[Ref, str]:
    """{recorded object that a teardown does not delete: why}: it was there before the platform, or another one has it by now."""
    taken = {ref_from_key(key) for objects in state.record.values() for key, prints in objects.items() if prints[2:] == [TAKEN_OVER]}
    owners = {ref: (obj["metadata"].get("labels") or {}).get(LABEL_PLATFORM, "") for ref, obj in live.items()}
    foreign = {ref: f"it belongs to platform {owner}" for ref, owner in owners.items() if owner not in ("", releaser.options.platform)}
    anew = {ref: "somebody else made it anew" for ref, obj in live.items() if is_stranger(obj)}
    return {**anew, **{ref: WAS_THERE for ref in taken if ref in live}, **foreign}


def _kept(
    releaser: Releaser, owned: dict[Ref, ResourceType], live: dict[Ref, dict], claims: set[Ref], others: dict[Ref, str], data: bool
) -> dict[Ref, str]:
    """{object: why it stays}. `claims`: those of our StatefulSets, which go with the data. `others`: what is recorded and not ours."""
    kept = {}
    for ref in owned:
        if ref.kind in DATA and not data:
            kept[ref] = "it holds data"
        elif ref.builtin == "CustomResourceDefinition" and (why := foreign_resources(releaser.cluster, live[ref], owned)):
            kept[ref] = why
    spaces = [ref for ref in owned if ref.builtin == "Namespace"]
    ours = {*owned, *claims}
    found = releaser.cluster.each(lambda ref: occupied(releaser.cluster, ref.name, releaser.options.platform, ours, claims=not data), spaces)
    inside = {ref.namespace: f"it holds {ref}, which is not ours to delete" for ref in others}
    return {**kept, **{ref: why or inside[ref.name] for ref, why in zip(spaces, found) if why or ref.name in inside}}


def _claims_of_sets(cluster: Cluster, state: State, live: dict[Ref, dict]) -> list[tuple[str, Ref]]:
    """(component, claim) of the claims that StatefulSets in `live`, all of them ours, made from their templates; they are in no manifest."""
    found = []
    for component, objects in state.record.items():
        sets = (ref for ref in map(ref_from_key, objects) if ref.builtin == "StatefulSet" and ref in live)
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
