# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The order of work, with a failure at every single write."""
from __future__ import annotations

import copy
import random

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import apply as _apply
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import State
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Busy, InvalidInput, LockLost, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils.upkeep.history import history
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from fake import CUT, FakeCluster
from story import deploy, obj, releaser, roll_back, state

V1 = {
    "base": [obj("Namespace", "ns", None)],
    "app": [obj("ConfigMap", "one", data={"a": "1"}), obj("Secret", "key", data={"p": "MQ=="}), obj("ConfigMap", "old", data={})],
}
V2 = {
    "base": [obj("Namespace", "ns", None, spec={"finalizers": ["x"]})],
    "app": [obj("ConfigMap", "one", data={"b": "2"}), obj("Secret", "key", data={"p": "Mg=="}), obj("Service", "new", spec={"x": 1})],
    "more": [obj("ConfigMap", "three", data={})],
}


@pytest.fixture
def cluster():
    return FakeCluster()


def test_first_second_and_changed_release(cluster):
    first = deploy(cluster, V1)
    assert (first["release"], first["changed"], len(first["changes"])) == (1, True, 4)
    writes = len(cluster.writes)
    again = deploy(cluster, V1)
    assert (again["release"], again["changed"]) == (1, False) and len(cluster.writes) == writes
    second = deploy(cluster, V2)
    assert second["release"] == 2
    by = {(c["action"], c["kind"], c["name"]) for c in second["changes"]}
    assert ("delete", "ConfigMap", "old") in by and ("create", "Service", "new") in by and ("update", "Secret", "key") in by
    assert state(cluster).current["components"] == {"base": 2, "app": 2, "more": 1}


def test_preview_writes_nothing_and_announces_what_the_run_creates(cluster):
    preview = deploy(cluster, V1, check=True)
    assert cluster.objects == {} and cluster.writes == []
    announced = {f"{c['kind']} {c['namespace'] + '/' if c['namespace'] else ''}{c['name']}" for c in preview["changes"]}
    deploy(cluster, V1)
    assert {str(ref) for ref in cluster.objects} == announced | set(preview["ledger"])


def test_secret_values_stay_out_of_every_result(cluster):
    results = [deploy(cluster, V1, diff=True), deploy(cluster, V2, diff=True, check=True), deploy(cluster, V2, diff=True)]
    assert "MQ==" not in str(results) and "Mg==" not in str(results)
    assert "(hidden, changed)" in str(results[1])


def test_a_refusal_that_quotes_a_secret_is_not_repeated(cluster):
    cluster.fail_at, cluster.failure = 3, ApiError("webhook: 'hunter22' (aHVudGVyMjI=) is too weak", 400)
    with pytest.raises(ReleaseFailed) as caught:
        deploy(cluster, {"app": [obj("Namespace", "ns", None), obj("Secret", "key", stringData={"p": "hunter22"})]})
    assert "webhook: '(hidden)' ((hidden)) is too weak" in caught.value.message


def writes_of(act) -> int:
    cluster = FakeCluster()
    deploy(cluster, V1)
    start = len(cluster.writes)
    act(cluster)
    return len(cluster.writes) - start


# Closing the journal is the last write: the release is recorded by then, and the next run only closes it.
@pytest.mark.parametrize("failure", [None, CUT], ids=["refused", "cut"])
@pytest.mark.parametrize("k", range(writes_of(lambda c: deploy(c, V2)) - 1))
def test_a_failure_at_any_write_restores_the_state_before(k, failure):
    cluster = FakeCluster()
    deploy(cluster, V1)
    before = cluster.contents()
    cluster.fail_at = len(cluster.writes) + k
    cluster.failure = failure or cluster.failure
    with pytest.raises(Exception) as caught:
        deploy(cluster, V2)
    assert "refused by an admission webhook" in str(caught.value) or "connection reset" in str(caught.value)
    assert cluster.contents() == before
    assert not any("journal" in str(ref) for ref in cluster.objects)
    assert deploy(cluster, V1)["changed"] is False, "and the ledger agrees"


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


@pytest.mark.parametrize("k", range(writes_of(lambda c: deploy(c, V2))))
def test_a_run_killed_at_any_write_is_repaired_by_the_next(k, monkeypatch):
    cluster = FakeCluster()
    deploy(cluster, V1)
    before = cluster.contents()
    cluster.fail_at, cluster.failure = len(cluster.writes) + k, Killed()
    victim = releaser(cluster, complete=True)
    monkeypatch.setattr(victim, "_undo", lambda exc, *_args: exc)
    with pytest.raises(Killed):
        victim.deploy(V2)
    monkeypatch.setattr("ansible_collections.genai.platform.plugins.module_utils.engine.release.alive", lambda *_args: False)
    recorded = state(cluster).current["number"] == 2
    journalled = Ref("", "Secret", "genai-ledger", "genai.journal") in cluster.objects
    after = deploy(cluster, V2 if recorded else V1)
    assert after["changes"] == [] and bool(after["repaired"]) is after["changed"] is (journalled and not recorded)
    assert recorded or cluster.contents() == before
    assert not any("journal" in str(ref) for ref in cluster.objects)


def test_a_failed_first_release_leaves_nothing(cluster):
    cluster.fail_at = 4
    with pytest.raises(ReleaseFailed, match="release 1 failed. The state before is restored"):
        deploy(cluster, V1)
    assert cluster.objects == {}


def test_claims_and_the_namespace_around_them_are_kept(cluster):
    bundle = {"app": [obj("Namespace", "ns", None), obj("PersistentVolumeClaim", "disk"), obj("Service", "bad")]}
    cluster.fail_at = 4
    with pytest.raises(ReleaseFailed) as caught:
        deploy(cluster, bundle)
    assert caught.value.facts["restored"]["kept"] == ["PersistentVolumeClaim ns/disk: it holds data", "Namespace ns: it holds 1 claims with data"]
    assert Ref("", "PersistentVolumeClaim", "ns", "disk") in cluster.objects


def test_a_run_under_way_is_named(cluster):
    deploy(cluster, V1)
    victim = releaser(cluster)
    victim.lock.acquire(victim._journal("2026-01-01T00:00:00Z", []))
    with pytest.raises(Busy, match="tester, since 2026-01-01T00:00:00Z"):
        deploy(cluster, V2)


def test_rollback_is_exact_and_a_release_of_its_own(cluster):
    deploy(cluster, V1)
    one = cluster.contents()
    deploy(cluster, V2)
    two = cluster.contents()
    result = roll_back(cluster)
    assert result["release"] == 3 and cluster.contents() == one
    assert state(cluster).current["components"] == {"base": 1, "app": 1}
    assert state(cluster).current["rolled_back_to"] == 1
    assert roll_back(cluster, "2")["release"] == 4 and cluster.contents() == two
    with pytest.raises(InvalidInput, match="release 9 is not in the ledger; kept and deployed releases: 1, 2, 3, 4"):
        roll_back(cluster, "9")


def test_rollback_of_one_component_leaves_the_others(cluster):
    deploy(cluster, V1)
    deploy(cluster, V2)
    roll_back(cluster, "1", ["app"])
    assert state(cluster).current["components"] == {"base": 2, "app": 1, "more": 1}
    assert Ref("", "ConfigMap", "ns", "three") in cluster.objects and Ref("", "Service", "ns", "new") not in cluster.objects
    with pytest.raises(InvalidInput, match="no such component in release 1: nope"):
        roll_back(cluster, "1", ["nope"])


def test_the_history_is_told_the_newest_first_and_a_return_says_where_it_goes(cluster):
    deploy(cluster, V1)
    cluster.fail_at = len(cluster.writes) + 3
    with pytest.raises(ReleaseFailed):
        deploy(cluster, V2)
    deploy(cluster, V2)
    assert roll_back(cluster, check=True)["returns_to"] == 1 and deploy(cluster, V2)["returns_to"] is None
    assert roll_back(cluster)["returns_to"] == 1
    told = history(state(cluster))
    assert [line[:6].split() for line in told] == [["*", "4"], ["3"], ["2"], ["1"]]
    assert "deployed, back to 1  by tester  app +" in told[0] and "failed" in told[2] and told[2].endswith("refused by an admission webhook")
    assert history(State([], {}, {})) == []


def test_previous_steps_back_and_does_not_swing(cluster):
    with pytest.raises(InvalidInput, match="nothing has been deployed here yet"):
        roll_back(cluster)
    deploy(cluster, V1)
    with pytest.raises(InvalidInput, match="release 1 has no predecessor"):
        roll_back(cluster)
    deploy(cluster, V2)
    roll_back(cluster)
    with pytest.raises(InvalidInput, match="has no predecessor"):
        roll_back(cluster)


def test_previous_is_the_same_before_and_after_a_drift_fix(cluster):
    deploy(cluster, V1)
    deploy(cluster, V2)
    deploy(cluster, V1)
    roll_back(cluster, "2")
    assert state(cluster).find("previous")["number"] == 1
    cluster.edit(Ref("", "ConfigMap", "ns", "one"), {"data": {"b": "by hand"}})
    assert drift(releaser(cluster), True, None, [])["fixed"] == 1
    assert state(cluster).find("previous")["number"] == 1, "not 3, which was left for 2"
    roll_back(cluster)
    with pytest.raises(InvalidInput, match="release 6 has no predecessor in the ledger: none before it is kept"):
        roll_back(cluster)


def test_previous_after_a_return_of_one_component_is_what_that_return_changed(cluster):
    deploy(cluster, V1)
    deploy(cluster, V2)
    two = cluster.contents()
    roll_back(cluster, "1", ["app"])
    roll_back(cluster)
    assert cluster.contents() == two


def test_limited_run_leaves_other_components(cluster):
    deploy(cluster, V2)
    result = deploy(cluster, {"more": [obj("ConfigMap", "three", data={"x": "y"})]}, complete=False)
    assert set(result["summary"]) == {"more"}
    assert state(cluster).current["components"] == {"base": 1, "app": 1, "more": 2}


def test_an_object_that_was_there_before_us_is_not_deleted_by_the_undo(cluster):
    deploy(cluster, {"base": V1["base"]})
    foreign = obj("ConfigMap", "one", data={"theirs": "x"})
    foreign["metadata"] |= {"uid": "f", "creationTimestamp": "2020-01-01T00:00:00Z", "resourceVersion": "1"}
    cluster.objects[Ref.of(foreign)] = copy.deepcopy(foreign)
    cluster.fail_at = len(cluster.writes) + 3
    with pytest.raises(ReleaseFailed):
        deploy(cluster, V1)
    assert Ref.of(foreign) in cluster.objects


def test_only_so_many_releases_are_kept(cluster):
    for number in range(8):
        deploy(cluster, {"base": V1["base"], "app": [obj("ConfigMap", "one", data={"n": str(number)})]}, keep=3)
    kept = state(cluster)
    assert [r["number"] for r in kept.releases] == [6, 7, 8]
    revisions = [ref.name for ref in cluster.objects if ".app.r" in ref.name]
    assert sorted(revisions) == ["genai.app.r6", "genai.app.r7", "genai.app.r8"]


def test_a_large_component_is_cut_into_parts_and_comes_back_whole(cluster):
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=1_200_000))
    big = [obj("ConfigMap", f"big{i}", data={"x": noise[i * 400_000 : (i + 1) * 400_000]}) for i in range(3)]
    deploy(cluster, {"base": V1["base"], "app": [*big, *(copy.deepcopy(big[0]) | {"metadata": {"name": f"copy{i}", "namespace": "ns"}} for i in range(2))]})
    assert any(".app.r1." in ref.name for ref in cluster.objects), "one Secret could not hold it"
    before = cluster.contents()
    deploy(cluster, V1)
    roll_back(cluster, "1")
    assert cluster.contents() == before


def test_a_policy_is_given_time_before_what_it_is_about_is_written(cluster, monkeypatch):
    """Both ways: it is in force before the Service is written, and gone before the Service is put back."""
    space, policy = obj("Namespace", "ns", None), obj("ValidatingAdmissionPolicy", "strict", None)
    last = {**obj("ConfigMap", "last"), "metadata": {"name": "last", "namespace": "ns", "annotations": {"genai.platform/wave": "4"}}}
    deploy(cluster, {"app": [space, obj("Service", "api", spec={"x": 1})]})
    done: list[str] = []

    def write(what):
        done.append(what)
        if what == "apply ConfigMap ns/last":
            raise ApiError("refused", 422)

    monkeypatch.setattr(cluster, "_write", write)
    monkeypatch.setattr(_apply.time, "sleep", lambda _seconds: done.append("wait"))
    with pytest.raises(ReleaseFailed):
        deploy(cluster, {"app": [space, obj("Service", "api", spec={"x": 2}), last], "policy": [policy]})
    strict = "ValidatingAdmissionPolicy strict"
    mine = [what for what in done if what == "wait" or what.endswith((strict, "Service ns/api", "ConfigMap ns/last"))]
    assert mine == [f"apply {strict}", "wait", "apply Service ns/api", "apply ConfigMap ns/last", f"delete {strict}", "wait", "apply Service ns/api"]


def test_a_preview_does_not_judge_by_a_policy_that_changes(cluster, monkeypatch):
    policy = obj("ValidatingAdmissionPolicy", "strict", None, spec={"x": 1})
    deploy(cluster, {"policy": [policy], "base": [obj("Namespace", "ns", None)]})
    apply = cluster.apply

    def refuse(rtype, body, force=False, dry_run=False):
        if body["kind"] == "Service":
            raise ApiError("ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: no", 422)
        return apply(rtype, body, force, dry_run)

    monkeypatch.setattr(cluster, "apply", refuse)
    bundle = {"policy": [policy], "base": [obj("Namespace", "ns", None)], "app": [obj("Service", "api", spec={"x": 1})]}
    with pytest.raises(InvalidInput, match="'strict'"):
        deploy(cluster, bundle, check=True)
    shown = deploy(cluster, {**bundle, "policy": [{**policy, "spec": {"x": 2}}]}, check=True)
    assert [change["pending"] for change in shown["changes"] if change["kind"] == "Service"] == ["a policy that refuses it today changes in the same run"]


@pytest.mark.parametrize("failure", [CUT, ApiError("forbidden", 403)], ids=["cut", "refused"])
def test_a_lock_that_was_just_taken_is_given_back_when_the_state_cannot_be_read(cluster, monkeypatch, failure):
    """Nothing was written yet, so there is nothing for the next run to repair."""
    deploy(cluster, V1)
    victim = releaser(cluster, complete=True)

    def fail():
        raise failure

    monkeypatch.setattr(victim.ledger, "state_version", fail)
    with pytest.raises(type(failure)):
        victim.deploy(V2)
    assert not any("journal" in str(ref) for ref in cluster.objects)
    assert victim.lock._done.is_set() and deploy(cluster, V1)["changed"] is False


def test_a_run_whose_lock_was_lost_while_it_restored_records_nothing(cluster, monkeypatch):
    """Another run has taken over: its journal is not deleted, and the ledger not written."""
    deploy(cluster, V1)
    victim = releaser(cluster, complete=True)

    def stood_still(*_args):
        victim.lock._lost = True
        return ""

    monkeypatch.setattr(victim, "_settle", stood_still)
    cluster.fail_at = len(cluster.writes) + 3
    releases = [r["number"] for r in state(cluster).releases]
    with pytest.raises(LockLost):
        victim.deploy(V2)
    assert [r["number"] for r in state(cluster).releases] == releases
    assert any("journal" in str(ref) for ref in cluster.objects)
