# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Labels and taints of nodes that people have changed; what gpu_nodes has left to others is no drift."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import Pool
from ansible_collections.genai.platform.plugins.module_utils.fleet.node_drift import of_node
from ansible_collections.genai.platform.plugins.module_utils.fleet.node_plan import plan_node
from nodes import node, patched

TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
POOL = Pool.of({"name": "l4", "vendor": "nvidia", "labels": {"tier": "hot"}, "taints": [TAINT]})


def written(found, platform="genai"):
    """The node as gpu_nodes has left it."""
    return patched(found, plan_node(found, POOL, platform).patch, "genai.platform-gpu")


def at(found, **times):
    for entry in found["metadata"]["managedFields"]:
        entry["time"] = times.get(entry["manager"].replace("-", "_").replace(".", "_"), "2026-01-01T00:00:10Z")
    return found


def label(found, value, manager, time="2026-01-01T00:00:20Z"):
    return at(patched(found, {"metadata": {"labels": {"tier": value}}}, manager), **{manager.replace("-", "_"): time})


OURS = at(written(node("one")))


@pytest.mark.parametrize("found, said", [
    (OURS, []),
    (label(OURS, "cold", "kubectl-label"), ["metadata.labels.tier: hot became cold, by kubectl-label at 2026-01-01T00:00:20Z"]),
    (label(OURS, None, "kubectl-label"), ["metadata.labels.tier: hot was removed"]),
    (at(written(node("one", {"tier": "cold"}, manager="nfd-master"))), []),  # it was there before, and gpu_nodes left it alone
    (label(OURS, "cold", "nfd-master"), []),  # a controller would only write it again
    (at(written(label(node("one"), "cold", "kubectl-label", "2026-01-01T00:00:05Z")), kubectl_label="2026-01-01T00:00:05Z"), []),
    (node("two"), []),  # new, and the next release's
], ids=["as it was given", "a person", "gone", "a controller before", "a controller since", "a person before", "never written"])
def test_whose_labels_are_drift(found, said):
    assert [each.line().partition("one: ")[2].partition(", by unknown")[0] for each in of_node(found, [POOL], "genai")] == said


def test_taints_and_who_else_is_not_judged():
    without = {**OURS, "spec": {"taints": []}}
    (found,) = of_node(without, [POOL], "genai")
    assert (found.kind, found.expected) == ("removed", "gpu=yes:NoSchedule") and "spec.taints[key=gpu,effect=NoSchedule]" in found.line()
    assert of_node(without, [POOL, Pool.of({"name": "all", "match": {"nodes": ["*"]}})], "genai") == [], "in two pools: the next release says so"
    assert of_node(written(node("one"), "other"), [POOL], "genai") == [], "another platform's"
