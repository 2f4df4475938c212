# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one run does not do to a fleet without having been told to. Pure.

What a pool matches are mostly labels of others, and those are away for a while at times: node feature discovery takes all of its own
off every node when its master is restarted. So a pool whose nodes match no more is more likely an accident than a wish.
"""
from __future__ import annotations

import collections
import typing as t

from ..errors import InvalidInput
from ..plan.limit import limit, named
from .node_plan import NodePlan

REFUSE, KEEP, ALLOW = "refuse", "keep", "allow"  # what to do about a pool that would lose all of its nodes

AWAY = (
    "The labels that it is matched by may be away for a moment, as when node feature discovery is restarted: see kubectl get nodes"
    " --show-labels, and run again when they are back. Else correct what the pool matches"
)


def left(plans: t.Iterable[NodePlan], pools: t.Collection[str]) -> dict[str, list[str]]:
    """{a pool of the description: its nodes that are in no pool any more}. A node that goes over to another pool has not left."""
    found = collections.defaultdict(list)
    for plan in plans:
        if plan.was in pools and not plan.pool:
            found[plan.was].append(plan.name)
    return dict(found)


def emptied(plans: t.Sequence[NodePlan], pools: t.Collection[str]) -> dict[str, list[str]]:
    """Of `left`, the pools that no node at all is in any more."""
    filled = {plan.pool for plan in plans}
    return {pool: nodes for pool, nodes in left(plans, pools).items() if pool not in filled}


def refuse_emptied(losing: dict[str, list[str]]) -> None:
    """Raises InvalidInput when there are such pools. `losing`: see `emptied`."""
    if losing:
        lines = [f"pool {pool}: no node matches it any more, and {named(nodes)} would be taken out of it" for pool, nodes in sorted(losing.items())]
        raise InvalidInput(
            "a pool would lose all of its nodes, nothing was written:\n- " + "\n- ".join(lines)
            + f"\n{AWAY}, or take the pool out of the description. If it is to be empty: emptied_pools={ALLOW}"
            f" (-e gpu_nodes_emptied_pools={ALLOW})", emptied_pools=losing,
        )


def refuse_thinned(plans: t.Sequence[NodePlan], pools: t.Collection[str], max_changed: str) -> None:
    """Raises InvalidInput when a pool would lose most of its nodes. A percentage that never means fewer than a handful protects no small pool."""
    sizes = collections.Counter(plan.was for plan in plans)
    losing = {pool: nodes for pool, nodes in left(plans, pools).items() if len(nodes) > _most(sizes[pool], max_changed)}
    if losing:
        lines = [f"pool {pool}: {len(nodes)} of {sizes[pool]}, {named(nodes)}" for pool, nodes in sorted(losing.items())]
        raise InvalidInput(
            "a pool would lose most of its nodes, which no pool matches any more, nothing was written:\n- " + "\n- ".join(lines)
            + f"\n{AWAY}. If that is meant, give max_changed as a number, or 100% (-e gpu_nodes_max_changed=100%)", thinned_pools=losing,
        )


def _most(size: int, max_changed: str) -> int:
    """How many nodes a pool of `size` may lose: half of them, or the percentage where that is more. A number is meant as it is."""
    return max(size // 2, size * int(max_changed[:-1]) // 100) if max_changed.endswith("%") else size


def refuse_too_many(plans: t.Iterable[NodePlan], max_changed: str) -> None:
    """Raises InvalidInput when more of the nodes that have something of ours would change than `max_changed` allows."""
    known = [plan for plan in plans if plan.known]
    changed = [plan.name for plan in known if plan.patch]
    most = limit(max_changed, len(known), "max_changed")
    if len(changed) > most:
        raise InvalidInput(
            f"{len(changed)} of the {len(known)} nodes that have labels or taints of ours would change, and max_changed={max_changed} allows {most}. "
            f"Nothing was written. They are {named(changed)}. If that is meant, raise max_changed", would_change=changed,
        )


def warnings(empty: t.Iterable[str], kept: dict[str, str], taken: dict[str, set[str]]) -> list[str]:
    """For people. `empty`: pools that match no node. `kept`: {node: pool} of nodes that stay as they are though their pool matches them no
    more. `taken`: {a pool that has no node: the other platforms that have all those that it matches}."""
    nodes = collections.defaultdict(list)
    for node, pool in sorted(kept.items()):
        nodes[pool].append(node)
    found = [f"pool {pool} matches {named(names)} no more; they stay as they are. {AWAY}" for pool, names in sorted(nodes.items())]
    found += [f"pool {pool} has no node: all that it matches are of platform {', '.join(sorted(names))}" for pool, names in sorted(taken.items())]
    never = sorted(set(empty) - set(nodes))
    return found + [f"pool {pool} matches no node: compare what it matches with kubectl get nodes --show-labels" for pool in never]
