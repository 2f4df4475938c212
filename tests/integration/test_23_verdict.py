# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What decides on a release: what it wrote. Bystanders, what was broken before, and what is no trouble at all do not."""
from __future__ import annotations

import threading
import time
import typing as t

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from bundles import Platform, obj, pod, workload
from cluster import NAME, kubectl
from live import until
from living import API, by_hand, delete, deployment, edit, nowhere, settings, space, there, uid

CRASHES = "CrashLoopBackOff"
UP = {"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 5}}  # else a container is ready from the moment it runs


def fix(platform: Platform, **options: t.Any) -> dict:
    return drift(platform.releaser(**options), True, None, [])


def pods(namespace: str, app: str) -> list[dict]:
    return API.need("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"app={app}")["items"]


def crashing(namespace: str, app: str) -> bool:
    found = [each.get("state", {}).get("waiting", {}).get("reason") for p in pods(namespace, app) for each in p["status"].get("containerStatuses", [])]
    return CRASHES in found


def is_available(body: dict) -> bool:
    return bool((there(body) or {}).get("status", {}).get("availableReplicas"))


# --- a controller's own way of not being ready ------------------------------------------------------------------------


def test_a_partition_holds_members_back(living, figure):
    """Case 01. Red where every member has to be at the newest revision: the wait never ends."""
    platform = living("01")
    name = platform.name

    def shards(revision: str) -> dict:
        template = pod("shard", env=[{"name": "REVISION", "value": revision}])
        return workload("StatefulSet", "shard", name, template, replicas=2, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})

    platform.deploy({"app": [space(name), shards("one")]})
    platform.deploy({"app": [space(name), shards("two")]}, wait_timeout=90)
    status = (there(shards("two")) or {})["status"]
    assert (status["updatedReplicas"], status["readyReplicas"]) == (1, 2)
    figure("case 01, a partition holds one of two members back: released", "yes")


def test_a_paused_rollout_stands_still(living, figure):
    """Case 03. Red where a Deployment that is told to wait is waited for."""
    platform = living("03")
    name = platform.name
    platform.deploy({"app": [space(name), deployment(name)]})
    platform.deploy({"app": [space(name), deployment(name, paused=True, minReadySeconds=1)]}, wait_timeout=60)
    platform.deploy({"app": [space(name), deployment(name, paused=True), deployment(name, "new", paused=True)]}, wait_timeout=60)
    figure("case 03, a Deployment that is paused, an old one and a new one: released", "yes / yes")


def test_a_job_that_its_time_to_live_takes_away_is_done(living, figure):
    """Case 05. Red where a Job counts as deleted by somebody once it is gone, while others are still waited for."""
    platform = living("05")
    name = platform.name
    slow = workload("Deployment", "slow", name, pod("slow", readinessProbe={"exec": {"command": ["true"]}, "initialDelaySeconds": 12}))
    template = pod("migrate", "true")
    template["spec"]["restartPolicy"] = "Never"
    job = obj("batch/v1", "Job", "migrate", name, spec={"ttlSecondsAfterFinished": 0, "template": template})
    bundle = {"app": [space(name), job, slow]}
    platform.deploy(bundle, wait_timeout=120)
    until("the Job is gone", lambda: there(job) is None)
    assert not platform.deploy(bundle)["changed"]
    figure("case 05, a Job that is gone as soon as it is done: released / changed again", "yes / no")


def test_a_node_that_is_on_its_way_is_waited_for(living, figure):
    """Case 07. Red where a pod that cannot be scheduled has the ten seconds of a scheduler, whatever an autoscaler says."""
    platform, node = living("07"), f"{NAME}-worker2"
    name = platform.name
    template = pod("web")
    template["spec"]["nodeSelector"] = {name: "yes"}
    arrived = threading.Event()

    def scale_up() -> None:
        """What an autoscaler does: it says so, and brings a node after the time that the engine would have had patience for."""
        until("the pod is there", lambda: pods(name, "web"))
        waiting = pods(name, "web")[0]["metadata"]["name"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": name, "name": waiting}
        by_hand(obj("v1", "Event", "scale-up", name, type="Normal", reason="TriggeredScaleUp", involvedObject=about, message="pod triggered scale-up",
                    firstTimestamp=now, lastTimestamp=now, count=1))  # fmt: skip
        if not arrived.wait(25):
            kubectl("label", "node", node, f"{name}=yes", "--overwrite")

    thread = threading.Thread(target=scale_up)
    thread.start()
    try:
        platform.deploy({"app": [space(name), workload("Deployment", "web", name, template)]}, wait_timeout=180)
    finally:
        arrived.set()
        thread.join()
        kubectl("label", "node", node, f"{name}-")
    figure("case 07, a node that an autoscaler brings after 25 s: waited for", "yes")


# --- bystanders ------------------------------------------------------------------------------------------------------


def test_a_bystander_never_decides(living, figure):
    """Engine, 2.8. Red where all that is not ready is waited for: the right change, and the return from it, are undone for another's trouble."""
    platform = living("bystander")
    name = platform.name
    sick = workload("Deployment", "sick", name, pod("sick", "exit 3", **UP))

    def bundle(rate: str) -> dict[str, list[dict]]:
        return {"base": [space(name), sick, nowhere(name)], "app": [settings(name, rate=rate), deployment(name, minReadySeconds=int(rate))]}

    platform.deploy(bundle("1"), wait=False)
    until("it crashes", lambda: crashing(name, "sick"))
    told = [platform.deploy(bundle("2"))["not_ready"], platform.roll_back()["not_ready"], platform.deploy(bundle("1"))["not_ready"]]
    assert all(len(each) == 2 and "Deployment" in each[0] for each in told), told
    live = there(settings(name))
    assert live and live["data"]["rate"] == "1"
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        platform.deploy({**bundle("3"), "more": [workload("Deployment", "worse", name, pod("worse", "exit 4", **UP))]})
    live = there(settings(name))
    assert live and live["data"]["rate"] == "1", "what was written decides as before"
    figure("engine 2.8, two broken bystanders: released, returned, nothing to do / undone for its own trouble", "yes, yes, told / yes")


# --- repairs ---------------------------------------------------------------------------------------------------------


def fussy(namespace: str, name: str = "web") -> dict:
    """A Deployment that only runs with the right setting, under an account of its own."""
    source = {"valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}}
    template = pod(name, 'test "$RATE" = 1 && exec sleep infinity; echo "rate is $RATE"; exit 3', env=[{"name": "RATE", **source}])
    template["spec"]["serviceAccountName"] = "web"
    return workload("Deployment", name, namespace, template)


def account(namespace: str) -> dict:
    return obj("v1", "ServiceAccount", "web", namespace)


def working(namespace: str, rate: str = "1") -> dict[str, list[dict]]:
    return {"app": [space(namespace), settings(namespace, rate=rate), account(namespace), fussy(namespace)]}


def test_a_release_mends_pods_that_crash_already(living, figure):
    """Case 06. Red where pods that crashed before the release count against it: no release can repair them."""
    platform = living("06")
    name = platform.name
    platform.deploy(working(name, "2"), wait=False)
    until("it crashes", lambda: crashing(name, "web"))
    started = time.monotonic()
    result = platform.deploy(working(name, "1"))
    seconds = time.monotonic() - started
    assert result["not_ready"] == [] and is_available(fussy(name))
    assert platform.drift() == []
    figure("case 06, a setting that makes pods crash, put right by a release: ready after, s", f"{seconds:.0f}")


def test_a_release_that_does_not_mend_enough_stays_and_says_so(living, figure):
    """Users, 1. Red where the setting before, as wrong, is restored; or where nobody learns that the new one is wrong, too."""
    platform = living("06b")
    name = platform.name
    platform.deploy(working(name, "2"), wait=False)
    until("it crashes", lambda: crashing(name, "web"))
    told = platform.deploy(working(name, "3"))["not_ready"]
    assert len(told) == 1 and "rate is 3" in told[0], told
    live = there(settings(name))
    assert live and live["data"]["rate"] == "3"
    figure("case 06, another wrong setting: kept, and told with the log's line", "yes")


def break_setting(name: str) -> None:
    edit(settings(name), {"data": {"rate": "7"}})
    kubectl("delete", "pods", "-n", name, "-l", "app=web", "--wait=false")
    until("it crashes", lambda: crashing(name, "web"))


def break_account(name: str) -> None:
    before = {each["metadata"]["uid"] for each in pods(name, "web")}
    delete(account(name))
    kubectl("delete", "pods", "-n", name, "-l", "app=web", "--wait=false")
    until("there is no pod", lambda: not before & {each["metadata"]["uid"] for each in pods(name, "web")} and not is_available(fussy(name)))


def break_quota(name: str) -> None:
    edit(obj("v1", "ResourceQuota", "all", name), {"spec": {"hard": {"pods": "0"}}})
    kubectl("delete", "pods", "-n", name, "-l", "app=web", "--wait=false")
    until("there is no pod", lambda: not pods(name, "web"))


def break_image(name: str) -> None:
    kubectl("set", "image", "-n", name, "deployment/web", "main=genai-platform/nowhere:1")
    until("the new pod cannot start", lambda: len(pods(name, "web")) == 2)


BROKEN: dict[str, t.Callable[[str], None]] = {
    "a setting edited, pods crash": break_setting,
    "the account deleted, no pods": break_account,
    "a quota of no pods, no pods": break_quota,
    "another image": break_image,
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_repair_stays(living, figure, way):
    """Users, 1. Red where the wait stops at trouble that is older than the repair, and writes the sabotage back."""
    platform = living(f"1{[*BROKEN].index(way)}")
    name = platform.name
    bundle = working(name)
    bundle["app"] += [obj("v1", "ResourceQuota", "all", name, spec={"hard": {"pods": "10"}}), deployment(name, "other")]
    platform.deploy(bundle)
    other = uid(deployment(name, "other"))
    BROKEN[way](name)
    found = platform.drift()
    started = time.monotonic()
    result = fix(platform)
    seconds = time.monotonic() - started
    assert found and result["fixed"] == len(found)
    assert result["not_ready"] == [] and is_available(fussy(name)), result["not_ready"]
    assert platform.drift() == [] and uid(deployment(name, "other")) == other
    figure(f"users 1, {way}: put back by drift, kept, ready after, s", f"{seconds:.0f}")


def test_a_rule_that_is_put_back_stays_beside_a_crash(living, figure):
    """Users, 1. Red where a NetworkPolicy that was deleted by hand is put back, and removed again because some pod crashes."""
    platform = living("rule")
    name = platform.name
    rule = obj("networking.k8s.io/v1", "NetworkPolicy", "web", name, spec={"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]})
    platform.deploy({"app": [space(name), rule, workload("Deployment", "sick", name, pod("sick", "exit 3", **UP))]}, wait=False)
    until("it crashes", lambda: crashing(name, "sick"))
    kubectl("delete", "networkpolicy", "web", "-n", name)
    result = fix(platform)
    assert kubectl("get", "networkpolicy", "web", "-n", name, "-o", "name") and len(result["not_ready"]) == 1
    figure("users 1, a NetworkPolicy deleted beside a pod that crashes: put back, kept", "yes")


def test_a_repair_that_is_not_enough_stays_too(living, figure):
    """Users, 1. Red where what is right is undone because something else, that is no part of the platform, is missing as well."""
    platform = living("stays")
    name = platform.name
    theirs, needy = settings(name, "theirs"), fussy(name)
    needy["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "theirs"}}]
    bundle = {"app": [space(name), settings(name), account(name), needy]}
    platform.deploy({"app": bundle["app"][:1]})
    by_hand(theirs)
    platform.deploy(bundle)
    delete(theirs)
    edit(settings(name), {"data": {"rate": "7"}})
    kubectl("delete", "pods", "-n", name, "-l", "app=web", "--wait=false")
    until("the new pod has no setting", lambda: [p for p in pods(name, "web") if "CreateContainerConfigError" in str(p["status"])])
    result = fix(platform)
    live = there(settings(name))
    assert live and live["data"]["rate"] == "1" and result["fixed"] == 1
    assert len(result["not_ready"]) == 1 and "theirs" in result["not_ready"][0], result["not_ready"]
    assert platform.drift() == []
    figure("users 1, put back, but something of others is missing too: kept, and named", "yes")
