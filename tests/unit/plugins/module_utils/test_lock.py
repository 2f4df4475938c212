# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who holds the lock, and when a dead one is taken over; with a clock that the test moves."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.genai.platform.plugins.module_utils import _lock as lock_module
from ansible_collections.genai.platform.plugins.module_utils._errors import Busy, LockLost, Unreachable
from ansible_collections.genai.platform.plugins.module_utils._ledger import ANNOTATION_HOLDER, ANNOTATION_RENEWED, Ledger, State
from ansible_collections.genai.platform.plugins.module_utils._lock import GIVE_UP_SECONDS, STALE_SECONDS, Lock, alive, process
from ansible_collections.genai.platform.plugins.module_utils._manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils._types import ResourceType
from fake import Answer, FakeCluster

CONFIGMAPS = ResourceType("", "v1", "ConfigMap", "configmaps", True)
JOURNAL = {"run": "r1", "by": "me", "at": "2026-01-01T00:00:00Z", "entries": []}
SECRET = Ref("", "Secret", "ledger", "p.journal")


class Held:
    """A lock whose renewals happen when the test says so."""

    def __init__(self):
        self.cluster, self.now = FakeCluster(), 1000.0
        self.ledger = Ledger(self.cluster, "ledger", "p")
        self.ledger.ensure_namespace()
        self.lock = Lock(self.cluster, self.ledger, clock=lambda: self.now)
        self.lock.acquire(JOURNAL)


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr(lock_module, "RENEW_SECONDS", 3600.0)
    made = Held()
    yield made
    made.lock.stop()


def test_held_until_released(held):
    held.lock.check()
    with pytest.raises(Busy, match="another run is writing to this platform: me, since 2026-01-01T00:00:00Z"):
        Lock(held.cluster, held.ledger).acquire({**JOURNAL, "run": "r2"})
    held.lock.release()
    assert SECRET not in held.cluster.objects


def test_renewing_says_when(held):
    before = held.ledger.load()[1]["renewed"]
    held.lock._renew()
    assert ANNOTATION_RENEWED in held.cluster.objects[SECRET]["metadata"]["annotations"]
    assert held.ledger.load()[1]["renewed"] > before


def test_of_several_that_find_a_dead_run_one_repairs(held):
    first, second = (held.ledger.load()[1] for _attempt in range(2))
    one, other = Lock(held.cluster, held.ledger), Lock(held.cluster, held.ledger)
    one.take_over(first)
    with pytest.raises(Busy, match="just repairing"):
        other.take_over(second)
    taken = held.ledger.load()[1]
    assert taken["holder"] == process() and alive(taken, taken["renewed"], held.cluster.server_time)
    one.release()
    held.ledger.close_journal("some other's")
    assert SECRET not in held.cluster.objects


def test_a_journal_is_closed_by_its_own_run_only(held):
    held.ledger.close_journal("some other's")
    assert SECRET in held.cluster.objects


def test_a_run_that_stood_still_goes_on_if_nobody_took_over(held):
    held.now += 10 * STALE_SECONDS
    held.lock.check()
    assert held.lock._renewed == held.now


def test_a_run_that_stood_still_stops_writing_once_another_took_over(held):
    """It renews for the version that it left. (With its uid alone as a condition both would go on.)"""
    other = Lock(held.cluster, held.ledger)
    other.take_over(held.ledger.load()[1])
    held.cluster.edit(SECRET, {"metadata": {"annotations": {ANNOTATION_HOLDER: '{"space": "elsewhere", "pid": 1}'}}})
    held.now += GIVE_UP_SECONDS + 1
    with pytest.raises(LockLost, match="another may have taken over"):
        held.lock.check()
    other.stop()


def test_a_take_over_is_noticed_by_the_next_renewal(held):
    held.cluster.edit(SECRET, {"metadata": {"annotations": {ANNOTATION_HOLDER: '{"space": "elsewhere", "pid": 1}'}}})
    held.lock._renew()
    with pytest.raises(LockLost):
        held.lock.check()


def test_a_renewal_whose_answer_was_lost_is_no_loss(held):
    held.lock._patch(held.lock._uid, held.lock._version, {ANNOTATION_RENEWED: "2026-01-01T00:00:01Z"})
    held.lock._renew()
    held.lock.check()
    held.lock._renew()
    held.lock.check()


def test_the_age_of_a_journal_is_the_servers(held):
    """Not what its holder wrote into it, which is the time of an earlier answer."""
    held.cluster.seconds = 50
    held.lock._patch(held.lock._uid, held.lock._version, {ANNOTATION_RENEWED: "2026-01-01T00:00:01Z"})
    assert held.ledger.load()[1]["renewed"] == "2026-01-01T00:00:50Z"


def test_a_write_is_not_tried_again_once_the_lock_is_lost(held):
    """It could land after another run has taken over. The renewal itself is tried again."""
    assert held.cluster.fence == held.lock.check
    held.cluster._stopped = lambda _seconds: False
    answers, send = [503, 503], held.cluster._send

    def busy(method, path, *rest):
        if method == "PATCH" and path.endswith("/configmaps/one") and answers:
            held.lock._lost = True
            return Answer(answers.pop(), {"message": "busy"}, "Thu, 01 Jan 2026 00:00:00 GMT")
        return send(method, path, *rest)

    held.cluster._send = busy
    with pytest.raises(LockLost):
        held.cluster.apply(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "ledger"}})
    assert answers == [503] and Ref("", "ConfigMap", "ledger", "one") not in held.cluster.objects
    held.lock.stop()
    assert held.cluster.fence is None


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_written_once_the_lock_is_lost(held, dry_run):
    """Whoever writes, and whether or not it has asked before; what writes nothing goes on."""
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "ledger"}}
    held.lock._lost = True
    if dry_run:
        assert held.cluster.apply(CONFIGMAPS, one, dry_run=True) and held.cluster.get(CONFIGMAPS, "ledger", "one") is None
    else:
        for write in (lambda: held.cluster.apply(CONFIGMAPS, one), lambda: held.cluster.evict("ledger", "pod", "uid"), lambda: held.ledger.save(State(), 3)):
            with pytest.raises(LockLost):
                write()
    assert set(held.cluster.objects) == {SECRET, Ref("", "Namespace", "", "ledger")}


def test_what_a_renewal_takes_is_part_of_the_age(held, monkeypatch):
    patch = held.cluster.patch

    def slow(*args):
        held.now += 40
        return patch(*args)

    monkeypatch.setattr(held.cluster, "patch", slow)
    held.lock._renew()
    assert held.now - held.lock._renewed == 40


def test_a_run_whose_journal_is_another_ones_stops_writing(held):
    held.cluster.objects[SECRET]["metadata"]["uid"] = "another"
    held.lock._renew()
    with pytest.raises(LockLost):
        held.lock.check()


def test_a_server_that_does_not_answer_for_a_moment_is_no_loss(held, monkeypatch):
    def unreachable(*_args):
        raise Unreachable("connection reset")

    monkeypatch.setattr(held.cluster, "patch", unreachable)
    held.now += 20
    held.lock._renew()
    held.lock.check()


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("holder", "seconds", "said"),
    [
        (process(), 0, True),
        (process(), STALE_SECONDS + 1, False),
        ({**process(), "pid": dead_pid()}, 0, False),
        ({"space": "another machine, or the same before it was started anew", "pid": dead_pid()}, 0, True),
        ({"space": "another machine", "pid": os.getpid()}, STALE_SECONDS + 1, False),
        ({}, 0, True),
    ],
    ids=["here", "stopped", "dead", "elsewhere", "elsewhere and silent", "unknown"],
)
def test_who_is_alive(holder, seconds, said):
    now = f"2026-01-01T00:{int(seconds) // 60:02d}:{int(seconds) % 60:02d}Z"
    assert alive({"holder": holder}, "2026-01-01T00:00:00Z", now) is said
