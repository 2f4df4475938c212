# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings all nodes of a cluster to their pools: one list, and a patch for each node that needs one, many at a time.

Where nothing has to be done, nothing but that list is asked for. Else the platform's lock is taken first, and the nodes are looked at
again under it, so that no two runs write to them at a time.
"""
from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import typing as t

from ..checks.permissions import Permission, require
from ..cluster.api import Cluster
from ..engine.ledger import Ledger
from ..errors import ApiError, Busy, Interrupted, InvalidInput, LockLost, NodesFailed, PlatformError, Unreachable
from ..objects.types import NODES, PODS
from ..plan.limit import NAMED, named
from .gpu import Hardware, Pool, errors_of, hardware, inventory, pools_of, requested
from .guard import KEEP, REFUSE, emptied, refuse_emptied, refuse_thinned, refuse_too_many, warnings
from .node_plan import NODE_MANAGER, NodePlan, plan_node
from .platform_lock import PlatformLock

HOLDING = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"  # the pods that hold what they asked for
NODE_ATTEMPTS = 6  # at one node that others write to, too
UNSEEN_NODES = "the ledger knows of no release with pools of GPU nodes, and the identity used may not list nodes: none was looked at"
COMPONENT, CONFIG_MAP, KEY = "gpu_nodes", "gpu-pools", "pools.json"  # where a release keeps the pools: see the role gpu_nodes


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one node: `error` says what went wrong, `gone` that somebody deleted it meanwhile, `kept` that its pool ceased to
    match it meanwhile and it was left as it is, `other` the platform that was faster to take it."""

    plan: NodePlan
    gone: bool = False
    kept: bool = False
    error: str = ""
    other: str = ""


@dataclasses.dataclass(frozen=True)
class Survey:
    """The nodes as one list had them, and what is to become of them. `kept`: {node: pool} of those that stay though the pool matches them no more.
    `others`: a plan for each pool and each node of another platform that it matches; no node of another platform is in the rest."""

    nodes: list[Hardware]
    plans: list[NodePlan]
    kept: dict[str, str]
    others: list[NodePlan]
    only: frozenset[str] | None = None

    @property
    def todo(self) -> list[NodePlan]:
        return [plan for plan in self.plans if plan.patch and plan.name not in self.kept and (self.only is None or plan.name in self.only)]


@dataclasses.dataclass
class Fleet:
    """All nodes of a cluster.

    `max_changed`: of the nodes that are ours already, as `limit` reads it. `emptied_pools`: what to do about a pool that would lose all
    of its nodes, REFUSE, KEEP or ALLOW. `lock`: taken while nodes are written, if given; `pools_again` then reads the pools anew.
    `platform`: whose pools they are; nodes of another one are left alone. `needless`: asked when the nodes may not be listed, whether
    there is nothing to do on them anyway. `force`: whether what others have put in the place of ours goes. `only`: the nodes that are
    written to, all when None.
    """

    cluster: Cluster
    pools: list[Pool]
    max_changed: str = "100%"
    check: bool = False
    progress: t.Callable[[str], None] = lambda _line: None
    emptied_pools: str = REFUSE
    lock: PlatformLock | None = None
    pools_again: t.Callable[[], list[Pool] | None] | None = None
    platform: str = "genai"
    needless: t.Callable[[], bool] = lambda: False
    force: bool = False
    only: frozenset[str] | None = None

    def apply(self) -> dict:
        """Raises InvalidInput, NotPermitted or Busy before any write, NodesFailed (with the same result as facts) when nodes could not be
        written."""
        _refuse("the pools cannot be right, nothing was written", errors_of(self.pools))
        try:
            survey = self._survey()
        except ApiError as exc:
            if exc.status != 403 or not self.needless():
                raise
            return {"changed": False, "lines": [UNSEEN_NODES], "requests": dict(self.cluster.requests)}
        if survey.todo:
            needs = self.lock.needs() if self.lock else set()
            require(self.cluster, {Permission("patch", NODES.group, NODES.plural), *needs})
        if self.check or not survey.todo:
            return self._result(survey, [Outcome(plan) for plan in survey.todo])
        with self.lock.held() if self.lock else contextlib.nullcontext(False) as locked:
            if locked:
                survey = self._look_again()
            outcomes = self._write(survey.todo)
        return self._result(survey, outcomes)

    def _look_again(self) -> Survey:
        """What was looked at without the lock may have been in the middle of another run."""
        if self.pools_again and self.pools_again() != self.pools:
            raise Busy("another run changed this platform while this one was planning. Nothing was written; run again")
        return self._survey()

    def _survey(self) -> Survey:
        """Raises InvalidInput for what nobody is likely to have meant."""
        nodes, plans, others = self._look()
        names = {pool.name for pool in self.pools}
        losing = emptied(plans, names)
        if self.emptied_pools == REFUSE:
            refuse_emptied(losing)
        kept = {node: pool for pool, lost in losing.items() for node in lost if self.emptied_pools == KEEP}
        touched = [plan for plan in plans if plan.name not in kept]
        refuse_too_many(touched, self.max_changed)
        refuse_thinned(touched, names - losing.keys(), self.max_changed)
        return Survey(nodes, plans, kept, others, self.only)

    def _look(self) -> tuple[list[Hardware], list[NodePlan], list[NodePlan]]:
        """What the nodes are, what is to become of them, and those that a pool matches and another platform has. Of a node itself nothing
        is kept, there may be very many."""
        nodes, plans, others, several = [], [], [], []
        for node in self.cluster.items(NODES):
            plan, pools = self._plan(node)
            if plan.other:
                others += [dataclasses.replace(plan, pool=name) for name in pools]
                continue
            nodes.append(hardware(node))
            plans.append(plan)
            if len(pools) > 1 and (self.only is None or plan.name in self.only):
                several.append(f"node {plan.name}: {', '.join(pools)}")
        _refuse("nodes are in more than one pool, nothing was written", sorted(several))
        return nodes, plans, others

    def _plan(self, node: dict) -> tuple[NodePlan, list[str]]:
        """(the plan, the pools that match the node). More than one pool makes no good plan, unless another platform has the node."""
        found = pools_of(self.pools, node)
        return plan_node(node, found[0] if found else None, self.platform, self.force), [pool.name for pool in found]

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write(self, todo: list[NodePlan]) -> list[Outcome]:
        if todo:
            self.progress(f"writing to {len(todo)} nodes")
        lost: list[str] = []  # why nothing more is to be written

        def write(plan: NodePlan) -> Outcome:
            if lost:
                return Outcome(plan, error=f"not tried: {lost[0]}")
            try:
                return self._write_one(plan)
            except (Unreachable, LockLost) as exc:
                lost.append(exc.message)  # the others would only meet the same
                return Outcome(plan, error=exc.message)
            except PlatformError as exc:
                return Outcome(plan, error=exc.message)

        try:
            return self.cluster.each(write, todo)
        except Interrupted as exc:
            lost.append(exc.message)  # those that wait for their turn: the lock goes with this run
            raise Interrupted(f"{exc.message}, some of {len(todo)} nodes may be written, run again for the rest", changed=True) from exc

    def _write_one(self, plan: NodePlan) -> Outcome:
        """Patches the very version of the node that was planned for; whoever was faster is read, and planned for, anew."""
        for _attempt in range(NODE_ATTEMPTS):
            if self.lock:
                self.lock.check()
            try:
                self.cluster.patch(NODES, "", plan.name, plan.patch, NODE_MANAGER)
                return Outcome(plan)
            except ApiError as exc:
                if exc.status not in (404, 409):
                    raise
            node = self.cluster.get(NODES, "", plan.name)
            if node is None:
                return Outcome(plan, gone=True)
            again = self._plan_again(node)
            if again.other:
                return Outcome(again, other=again.other)
            if plan.pool and not again.pool:
                return Outcome(plan, kept=True)  # its labels went just now: a later run sees whether they stay away
            if not again.patch:
                return Outcome(plan)  # what seemed refused had arrived
            plan = again
        return Outcome(plan, error=f"others wrote to it {NODE_ATTEMPTS} times while this run tried to")

    def _plan_again(self, node: dict) -> NodePlan:
        plan, pools = self._plan(node)
        if len(pools) > 1 and not plan.other:
            raise InvalidInput(f"it is in more than one pool by now: {', '.join(pools)}")
        return plan

    # --- the result --------------------------------------------------------------------------------------------------

    def _result(self, survey: Survey, outcomes: list[Outcome]) -> dict:
        failed = {outcome.plan.name: outcome.error for outcome in outcomes if outcome.error}
        kept = {**survey.kept, **{outcome.plan.name: outcome.plan.pool for outcome in outcomes if outcome.kept}}
        lost = {outcome.plan.name for outcome in outcomes if outcome.other}
        others = [*survey.others, *(outcome.plan for outcome in outcomes if outcome.other and outcome.plan.pool)]
        pool_of = {plan.name: plan.pool for plan in survey.plans if plan.pool and plan.name not in kept.keys() | lost}
        changes = grouped([outcome.plan for outcome in outcomes if not (outcome.error or outcome.gone or outcome.kept or outcome.other)])
        taken = {pool: {plan.other for plan in others if plan.pool == pool} for pool in {plan.pool for plan in others} - set(pool_of.values())}
        empty = sorted({pool.name for pool in self.pools} - set(pool_of.values()) - taken.keys())
        result = {
            "changed": bool(changes),
            "nodes": pool_of,
            "unmatched": [
                {"node": node.name, "vendor": ", ".join(sorted(node.vendors)), "product": node.product}
                for node in survey.nodes if node.vendors and node.name not in pool_of.keys() | lost
            ],
            "empty_pools": empty,
            "kept": kept,
            "other_platforms": {plan.name: plan.other for plan in sorted(others, key=lambda plan: plan.name)},
            "conflicts": [dataclasses.asdict(conflict) for plan in survey.plans for conflict in plan.conflicts],
            "changes": changes,
            "gone": sorted(outcome.plan.name for outcome in outcomes if outcome.gone),
            "failed_nodes": failed,
            "requests": dict(self.cluster.requests),
        }
        warned = warnings(empty, kept, taken) + (self.lock.warnings if self.lock else [])
        if warned:  # AnsibleModule does not want even an empty list
            result["warnings"] = warned
        result["lines"] = fleet_lines(result, self.check)
        if failed:
            said = "\n".join(f"- {name}: {error}" for name, error in sorted(failed.items())[:NAMED])
            more = f"\n- and {len(failed) - NAMED} more, see failed_nodes" if len(failed) > NAMED else ""
            raise NodesFailed(f"{len(failed)} of {len(outcomes)} nodes could not be written, the others are as they have to be:\n{said}{more}", **result)
        return result


def _refuse(why: str, errors: list[str]) -> None:
    if errors:
        raise InvalidInput(f"{why}:\n- " + "\n- ".join(errors), errors=errors)


def grouped(plans: list[NodePlan]) -> list[dict]:
    """The same change of many nodes once: {pool, before, after, nodes}."""
    groups: dict[str, list[NodePlan]] = collections.defaultdict(list)
    for plan in plans:
        groups[json.dumps([plan.pool, plan.before, plan.after], sort_keys=True)].append(plan)
    return [
        {"pool": some[0].pool, "before": some[0].before, "after": some[0].after, "nodes": [plan.name for plan in some]}
        for _key, some in sorted(groups.items())
    ]


def nodes_diff(change: dict) -> dict:
    """One Ansible diff of a change that nodes have in common."""
    head = f"{change['pool'] or 'no pool'}: {len(change['nodes'])} nodes, {named(change['nodes'])}"
    sides = {side: json.dumps(change[side], indent=1, sort_keys=True) + "\n" for side in ("before", "after")}
    return {"before_header": head, "after_header": head, **sides}


def fleet_lines(result: dict, check: bool) -> list[str]:
    """A result for people."""
    touched: collections.Counter[str] = collections.Counter()
    for change in result["changes"]:
        touched[change["pool"]] += len(change["nodes"])
    counts = {**dict.fromkeys(result["empty_pools"], 0), **collections.Counter(result["nodes"].values())}
    verb = "would change" if check else "changed"
    found = [f"{pool}: {count} nodes, {touched[pool]} {verb}" if count else f"{pool}: no node matches it" for pool, count in sorted(counts.items())]
    found += [f"no pool: {touched['']} nodes {verb}"] if touched[""] else []
    found += [f"no pool matches {item['node']} ({item['vendor']} {item['product']})".replace(" )", ")") for item in result["unmatched"][:NAMED]]
    found += [f"no pool matches {len(result['unmatched']) - NAMED} more GPU nodes"] if len(result["unmatched"]) > NAMED else []
    found += [f"left as they are, though their pools match them no more: {named(sorted(result['kept']))}"] if result["kept"] else []
    by_platform = collections.Counter(result["other_platforms"].values())
    found += [f"left alone: {count} nodes of platform {platform}" for platform, count in sorted(by_platform.items())]
    found += [f"deleted meanwhile: {named(result['gone'])}"] if result["gone"] else []
    by_manager = collections.Counter((item["field"], item["key"], item["manager"]) for item in result["conflicts"])
    found += [f"left alone: {field} {key} of {manager} on {count} nodes" for (field, key, manager), count in sorted(by_manager.items())]
    return [*found, f"requests: {json.dumps(result['requests'], sort_keys=True)}"]


# --- what a release has kept -----------------------------------------------------------------------------------------


def released_pools(ledger: Ledger, which: str) -> list[dict] | None:
    """The pools as a release describes them: `current`, or as `to` of a rollback. None when no kept release has any."""
    state, _journal = ledger.load()
    if not any(COMPONENT in release["components"] for release in state.releases):
        return None
    release = state.current if which == "current" else state.find(which)
    revision = release["components"].get(COMPONENT) if release else None
    manifests = ledger.manifests(COMPONENT, revision) if revision else []
    return pools_in(manifests)


def pools_in(manifests: t.Iterable[dict]) -> list[dict]:
    """The pools that manifests of the component describe."""
    return [pool for item in manifests if item["metadata"]["name"] == CONFIG_MAP for pool in json.loads(item["data"][KEY])]


def ever_released(ledger: Ledger) -> bool:
    """Whether any release that the ledger knows of had pools, those that it keeps no more among them."""
    state, _journal = ledger.load()
    return COMPONENT in state.revisions or any(COMPONENT in release["components"] for release in state.releases)


# --- looking ---------------------------------------------------------------------------------------------------------


def gpus(cluster: Cluster) -> list[dict]:
    """The rows of `inventory`. Of a pod nothing is kept but what it asks for: there may be very many."""
    nodes = cluster.list(NODES)
    asked = ((pod["spec"]["nodeName"], requested(pod)) for pod in cluster.items(PODS, fields=HOLDING))
    return inventory(nodes, asked)
