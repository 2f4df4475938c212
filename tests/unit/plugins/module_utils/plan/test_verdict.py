# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What decides on a release, and what does not: bystanders, and whatever was broken before it."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils.plan.verdict import Before, before, may_start_anew, restarts, scope
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from fake import FakeCluster
from story import config, configmap, deploy, obj, releaser, roll_back, state

SPACE, WEB, SHORT = obj("Namespace", "ns", None), Ref("apps", "Deployment", "ns", "web"), 0.3


def workload(name="web", image="web:1", source="settings"):
    container = {"name": "c", "image": image, "envFrom": [{"configMapRef": {"name": source}}]}
    return {**obj("Deployment", name), "apiVersion": "apps/v1", "spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}


def pod(name="web-1-a", reason="", count=0, ready=False, uid=""):
    hash_ = name.split("-")[1]
    owner = {"kind": "ReplicaSet", "name": f"web-{hash_}", "controller": True}
    meta = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "labels": {"pod-template-hash": hash_}, "ownerReferences": [owner]}
    waiting = {"waiting": {"reason": reason}} if reason else {"running": {}}
    container = {"name": "c", "restartCount": count, "state": waiting, "lastState": {"terminated": {"exitCode": 3}} if count else {}}
    status = {"containerStatuses": [container], "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status}


def report(cluster, ref, ready):
    """The Deployment's controller at work."""
    status = {"updatedReplicas": 1, "replicas": 1, "availableReplicas": int(ready), "observedGeneration": 99}
    cluster.edit(ref, {"status": status}, "kube-controller-manager", "status")


@pytest.fixture
def cluster():
    """A release that nobody waited for: the Deployment is not ready."""
    made = FakeCluster()
    deploy(made, {"app": [SPACE, config("settings", mode="good"), workload()], "more": [config("other", a="1")]}, wait=False)
    report(made, WEB, False)
    return made


def bundle(mode="good", other="1", **more):
    return {"app": [SPACE, config("settings", mode=mode), workload(**more)], "more": [config("other", a=other)]}


# --- bystanders ------------------------------------------------------------------------------------------------------


def test_what_nothing_was_written_to_fails_no_release(cluster):
    """Red where everything that is not ready is waited for, and undoes what was right."""
    result = deploy(cluster, bundle(other="2"), wait_timeout=SHORT)
    assert result["changed"] and cluster.objects[configmap("other")]["data"] == {"a": "2"}
    assert result["not_ready"] == ["Deployment ns/web: 0 of 1 replicas available, as before this run; verify.yml says why"]


def test_a_return_is_not_undone_for_a_bystander(cluster):
    deploy(cluster, bundle(other="2"), wait_timeout=SHORT)
    assert len(roll_back(cluster, wait_timeout=SHORT)["not_ready"]) == 1
    assert cluster.objects[configmap("other")]["data"] == {"a": "1"}


def test_a_run_with_nothing_to_do_says_what_is_not_ready(cluster):
    result = deploy(cluster, bundle(), wait_timeout=SHORT)
    assert not result["changed"] and len(result["not_ready"]) == 1
    report(cluster, WEB, True)
    assert deploy(cluster, bundle(), wait_timeout=SHORT)["not_ready"] == []


def test_who_may_not_see_a_bystanders_pods_releases_all_the_same(cluster):
    cluster.forbidden.add("pods")
    assert deploy(cluster, bundle(other="2"), wait_timeout=SHORT)["changed"]


def test_a_bystander_that_cannot_be_looked_at_undoes_nothing(cluster, monkeypatch):
    get, run = cluster.get, releaser(cluster, complete=True, wait_timeout=SHORT)

    def failing(rtype, namespace, name):
        if rtype.kind == "Deployment":
            raise ApiError("etcdserver: request timed out", 500)
        return get(rtype, namespace, name)

    def wait(*args):
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "get", failing)
            Releaser._wait(run, *args)

    monkeypatch.setattr(run, "_wait", wait)

    assert run.deploy(bundle(other="2"))["not_ready"] == ["what was not ready before could not be looked at: etcdserver: request timed out"]


@pytest.mark.parametrize(("quota", "hoped"), [(("all", "ns"), {"web"}), (("ns", "elsewhere"), set())])
def test_a_quota_concerns_its_own_namespace(cluster, quota, hoped):
    name, namespace = quota
    run = releaser(cluster, complete=True, check=True)
    plans = []
    run._preview = lambda plan, *_rest: plans.append(plan)
    more = [obj("Namespace", "elsewhere", None), {**obj("ResourceQuota", name, namespace), "spec": {}}]
    run.deploy({**bundle(), "room": more})
    assert {ref.name for ref in scope(plans[0]).hoped} == hoped


# --- what was broken before ------------------------------------------------------------------------------------------


def test_what_may_mend_a_broken_workload_stays(cluster):
    """Red where the release waits for the pods of before, and restores the wrong setting with them."""
    cluster.make(pod(reason="CrashLoopBackOff", count=4))
    result = deploy(cluster, bundle(mode="better"), wait_timeout=SHORT)
    assert cluster.objects[configmap("settings")]["data"] == {"mode": "better"}
    assert result["not_ready"] == ["Deployment ns/web: 0 of 1 replicas available, still after 0 s"]
    assert state(cluster).current["number"] == 2


def test_a_repair_of_drift_is_never_undone(cluster):
    cluster.edit(configmap("settings"), {"data": {"mode": "sabotaged"}})
    cluster.edit(WEB, {"spec": {"replicas": 2}})
    cluster.make(pod(reason="CrashLoopBackOff", count=4))
    result = drift(releaser(cluster, wait_timeout=SHORT), True, None, [])
    assert cluster.objects[configmap("settings")]["data"] == {"mode": "good"} and cluster.objects[WEB]["spec"]["replicas"] == 1
    assert (result["fixed"], len(result["not_ready"])) == (2, 1)


def test_a_new_version_that_does_not_get_ready_is_undone_all_the_same(cluster):
    with pytest.raises(ReleaseFailed, match="not ready after"):
        deploy(cluster, bundle(image="web:2"), wait_timeout=SHORT)
    assert cluster.objects[WEB]["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1"


# --- the decisions themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "wanted", "hoped", "beside"), [
    ({}, set(), set(), {"web"}),
    ({"other": "2"}, set(), set(), {"web"}),
    ({"mode": "x"}, {"web"}, {"web"}, set()),
    ({"image": "web:2"}, {"web"}, set(), set()),
])  # fmt: skip
def test_scope(cluster, change, wanted, hoped, beside):
    run = releaser(cluster, complete=True, check=True)
    plans = []
    run._preview = lambda plan, *_rest: plans.append(plan)
    run.deploy(bundle(**change))
    found = scope(plans[0])
    assert [{ref.name for ref in part} for part in (found.wanted, found.hoped, found.beside)] == [wanted, hoped, beside]


LIVE = {"kind": "Deployment", "metadata": {"generation": 3}, "spec": {"replicas": 2}, "status": {"observedGeneration": 3}}


def refused(message, generation=3):
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    return {**LIVE, "metadata": {"generation": generation}, "status": {"observedGeneration": generation, "conditions": [condition]}}


@pytest.mark.parametrize(("now", "old"), [
    (pod(reason="CrashLoopBackOff", count=4), True),
    (pod(reason="CrashLoopBackOff", count=5), False),  # it was started again since, and crashed
    (pod(reason="CrashLoopBackOff", count=4, uid="another"), False),
    (pod("web-2-b", "CrashLoopBackOff"), False),
])  # fmt: skip
def test_trouble_is_old_when_pod_and_count_are(now, old):
    reading = before({WEB: LIVE}, [pod(reason="CrashLoopBackOff", count=4)])
    assert reading.had(WEB, LIVE, now, "c") == old
    assert not Before().had(WEB, LIVE, now, "c"), "of what was ready, all trouble is new"


@pytest.mark.parametrize(("generation", "updated", "pods", "explained"), [
    (3, 1, [], True),  # and says nothing else than before
    (4, 1, [], False),  # its description changed, and there is no pod
    (4, 1, [pod(count=4)], True),  # changed in what does not concern pods: these are those of before
    (4, 0, [pod(count=4)], False),  # they keep the new ones from coming
    (4, 1, [pod(count=5)], True),  # it crashed before, and does so still
    (4, 1, [pod(count=4), pod("web-2-b")], False),
    (4, 1, [pod(count=4), pod("web-2-b", ready=True)], True),
])  # fmt: skip
def test_what_explains_that_a_workload_is_still_not_ready(generation, updated, pods, explained):
    reading = before({WEB: LIVE}, [pod(count=4)])
    status = {"updatedReplicas": updated, "observedGeneration": generation}
    live = {"kind": "Deployment", "metadata": {"generation": generation}, "spec": {"replicas": 1}, "status": status}
    assert reading.explains(WEB, live, pods) == explained


STARTING = {
    "running": pod(),
    "with a probe": {**pod(), "spec": {"containers": [{"name": "c", "readinessProbe": {}}]}},
    "being created": pod(reason="ContainerCreating"),
    "initialising": pod(reason="PodInitializing"),
    "ready": pod(ready=True),
}


@pytest.mark.parametrize("how", STARTING)
def test_a_pod_that_was_in_no_trouble_can_still_fail_a_release(how):
    """What it starts with may be what the release wrote."""
    reading = before({WEB: LIVE}, [STARTING[how]])
    assert not reading.forgives(WEB, LIVE, pod(reason="CrashLoopBackOff", count=1), "c")
    assert not reading.explains(WEB, {**LIVE, "status": {"observedGeneration": 3, "updatedReplicas": 2}}, [pod(reason="CrashLoopBackOff", count=1)])


def test_a_pod_that_crashed_before_cannot():
    assert before({WEB: LIVE}, [pod(count=1)]).forgives(WEB, LIVE, pod(reason="CrashLoopBackOff", count=2), "c")


def test_a_healthy_pod_that_a_release_breaks_fails_it():
    """Another of its pods was broken before, and this one is not started again: it is not ready any more."""
    reading = before({WEB: LIVE}, [pod("web-1-a", "CrashLoopBackOff", 4), pod("web-1-b", ready=True)])
    assert not reading.forgives(WEB, LIVE, pod("web-1-b"), "c")


@pytest.mark.parametrize(("then", "now", "old"), [
    (refused('pods "web-x" is forbidden: exceeded quota: q'), refused('pods "web-y" is forbidden: exceeded quota: q', 4), True),
    (refused('pods "web-x" is forbidden: exceeded quota: q'), refused('pods "web-y" is forbidden: exceeded quota: r'), False),
    (LIVE, refused('pods "web-y" is forbidden: exceeded quota: q'), False),  # the quota is the release's own
    (LIVE, LIVE, True),
    (LIVE, {**LIVE, "metadata": {"generation": 4}}, False),
], ids=["the same", "another quota", "none before", "nothing said", "another description"])  # fmt: skip
def test_trouble_of_a_workload_is_old_when_it_says_the_same(then, now, old):
    assert before({WEB: then}, []).had(WEB, now) == old


RUNNING = {"name": "main", "state": {"running": {}}, "ready": True}


@pytest.mark.parametrize(("ref", "spec", "more", "may"), [
    (WEB, {}, [], True),
    (WEB, {}, [RUNNING], False),  # a sidecar crashes, and the rest works
    (WEB._replace(kind="StatefulSet"), {}, [], True),
    (WEB._replace(kind="StatefulSet"), {"updateStrategy": {"type": "OnDelete"}}, [], False),  # it would come back as another
    (WEB._replace(kind="DaemonSet"), {"updateStrategy": {"type": "OnDelete"}}, [], False),
    (WEB._replace(group="batch", kind="Job"), {}, [], False),  # that counts as a failure of it
])  # fmt: skip
def test_which_pods_may_be_started_anew(ref, spec, more, may):
    crashed = pod(reason="CrashLoopBackOff", count=4)
    crashed["status"]["containerStatuses"] += more
    assert may_start_anew(ref, {**LIVE, "spec": spec}, crashed) == may


@pytest.mark.parametrize(("pods", "live", "broken"), [
    ([pod(count=4)], LIVE, True), ([pod(reason="CrashLoopBackOff")], LIVE, True), ([], LIVE, True),
    ([pod()], refused("no"), True), ([pod()], LIVE, False),
])  # fmt: skip
def test_only_what_was_broken_is_hoped_for(pods, live, broken):
    """What only starts while the release writes its setting can fail it."""
    assert before({WEB: live}, pods).was_broken(WEB) == broken
    assert not Before().was_broken(WEB)


def test_a_pod_without_containers_yet_counts_by_itself():
    waiting = {"metadata": {"name": "web-1-a", "namespace": "ns", "uid": "u"}}
    assert restarts(waiting) == {"": 0}
