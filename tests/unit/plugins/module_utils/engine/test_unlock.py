# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Opening a platform whose last run did not end and could not be undone."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import unlock as _unlock
from ansible_collections.genai.platform.plugins.module_utils.engine.unlock import unlock, unlock_lines
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Busy, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from fake import FakeCluster
from story import STATE, config, configmap, deploy, kill_at, obj, releaser, state

SPACE = obj("Namespace", "ns", None)
JOURNAL = Ref("", "Secret", "genai-ledger", "genai.journal")
ONE = {"app": [SPACE, config("one", a="1"), config("old")]}
TWO = {"app": [SPACE, config("one", a="2"), config("new")]}


@pytest.fixture
def locked(monkeypatch):
    """A cluster whose last run was killed after all of its writes."""
    cluster = FakeCluster()
    deploy(cluster, ONE)
    cluster.before = cluster.contents()
    kill_at(cluster, monkeypatch, STATE, TWO)
    monkeypatch.setattr(_unlock, "alive", lambda *_args: False)
    return cluster


def refuse(cluster, monkeypatch, name="one"):
    """The server takes no change of one object."""
    apply = cluster.apply

    def refused(rtype, body, *args, **options):
        if body["metadata"]["name"] == name:
            raise ApiError("denied by an admission webhook", 400)
        return apply(rtype, body, *args, **options)

    monkeypatch.setattr(cluster, "apply", refused)


def outcomes(result):
    return {item["object"]: item["outcome"] for item in result["left"]}


def test_what_is_not_locked_is_unchanged():
    cluster = FakeCluster()
    deploy(cluster, ONE)
    writes = list(cluster.writes)
    result = unlock(releaser(cluster))
    assert (result["changed"], result["interrupted"], result["left"], cluster.writes) == (False, None, [], writes)
    assert unlock_lines(result, False)[0].startswith("not locked")


def test_a_look_says_what_would_be_done_and_writes_nothing(locked):
    objects, writes = str(locked.objects), list(locked.writes)
    result = unlock(releaser(locked, check=True))
    assert result["changed"] and outcomes(result) == {
        "ConfigMap ns/one": "is put back", "ConfigMap ns/new": "is removed", "ConfigMap ns/old": "is put back",
    }
    assert (str(locked.objects), locked.writes) == (objects, writes)
    assert unlock_lines(result, True)[0].startswith("would be unlocked: the run of tester")


def test_a_look_says_what_would_stay(locked, monkeypatch):
    refuse(locked, monkeypatch)
    result = unlock(releaser(locked, check=True))
    assert outcomes(result)["ConfigMap ns/one"] == "stays as it is"
    assert any("denied by an admission webhook" in line for line in unlock_lines(result, True))


def test_what_can_be_restored_is(locked):
    result = unlock(releaser(locked))
    assert (result["changed"], result["left"], locked.contents()) == (True, [], locked.before)
    assert JOURNAL not in locked.objects and [r["status"] for r in state(locked).releases] == ["deployed"]
    assert deploy(locked, ONE)["changed"] is False


def test_what_cannot_is_recorded_and_the_platform_is_open(locked, monkeypatch):
    with monkeypatch.context() as patched:
        refuse(locked, patched)
        with pytest.raises(ReleaseFailed, match="unlock.yml"):
            deploy(locked, ONE)
        assert JOURNAL in locked.objects, "nobody else gives up what could not be undone"
        result = unlock(releaser(locked))
        assert outcomes(result) == {"ConfigMap ns/one": "stays as it is"} and JOURNAL not in locked.objects
    failed = state(locked).releases[-1]
    assert failed["status"] == "failed" and failed["error"] == "unlocked by tester; not as before: ConfigMap ns/one"
    assert deploy(locked, ONE)["changed"] and locked.contents() == locked.before


def test_what_was_kept_is_named_too(monkeypatch):
    """A claim that the run made stays for its data: the platform is not as it was before."""
    cluster = FakeCluster()
    deploy(cluster, ONE)
    kill_at(cluster, monkeypatch, STATE, {"app": [*ONE["app"], obj("PersistentVolumeClaim", "disk")]}, wait=False)
    monkeypatch.setattr(_unlock, "alive", lambda *_args: False)
    assert outcomes(unlock(releaser(cluster))) == {"PersistentVolumeClaim ns/disk": "stays as it is"}


@pytest.mark.parametrize("check", [False, True])
def test_a_run_that_is_alive_is_not_disturbed(locked, monkeypatch, check):
    monkeypatch.setattr(_unlock, "alive", lambda *_args: True)
    writes = list(locked.writes)
    with pytest.raises(Busy, match="tester"):
        unlock(releaser(locked, check=check))
    assert locked.writes == writes


def test_of_a_run_that_was_recorded_only_the_journal_goes(monkeypatch):
    cluster = FakeCluster()
    deploy(cluster, ONE)
    kill_at(cluster, monkeypatch, "delete Secret genai-ledger/genai.journal", TWO)
    monkeypatch.setattr(_unlock, "alive", lambda *_args: False)
    after = cluster.contents()
    assert unlock(releaser(cluster))["left"] == []
    assert cluster.contents() == after and JOURNAL not in cluster.objects and configmap("new") in cluster.objects
