# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ways back that are not plain: a stuck StatefulSet, a one-way change, a cancelled run, and removing everything."""
from __future__ import annotations

import json
import os
import signal

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.module.signals import stop_on_signals
from ansible_collections.genai.platform.plugins.module_utils.upkeep.verify import verify
from bundles import Platform, obj, pod, workload
from cluster import kubectl, own, play
from live import Api, Looker, remove, until

NS = own("undo")
PLATFORM = Platform(NS)
EMPTY, SHARED, READER = f"{NS}-empty", f"{NS}-shared", f"{NS}-reader"
MIGRATION = "adds the column price; the old version cannot write without it"


@pytest.fixture(autouse=True)
def clean():
    PLATFORM.remove()
    yield
    PLATFORM.remove()
    kubectl("delete", "clusterrole", READER, "--ignore-not-found")


@pytest.fixture
def looker():
    return Looker(Api(), [NS], NS)


def namespace():
    return obj("v1", "Namespace", NS)


def store(**container):
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    return workload("StatefulSet", "store", NS, pod("store", **container), volumeClaimTemplates=[claim])


def settings(level):
    return obj("v1", "ConfigMap", "settings", NS, data={"level": level})


def healthy():
    releaser = PLATFORM.releaser()
    return verify(releaser.cluster, releaser.ledger, None, 60, lambda _line: None)["verdict"] == "healthy"


def uid(*what):
    return kubectl("get", *what, "-n", NS, "-o", "jsonpath={.metadata.uid}")


def test_a_stuck_statefulset_recovers_by_rollback(figure):
    """Its controller waits for the broken pod before it goes on, so a description that is right again does not help by itself."""
    PLATFORM.deploy({"data": [namespace(), store()]})
    PLATFORM.deploy({"data": [namespace(), store(image="genai-platform/nowhere:1")]}, wait=False)
    kubectl("wait", "pod/store-0", "-n", NS, "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}", "--timeout=60s")
    claim = uid("pvc", "data-store-0")
    said = []
    PLATFORM.releaser(said.append).roll_back("previous", None)
    assert healthy() and uid("pvc", "data-store-0") == claim
    assert any("blocks the rollout; evicted" in line for line in said)
    figure("stuck StatefulSet: ready again by rollback, its claim kept", "yes")


def test_a_failed_release_leaves_a_statefulset_running(looker):
    PLATFORM.deploy({"data": [namespace(), store()]})
    before = looker.look()
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        PLATFORM.deploy({"data": [namespace(), store(image="genai-platform/nowhere:1")]})
    assert healthy() and looker.look().differences(before) == []


def test_a_one_way_change_is_not_rolled_back_unless_told_to(figure):
    template = pod("migrate", "true")
    template["spec"]["restartPolicy"] = "Never"
    marked = {"annotations": {"genai.platform/one-way": MIGRATION}}
    migration = obj("batch/v1", "Job", "migrate-2", NS, metadata=marked, spec={"template": template})
    PLATFORM.deploy({"base": [namespace()], "app": [settings("one")]})
    PLATFORM.deploy({"base": [namespace()], "app": [settings("two"), migration]})
    PLATFORM.deploy({"base": [namespace()], "app": [settings("three")]})  # the Job went, what it did stays
    with pytest.raises(InvalidInput, match=f"(?s)release 1 lies before changes that cannot be undone.*Job {NS}/migrate-2: {MIGRATION}") as caught:
        PLATFORM.roll_back("1")
    assert caught.value.facts["one_way"]
    with pytest.raises(InvalidInput, match="cannot be undone"):
        PLATFORM.roll_back("1", ["app"], check=True)
    assert PLATFORM.roll_back("2")["changed"], "the change is in release 2 itself"
    PLATFORM.roll_back("1", ["base"])
    PLATFORM.roll_back("1", allow_one_way=True)
    assert json.loads(kubectl("get", "configmap", "settings", "-n", NS, "-o", "json"))["data"] == {"level": "one"}
    with pytest.raises(ReleaseFailed, match=f"It may have carried out changes that cannot be undone: Job {NS}/migrate-2: {MIGRATION}"):
        PLATFORM.deploy({"base": [namespace()], "app": [migration, workload("Deployment", "api", NS, pod("api", image="genai-platform/nowhere:1"))]})
    figure("one-way change: rollback refuses, and does it when told to", "yes")


def test_an_autoscaler_of_another_component_keeps_its_replicas():
    """A run limited to the Deployment's component does not see the autoscaler in its bundle, but in the cluster."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}
    scaler = obj("autoscaling/v2", "HorizontalPodAutoscaler", "api", NS, spec={"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3})
    PLATFORM.deploy({"app": [namespace(), workload("Deployment", "api", NS, pod("api"))], "scale": [scaler]})
    deployments = [workload("Deployment", "api", NS, pod("api"), minReadySeconds=1)]
    PLATFORM.deploy({"app": [namespace(), *deployments]}, complete=False)
    live = json.loads(kubectl("get", "deployment", "api", "-n", NS, "-o", "json"))
    assert (live["spec"]["replicas"], live["spec"]["minReadySeconds"]) == (2, 1)


def test_a_cancelled_run_restores(looker):
    PLATFORM.deploy({"app": [namespace(), settings("one")]})
    before = looker.look()
    broken = workload("Deployment", "api", NS, pod("api", readinessProbe={"exec": {"command": ["false"]}}))
    handler = signal.getsignal(signal.SIGTERM)

    def cancel(line):
        if "Deployment" in line and "available" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        stop_on_signals()
        with pytest.raises(ReleaseFailed, match="told to stop"):
            PLATFORM.releaser(cancel).deploy({"app": [namespace(), settings("two"), broken]})
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert looker.look().differences(before) == []


GUARD = f"{NS}-guard"
GUARD_PATHS = [f"/apis/admissionregistration.k8s.io/v1/{plural}/{GUARD}" for plural in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")]


def guard(api):
    """From now on nobody may change the ConfigMap of the test; returns once that is in force."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"], "resourceNames": ["settings"]}
    match = {"resourceRules": [rule], "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NS}}}
    spec = {"matchConstraints": match, "validations": [{"expression": "false", "message": "nobody may"}]}
    for path, kind, body in zip(GUARD_PATHS, ("", "Binding"), (spec, {"policyName": GUARD, "validationActions": ["Deny"]})):
        api.need("PATCH", path, obj("admissionregistration.k8s.io/v1", f"ValidatingAdmissionPolicy{kind}", GUARD, spec=body))
    path = f"/api/v1/namespaces/{NS}/configmaps/settings"
    until("the guard is in force", lambda: api.apply(path, settings("other"), dryRun="All")[0] >= 400)


def test_a_blocked_platform_is_opened(looker, figure):
    """The undo is refused, and so is every run after it, until unlock.yml goes on without what cannot be restored."""
    api, ours = Api(), ("-e", f"common_platform={PLATFORM.name}", "-e", f"common_ledger_namespace={PLATFORM.ledger_namespace}")
    PLATFORM.deploy({"app": [namespace(), settings("one")]})
    broken = workload("Deployment", "api", NS, pod("api", image="genai-platform/nowhere:1"))
    guarded = []

    def watch(line):
        if "Deployment" in line and not guarded:
            guarded.append(guard(api))

    try:
        with pytest.raises(ReleaseFailed, match=f"(?s)NOT everything could be restored.*ConfigMap {NS}/settings.*nobody may"):
            PLATFORM.releaser(watch).deploy({"app": [namespace(), settings("two"), broken]})
        with pytest.raises(ReleaseFailed, match=r"(?s)an earlier run could not be undone.*unlock\.yml"):
            PLATFORM.deploy({"app": [namespace(), settings("one")]})
        before = looker.look()
        preview = play("unlock.yml", *ours, "--check").output
        assert f"ConfigMap {NS}/settings: stays as it is" in " ".join(preview.split()) and "nobody may" in preview, preview
        assert looker.look().differences(before) == []
        assert f"ConfigMap {NS}/settings: stays as it is" in " ".join(play("unlock.yml", *ours).output.split())
        assert "not locked" in play("unlock.yml", *ours).output
    finally:
        remove(api, GUARD_PATHS)
    until("the guard is gone", lambda: api.apply(f"/api/v1/namespaces/{NS}/configmaps/settings", settings("other"), dryRun="All")[0] < 400)
    assert PLATFORM.deploy({"app": [namespace(), settings("one")]})["changed"]
    assert json.loads(kubectl("get", "configmap", "settings", "-n", NS, "-o", "json"))["data"] == {"level": "one"}
    figure("blocked platform: shown, opened by unlock.yml, next release", "yes, yes, deployed")


def test_teardown_keeps_data_and_what_is_not_ours_and_can_be_undone(looker, figure):
    reader = obj("rbac.authorization.k8s.io/v1", "ClusterRole", READER, rules=[])
    cache = obj("v1", "PersistentVolumeClaim", "cache", NS, spec={
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    })
    second = obj("v1", "Namespace", EMPTY)
    shared = obj("v1", "Namespace", SHARED)
    bundle = {"base": [namespace(), second, shared, reader], "data": [store(), cache], "app": [settings("one")]}
    PLATFORM.deploy(bundle)
    kubectl("create", "deployment", "theirs", "-n", SHARED, "--image=theirs", "--replicas=0")
    before, claims = looker.look(), [uid("pvc", "cache"), uid("pvc", "data-store-0")]

    preview = PLATFORM.tear_down(check=True)
    assert looker.look().differences(before) == [] and preview["changed"]
    result = PLATFORM.tear_down()
    assert [c["kind"] for c in preview["changes"]] == [c["kind"] for c in result["changes"]]
    left = {name for name in looker.look().objects if not name.endswith(("/default", "kube-root-ca.crt"))}
    assert {n for n in left if f"{SHARED}/" not in n} == {
        f"Namespace {NS}", f"Namespace {SHARED}", f"PersistentVolumeClaim {NS}/cache", f"PersistentVolumeClaim {NS}/data-store-0",
        f"Namespace {PLATFORM.ledger_namespace}",
    } | {n for n in left if n.startswith((f"Secret {PLATFORM.ledger_namespace}", "PersistentVolume "))}
    assert f"PersistentVolumeClaim {NS}/cache: it holds data" in result["kept"]
    assert f"Namespace {SHARED}: it holds Deployment {SHARED}/theirs, which is not ours" in result["kept"]
    with pytest.raises(InvalidInput, match="removed the platform"):
        healthy()

    PLATFORM.roll_back()
    assert healthy() and [uid("pvc", "cache"), uid("pvc", "data-store-0")] == claims
    assert looker.look().differences(before) == []

    kubectl("delete", "deployment", "theirs", "-n", SHARED)
    gone = PLATFORM.tear_down(data=True, forget=True)
    assert gone["kept"] == [] and {(c["kind"], c["name"]) for c in gone["changes"]} >= {("PersistentVolumeClaim", "data-store-0")}
    assert kubectl("get", "namespaces", "-o", "name").count(f"namespace/{NS}") == 0
    assert kubectl("get", "clusterroles", "-o", "name").count(READER) == 0
    figure("teardown: data kept, undone by rollback; with data: objects left", "yes; 0")
