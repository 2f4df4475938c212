# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people change by hand is found, named and put back; what controllers do is not taken for it."""
from __future__ import annotations

import json
import subprocess
import time

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from bundles import Platform, obj, pod, workload
from cluster import CONTROL_PLANE, kubectl, own, play
from live import Api, Looker, remove

NS = own("drift")
PLATFORM = Platform(NS)
GROUP = f"{NS}.example.com"
CRD = f"lamps.{GROUP}"
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
SECRET = "correct horse"
# Ways to write numbers that the server writes differently, and everything left to its defaults: no drift.
LIMITS = {"requests": {"cpu": "0.010", "memory": "16777216"}, "limits": {"cpu": "1000m", "memory": "0.25Gi"}}


def crd():
    names = {"kind": "Lamp", "plural": "lamps", "singular": "lamp"}
    spec = {"type": "object", "properties": {"colour": {"type": "string"}, "watts": {"type": "integer", "default": 5}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", CRD, spec={
        "group": GROUP, "scope": "Namespaced", "names": names, "versions": versions,
    })


def autoscaler():
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"}
    return obj("autoscaling/v2", "HorizontalPodAutoscaler", "scaled", NS, spec={"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4})


def binding():
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subjects = [{"kind": "ServiceAccount", "name": "api", "namespace": NS}]
    return obj("rbac.authorization.k8s.io/v1", "RoleBinding", "reader", NS, roleRef=role, subjects=subjects)


def claim():
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return obj("v1", "PersistentVolumeClaim", "disk", NS, spec=spec)


BUNDLE = {
    "base": [
        crd(),
        obj("v1", "Namespace", NS, metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}),
        obj("v1", "ResourceQuota", "quota", NS, spec={"hard": {"pods": "20"}}),
        obj("v1", "ServiceAccount", "api", NS),
        obj("rbac.authorization.k8s.io/v1", "Role", "reader", NS, rules=RULES),
        binding(),
        obj("networking.k8s.io/v1", "NetworkPolicy", "deny", NS, spec={"podSelector": {}, "policyTypes": ["Ingress"]}),
    ],
    "app": [
        obj("v1", "ConfigMap", "settings", NS, data={"level": "info", "colour": "red", "size": "1"}),
        obj("v1", "Secret", "key", NS, stringData={"password": "battery staple"}),
        obj("v1", "Service", "main", NS, spec={"selector": {"app": "main"}, "ports": [{"port": 80, "targetPort": 8000}]}),
        workload("Deployment", "main", NS, pod("main", resources=LIMITS)),
        {**workload("Deployment", "scaled", NS, pod("scaled"))},
        autoscaler(),
        workload("StatefulSet", "store", NS, pod("store")),
        obj("policy/v1", "PodDisruptionBudget", "main", NS, spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "main"}}}),
        obj("batch/v1", "CronJob", "nightly", NS, spec={
            "schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {**pod("nightly")["spec"], "restartPolicy": "Never"}}}},
        }),
        claim(),
        obj(f"{GROUP}/v1", "Lamp", "one", NS, spec={"colour": "green"}),
    ],
}


def merge(kind, name, patch):
    return ("patch", kind, name, "--type=merge", "-p", json.dumps(patch))


def json_patch(kind, name, *operations):
    return ("patch", kind, name, "--type=json", "-p", json.dumps(operations))


ONE_MORE = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]
# (what somebody did, the object, the field that must be named, what happened to it, which manager must be named)
MUTATIONS = [
    (merge("configmap", "settings", {"data": {"level": "debug"}}), f"ConfigMap {NS}/settings", "data.level", "changed", "kubectl-patch"),
    (merge("configmap", "settings", {"data": {"extra": "x"}}), f"ConfigMap {NS}/settings", "data.extra", "added", "kubectl-patch"),
    (merge("configmap", "settings", {"data": {"size": None}}), f"ConfigMap {NS}/settings", "data.size", "removed", "unknown"),
    (merge("secret", "key", {"stringData": {"password": SECRET}}), f"Secret {NS}/key", "data.password", "changed", "kubectl-patch"),
    (("label", "deployment", "main", "team=x"), f"Deployment {NS}/main", "metadata.labels.team", "added", "kubectl-label"),
    (("label", "service", "main", "genai.platform/platform-"), f"Service {NS}/main", "metadata.labels[genai.platform/platform]", "removed", "unknown"),
    (("annotate", "service", "main", "a/b=c"), f"Service {NS}/main", "metadata.annotations[a/b]", "added", "kubectl-annotate"),
    (("set", "env", "deployment/main", "DEBUG=1"), f"Deployment {NS}/main", "spec.template.spec.containers[name=main].env", "added", "kubectl-set"),
    (("set", "image", "deployment/main", "main=genai-platform/inference:9"), f"Deployment {NS}/main", "spec.template.spec.containers[name=main].image",
     "changed", "kubectl-set"),
    (("scale", "deployment", "main", "--replicas=2"), f"Deployment {NS}/main", "spec.replicas", "changed", "kubectl"),
    (("set", "resources", "statefulset/store", "--limits=cpu=2"), f"StatefulSet {NS}/store", "spec.template.spec.containers[name=main].resources.limits",
     "added", "kubectl-set"),
    (("rollout", "restart", "deployment/scaled"), f"Deployment {NS}/scaled",
     "spec.template.metadata.annotations[kubectl.kubernetes.io/restartedAt]", "added", "kubectl-rollout"),
    (("delete", "networkpolicy", "deny"), f"NetworkPolicy {NS}/deny", "", "deleted", "unknown"),
    (merge("role", "reader", {"rules": RULES + ONE_MORE}), f"Role {NS}/reader", "rules", "changed", "kubectl-patch"),
    (merge("rolebinding", "reader", {"subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]}),
     f"RoleBinding {NS}/reader", "subjects", "changed", "kubectl-patch"),
    (merge("service", "main", {"spec": {"selector": {"app": "other"}}}), f"Service {NS}/main", "spec.selector", "changed", "kubectl-patch"),
    (merge("hpa", "scaled", {"spec": {"maxReplicas": 9}}), f"HorizontalPodAutoscaler {NS}/scaled", "spec.maxReplicas", "changed", "kubectl-patch"),
    (merge("pdb", "main", {"spec": {"minAvailable": 0}}), f"PodDisruptionBudget {NS}/main", "spec.minAvailable", "changed", "kubectl-patch"),
    (merge("quota", "quota", {"spec": {"hard": {"pods": "50"}}}), f"ResourceQuota {NS}/quota", "spec.hard.pods", "changed", "kubectl-patch"),
    (("label", "namespace", NS, "--overwrite", "pod-security.kubernetes.io/enforce=privileged"), f"Namespace {NS}",
     "metadata.labels[pod-security.kubernetes.io/enforce]", "changed", "kubectl-label"),
    (merge(CRD, "one", {"spec": {"colour": "blue"}}), f"Lamp {NS}/one", "spec.colour", "changed", "kubectl-patch"),
    (merge("cronjob", "nightly", {"spec": {"suspend": True}}), f"CronJob {NS}/nightly", "spec.suspend", "added", "kubectl-patch"),
    (json_patch("statefulset", "store", {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "spy", "image": "spy:1"}}),
     f"StatefulSet {NS}/store", "spec.template.spec.containers[name=spy]", "added", "kubectl-patch"),
    (("create", "token", "api", "--duration=10m"), None, None, None, None),  # changes nothing that is stored
]


@pytest.fixture(scope="module", autouse=True)
def platform():
    PLATFORM.remove()
    PLATFORM.deploy(BUNDLE)
    yield
    PLATFORM.remove()
    kubectl("delete", "crd", CRD, "--ignore-not-found")


@pytest.fixture(scope="module")
def looker():
    return Looker(Api(), [NS], NS)


def compared(fix=False, **options):
    return drift(PLATFORM.releaser(**options), fix, None, ())


def named(result):
    return {(f["object"], f["field"], f["change"], f["by"].split()[0]) for f in result["drift"]}


def test_what_controllers_do_is_no_drift(figure):
    """An hour of an idle cluster in short: pods come and go, the autoscaler puts replicas back, endpoints follow, and every
    controller is restarted, so that it reads and reconciles everything anew."""
    rounds = 3
    for number in range(rounds):
        if number == 1:  # once, for the kubelet makes a program wait that ends often
            subprocess.run(["docker", "exec", CONTROL_PLANE, "pkill", "kube-controller"], check=True)
        kubectl("scale", "deployment", "scaled", "-n", NS, "--replicas=1")
        kubectl("delete", "pods", "--all", "-n", NS, "--wait=false")
        until(lambda: kubectl("get", "deployment", "scaled", "-n", NS, "-o", "jsonpath={.spec.replicas}/{.status.readyReplicas}") == "2/2")
        until(lambda: kubectl("get", "statefulset", "store", "-n", NS, "-o", "jsonpath={.status.readyReplicas}") == "1")
        result = compared()
        assert result["drift_lines"] == [] and result["checked"] == sum(map(len, BUNDLE.values()))
    figure("drift, controllers at work: reported / objects x rounds", f"0 / {result['checked']} x {rounds}")


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.5)


def test_every_change_by_hand_is_found_named_and_put_back(looker, figure):
    before = looker.look()
    for command, *_said in MUTATIONS:
        kubectl(*command, "-n", NS)
    expected = {(obj_, field, change, by) for _command, obj_, field, change, by in MUTATIONS if obj_}
    result = compared()
    assert named(result) == expected
    assert SECRET not in json.dumps(result)
    fixed = compared(fix=True)
    assert fixed["fixed"] == len(expected)
    assert compared()["drift_lines"] == []
    assert looker.look().differences(before) == []
    figure("drift by hand: made / found and named / put back", f"{len(expected)} / {len(result['drift'])} / {fixed['fixed']}")


def test_somebody_elses_object_of_the_same_name_is_put_back_too(looker):
    before = looker.look()
    kubectl("delete", "configmap", "settings", "-n", NS)
    kubectl("create", "configmap", "settings", "-n", NS, "--from-literal=level=trace")
    assert {f["change"] for f in compared()["drift"]} >= {"changed", "removed"}
    compared(fix=True)
    assert looker.look().differences(before) == [] and compared()["drift"] == []
    # It stays somebody else's, in which what others add is no drift; the next test wants one of ours.
    kubectl("delete", "configmap", "settings", "-n", NS)
    compared(fix=True)


def by_hand():
    """A change, an addition, and a change of what runs."""
    kubectl(*merge("configmap", "settings", {"data": {"level": "debug", "extra": "x"}}), "-n", NS)
    kubectl(*merge("quota", "quota", {"spec": {"hard": {"pods": "0"}}}), "-n", NS)
    kubectl("set", "image", "statefulset/store", "main=genai-platform/inference:2.0.0", "-n", NS)


def test_a_repair_that_fails_keeps_what_it_put_back(looker, figure):
    """Red where the state before is restored, and with it what the repair was to mend."""
    by_hand()
    found = compared()["drift"]
    releaser = PLATFORM.releaser()
    releaser.cluster.patch = lambda *_args: 1 / 0  # taking an addition away is the last step for an object
    with pytest.raises(ReleaseFailed, match="What it put back stays; run again for the rest"):
        drift(releaser, True, None, ())
    left = compared()["drift"]
    assert [entry for entry in left if entry["object"] == f"ConfigMap {NS}/settings"] == [entry for entry in found if entry["change"] == "added"]
    compared(fix=True)
    assert compared()["drift"] == []
    figure("drift, a repair that ends half-way: put back stays / evidence of the rest", "yes / whole")


def test_a_repair_goes_on_after_a_refusal(looker, figure):
    """An admission policy forbids one of three: the other two are put back all the same, and the third is named."""
    by_hand()
    expression = "object.metadata.name != 'quota' || object.spec.hard.pods == '0'"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["resourcequotas"]}
    inside = {"matchLabels": {"kubernetes.io/metadata.name": NS}}
    policy = obj("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", NS, spec={
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule], "namespaceSelector": inside},
        "validations": [{"expression": expression, "message": "the quota is frozen"}],
    })
    bound = obj("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", NS, spec={"policyName": NS, "validationActions": ["Deny"]})
    api = Api()
    paths = [f"/apis/admissionregistration.k8s.io/v1/{plural}/{NS}" for plural in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")]
    quota = f"/api/v1/namespaces/{NS}/resourcequotas/quota"
    try:
        for path, body in zip(paths, (policy, bound)):
            api.need("PATCH", path, body)
        frozen = {"metadata": {"labels": {"probe": "1"}}, "spec": {"hard": {"pods": "9"}}}
        until(lambda: api.request("PATCH", quota, frozen, "application/merge-patch+json", dryRun="All")[0] == 422)
        with pytest.raises(ReleaseFailed, match="stay as they were:\n- base: ResourceQuota drift[a-z0-9]*/quota: .*the quota is frozen"):
            drift(PLATFORM.releaser(), True, None, ())
        left = compared()["drift"]
        assert {entry["object"] for entry in left} == {f"ResourceQuota {NS}/quota"}
    finally:
        remove(api, paths)
    until(lambda: api.request("PATCH", quota, frozen, "application/merge-patch+json", dryRun="All")[0] == 200)
    compared(fix=True)
    assert compared()["drift"] == []
    figure("drift, one of three repairs is refused: put back / named", "2 / 1")


def test_a_release_by_force_that_fails_takes_no_evidence_along(looker, figure):
    """Users, 2. Red where the undo writes what others had under our own name: drift is then blind to it, or does not know who it was."""
    by_hand()
    found, before = compared()["drift"], looker.look()
    wrong = obj("networking.k8s.io/v1", "Ingress", "wrong", NS, spec={"rules": [{"host": "not a host"}]})
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        PLATFORM.deploy({**BUNDLE, "wrong": [wrong]}, force=True)
    after = looker.look()
    assert after.differences(before) == [] and after.owned_otherwise(before) == []
    assert compared()["drift"] == found, "field, who and when"
    compared(fix=True)
    assert compared()["drift"] == []
    figure("users 2, a release by force that fails: hand edits still named with field, who and when", f"{len(found)} of {len(found)}")


def test_exit_codes_and_report(tmp_path, figure):
    ours = ("-e", f"common_platform={PLATFORM.name}", "-e", f"common_ledger_namespace={PLATFORM.ledger_namespace}")
    report = tmp_path / "drift.json"
    codes = [play("drift.yml", *ours).code]
    kubectl("label", "service", "main", "-n", NS, "by=hand")
    found = play("drift.yml", *ours, "-e", f"report={report}")
    codes.append(found.code)
    assert "metadata.labels.by: hand was added, by kubectl-label" in " ".join(found.output.split())
    assert json.loads(report.read_text(encoding="utf-8"))["drift"][0]["field"] == "metadata.labels.by"
    assert play("drift.yml", *ours, "-e", "fix=true", "--check").code == 0
    codes.append(play("drift.yml", *ours, "-e", "common_expected_server=https://elsewhere:6443").code)
    assert play("drift.yml", *ours, "-e", "fix=true").code == 0
    codes.append(play("drift.yml", *ours).code)
    assert codes == [0, 2, 4, 0]
    figure("drift.yml ends with: none / drift / cannot look", " / ".join(map(str, codes[:3])))
