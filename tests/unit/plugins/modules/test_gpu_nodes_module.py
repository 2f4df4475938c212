# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the module gpu_nodes makes of its parameters."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger, State
from ansible_collections.genai.platform.plugins.module_utils.engine.lock import process
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Busy, InvalidInput
from ansible_collections.genai.platform.plugins.modules import gpu_nodes
from nodes import FakePlatform, node

POOL = {"name": "l4", "match": {"products": ["NVIDIA-L4"]}, "labels": {"gpu-type": "l4"}}
PRODUCT = {"nvidia.com/gpu.product": "NVIDIA-L4"}


@pytest.fixture
def cluster(monkeypatch):
    made = FakePlatform(*(node(f"n{number}", PRODUCT, vendor="") for number in range(2)))
    ledger = Ledger(made, "ledger", "p")
    ledger.ensure_namespace()
    monkeypatch.setattr(gpu_nodes, "connect", lambda params, workers: (made, ledger))
    monkeypatch.setattr(gpu_nodes, "stop_on_signals", lambda: None)
    return made


def call(check=False, **params):
    defaults = {name: option.get("default") for name, option in gpu_nodes.MODULE.options.items()}
    return gpu_nodes.gpu_nodes(gpu_nodes.Call({**defaults, **params}, check, False, lambda _line: None))


def labels(cluster):
    return [each["metadata"]["labels"].get("gpu-type") for each in cluster.fleet.nodes.values()]


def test_discovery_that_is_away_for_a_moment_costs_no_node_its_labels(cluster):
    call(pools=[POOL])
    for name in ("n0", "n1"):
        cluster.fleet.by_hand(name, "nfd-master", **dict.fromkeys(PRODUCT))
    for check in (True, False):
        with pytest.raises(InvalidInput, match="pool l4: no node matches it any more, and n0, n1 would be taken out of it"):
            call(check, pools=[POOL])
    assert call(pools=[POOL], emptied_pools="keep")["kept"] == {"n0": "l4", "n1": "l4"} and labels(cluster) == ["l4", "l4"]
    call(pools=[POOL], emptied_pools="allow")
    assert labels(cluster) == [None, None]


@pytest.mark.parametrize("more", [{}, {"release": "current"}], ids=["teardown", "after a failed first release"])
def test_all_of_it_is_taken_off(cluster, more):
    call(pools=[POOL])
    call(state="absent", max_changed="100%", **more)
    assert labels(cluster) == [None, None]


def test_another_run_is_in_the_way(cluster):
    journal = {"run": "r", "by": "somebody", "at": "2026-01-01T00:00:00Z", "entries": []}
    Ledger(cluster, "ledger", "p").open_journal(journal, process())
    with pytest.raises(Busy):
        call(pools=[POOL])
    assert labels(cluster) == [None, None] and call(True, pools=[POOL])["changed"]


def test_no_release_has_pools(cluster):
    assert call(release="current")["lines"] == ["no release has pools of GPU nodes"]


@pytest.mark.parametrize(
    ("components", "params", "raised"),
    [
        ({"app": 1}, {"state": "absent"}, False),
        ({"app": 1}, {"state": "absent", "release": "current"}, False),
        ({"app": 1, "gpu_nodes": 1}, {"state": "absent"}, True),
        ({"app": 1}, {"state": "present", "pools": [POOL]}, True),
        ({"app": 1}, {"state": "present", "pools": []}, True),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_who_may_not_list_nodes_can_tear_down_what_never_had_any(cluster, components, params, raised, check):
    Ledger(cluster, "ledger", "p").save(State([{"number": 1, "status": "deployed", "components": components}]), 10)

    def refuse(rtype):
        raise ApiError("nodes is forbidden", 403)

    cluster.fleet.items = refuse
    if raised:
        with pytest.raises(ApiError, match="forbidden"):
            call(check, **params)
    else:
        (line,) = call(check, **params)["lines"]
        assert "may not list nodes" in line


def test_a_platform_takes_nothing_off_the_nodes_of_another(cluster):
    call(pools=[POOL], platform="acme")
    result = call(state="absent", max_changed="100%", platform="p")
    assert not result["changed"] and labels(cluster) == ["l4", "l4"]
    call(state="absent", max_changed="100%", platform="acme")
    assert labels(cluster) == [None, None]
