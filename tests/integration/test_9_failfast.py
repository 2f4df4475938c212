# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that cannot get better is said soon, although the wait would last five minutes."""
from __future__ import annotations

import json
import time

import live
import pytest
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import OUTAGE_SECONDS
from ansible_collections.genai.platform.plugins.module_utils.errors import ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.upkeep.verify import verdict_lines, verify
from bundles import Platform, obj, pod, workload
from cluster import kubectl, own, play

NS = own("failfast")
PLATFORM = Platform(NS)
PATIENCE = 300
# What is promised, against PATIENCE; where the machine is so busy that a pod takes seconds to come up, so many times that.
MOST_SECONDS, MOST_TIMES = 20, 6
GROUP = f"{NS}.example.com"
CRD, WEBHOOK = f"lamps.{GROUP}", f"{NS}-nobody"


def namespace(**labels):
    return obj("v1", "Namespace", NS, metadata={"labels": labels})


def deployment(template, **spec):
    return workload("Deployment", "main", NS, template, **spec)


def gpu():
    return pod("main", resources={"limits": {"nvidia.com/gpu": "1"}})


def privileged():
    return pod("main", securityContext={"privileged": True})


def no_pods():
    return obj("v1", "ResourceQuota", "none", NS, spec={"hard": {"pods": "0"}})


def claim():
    spec = {"storageClassName": "nowhere", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return obj("v1", "PersistentVolumeClaim", "disk", NS, spec=spec)


def job(*command):
    template = pod("main", *command)
    template["spec"]["restartPolicy"] = "Never"
    return obj("batch/v1", "Job", "main", NS, spec={"backoffLimit": 0, "template": template})


def webhook(resource):
    """One that asks a service that does not exist, about this namespace only."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource], "scope": "Namespaced"}
    hook = {
        "name": "nobody.example.com",
        "clientConfig": {"service": {"namespace": NS, "name": "nobody"}},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NS}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
    }
    first = {"annotations": {"genai.platform/wave": "-1"}}
    return obj("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", WEBHOOK, metadata=first, webhooks=[hook])


def crd():
    names = {"kind": "Lamp", "plural": "lamps", "singular": "lamp"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": versions}
    return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", CRD, spec=spec)


def mounting_a_missing_secret():
    template = pod("main")
    template["spec"]["volumes"] = [{"name": "key", "secret": {"secretName": "nowhere"}}]
    template["spec"]["containers"][0]["volumeMounts"] = [{"name": "key", "mountPath": "/key"}]
    return template


# Without a probe a container counts as ready from the moment it runs, and nothing is waited for.
UP = {"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 5}}
OUT_OF_MEMORY = pod("main", "echo loading the model; exec python3 -c 'x = bytearray(500_000_000)'", resources={"limits": {"memory": "64Mi"}}, **UP)
NEVER_READY = pod("main", readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1})

# {what: (objects, reasons it may be told by, what must be said)}
FAULTS = {
    "image that does not exist": ([deployment(pod("main", image="genai-platform/nowhere:1"))], {"ErrImagePull", "ImagePullBackOff"}, ["nowhere:1"]),
    "container that crashes": ([deployment(pod("main", "echo no such model; exit 3", **UP))], {"CrashLoopBackOff"}, ["code 3", "log: no such model"]),
    "container out of memory": ([deployment(OUT_OF_MEMORY)], {"OOMKilled"}, ["limits.memory", "log: loading the model"]),
    "quota, Deployment": ([no_pods(), deployment(pod("main"))], {"FailedCreate"}, ["exceeded quota", "hint: raise the namespace's quota"]),
    "quota, StatefulSet": ([no_pods(), workload("StatefulSet", "main", NS, pod("main"))], {"FailedCreate"}, ["exceeded quota"]),
    "Pod Security": ([deployment(privileged())], {"FailedCreate"}, ["violates PodSecurity", "hint: fix the pod's securityContext"]),
    "GPU that no node has": ([deployment(gpu())], {"Unschedulable"}, ["no node has enough nvidia.com/gpu free"]),
    "claim without a class": ([claim()], {"ClaimNotBound"}, ['"nowhere" not found', "hint: name a StorageClass that exists"]),
    "probe that fails": ([deployment(NEVER_READY)], {"ProbeFailing"}, ["Readiness probe failed"]),
    "Job that fails": ([job("echo no migration today; exit 1")], {"BackoffLimitExceeded"}, ["log: no migration today"]),
    "Secret that is not there": ([deployment(mounting_a_missing_secret())], {"FailedMount"}, ['secret "nowhere" not found']),
    "webhook without a service": (
        [webhook("pods"), deployment(pod("main"))], {"FailedCreate", "NoWebhookServer"}, ["failed calling webhook", "the webhook's service"]),
}


@pytest.fixture(autouse=True)
def clean():
    yield
    kubectl("delete", "validatingwebhookconfiguration", WEBHOOK, "--ignore-not-found")
    PLATFORM.remove()
    kubectl("delete", "crd", CRD, "--ignore-not-found")


@pytest.fixture(scope="module")
def most():
    """Seconds that a fault may take to be reported, on this machine as it is now."""
    started = time.monotonic()
    PLATFORM.deploy({"main": [namespace(), deployment(pod("main", **UP))]})
    healthy = time.monotonic() - started - UP["readinessProbe"]["initialDelaySeconds"]
    PLATFORM.remove()
    return max(MOST_SECONDS, MOST_TIMES * healthy)


def refused(body, message):
    """Waits until the API server refuses such an object: its admission learns of a rule some moments after the rule is stored."""
    api, path = live.Api(), f"/api/v1/namespaces/{NS}/{body['kind'].lower()}s"
    live.until(f"refused: {message}", lambda: message in api.request("POST", path, body, dryRun="All")[1].get("message", ""))


def look():
    """The verdict and how long it took."""
    releaser = PLATFORM.releaser()
    started = time.monotonic()
    verdict = verify(releaser.cluster, releaser.ledger, None, PATIENCE, lambda _line: None)
    return verdict, time.monotonic() - started


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault, most, figure):
    objects, reasons, said = FAULTS[fault]
    level = "restricted" if fault == "Pod Security" else "privileged"
    space, unchecked = namespace(**{"pod-security.kubernetes.io/enforce": level}), {"wait": False, "references": False, "consistency": False}
    if "FailedCreate" in reasons:
        *rules, main = objects
        PLATFORM.deploy({"main": [space, *rules]}, **unchecked)
        refused({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": main["spec"]["template"]["spec"]}, said[0])
    PLATFORM.deploy({"main": [space, *objects]}, **unchecked)
    verdict, seconds = look()
    text = "\n".join(verdict_lines(verdict))
    assert verdict["verdict"] == "failed" and verdict["ready"] < verdict["checked"], text
    assert {problem["reason"] for problem in verdict["problems"]} <= reasons, text
    assert all(part in text for part in said), text
    assert all(problem["hint"] for problem in verdict["problems"]), text
    assert seconds < most
    figure(f"fail fast, {fault}: seconds of {PATIENCE}", round(seconds, 1))


def test_definition_that_was_deleted(most, figure):
    lamp = obj(f"{GROUP}/v1", "Lamp", "one", NS, spec={"on": True})
    PLATFORM.deploy({"main": [crd(), namespace(), lamp]})
    kubectl("delete", "crd", CRD)
    verdict, seconds = look()
    assert {p["object"]: p["reason"] for p in verdict["problems"]} == {f"Lamp {NS}/one": "TypeMissing", f"CustomResourceDefinition {CRD}": "Missing"}
    assert seconds < most
    figure(f"fail fast, definition deleted: seconds of {PATIENCE}", round(seconds, 1))


def test_webhook_without_a_service_ends_a_release_with_a_hint(most, figure):
    rules, settings = [namespace(), webhook("configmaps")], obj("v1", "ConfigMap", "settings", NS, data={"a": "b"})
    PLATFORM.deploy({"main": rules})
    refused(settings, "failed calling webhook")
    started = time.monotonic()
    with pytest.raises(ReleaseFailed, match="failed calling webhook.*Hint: the webhook's service does not answer"):
        PLATFORM.deploy({"main": [*rules, settings]})
    assert time.monotonic() - started < most + OUTAGE_SECONDS, "a webhook may be away for as long as an API server"
    figure(f"fail fast, webhook refuses a manifest: seconds of {PATIENCE}", round(time.monotonic() - started, 1))


def test_verdicts_for_automation(tmp_path, figure):
    """Exit code and JSON: healthy, not healthy, and not to be looked at are three things."""
    PLATFORM.deploy({"main": [namespace(), deployment(pod("main"))]})
    ours = ("-e", f"common_platform={PLATFORM.name}", "-e", f"common_ledger_namespace={PLATFORM.ledger_namespace}")
    report = tmp_path / "verdict.json"
    codes = [play("verify.yml", *ours, "-e", f"report={report}").code]
    assert json.loads(report.read_text(encoding="utf-8"))["verdict"] == "healthy"
    kubectl("delete", "deployment", "main", "-n", NS)
    codes.append(play("verify.yml", *ours, "-e", f"report={report}").code)
    verdict = json.loads(report.read_text(encoding="utf-8"))
    assert verdict["verdict"] == "failed" and verdict["problems"][0]["object"] == f"Deployment {NS}/main"
    codes.append(play("verify.yml", *ours, "-e", "common_expected_server=https://elsewhere:6443").code)
    assert codes == [0, 2, 4]
    figure("verify.yml ends with: healthy / not / cannot look", " / ".join(map(str, codes)))
