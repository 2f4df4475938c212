# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels and taints of nodes that others have changed since the pools of a release gave them. Nodes that no pool matches any more are
not judged: what a pool matches is others' to say, and may be away for a moment."""
from __future__ import annotations

import json
import typing as t

from ..cluster.api import Cluster
from ..engine.ledger import Ledger
from ..errors import ApiError
from ..objects.fields import ABSENT, PEOPLE, Path
from ..objects.manifest import Ref
from ..objects.types import NODES
from ..plan.drift import CHANGED, REMOVED, Finding, written_by
from .fleet import COMPONENT, Fleet, pools_in, released_pools
from .gpu import Pool, Taint, pools_of
from .guard import KEEP
from .node_plan import NODE_MANAGER, platform_of, recorded_taints
from .platform_lock import PlatformLock

UNSEEN = "labels and taints of nodes: this identity may not list nodes"


def node_findings(cluster: Cluster, manifests: t.Iterable[dict], platform: str) -> list[Finding] | None:
    """What differs on the nodes of the pools that `manifests` describe. One list of nodes where there are pools, none where not; None
    where the identity may not list nodes."""
    pools = list(map(Pool.of, pools_in(manifests)))
    if not pools:
        return []
    try:
        return [finding for node in cluster.items(NODES) for finding in of_node(node, pools, platform)]
    except ApiError as exc:
        if exc.status == 403:
            return None
        raise


def of_node(node: dict, pools: t.Sequence[Pool], platform: str) -> list[Finding]:
    """Only where we have written to the node: one that is new is the next release's. And only what people have changed since, or what is
    gone: what gpu_nodes has left to a controller, or to whoever was before us, is no drift."""
    found = pools_of(pools, node)
    if len(found) != 1 or platform_of(node) != platform:
        return []
    written = max((entry.get("time", "") for entry in node["metadata"].get("managedFields") or [] if entry["manager"] == NODE_MANAGER), default="")
    ours = recorded_taints(node)
    ref, labels = Ref("", "Node", "", node["metadata"]["name"]), node["metadata"].get("labels") or {}
    differing = [_finding(ref, node, ("f:metadata", "f:labels", f"f:{key}"), value, labels.get(key, ABSENT)) for key, value in found[0].labels.items()]
    taints = {taint.id: taint for taint in map(Taint.of, (node.get("spec") or {}).get("taints") or [])}
    for taint in (taint for taint in found[0].taints if taint.id in ours):
        key = "k:" + json.dumps({"key": taint.key, "effect": taint.effect})
        now = str(taints[taint.id]) if taint.id in taints else ABSENT
        differing.append(_finding(ref, node, ("f:spec", "f:taints", key), str(taint), now))
    return [each for each in differing if each.found != each.expected and (each.kind == REMOVED or (each.by.startswith(PEOPLE) and each.at >= written))]


def _finding(ref: Ref, node: dict, path: Path, wanted: str, now: t.Any) -> Finding:
    others = [entry for entry in node["metadata"].get("managedFields") or [] if entry["manager"] != NODE_MANAGER]
    return Finding(ref, COMPONENT, REMOVED if now is ABSENT else CHANGED, path, wanted, now, **written_by(others, path))


def put_back(cluster: Cluster, ledger: Ledger, platform: str, names: t.Collection[str], by: str) -> None:
    """Gives these nodes the labels and taints of the pools that are released again, whoever has changed them. Raises NodesFailed, naming
    those that could not be written, and Busy where another run has released other pools meanwhile."""

    def released() -> list[Pool]:
        return list(map(Pool.of, released_pools(ledger, "current") or ()))

    lock = PlatformLock(cluster, ledger, by)
    chosen = frozenset(names)
    Fleet(cluster, released(), emptied_pools=KEEP, lock=lock, pools_again=released, platform=platform, force=True, only=chosen).apply()
