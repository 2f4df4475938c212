# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet of 1,000 nodes gets its labels and taints: the first time, again, when nodes come, go and are written to by others."""
from __future__ import annotations

import collections
import itertools
import json
import math

import cluster
import kwok
import pytest
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import PAGE, Cluster
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput, NodesFailed
from ansible_collections.genai.platform.plugins.module_utils.fleet.fleet import Fleet, gpus
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import LABEL_POOL, Pool
from ansible_collections.genai.platform.plugins.module_utils.fleet.node_plan import ANNOTATION_TAINTS, NODE_MANAGER
from bundles import Platform, obj
from cluster import kubectl, play
from live import Api, until
from proxy import Fate, Proxy

NODES = 1000
COUNTS = {p.name: NODES * p.of_ten // 10 for p in kwok.PRODUCTS if p.resource}
FAULTS = 20  # of so many patches one is refused: 5 %
DELETED, FAILING = 50, "fleet-a100-7"
PLATFORM = Platform("fleet")
API = Api()


@pytest.fixture(scope="module")
def fleet():
    found = kwok.Fleet(API)
    try:
        found.clear()
        found.make_many(NODES)
        yield found
    finally:
        found.close()
        PLATFORM.remove()


def run(pools, url="", **options):
    connection = {"host": url, "api_key": "none"} if url else {"kubeconfig": str(cluster.KUBECONFIG)}
    return Fleet(Cluster(connection), list(map(Pool.of, pools)), **options).apply()


def written(result):
    return sorted(name for change in result["changes"] for name in change["nodes"])


def pages():
    return math.ceil(len(API.need("GET", kwok.NODES)["items"]) / PAGE)


def versions(fleet):
    return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in fleet.list()}


def without_ours(each):
    """What belongs to others: it has to be the same at any time."""
    owned = [e["fieldsV1"]["f:metadata"].get("f:labels", {}) for e in each["metadata"]["managedFields"] if e["manager"] == NODE_MANAGER]
    labels = {key: value for key, value in each["metadata"]["labels"].items() if not any(f"f:{key}" in fields for fields in owned)}
    return labels, [taint for taint in each["spec"]["taints"] if taint["key"] != "spot"]


def wrong(fleet, pools):
    """Names of the nodes that have not exactly what their pool gives them, beside what was theirs already."""
    wanted = {pool.name: pool for pool in map(Pool.of, pools)}
    found = []
    for each in fleet.list():
        name = each["metadata"]["name"]
        product = next(p for p in kwok.PRODUCTS if name.startswith(f"fleet-{p.name}-"))
        pool = wanted.get(product.name)
        taints = [kwok.TAINT, *({"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in (pool.taints if pool else ()))]
        labels = {**kwok.LABEL, **product.labels, **(pool.labels if pool else {})}
        noted = json.loads(each["metadata"]["annotations"].get(ANNOTATION_TAINTS, "[]"))
        if (each["metadata"]["labels"], each["spec"]["taints"], len(noted)) != (labels, taints, len(taints) - 1):
            found.append(name)
    return found


def test_first_run(fleet, figure):
    before = {each["metadata"]["name"]: without_ours(each) for each in fleet.list()}
    seen = run(kwok.pools(), check=True)
    assert wrong(fleet, []) == [], "check mode writes nothing"
    result = run(kwok.pools())
    assert seen["changes"] == result["changes"]
    assert collections.Counter(result["nodes"].values()) == COUNTS and len(written(result)) == sum(COUNTS.values())
    assert (result["unmatched"], result["empty_pools"], result["conflicts"], result["gone"]) == ([], [], [], [])
    assert wrong(fleet, kwok.pools()) == []
    assert {each["metadata"]["name"]: without_ours(each) for each in fleet.list()} == before
    figure("fleet of 1,000 nodes, first run: nodes written / in a pool", f"{len(written(result))} / {sum(COUNTS.values())}")


def test_second_run(fleet, figure):
    before = versions(fleet)
    result = run(kwok.pools())
    assert result["requests"] == {"GET": pages()} and not result["changed"]
    assert versions(fleet) == before
    figure("fleet of 1,000 nodes, second run: writes, lists", f"0, {pages()}")


def test_ten_nodes_are_replaced(fleet, figure):
    fleet.delete(f"fleet-h100-{number}" for number in range(10))
    h100 = next(product for product in kwok.PRODUCTS if product.name == "h100")
    fleet.make(kwok.node(f"fleet-h100-new-{number}", h100) for number in range(10))
    result = run(kwok.pools(), max_changed="0")
    assert result["requests"] == {"GET": pages(), "POST": 1, "PATCH": 10}  # the POST asks whether it may
    assert wrong(fleet, kwok.pools()) == []
    figure("fleet of 1,000 nodes, 10 replaced: writes", result["requests"]["PATCH"])


def test_a_change_of_too_many_is_refused_and_stale_keys_go(fleet, figure):
    pools = kwok.pools()
    del pools[0]["labels"]["workload-type"]
    before = versions(fleet)
    with pytest.raises(InvalidInput, match="300 of the 900 nodes .* max_changed=25% allows 225. Nothing was written"):
        run(pools, max_changed="25%")
    assert versions(fleet) == before
    result = run(pools, max_changed="300")
    assert len(written(result)) == 300 and wrong(fleet, pools) == []
    run(kwok.pools())
    figure("fleet, a change of 300 with a limit of 25 %", "refused")


def test_a_node_in_two_pools_is_refused(fleet, figure):
    pools = [*kwok.pools(), {"name": "both", "match": {"nodes": ["fleet-l4-1", "fleet-mi300x-1"]}}]
    before = versions(fleet)
    with pytest.raises(InvalidInput) as refused:
        run(pools)
    assert refused.value.facts["errors"] == ["node fleet-l4-1: l4, both", "node fleet-mi300x-1: mi300x, both"]
    assert versions(fleet) == before
    figure("fleet, nodes in two pools", "refused, all named")


def test_a_label_of_somebody_else_stays(fleet, figure):
    kubectl("label", "node", "fleet-h100-50", "gpu-type=lent", "--overwrite")
    result = run(kwok.pools())
    (conflict,) = result["conflicts"]
    assert (conflict["node"], conflict["key"], conflict["found"], conflict["wanted"]) == ("fleet-h100-50", "gpu-type", "lent", "h100")
    assert conflict["manager"].startswith("kubectl") and wrong(fleet, kwok.pools()) == ["fleet-h100-50"] and not result["changed"]
    kubectl("label", "node", "fleet-h100-50", "gpu-type-")
    assert written(run(kwok.pools())) == ["fleet-h100-50"] and wrong(fleet, kwok.pools()) == []
    figure("fleet, label of another manager: named, left as it is", "yes")


def test_pods_hold_gpus(fleet, figure):
    kubectl("create", "namespace", PLATFORM.name)
    limits = {"resources": {"limits": {"amd.com/gpu": "3"}}}
    spec = {"nodeName": "fleet-mi300x-3", "containers": [{"name": "main", "image": "none", **limits}], "tolerations": [{"operator": "Exists"}]}
    pods = f"/api/v1/namespaces/{PLATFORM.name}/pods"
    holding = obj("v1", "Pod", "holding", PLATFORM.name, spec=spec)
    until("the namespace has its service account", lambda: API.request("POST", pods, holding)[0] == 201)
    try:
        rows = {row["pool"]: row for row in gpus(Cluster({"kubeconfig": str(cluster.KUBECONFIG)}))}
    finally:
        API.need("DELETE", f"{pods}/holding", {"gracePeriodSeconds": 0})
    assert {name: rows[name]["nodes"] for name in COUNTS} == COUNTS
    row = rows["mi300x"]
    assert row == {
        "vendor": "amd", "product": "AMD_Instinct_MI300X_OAM", "pool": "mi300x", "resource": "amd.com/gpu",
        "nodes": 200, "capacity": 1600, "allocatable": 1600, "requested": 3, "free": 1597,
    }
    figure("gpu_nodes_info, 7,200 GPUs: requested and free of one pool", f"{row['requested']}, {row['free']} of {row['allocatable']}")


class Trouble:
    """Every twentieth patch is refused, 409 and 429 in turn; FAILING's always; and once DELETED nodes go while the run goes on."""

    def __init__(self, fleet):
        self._fleet, self._patches, self._seen = fleet, itertools.count(1), set()
        self.injected: collections.Counter[Fate] = collections.Counter()
        self.deleted: list[str] = []

    def __call__(self, request):
        if request.method != "PATCH":
            return Fate.PASS
        number, name = next(self._patches), request.path.rpartition("/")[2]
        self._seen.add(name)
        if number == 2 * DELETED:
            self._delete()
        fate = Fate.PASS
        if name == FAILING:
            fate = Fate.ERROR_500
        elif number % FAULTS == 0:
            fate = (Fate.ERROR_409, Fate.ERROR_429)[number // FAULTS % 2]
            self.injected[fate] += 1
        return fate

    def _delete(self):
        names = (each["metadata"]["name"] for each in self._fleet.list() if each["metadata"]["labels"].get(LABEL_POOL))
        self.deleted = sorted(itertools.islice((name for name in names if name not in {*self._seen, FAILING}), DELETED))
        self._fleet.delete(self.deleted)


def test_trouble_while_the_run_goes_on(fleet, figure):
    proxy, trouble, pools = Proxy(API), Trouble(fleet), kwok.pools()
    for pool in pools:
        pool["labels"]["workload-type"] = "training"
    proxy.reset(trouble)
    with pytest.raises(NodesFailed) as failed:
        run(pools, proxy.url)
    proxy.shutdown()
    result = failed.value.facts
    assert list(result["failed_nodes"]) == [FAILING] and "injected 500" in result["failed_nodes"][FAILING] and FAILING in failed.value.message
    assert len(trouble.deleted) == DELETED and result["gone"] == trouble.deleted
    assert min(trouble.injected[fate] for fate in (Fate.ERROR_409, Fate.ERROR_429)) >= sum(COUNTS.values()) // FAULTS // 2
    assert wrong(fleet, pools) == [FAILING]
    assert len(written(result)) == sum(COUNTS.values()) - DELETED - 1
    assert written(run(pools)) == [FAILING] and wrong(fleet, pools) == []
    figure("fleet, nodes deleted while it runs: named / deleted", f"{len(result['gone'])} / {len(trouble.deleted)}")
    figure("fleet, 5 % of patches answered 409 or 429: nodes wrong", len(wrong(fleet, pools)))


def test_all_of_it_goes(fleet, figure):
    run([])
    assert wrong(fleet, []) == []
    figure("fleet, state absent: labels and taints of ours left", 0)


# --- the playbooks ----------------------------------------------------------------------------------------------------


def pool(colour):
    return [{"name": "painted", "match": {"nodes": ["fleet-l4-[0-3]"]}, "labels": {"colour": colour}}]


def colours():
    found = API.need("GET", kwok.NODES, labelSelector=f"{LABEL_POOL}=painted")["items"]
    return {each["metadata"]["labels"].get("colour") for each in found}


def playbook(name, *words, **variables):
    ours = {"common_platform": PLATFORM.name, "common_ledger_namespace": PLATFORM.ledger_namespace, "gpu_nodes_namespace": PLATFORM.name}
    return play(name, "-e", json.dumps({**ours, **variables}), *words)


def site(pools, **variables):
    return playbook("site.yml", "--tags", "gpu_nodes", gpu_nodes_pools=pools, **variables)


def test_nodes_follow_the_releases(fleet, figure):
    """site.yml, a release that fails, rollback.yml and teardown.yml: the nodes are always as the deployed release says."""
    seen = []
    for done, code in (
        (lambda: site(pool("red"), gpu_nodes_namespace="nowhere"), 2),
        (lambda: site(pool("red")), 0),
        (lambda: site(pool("blue")), 0),
        (lambda: site(pool("green"), gpu_nodes_namespace="nowhere"), 2),
        (lambda: playbook("rollback.yml"), 0),
        (lambda: playbook("teardown.yml"), 0),
    ):
        result = done()
        assert result.code == code, result.output
        seen.append(colours())
    assert seen == [set(), {"red"}, {"blue"}, {"blue"}, {"red"}, set()]
    figure("fleet, nodes after a failed release, two, a failed one, rollback, teardown", " ".join(next(iter(colour), "none") for colour in seen))
