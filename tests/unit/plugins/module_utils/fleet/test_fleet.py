# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A whole fleet: what is written, refused before any write, named when it fails, and said of it."""
from __future__ import annotations

import json

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import State
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, InvalidInput, NodesFailed, NotPermitted, Unreachable
from ansible_collections.genai.platform.plugins.module_utils.fleet.fleet import UNSEEN_NODES, Fleet, ever_released, nodes_diff, released_pools
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import LABEL_POOL, Pool
from ansible_collections.genai.platform.plugins.module_utils.fleet.node_plan import ANNOTATION_PLATFORM
from ansible_collections.genai.platform.plugins.module_utils.plan.limit import LEAST, limit
from nodes import FakeNodes, node

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
GREEN = {"vendor": "nvidia", "labels": {"colour": "green"}}


def green(**more):
    return {"name": "green", **GREEN, **more}


def fleet_of(*nodes):
    return FakeNodes(*(node(f"n{number}", H100) for number in range(4)), node("plain", vendor=""), *nodes)


def run(cluster, *pools, **options):
    return Fleet(cluster, [Pool.of(pool) for pool in pools], **options).apply()


def colours(cluster):
    return {name: each["metadata"]["labels"].get("colour") for name, each in cluster.nodes.items()}


def test_only_what_differs_is_written():
    cluster = fleet_of()
    result = run(cluster, green(), {"name": "empty", "vendor": "amd"})
    assert cluster.requests == {"GET": 1, "POST": 1, "PATCH": 4} and result["requests"] == cluster.requests
    assert result["nodes"] == dict.fromkeys(["n0", "n1", "n2", "n3"], "green") and result["empty_pools"] == ["empty"]
    assert colours(cluster) == {**dict.fromkeys(["n0", "n1", "n2", "n3"], "green"), "plain": None}
    again = run(cluster, green())
    assert not again["changed"] and cluster.requests == {"GET": 2, "POST": 1, "PATCH": 4}


def test_check_mode_says_the_same_and_writes_nothing():
    cluster, real = fleet_of(), fleet_of()
    seen, done = run(cluster, green(), check=True), run(real, green())
    assert seen["changes"] == done["changes"] and cluster.requests == {"GET": 1, "POST": 1}
    assert seen["lines"][0] == "green: 4 nodes, 4 would change"


def test_the_same_change_of_many_is_said_once():
    (change,) = run(fleet_of(), green())["changes"]
    assert change["nodes"] == ["n0", "n1", "n2", "n3"]
    said = nodes_diff(change)
    assert said["before_header"] == "green: 4 nodes, n0, n1, n2, n3" and '"colour": "green"' in said["after"]


def test_gpu_nodes_in_no_pool_are_named():
    result = run(fleet_of(), {"name": "one", "match": {"nodes": ["n1"]}})
    assert [item["node"] for item in result["unmatched"]] == ["n0", "n2", "n3"]
    assert result["unmatched"][0] == {"node": "n0", "vendor": "nvidia", "product": "NVIDIA-H100-80GB-HBM3"}


def test_all_errors_at_once_and_before_any_request():
    cluster = fleet_of()
    with pytest.raises(InvalidInput) as refused:
        run(cluster, {"name": "all"}, green(labels={"a b": "c"}))
    assert len(refused.value.facts["errors"]) == 2 and not cluster.requests


def test_nodes_in_two_pools_are_all_listed_before_any_write():
    cluster = fleet_of()
    with pytest.raises(InvalidInput) as refused:
        run(cluster, green(), {"name": "some", "match": {"nodes": ["n[12]"]}})
    assert refused.value.facts["errors"] == ["node n1: green, some", "node n2: green, some"] and cluster.requests == {"GET": 1}


# --- blast radius ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_changed", "known", "most"),
    [("25%", 1000, 250), ("25%", 1001, 251), ("25%", 2, LEAST), ("0", 1000, 0), ("7", 3, 7), ("100%", 1000, 1000)],
)
def test_limit(max_changed, known, most):
    assert limit(max_changed, known) == most


@pytest.mark.parametrize("text", ["", "a few", "-1", "25 %", "2.5%"])
def test_limits_that_are_none(text):
    with pytest.raises(InvalidInput, match="neither a number nor a percentage"):
        limit(text, 10)


def test_a_first_run_and_new_nodes_are_not_held_up_but_changes_are():
    cluster = fleet_of()
    run(cluster, green(), max_changed="0")
    cluster.nodes["n4"] = node("n4", H100)
    assert run(cluster, green(), max_changed="0")["changes"][0]["nodes"] == ["n4"]
    writes = cluster.requests["PATCH"]
    with pytest.raises(InvalidInput, match="5 of the 5 nodes .* would change, and max_changed=4 allows 4"):
        run(cluster, green(labels={"colour": "blue"}), max_changed="4")
    with pytest.raises(InvalidInput, match="would change"):
        run(cluster, max_changed="4", check=True)
    assert cluster.requests["PATCH"] == writes


# --- pools that match their nodes no more ----------------------------------------------------------------------------


def labelled(count):
    """A fleet of so many nodes in the pool `green`, which knows them by a label of node feature discovery alone."""
    cluster = FakeNodes(*(node(f"n{number}", H100, vendor="") for number in range(count)), node("plain", vendor=""))
    run(cluster, TAINTED)
    return cluster


def lose(cluster, *numbers):
    for number in numbers:
        cluster.by_hand(f"n{number}", "nfd-master", **dict.fromkeys(H100))


def ours(cluster):
    """How many nodes have both the pool's label and its taint."""
    return sum(each["metadata"]["labels"].get(LABEL_POOL) == "green" and bool(each["spec"]["taints"]) for each in cluster.nodes.values())


TAINTED = green(taints=[{"key": "gpu", "effect": "NoSchedule"}])
RENAMED = {**TAINTED, "name": "lime", "match": {"products": ["*H100*"]}}


@pytest.mark.parametrize(
    ("count", "lost", "options", "said"),
    [
        (1, 1, {}, "pool green: no node matches it any more, and n0 would be taken out of it"),
        (2, 2, {}, "no node matches it any more, and n0, n1 would"),
        (5, 5, {}, "no node matches it any more"),
        (40, 40, {}, "no node matches it any more, and n0, .* and 30 more would"),
        (2, 2, {"max_changed": "100%"}, "no node matches it any more"),
        (2, 2, {"max_changed": "2"}, "no node matches it any more"),
        (2, 1, {}, ""),
        (3, 2, {}, "pool green: 2 of 3, n0, n1"),
        (5, 3, {}, "pool green: 3 of 5"),
        (5, 2, {}, ""),
        (5, 3, {"max_changed": "60%"}, ""),
        (5, 4, {"max_changed": "60%"}, "pool green: 4 of 5"),
        (5, 4, {"max_changed": "4"}, ""),
        (5, 4, {"max_changed": "100%"}, ""),
        (40, 11, {}, "11 of the 40 nodes .* would change, and max_changed=25% allows 10"),
        (5, 5, {"emptied_pools": "allow"}, ""),
        (5, 3, {"emptied_pools": "allow"}, "pool green: 3 of 5"),
    ],
)
def test_nodes_that_their_pool_matches_no_more(count, lost, options, said):
    given = {"max_changed": "25%", **options}
    cluster = labelled(count)
    lose(cluster, *range(lost))
    writes = cluster.requests["PATCH"]
    if not said:
        run(cluster, TAINTED, **given)
        assert ours(cluster) == count - lost
        return
    for check in (True, False):
        with pytest.raises(InvalidInput, match=said):
            run(cluster, TAINTED, check=check, **given)
    assert (ours(cluster), cluster.requests["PATCH"]) == (count, writes)
    for number in range(lost):
        cluster.by_hand(f"n{number}", "nfd-master", **H100)
    assert not run(cluster, TAINTED, **given)["changed"], "and when they are back nothing has happened"


@pytest.mark.parametrize(
    ("pools", "labels"),
    [
        ([RENAMED], ["lime", "lime"]),
        ([], [None, None]),
        ([{"name": "other", "vendor": "amd"}], [None, None]),
        ([RENAMED, green(match={"nodes": ["n7"]})], ["lime", "lime"]),
    ],
    ids=["renamed", "state absent", "taken out", "its nodes go to another pool"],
)
def test_what_is_meant_is_done(pools, labels):
    cluster = labelled(2)
    run(cluster, *pools, max_changed="25%")
    assert [cluster.nodes[f"n{number}"]["metadata"]["labels"].get(LABEL_POOL) for number in range(2)] == labels


def test_nodes_that_are_gone_leave_an_empty_pool_behind():
    cluster = labelled(2)
    del cluster.nodes["n0"], cluster.nodes["n1"]
    result = run(cluster, TAINTED, max_changed="25%")
    assert (result["empty_pools"], result["changed"]) == (["green"], False)


def test_a_pool_that_never_had_a_node_is_a_warning():
    result = run(fleet_of(), green(), {"name": "l4", "match": {"products": ["NVIDIA-L4"]}}, check=True)
    assert "l4: no node matches it" in result["lines"]
    assert [line.partition(":")[0] for line in result["warnings"]] == ["pool l4 matches no node"]


def test_a_pool_that_would_be_empty_is_kept_where_the_way_back_must_not_fail():
    cluster = labelled(2)
    cluster.nodes["m0"] = node("m0", {"rack": "7"}, vendor="")
    lose(cluster, 0, 1)
    racks = {"name": "racks", "match": {"labels": {"rack": "7"}}}
    result = run(cluster, TAINTED, racks, emptied_pools="keep")
    assert ours(cluster) == 2 and result["nodes"] == {"m0": "racks"} and result["kept"] == {"n0": "green", "n1": "green"}
    assert [change["pool"] for change in result["changes"]] == ["racks"]
    assert result["warnings"][0].startswith("pool green matches n0, n1 no more; they stay as they are")
    assert "left as they are, though their pools match them no more: n0, n1" in result["lines"]


def test_a_label_of_the_pool_that_somebody_else_wrote_puts_no_node_into_it():
    cluster = labelled(1)
    cluster.by_hand("plain", **{LABEL_POOL: "green"})
    del cluster.nodes["n0"]
    assert run(cluster, TAINTED)["empty_pools"] == ["green"]


def test_labels_that_go_while_the_run_writes_cost_no_node_its_pool():
    cluster = labelled(3)

    def master_restarts(name):
        cluster.before_patch = lambda name: None
        lose(cluster, 0, 1, 2)

    cluster.before_patch = master_restarts
    result = run(cluster, {**TAINTED, "labels": {"colour": "blue"}})
    assert ours(cluster) == 3 and not result["changed"] and result["kept"] == dict.fromkeys(["n0", "n1", "n2"], "green")


# --- several platforms -----------------------------------------------------------------------------------------------


def of_acme(*names):
    """A fleet of ours, in which these nodes are in a pool `green` of acme."""
    cluster = fleet_of()
    run(cluster, {**TAINTED, "match": {"nodes": names}}, platform="acme")
    cluster.requests.clear()
    return cluster


ALL = ["n0", "n1", "n2", "n3"]
NOBODYS = {"name": "l4", "match": {"products": ["NVIDIA-L4"]}}


@pytest.mark.parametrize(
    ("theirs", "pools", "named", "said"),
    [
        (ALL, [], [], []),
        (ALL, [NOBODYS], [], ["l4: no node matches it"]),
        (ALL, [green()], ALL, ["left alone: 4 nodes of platform acme"]),
        (ALL, [green(labels={"colour": "blue"}), {**GREEN, "name": "two"}], ALL, ["left alone: 4 nodes of platform acme"]),
        (["n1"], [green()], ["n1"], ["green: 3 nodes, 3 changed", "left alone: 1 nodes of platform acme"]),
    ],
    ids=["state absent", "an ordinary run", "a pool that matches them", "two pools that match them", "a pool that matches some"],
)
def test_nodes_of_another_platform(theirs, pools, named, said):
    cluster = of_acme(*theirs)
    before = {name: json.dumps(cluster.nodes[name]) for name in theirs}
    result = run(cluster, *pools, max_changed="0")
    assert before == {name: json.dumps(cluster.nodes[name]) for name in theirs}
    assert result["lines"][:-1] == said and result["unmatched"] == [] and not result["conflicts"]
    assert result["other_platforms"] == dict.fromkeys(named, "acme")
    assert cluster.requests["PATCH"] == len(result["nodes"]) == 4 - len(theirs)


def test_each_platform_takes_off_its_own():
    cluster = of_acme("n1")
    run(cluster, green())
    run(cluster)
    assert colours(cluster) == {"n0": None, "n1": "green", "n2": None, "n3": None, "plain": None}
    run(cluster, platform="acme")
    assert not any(each["metadata"]["annotations"] or each["spec"]["taints"] for each in cluster.nodes.values())


def test_a_pool_that_matches_nodes_of_another_platform_alone_is_a_warning():
    result = run(of_acme(*ALL), green())
    assert result["empty_pools"] == [] and result["warnings"] == ["pool green has no node: all that it matches are of platform acme"]


@pytest.mark.parametrize(
    ("count", "lost", "said"),
    [(2, 2, "pool green: no node matches it any more, and n0, n1 would"), (3, 2, "pool green: 2 of 3")],
)
def test_guards_do_not_count_nodes_of_another_platform(count, lost, said):
    """Ten of acme's that match the pool, and are in a pool of the same name, fill it no more than they make it larger."""
    cluster = labelled(count)
    theirs = FakeNodes(*(node(f"m{number}", H100) for number in range(10)))
    run(theirs, TAINTED, platform="acme")
    cluster.nodes.update(theirs.nodes)
    lose(cluster, *range(lost))
    with pytest.raises(InvalidInput, match=said):
        run(cluster, TAINTED, max_changed="25%")
    theirs_go = {"name": "none", "match": {"nodes": ["none"]}}
    with pytest.raises(InvalidInput, match=f"{count} of the {count} nodes"):
        run(cluster, theirs_go, max_changed="1")


@pytest.mark.parametrize(("pools", "named"), [([green()], {"n1": "acme"}), ([], {})], ids=["labelling", "taking off"])
def test_another_platform_is_faster(pools, named):
    cluster = fleet_of()
    if not pools:
        run(cluster, green())

    def acme(name):
        if name == "n1":
            cluster.by_hand("n1", "genai.platform-gpu", colour="red")
            cluster.nodes["n1"]["metadata"]["annotations"][ANNOTATION_PLATFORM] = "acme"

    cluster.before_patch = acme
    result = run(cluster, *pools)
    (change,) = result["changes"]
    assert change["nodes"] == ["n0", "n2", "n3"] and colours(cluster)["n1"] == "red"
    assert result["other_platforms"] == named and "n1" not in result["nodes"]
    assert "n1" not in [item["node"] for item in result["unmatched"]]
    assert not result["kept"] and not result["failed_nodes"]


# --- who may not list nodes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "needless", "raised"), [(403, True, False), (403, False, True), (500, True, True)])
def test_nodes_that_cannot_be_listed(status, needless, raised):
    cluster = fleet_of()

    def refuse(rtype):
        raise ApiError("no", status)

    cluster.items = refuse
    if raised:
        with pytest.raises(ApiError):
            run(cluster, needless=lambda: needless)
    else:
        assert run(cluster, needless=lambda: needless) == {"changed": False, "lines": [UNSEEN_NODES], "requests": {}}


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_node_that_changed_is_looked_at_again():
    cluster = fleet_of()

    def in_the_way(name):
        if name == "n1" and "rack" not in cluster.nodes["n1"]["metadata"]["labels"]:
            cluster.by_hand("n1", rack="7", colour="red")

    cluster.before_patch = in_the_way
    result = run(cluster, green())
    assert colours(cluster)["n1"] == "red" and cluster.nodes["n1"]["metadata"]["labels"]["genai.platform/gpu-pool"] == "green"
    assert result["changed"] and cluster.requests == {"GET": 2, "POST": 1, "PATCH": 5}


def test_a_node_that_left_its_pool_meanwhile_gets_nothing():
    cluster = fleet_of()

    def in_the_way(name):
        if name == "n1":
            cluster.nodes["n1"]["status"]["capacity"] = {}
            cluster.by_hand("n1", **{"nvidia.com/gpu.product": None})

    cluster.before_patch = in_the_way
    run(cluster, green())
    assert colours(cluster)["n1"] is None


def test_a_node_that_is_deleted_meanwhile_is_named_and_no_failure():
    cluster = fleet_of()
    cluster.before_patch = lambda name: cluster.nodes.pop("n2", None)
    result = run(cluster, green())
    assert result["gone"] == ["n2"] and set(colours(cluster).values()) == {"green", None}
    assert "deleted meanwhile: n2" in result["lines"]


def test_what_fails_is_named_and_the_rest_is_done():
    cluster = fleet_of()

    def refuse(name):
        if name == "n2":
            raise ApiError("refused by an admission webhook", 403)

    cluster.before_patch = refuse
    with pytest.raises(NodesFailed, match="1 of 4 nodes could not be written.*\n- n2: refused") as failed:
        run(cluster, green())
    assert failed.value.facts["failed_nodes"] == {"n2": "refused by an admission webhook"}
    assert failed.value.facts["changes"][0]["nodes"] == ["n0", "n1", "n3"] and failed.value.facts["changed"]


def test_others_that_never_stop_writing():
    cluster = fleet_of()
    cluster.before_patch = lambda name: cluster.by_hand(name, rack=cluster.nodes[name]["metadata"]["resourceVersion"])
    with pytest.raises(NodesFailed, match="others wrote to it 6 times"):
        run(cluster, green())


def test_a_node_that_gets_into_two_pools_meanwhile():
    cluster = fleet_of()
    cluster.before_patch = lambda name: cluster.by_hand(name, blue="yes")
    with pytest.raises(NodesFailed, match="in more than one pool by now: green, blue"):
        run(cluster, green(), {"name": "blue", "match": {"labels": {"blue": "yes"}}})


def test_without_an_api_server_nobody_waits_for_every_node():
    cluster = fleet_of()

    def cut(name):
        raise Unreachable("cannot reach the API server")

    cluster.before_patch = cut
    with pytest.raises(NodesFailed) as failed:
        run(cluster, green())
    assert cluster.requests["PATCH"] == 1 and sum("not tried" in error for error in failed.value.facts["failed_nodes"].values()) == 3


def test_who_may_not_patch_nodes_is_told_before_any_write():
    cluster = fleet_of()
    cluster.allowed = [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["nodes"]}]
    with pytest.raises(NotPermitted, match="patch nodes in all namespaces"):
        run(cluster, green())
    assert "PATCH" not in cluster.requests


def test_conflicts_are_said():
    cluster = fleet_of()
    cluster.by_hand("n1", colour="red")
    result = run(cluster, green())
    assert [(item["node"], item["manager"], item["found"]) for item in result["conflicts"]] == [("n1", "kubectl-label", "red")]
    assert "left alone: label colour of kubectl-label on 1 nodes" in result["lines"]
    assert colours(cluster)["n1"] == "red"


# --- what a release has kept -----------------------------------------------------------------------------------------


class Ledger:
    def __init__(self, *releases, revisions=()):
        self.revisions = dict.fromkeys(revisions, {})
        self.releases = [
            {"number": number, "status": "deployed", "components": {**components, "app": number}} for number, components in enumerate(releases, 1)
        ]

    def load(self):
        return State(self.releases, revisions=self.revisions), None

    def manifests(self, component, revision):
        return [{"kind": "ConfigMap", "metadata": {"name": "gpu-pools"}, "data": {"pools.json": json.dumps([{"name": f"pool-{revision}"}])}}]


@pytest.mark.parametrize(
    ("releases", "which", "names"),
    [
        ([], "current", None),
        ([{}, {}], "previous", None),
        ([{"gpu_nodes": 1}, {"gpu_nodes": 2}], "current", ["pool-2"]),
        ([{"gpu_nodes": 1}, {"gpu_nodes": 2}], "previous", ["pool-1"]),
        ([{"gpu_nodes": 1}, {"gpu_nodes": 2}, {}], "1", ["pool-1"]),
        ([{}, {"gpu_nodes": 1}], "previous", []),
        ([{"gpu_nodes": 1}, {}], "current", []),
    ],
)
def test_pools_of_a_release(releases, which, names):
    found = released_pools(Ledger(*releases), which)
    assert (found if found is None else [pool["name"] for pool in found]) == names


@pytest.mark.parametrize(
    ("releases", "revisions", "ever"),
    [([], [], False), ([{}, {}], ["app"], False), ([{"gpu_nodes": 1}, {}], [], True), ([{}, {}], ["app", "gpu_nodes"], True)],
    ids=["no ledger", "never", "once", "in a release that is not kept any more"],
)
def test_whether_a_release_ever_had_pools(releases, revisions, ever):
    assert ever_released(Ledger(*releases, revisions=revisions)) == ever
