# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes are planned and written under the lock of the platform's releases: who waits for whom, and what a killed run leaves behind."""
from __future__ import annotations

import contextlib
import copy
import itertools
import threading

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import lock as lock_module
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger, State
from ansible_collections.genai.platform.plugins.module_utils.engine.lock import process
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import (
    ApiError, Busy, Interrupted, InvalidInput, LockLost, NodesFailed, NotPermitted, Unreachable,
)
from ansible_collections.genai.platform.plugins.module_utils.fleet.fleet import Fleet
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import Pool
from ansible_collections.genai.platform.plugins.module_utils.fleet.node_plan import NodePlan
from ansible_collections.genai.platform.plugins.module_utils.fleet.platform_lock import PlatformLock
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from nodes import FakePlatform, node

NAMESPACE = Ref("", "Namespace", "", "ledger")
SECRET = Ref("", "Secret", "ledger", "p.journal")
DEAD = {**process(), "pid": 2**22 + 1}  # beyond the most that Linux gives
ENTRY = {"ref": "an object that was changed"}
NAMES = [f"n{number}" for number in range(4)]


def platform(ledger=True):
    made = FakePlatform(*(node(name, {"nvidia.com/gpu.product": "NVIDIA-L4"}, vendor="") for name in NAMES))
    if ledger:
        ledger_of(made).ensure_namespace()
    return made


def ledger_of(cluster):
    return Ledger(cluster, "ledger", "p")


def pools(colour="green"):
    return [Pool.of({"name": "l4", "match": {"products": ["NVIDIA-L4"]}, "labels": {"colour": colour}})]


def fleet(cluster, colour="green", **options):
    return Fleet(cluster, pools(colour), lock=PlatformLock(cluster, ledger_of(cluster), "me"), **options)


def run(cluster, colour="green", **options):
    return fleet(cluster, colour, **options).apply()


def journal(cluster, holder, entries=(), run="another run"):
    """What another run has opened."""
    ledger_of(cluster).open_journal({"run": run, "by": "somebody", "at": "2026-01-01T00:00:00Z", "entries": list(entries)}, holder)


def colours(cluster):
    return {each["metadata"]["labels"].get("colour") for each in cluster.fleet.nodes.values()}


def test_the_lock_is_held_while_nodes_are_written_and_free_afterwards():
    cluster, seen = platform(), []
    cluster.before_patch = lambda name: seen.append(ledger_of(cluster).load()[1])
    assert run(cluster)["changed"] and colours(cluster) == {"green"}
    assert len(seen) == 4 and all((found["by"], found["entries"], found["holder"]) == ("me", [], process()) for found in seen)
    assert SECRET not in cluster.objects


def test_where_nothing_has_to_be_done_nothing_is_locked():
    cluster = platform()
    run(cluster)
    journal(cluster, process())
    writes, lists = len(cluster.writes), cluster.fleet.requests["GET"]
    assert not run(cluster)["changed"]
    assert (len(cluster.writes), cluster.fleet.requests["GET"]) == (writes, lists + 1)


def test_another_run_is_told_before_any_node_is_written():
    cluster = platform()
    journal(cluster, process())
    before = copy.deepcopy(cluster.objects)
    with pytest.raises(Busy, match="another run is writing to this platform: somebody, since 2026-01-01T00:00:00Z"):
        run(cluster)
    assert colours(cluster) == {None} and cluster.objects == before


def test_check_mode_locks_nothing_and_waits_for_nobody():
    cluster = platform()
    journal(cluster, process())
    assert run(cluster, check=True)["changed"] and colours(cluster) == {None}


@pytest.mark.parametrize("deleting", [False, True])
def test_where_there_is_no_ledger_yet_there_is_no_lock(deleting):
    cluster = platform(ledger=deleting)
    if deleting:
        cluster.objects[NAMESPACE]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    before = copy.deepcopy(cluster.objects)
    assert run(cluster)["changed"] and colours(cluster) == {"green"} and cluster.objects == before


def test_who_may_not_take_the_lock_is_told_before_any_write():
    cluster = platform()
    cluster.allowed = [{"verbs": ["*"], "apiGroups": [""], "resources": ["nodes"]}]
    with pytest.raises(NotPermitted, match="create, delete, get, list, patch secrets in namespace ledger"):
        run(cluster)
    assert colours(cluster) == {None} and SECRET not in cluster.objects


# --- what a killed run leaves behind ---------------------------------------------------------------------------------


def test_a_killed_run_of_nodes_alone_is_cleared_away_by_the_next():
    cluster = platform()
    journal(cluster, DEAD)
    result = run(cluster)
    assert result["changed"] and "warnings" not in result and SECRET not in cluster.objects


@pytest.mark.parametrize("recorded", [False, True])
def test_a_killed_release_is_left_to_the_next_release(recorded):
    cluster = platform()
    if recorded:
        ledger_of(cluster).save(State([{"number": 1, "status": "deployed", "run": "r", "components": {}}]), 10)
    journal(cluster, DEAD, [ENTRY], run="r")
    before = copy.deepcopy(cluster.objects)
    result = run(cluster)
    assert colours(cluster) == {"green"} and cluster.objects == before
    assert result["warnings"] == [
        "the run of somebody at 2026-01-01T00:00:00Z has left its journal, which is the next release's to clear away; until then nodes are written"
        " without the lock"
    ]


@pytest.mark.parametrize(("reads", "said"), [(1, "another run is writing"), (2, "just repairing")])
def test_of_several_that_find_a_dead_run_of_nodes_one_goes_on(reads, said, monkeypatch):
    """`reads`: how often this run has read the journal when the other one comes and clears it away."""
    cluster, load, left = platform(), Ledger.load, [reads]
    journal(cluster, DEAD)

    def overtaken(self):
        found = load(self)
        left[0] -= 1
        if left[0] == 0:
            run(cluster, "red")
        return found

    monkeypatch.setattr(Ledger, "load", overtaken)
    with pytest.raises(Busy, match=said):
        run(cluster, "green")
    assert colours(cluster) == {"red"}


@pytest.mark.parametrize("check", [True, False])
def test_a_release_repairs_what_a_killed_run_of_nodes_has_left(check, monkeypatch):
    cluster = platform()
    monkeypatch.setattr(lock_module, "process", lambda: DEAD)
    lock = PlatformLock(cluster, ledger_of(cluster), "me")
    held = lock.held()
    held.__enter__()  # and never left
    lock._lock.stop()
    monkeypatch.undo()
    facts = {"by": "tester", "why": "", "commit": "", "profile": ""}
    releaser = Releaser(cluster, ledger_of(cluster), Options("p", check=check, facts=facts), lambda _line: None)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}}
    assert releaser.deploy({"base": [manifest]})["repaired"]["by"] == "me"
    assert (SECRET in cluster.objects) is check and (Ref("", "Namespace", "", "web") in cluster.objects) is not check


# --- two at a time ---------------------------------------------------------------------------------------------------


class Racer(threading.Thread):
    """A run in a thread of its own; `found` is its result or its error."""

    def __init__(self, cluster, colour, start):
        super().__init__()
        self.cluster, self.colour, self.begin, self.found = cluster, colour, start, None

    def run(self):
        self.begin.wait(10)
        try:
            self.found = run(self.cluster, self.colour)
        except Exception as exc:
            self.found = exc


def test_a_second_run_is_busy_while_the_first_one_writes():
    cluster, writing, go_on = platform(), threading.Event(), threading.Event()

    def slowly(name):
        writing.set()
        assert go_on.wait(10)

    cluster.before_patch = slowly
    first = Racer(cluster, "red", threading.Barrier(1))
    first.start()
    assert writing.wait(10)
    with pytest.raises(Busy, match="another run is writing to this platform: me"):
        run(cluster, "green")
    assert colours(cluster) == {None}
    go_on.set()
    first.join(10)
    assert first.found["changed"] and colours(cluster) == {"red"} and SECRET not in cluster.objects
    assert run(cluster, "green")["changed"] and colours(cluster) == {"green"}


def test_of_many_at_once_no_two_mix():
    cluster, writers = platform(), []
    start, between = threading.Barrier(6), threading.Barrier(6)

    def together(name):
        writers.append(threading.current_thread().name)
        if name == "n0":  # whoever gets so far gives the others the time to get there, too
            with contextlib.suppress(threading.BrokenBarrierError):
                between.wait(0.2)

    cluster.before_patch = together
    racers = [Racer(copy.copy(cluster), f"colour-{number}", start) for number in range(6)]  # each run has a fence of its own
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(20)
    done = [racer for racer in racers if isinstance(racer.found, dict)]
    assert done and all(isinstance(racer.found, Busy) for racer in racers if racer not in done)
    assert [name for name, _patches in itertools.groupby(writers)] == list(dict.fromkeys(writers)), "one after the other"
    assert len(colours(cluster)) == 1 and colours(cluster) <= {racer.colour for racer in done} and SECRET not in cluster.objects


class Meanwhile(FakePlatform):
    """`happens` in the moment in which the lock is taken."""

    happens = staticmethod(lambda: None)

    def create(self, rtype, body):
        self.happens()
        return super().create(rtype, body)


@pytest.fixture
def meanwhile():
    made = platform()
    made.__class__ = Meanwhile
    return made


def test_what_changed_until_the_lock_was_taken_is_planned_for(meanwhile):
    meanwhile.happens = lambda: meanwhile.fleet.by_hand("n1", colour="red")
    result = run(meanwhile)
    assert [item["node"] for item in result["conflicts"]] == ["n1"] and meanwhile.fleet.requests["PATCH"] == 4


def test_labels_that_went_until_the_lock_was_taken_are_noticed(meanwhile):
    run(meanwhile)
    writes = meanwhile.fleet.requests["PATCH"]
    meanwhile.happens = lambda: [meanwhile.fleet.by_hand(name, "nfd-master", **{"nvidia.com/gpu.product": None}) for name in NAMES]
    with pytest.raises(InvalidInput, match="pool l4: no node matches it any more"):
        run(meanwhile, "red")
    assert meanwhile.fleet.requests["PATCH"] == writes and SECRET not in meanwhile.objects


def test_pools_of_a_release_that_another_run_replaced_meanwhile():
    cluster = platform()
    with pytest.raises(Busy, match="another run changed this platform while this one was planning. Nothing was written"):
        run(cluster, "green", pools_again=lambda: pools("red"))
    assert colours(cluster) == {None} and SECRET not in cluster.objects
    assert run(cluster, "green", pools_again=pools)["changed"]


# --- what goes wrong while it is held --------------------------------------------------------------------------------


def test_who_may_have_been_taken_over_writes_no_more_and_leaves_the_journal():
    cluster = platform()
    work = fleet(cluster)

    def stood_still(name):
        if name == "n1":
            work.lock._lock._lost = True

    cluster.before_patch = stood_still
    with pytest.raises(NodesFailed, match="2 of 4 nodes could not be written") as failed:
        work.apply()
    assert sorted(failed.value.facts["failed_nodes"]) == ["n2", "n3"] and SECRET in cluster.objects


@pytest.mark.parametrize("error", [ApiError("refused", 403), Unreachable("cut")])
def test_nodes_that_fail_leave_the_lock_free(error):
    cluster = platform()

    def fail(name):
        raise error

    cluster.before_patch = fail
    with pytest.raises(NodesFailed):
        run(cluster)
    assert SECRET not in cluster.objects


def test_a_run_that_is_told_to_stop_leaves_the_lock_free_and_writes_no_more():
    cluster, late = platform(), []
    work = fleet(cluster)

    def interrupted(function, items):
        if not any(isinstance(item, NodePlan) for item in items):
            return [function(item) for item in items]
        function(items[0])
        late.extend(lambda item=item: function(item) for item in items[1:])  # those that still wait for a thread
        raise Interrupted("the run was told to stop (SIGTERM)")

    cluster.each = interrupted
    with pytest.raises(Interrupted, match="some of 4 nodes may be written") as stopped:
        work.apply()
    assert stopped.value.facts == {"changed": True} and SECRET not in cluster.objects
    assert all("not tried" in call().error for call in late) and cluster.fleet.requests["PATCH"] == 1
    with pytest.raises(LockLost):
        work.lock.check()


def test_a_lock_that_cannot_be_given_back_is_a_warning(monkeypatch):
    cluster = platform()

    def unreachable(_ledger, _uid):
        raise Unreachable("cut")

    monkeypatch.setattr(Ledger, "close_journal", unreachable)
    result = run(cluster)
    assert result["changed"] and result["warnings"] == ["the lock could not be given back: cut. A later run clears it away"]
