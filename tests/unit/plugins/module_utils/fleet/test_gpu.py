# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which node is in which pool, and how many GPUs there are."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import Pool, errors_of, hardware, inventory, matches, requested
from nodes import node

A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
MI300X = {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}


@pytest.mark.parametrize(
    ("labels", "vendor", "vendors"),
    [
        ({}, "", set()),
        ({}, "nvidia", {"nvidia"}),
        ({}, "amd", {"amd"}),
        (A100, "", {"nvidia"}),
        (MI300X, "", {"amd"}),
        ({"beta.amd.com/gpu.product-name": "x"}, "", {"amd"}),
        ({"nvidia.com/gpu.present": "true"}, "", {"nvidia"}),
        ({"nvidia.com/gpu.present": "false"}, "", set()),
        ({"feature.node.kubernetes.io/amd-gpu": "true"}, "", {"amd"}),
        ({"feature.node.kubernetes.io/pci-10de.present": "true"}, "", {"nvidia"}),
        ({"feature.node.kubernetes.io/pci-0302_10de.present": "true"}, "", {"nvidia"}),
        ({"feature.node.kubernetes.io/pci-1002_74a1.present": "true"}, "", {"amd"}),
        ({"feature.node.kubernetes.io/pci-15b3.present": "true"}, "", set()),
        (MI300X, "nvidia", {"amd", "nvidia"}),
    ],
)
def test_vendors(labels, vendor, vendors):
    assert hardware(node("n", labels, vendor=vendor)).vendors == vendors


@pytest.mark.parametrize(
    ("given", "is_in"),
    [
        ({"vendor": "nvidia"}, True),
        ({"vendor": "amd"}, False),
        ({"match": {"products": ["NVIDIA-A100-SXM4-80GB"]}}, True),
        ({"match": {"products": ["*H100*", "*A100*"]}}, True),
        ({"match": {"products": ["A100"]}}, False),
        ({"match": {"pci": ["10de"]}}, True),
        ({"match": {"pci": ["0302_10de"]}}, True),
        ({"match": {"pci": ["1002"]}}, False),
        ({"match": {"instance_types": ["p4d.*"]}}, True),
        ({"match": {"instance_types": ["p5.*"]}}, False),
        ({"match": {"resources": ["amd.com/gpu", "nvidia.com/gpu"]}}, True),
        ({"match": {"resources": ["amd.com/gpu"]}}, False),
        ({"match": {"nodes": ["gpu-?"]}}, True),
        ({"match": {"nodes": ["gpu-"]}}, False),
        ({"match": {"labels": {"rack": 7, "good": True}}}, True),
        ({"match": {"labels": {"rack": "7", "other": "x"}}}, False),
        ({"vendor": "nvidia", "match": {"products": ["*A100*"], "nodes": ["other-*"]}}, False),
        ({"vendor": "amd", "match": {"products": ["*A100*"]}}, False),
    ],
)
def test_everything_given_has_to_hold(given, is_in):
    labels = {
        **A100, "feature.node.kubernetes.io/pci-0302_10de.present": "true", "node.kubernetes.io/instance-type": "p4d.24xlarge",
        "rack": "7", "good": "true",
    }
    pool = Pool.of({"name": "p", **given})
    assert errors_of([pool]) == []
    assert matches(pool, hardware(node("gpu-1", labels))) is is_in


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"name": "p"}], "neither a vendor nor anything to match"),
        ([{"name": "p", "match": {"products": [], "labels": {}}}], "neither a vendor nor anything to match"),
        ([{"name": "p", "vendor": "amd"}, {"name": "p", "vendor": "nvidia"}], "two of that name"),
        ([{"name": "p q", "vendor": "amd"}], "'p q' is no label value"),
        ([{"name": "p", "vendor": "amd", "labels": {"a b": "c"}}], "'a b' is no label key"),
        ([{"name": "p", "vendor": "amd", "labels": {"a": "x" * 64}}], "is no label value, of a"),
        ([{"name": "p", "vendor": "amd", "taints": [{"key": "", "effect": "NoSchedule"}]}], "is no taint"),
        ([{"name": "p", "vendor": "amd", "taints": [{"key": "a", "value": v, "effect": "NoSchedule"} for v in "xy"]}], "the taint a:NoSchedule is there twice"),
    ],
)
def test_descriptions_that_cannot_be_right(given, said):
    (error,) = errors_of([Pool.of(pool) for pool in given])
    assert error.startswith("pool p") and said in error


def test_values_are_what_kubernetes_has():
    pool = Pool.of({"name": "p", "vendor": "amd", "labels": {"a": True, "b": 1, "c": None}, "spot": True})
    assert pool.labels == {"a": "true", "b": "1", "c": "", "genai.platform/spot": "true", "genai.platform/gpu-pool": "p"}


def container(gpus, **rest):
    return {"resources": {"requests": {"amd.com/gpu": str(gpus), "cpu": "1"}}, **rest}


@pytest.mark.parametrize(
    ("spec", "number"),
    [
        ({"containers": [{}]}, 0),
        ({"containers": [container(1), container(2)]}, 3),
        ({"containers": [container(1)], "initContainers": [container(4), container(2)]}, 4),
        ({"containers": [container(1)], "initContainers": [container(2, restartPolicy="Always")]}, 3),
        ({"containers": [container(1)], "initContainers": [container(2, restartPolicy="Always"), container(3)]}, 5),
    ],
)
def test_what_the_scheduler_holds_for_a_pod(spec, number):
    assert requested({"spec": spec}) == ({"amd.com/gpu": number} if number else {})


def test_inventory():
    pool = {"genai.platform/gpu-pool": "big"}
    cordoned = node("c", {**MI300X, **pool}, vendor="amd")
    cordoned["spec"]["unschedulable"] = True
    lost = node("l", {**MI300X, **pool}, vendor="amd", conditions=[{"type": "Ready", "status": "Unknown"}])
    sliced = node("m", A100, capacity={"nvidia.com/mig-1g.10gb": "7"}, allocatable={"nvidia.com/mig-1g.10gb": "6"})
    fleet = [node("a", {**MI300X, **pool}, vendor="amd"), node("b", MI300X, vendor="amd"), cordoned, lost, sliced, node("x", vendor="")]
    on_a = [("a", {"amd.com/gpu": 3}), ("a", {"amd.com/gpu": 1})]
    asked = [*on_a, ("m", {"nvidia.com/mig-1g.10gb": 2}), ("c", {"amd.com/gpu": 8}), ("gone", {"amd.com/gpu": 1})]
    product = MI300X["amd.com/gpu.product-name"]
    rows = [tuple(row.values()) for row in inventory(fleet, asked)]
    assert rows == [
        ("amd", product, "", "amd.com/gpu", 1, 8, 8, 0, 8),
        ("amd", product, "big", "amd.com/gpu", 3, 24, 24, 12, 4),
        ("nvidia", A100["nvidia.com/gpu.product"], "", "nvidia.com/mig-1g.10gb", 1, 7, 6, 2, 4),
    ]
