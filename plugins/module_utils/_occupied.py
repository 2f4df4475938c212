# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a namespace that is about to go holds anything that is not ours: whatever it is, it would go with it."""
from __future__ import annotations

import typing as t

from ._cluster import Cluster
from ._errors import ApiError
from ._manifest import LABEL_PLATFORM, Ref
from ._references import BUILT_IN
from ._types import ResourceType, ref_of

CLAIMS = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)
SHOWN = 3
# What a cluster derives, or puts into every namespace by itself.
DERIVED_KINDS = {"Event", "Endpoints", "EndpointSlice", "Lease", "ControllerRevision"}
DERIVED_GROUPS = ("metrics.k8s.io", "custom.metrics.k8s.io", "events.k8s.io", "authorization.k8s.io")
TOKEN_OF = "kubernetes.io/service-account.name"  # annotates the token of a ServiceAccount, which goes with it
# What an identity that may not look has to be able to rule out; of other kinds it is believed that there is nothing.
MUST_SEE = ("Secret", "ConfigMap", "PersistentVolumeClaim", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")


def occupied(cluster: Cluster, namespace: str, platform: str, ours: t.Container[Ref] = (), claims: bool = True) -> str:
    """Why a namespace has to stay; '' when everything in it is the platform's own or derived from that.

    `ours`: objects that are ours whatever their labels say. `claims`: whether claims keep it whoever made them, for the data in them.
    Asks for the names of every kind that the cluster serves, one after the other: it may run in a thread of the pool.
    """
    held = cluster.list(CLAIMS, "", namespace, metadata=True) if claims else []
    if held:
        return f"it holds {len(held)} claims with data"
    kinds = {(rtype.group, rtype.kind): rtype for rtype in cluster.types().values() if _matters(rtype)}
    strangers: list[str] = []
    for rtype in kinds.values():
        strangers += _strangers(cluster, rtype, namespace, platform, ours)
    if not strangers:
        return ""
    more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
    return f"it holds {', '.join(strangers[:SHOWN])}{more}, which {'is' if len(strangers) == 1 else 'are'} not ours"


def _matters(rtype: ResourceType) -> bool:
    return rtype.namespaced and rtype.listable and rtype.kind not in DERIVED_KINDS and rtype.group not in DERIVED_GROUPS


def _strangers(cluster: Cluster, rtype: ResourceType, namespace: str, platform: str, ours: t.Container[Ref]) -> list[str]:
    try:
        found = cluster.list(rtype, f"{LABEL_PLATFORM}!={platform}", namespace, metadata=True)
    except ApiError as exc:
        if exc.status == 403 and rtype.kind in MUST_SEE:
            return [f"perhaps {rtype.plural} (this identity may not list them)"]
        if exc.status in (403, 404, 405):
            return []
        raise
    return [str(ref_of(rtype, obj)) for obj in found if ref_of(rtype, obj) not in ours and not _derived(rtype, obj["metadata"])]


def _derived(rtype: ResourceType, meta: dict) -> bool:
    if meta.get("deletionTimestamp"):
        return True  # it is leaving by itself
    return (rtype.kind, meta["name"]) in BUILT_IN or bool(meta.get("ownerReferences")) or TOKEN_OF in (meta.get("annotations") or {})
