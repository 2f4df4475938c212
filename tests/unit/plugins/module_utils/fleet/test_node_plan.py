# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What changes on one node: what a pool asks for, what is stale, and nothing of anybody else's."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import LABEL_POOL, Pool, Taint
from ansible_collections.genai.platform.plugins.module_utils.fleet.node_plan import ANNOTATION_PLATFORM, ANNOTATION_TAINTS, NODE_MANAGER, plan_node as plan_for
from hypothesis import given, settings
from hypothesis import strategies as st
from nodes import node, own, patched

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def pool(labels=None, taints=(), name="big"):
    return Pool.of({"name": name, "vendor": "nvidia", "labels": labels or {}, "taints": taints})


def plan_node(live, wanted, platform="ours"):
    return plan_for(live, wanted, platform)


def applied(live, wanted, platform="ours"):
    return patched(live, plan_node(live, wanted, platform).patch, NODE_MANAGER)


def unmarked(live):
    """As an older version has written it."""
    live["metadata"]["annotations"].pop(ANNOTATION_PLATFORM)
    return live


def test_a_pool_comes_and_goes():
    bare = node("n", {"os": "linux"}, [NOT_READY])
    live = applied(bare, pool({"gpu-type": "a100"}, [GPU]))
    assert live["metadata"]["labels"] == {"os": "linux", "gpu-type": "a100", LABEL_POOL: "big"}
    assert live["spec"]["taints"] == [NOT_READY, GPU]
    assert not plan_node(live, pool({"gpu-type": "a100"}, [GPU])).patch
    again = applied(live, None)
    assert (again["metadata"]["labels"], again["metadata"]["annotations"], again["spec"]) == ({"os": "linux"}, {}, bare["spec"])


def test_a_patch_is_for_one_version_and_names_only_what_changes():
    live = applied(node("n"), pool({"a": "1", "b": "1", "c": "1"}))
    plan = plan_node(live, pool({"a": "1", "b": "2"}))
    assert plan.patch == {"metadata": {"labels": {"b": "2", "c": None}, "resourceVersion": live["metadata"]["resourceVersion"]}}
    assert (plan.before["labels"], plan.after["labels"]) == ({"b": "1", "c": "1"}, {"b": "2"})
    assert plan.known and not plan_node(node("n"), pool()).known


def test_labels_of_others():
    live = applied(node("n", {"tier": "gold", "same": "x"}, manager="nfd-master"), pool({"tier": "silver", "same": "x", "mine": "1"}))
    assert live["metadata"]["labels"] == {"tier": "gold", "same": "x", "mine": "1", LABEL_POOL: "big"}
    (conflict,) = plan_node(live, pool({"tier": "silver"})).conflicts
    assert str(conflict) == "label tier is 'gold' by nfd-master, not 'silver'"
    assert applied(live, None)["metadata"]["labels"] == {"tier": "gold", "same": "x"}


def test_a_label_that_somebody_has_taken_over_is_theirs():
    live = patched(applied(node("n"), pool({"tier": "gold"})), {"metadata": {"labels": {"tier": "lead"}}}, "kubectl-label")
    (conflict,) = plan_node(live, pool({"tier": "gold"})).conflicts
    assert conflict.manager == "kubectl-label"
    assert applied(live, None)["metadata"]["labels"] == {"tier": "lead"}


def test_a_label_that_two_own_is_not_removed():
    live = applied(node("n"), pool({"tier": "gold"}))
    own(live, "tier", "argocd")
    assert applied(live, None)["metadata"]["labels"] == {"tier": "gold"}


@pytest.mark.parametrize(
    ("change", "was"),
    [
        (lambda live: live, "big"),
        (lambda live: patched(live, {"metadata": {"labels": {LABEL_POOL: "mine"}}}, "kubectl-label"), ""),
        (lambda live: own(live, LABEL_POOL, "argocd") or live, "big"),
        (lambda live: {**live, "metadata": {**live["metadata"], "managedFields": []}}, "big"),
        (lambda live: {**applied(node("n"), pool()), "metadata": {**applied(node("n"), pool())["metadata"], "managedFields": []}}, "big"),
        (lambda live: node("n", {LABEL_POOL: "big"}, manager="kubectl-label"), ""),
        (lambda live: node("n"), ""),
    ],
    ids=["ours", "taken over", "owned by two", "owned by nobody known, our taint tells", "and our mark does", "never ours", "new"],
)
def test_the_pool_that_a_node_was_put_into(change, was):
    assert plan_node(change(applied(node("n"), pool(taints=[GPU]))), None).was == was


@pytest.mark.parametrize(("value", "conflicts"), [("yes", 0), ("no", 1)])
def test_taints_of_others(value, conflicts):
    theirs = {**GPU, "value": value}
    plan = plan_node(node("n", taints=[theirs]), pool(taints=[GPU]))
    assert "spec" not in plan.patch and ANNOTATION_TAINTS not in plan.patch["metadata"]["annotations"]
    assert len(plan.conflicts) == conflicts
    assert applied(node("n", taints=[theirs]), None)["spec"]["taints"] == [theirs]


def test_our_taint_gets_another_value():
    live = applied(node("n", taints=[NOT_READY]), pool(taints=[GPU]))
    assert applied(live, pool(taints=[{**GPU, "value": "no"}]))["spec"]["taints"] == [NOT_READY, {**GPU, "value": "no"}]


def test_our_taint_that_was_removed_by_hand_comes_back():
    live = applied(node("n"), pool(taints=[GPU]))
    live["spec"]["taints"] = [NOT_READY]
    assert applied(live, pool(taints=[GPU]))["spec"]["taints"] == [NOT_READY, GPU]


@pytest.mark.parametrize("text", ["", "{", "3", "null", "[1]", '["gpu:NoSchedule", {}]'])
def test_an_annotation_that_was_spoilt(text):
    live = node("n", taints=[GPU])
    live["metadata"]["annotations"][ANNOTATION_TAINTS] = text
    after = applied(live, pool(taints=[GPU]))
    assert after["spec"]["taints"] == [GPU] and not plan_node(after, pool(taints=[GPU])).patch


# --- whose a node is -------------------------------------------------------------------------------------------------


LABELS_ONLY, TAINTS_TOO = {"gpu-type": "a100"}, [GPU]


@pytest.mark.parametrize(
    ("live", "wanted", "mark"),
    [
        (lambda: node("n"), pool(LABELS_ONLY), "ours"),
        (lambda: node("n"), pool(taints=TAINTS_TOO), "ours"),
        (lambda: node("n"), None, None),
        (lambda: node("n", {LABEL_POOL: "big"}), pool(), None),
        (lambda: node("n", {LABEL_POOL: "big"}), pool(taints=TAINTS_TOO), "ours"),
        (lambda: applied(node("n"), pool(LABELS_ONLY, TAINTS_TOO)), pool(), "ours"),
        (lambda: applied(node("n"), pool(LABELS_ONLY, TAINTS_TOO)), None, None),
        (lambda: unmarked(applied(node("n"), pool(LABELS_ONLY))), pool(LABELS_ONLY), None),
        (lambda: unmarked(applied(node("n"), pool(LABELS_ONLY))), pool(LABELS_ONLY, TAINTS_TOO), "ours"),
        (lambda: unmarked(applied(node("n"), pool({**LABELS_ONLY, "old": "1"}))), pool(LABELS_ONLY), "ours"),
        (lambda: unmarked(applied(node("n"), pool(LABELS_ONLY, TAINTS_TOO))), None, None),
        (lambda: patched(applied(node("n"), pool()), {"metadata": {"labels": {LABEL_POOL: None}}}, "kubectl-label"), None, None),
        (lambda: patched(applied(node("n"), pool()), {"metadata": {"labels": {LABEL_POOL: "mine"}}}, "kubectl-label"), pool(), None),
    ],
    ids=[
        "labelled", "tainted", "in no pool", "all was there by others", "a taint alone is ours", "some goes", "all goes",
        "unmarked, nothing to do", "unmarked, something comes", "unmarked, something goes", "unmarked, all goes",
        "the last label went by hand", "the last label was taken over",
    ],
)
def test_the_mark_of_a_platform(live, wanted, mark):
    after = applied(live(), wanted)
    assert after["metadata"]["annotations"].get(ANNOTATION_PLATFORM) == mark
    assert not plan_node(after, wanted).patch


def test_a_mark_alone_is_no_reason_to_write():
    wanted = pool(LABELS_ONLY, TAINTS_TOO)
    plan = plan_node(unmarked(applied(node("n"), wanted)), wanted)
    assert (plan.patch, plan.known, plan.was) == ({}, True, "big")


def test_the_mark_goes_for_one_version_too():
    live = patched(applied(node("n"), pool()), {"metadata": {"labels": {LABEL_POOL: None}}}, "kubectl-label")
    version = live["metadata"]["resourceVersion"]
    assert plan_node(live, None).patch == {"metadata": {"annotations": {ANNOTATION_PLATFORM: None}, "resourceVersion": version}}


@pytest.mark.parametrize("wanted", [None, pool(LABELS_ONLY, TAINTS_TOO), pool({"gpu-type": "h100"}), pool(name="small")])
def test_a_node_of_another_platform_is_left_alone(wanted):
    plan = plan_node(applied(node("n"), pool(LABELS_ONLY, TAINTS_TOO), "acme"), wanted)
    assert (plan.patch, plan.conflicts, plan.known, plan.was, plan.other) == ({}, [], False, "", "acme")


def test_what_another_platform_has_given_back_is_free():
    live = applied(applied(node("n"), pool(LABELS_ONLY, TAINTS_TOO), "acme"), None, "acme")
    assert applied(live, pool())["metadata"]["annotations"] == {ANNOTATION_PLATFORM: "ours"}


KEYS = st.sampled_from(["a", "b", "c", "d"])
LABELS = st.dictionaries(KEYS, st.sampled_from(["1", "2"]))
TAINTS = st.lists(
    st.fixed_dictionaries({"key": KEYS, "value": st.sampled_from(["1", "2"]), "effect": st.sampled_from(["NoSchedule", "NoExecute"])}),
    max_size=4, unique_by=lambda item: Taint.of(item).id,
)
POOLS = st.none() | st.builds(pool, LABELS, TAINTS, st.sampled_from(["big", "small"]))


@settings(max_examples=200, deadline=None)
@given(LABELS, TAINTS, st.lists(st.tuples(POOLS, LABELS), max_size=4))
def test_a_plan_carried_out_leaves_nothing_to_do_and_others_alone(labels, taints, steps):
    """Pools come and go, and other hands label in between: whatever belongs to others is never touched."""
    live = node("n", labels, taints)
    for wanted, by_hand in steps:
        before = {key: value for key, value in live["metadata"]["labels"].items() if NODE_MANAGER not in _managers(live, key)}
        live = applied(live, wanted)
        assert not plan_node(live, wanted).patch
        assert before.items() <= live["metadata"]["labels"].items()
        assert all(item in live["spec"]["taints"] for item in taints)
        live = patched(live, {"metadata": {"labels": by_hand}}, "somebody")
    after = applied(live, None)
    assert {key: value for key, value in live["metadata"]["labels"].items() if NODE_MANAGER not in _managers(live, key)} == after["metadata"]["labels"]
    assert after["spec"]["taints"] == taints and after["metadata"]["annotations"] == {}


def _managers(live, key):
    return {entry["manager"] for entry in live["metadata"]["managedFields"] if f"f:{key}" in entry["fieldsV1"]["f:metadata"]["f:labels"]}
