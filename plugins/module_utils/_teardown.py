# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a platform: everything the ledger owns, but no data unless told to, and nothing that holds what is not ours."""
from __future__ import annotations

import re
import typing as t

from ._apply import CLAIMS
from ._cluster import Cluster
from ._errors import TimedOut
from ._ledger import State
from ._manifest import Ref
from ._observe import observe, recorded_types
from ._plan import DATA, ref_from_key
from ._release import Releaser
from ._types import ResourceType, group_kind, ref_of

GONE_SECONDS = 300.0
# What makes a namespace somebody's: anything else in it is derived, or the cluster's own.
TENANTS = (("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("batch", "Job"), ("batch", "CronJob"), ("", "Pod"))


def teardown(releaser: Releaser, data: bool, forget: bool) -> dict:
    """Removes the platform and waits until it is gone. `data`: the claims too; `forget`: the ledger too."""
    cluster = releaser.cluster
    state = releaser.load()
    live = observe(cluster, releaser.options.platform, state.record)
    owned = {ref: rtype for ref, rtype in recorded_types(cluster, state.record).items() if ref in live}
    kept = _kept(cluster, owned, live, data)
    claims = _claims_of_sets(cluster, state, live) if data else []
    result = releaser.tear_down(state, kept.__contains__)
    result["kept"] = [f"{ref}: {kept[ref]}" for ref in sorted(kept)]
    result["changes"] += [_claim_change(component, ref) for component, ref in claims]
    result["changed"] = result["changed"] or bool(claims)
    if releaser.options.check:
        return result
    for _component, ref in claims:
        cluster.delete(CLAIMS, ref.namespace, ref.name)
    _until_gone(releaser, [*((rtype, ref) for ref, rtype in owned.items() if ref not in kept), *((CLAIMS, ref) for _component, ref in claims)])
    if forget and not kept:
        releaser.ledger.forget()
        result.update(changed=True, ledger=["removed"])
    return {**result, "requests": dict(cluster.requests)}


def _kept(cluster: Cluster, owned: dict[Ref, ResourceType], live: dict[Ref, dict], data: bool) -> dict[Ref, str]:
    """{object: why it stays}."""
    kept = {}
    for ref in owned:
        if ref.kind in DATA and not data:
            kept[ref] = "it holds data"
        elif ref.kind == "CustomResourceDefinition" and _foreign_resources(cluster, live[ref], owned):
            kept[ref] = "there are resources of its kind that are not ours"
        elif ref.kind == "Namespace":
            why = _tenants(cluster, ref.name, owned, data)
            if why:
                kept[ref] = why
    return kept


def _foreign_resources(cluster: Cluster, definition: dict, owned: t.Container[Ref]) -> bool:
    spec = definition["spec"]
    rtype = group_kind(cluster.types().values()).get((spec["group"], spec["names"]["kind"]))
    return rtype is not None and any(ref_of(rtype, obj) not in owned for obj in cluster.list(rtype))


def _tenants(cluster: Cluster, namespace: str, owned: t.Container[Ref], data: bool) -> str:
    """What keeps a namespace of ours: data, or workloads that are not ours."""
    served = group_kind(cluster.types().values())
    claims = [] if data else cluster.list(CLAIMS, "", namespace)
    if claims:
        return f"it holds {len(claims)} claims with data"
    for key in TENANTS:
        rtype = served[key]
        for obj in cluster.list(rtype, "", namespace):
            controlled = any(owner.get("controller") for owner in obj["metadata"].get("ownerReferences") or [])
            if ref_of(rtype, obj) not in owned and not controlled:
                return f"it holds {ref_of(rtype, obj)}, which is not ours"
    return ""


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


def _until_gone(releaser: Releaser, objects: list[tuple[ResourceType, Ref]]) -> None:
    releaser.progress(f"waiting until {len(objects)} objects are gone")
    left = releaser.cluster.gone(objects, GONE_SECONDS)
    if left:
        names = ", ".join(map(str, left[:5]))
        raise TimedOut(f"deleted, but still there after {GONE_SECONDS:.0f} s: {names}. Their metadata.finalizers name who holds them")
