# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot be true together: quotas against workloads, Pod Security levels against pods, and one error for all of it."""
from __future__ import annotations

import contextlib
import copy
from fractions import Fraction

import pytest
from ansible_collections.genai.platform.plugins.module_utils.checks.consistency import contradictions, of_pod, refuse_contradictions
from ansible_collections.genai.platform.plugins.module_utils.checks.pod_security import violations
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import ANNOTATION_FINDING, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.quantities import quantity, quantity_text
from fake import FakeCluster
from hypothesis import given
from hypothesis import strategies as st


def obj(kind, name="one", api="v1", namespace="ns", **rest):
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


def quota(**hard):
    return obj("ResourceQuota", "quota", spec={"hard": hard})


def container(requests=None, limits=None, **more):
    return {"name": "main", "image": "a:1", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def deployment(*containers, name="app", replicas=3, **pod):
    """Its pods are replaced, not doubled."""
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": list(containers), **pod}}
    return obj("Deployment", name, "apps/v1", spec={"replicas": replicas, "template": template, "strategy": {"type": "Recreate"}})


def rolling(maximum=None, replicas=3):
    found = deployment(CPU, replicas=replicas)
    found["spec"]["strategy"] = {} if maximum is None else {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": maximum}}
    return found


def surge(most):
    found = deployment(CPU)
    found["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": most}}
    return found


def job(*containers, name="job", **spec):
    return obj("Job", name, "batch/v1", spec={**spec, "template": {"spec": {"containers": list(containers)}}})


def hpa(low):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"}
    return obj("HorizontalPodAutoscaler", api="autoscaling/v2", spec={"minReplicas": low, "maxReplicas": 50, "scaleTargetRef": target})


def limit_range(**limits):
    return obj("LimitRange", "limits", spec={"limits": [{"type": "Container", **limits}]})


def stateful(storage, replicas=3):
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": storage}}}}
    template = {"spec": {"containers": [container()]}}
    return obj("StatefulSet", "db", "apps/v1", spec={"replicas": replicas, "template": template, "volumeClaimTemplates": [claim]})


def said(*objects):
    return contradictions(list(prepare({"app": list(objects)}, "genai").values()))


CPU = container({"cpu": "1"})
GPU = container(limits={"nvidia.com/gpu": 1})
DAEMON = obj("DaemonSet", "agent", "apps/v1", spec={"template": {"spec": {"containers": [CPU]}}})
CRON = obj("CronJob", "nightly", "batch/v1", spec={"jobTemplate": {"spec": {"template": {"spec": {"containers": [CPU]}}}}})
INIT = {"initContainers": [container({"cpu": "5"})]}
SIDECAR = {"initContainers": [container({"cpu": "1"}, restartPolicy="Always"), container({"cpu": "3"})]}
DEFAULTS = limit_range(default={"memory": "1Gi"}, defaultRequest={"cpu": "500m"})

# (what, objects, (resource, hard, needed)); a quota one smaller is tried by the test itself.
FITS = [
    ("replicas", [deployment(CPU)], "requests.cpu", "3"),
    ("its short name", [deployment(CPU)], "cpu", "3000m"),
    ("pods", [deployment(CPU), DAEMON], "pods", "4"),
    ("an autoscaler's minimum", [deployment(CPU), hpa(2)], "requests.cpu", "2"),
    ("no replicas", [deployment(CPU, replicas=0), DAEMON], "requests.cpu", "1"),
    ("an init container that asks for more", [deployment(CPU, **INIT)], "requests.cpu", "15"),
    ("a sidecar, and an init container beside it", [deployment(CPU, **SIDECAR)], "requests.cpu", "12"),
    ("overhead", [deployment(CPU, overhead={"cpu": "500m"})], "requests.cpu", "4500m"),
    ("what is set for the pod", [deployment(CPU, resources={"requests": {"cpu": "2"}})], "requests.cpu", "6"),
    ("the largest Job only", [deployment(CPU), job(CPU), job(container({"cpu": "2"}), name="big", parallelism=5)], "requests.cpu", "5"),
    ("a CronJob", [CRON], "requests.cpu", "1"),
    ("a suspended Job", [deployment(CPU), job(container({"cpu": "9"}), suspend=True)], "requests.cpu", "3"),
    ("GPUs, where the limit is the request", [deployment(GPU, replicas=4)], "requests.nvidia.com/gpu", "4"),
    ("GPUs of AMD", [deployment(container(limits={"amd.com/gpu": "8"}), replicas=2)], "requests.amd.com/gpu", "16"),
    ("the LimitRange's default", [deployment(container()), DEFAULTS], "requests.cpu", "1500m"),
    ("a default limit is a request, too", [deployment(container()), DEFAULTS], "requests.memory", "3Gi"),
    ("an own limit before the default request", [deployment(container(limits={"cpu": 2})), DEFAULTS], "requests.cpu", "6"),
    ("max is the default of the default", [deployment(container()), limit_range(max={"cpu": "2"})], "limits.cpu", "6"),
    ("min is the default of the request", [deployment(container(limits={"memory": "1Gi"})), limit_range(min={"cpu": "1"})], "requests.cpu", "3"),
    ("storage of a set's claims", [stateful("100Gi")], "requests.storage", "300Gi"),
    ("claims", [stateful("1Gi"), obj("PersistentVolumeClaim", "c", spec={})], "count/persistentvolumeclaims", "4"),
    # An update that may lack no pod begins with one more.
    ("one more", [rolling(0)], "requests.cpu", "4"),
    ("one more, in percent", [rolling("20%", replicas=4), job(CPU)], "requests.cpu", "5"),
    ("one more, by default", [rolling(), job(container({"cpu": "500m"}))], "requests.cpu", "4"),
    ("one may lack", [rolling(1)], "requests.cpu", "3"),
    ("one may lack, by default", [rolling(replicas=4)], "requests.cpu", "4"),
    ("none more, as it says", [surge(0)], "requests.cpu", "3"),
    ("none more, as it says in percent", [surge("0%")], "requests.cpu", "3"),
    ("no replicas, none more", [rolling(0, replicas=0), DAEMON], "requests.cpu", "1"),
    ("Services", [obj("Service", "a"), obj("Service", "b")], "services", "2"),
]


@pytest.mark.parametrize(("what", "objects", "resource", "hard"), FITS, ids=[row[0] for row in FITS])
def test_the_smallest_quota_that_is_enough(what, objects, resource, hard):
    assert said(quota(**{resource: hard}), *objects) == [], what
    unit = Fraction(1, 1000) if hard.endswith("m") or resource.endswith("cpu") else 1
    less = str(float(quantity(hard) - unit)) if unit != 1 else str(quantity(hard) - 1)
    (line,) = said(quota(**{resource: less}), *objects)
    assert line.startswith("app: ResourceQuota ns/quota: spec.hard.") and f"need {quantity_text(quantity(hard))} (" in line


def test_the_pod_that_an_update_begins_with_is_named():
    (line,) = said(quota(pods="3"), rolling(0))
    assert "need 4 (Deployment app 3, one more pod of Deployment app while it is updated 1); raise it, or ask for less" in line


def test_a_quota_that_is_too_small_names_what_takes_it():
    (line,) = said(quota(pods="3"), deployment(CPU), deployment(CPU, name="web", replicas=2), job(CPU))
    assert line == (
        "app: ResourceQuota ns/quota: spec.hard.pods is 3, and the bundle's objects need 6 (Deployment app 3, Deployment web 2, Job job 1);"
        " raise it, or ask for less"
    )


def test_a_container_that_a_quota_keeps_out():
    lines = said(quota(**{"limits.cpu": "100", "requests.memory": "1Ti"}), deployment(CPU, initContainers=[container(limits={"cpu": 1})]))
    place = "app: Deployment ns/app: spec.template.spec"
    assert lines == [
        f"{place}.initContainers[0].resources lacks requests.memory, which ResourceQuota ns/quota counts; set it, or a default in the LimitRange",
        f"{place}.containers[0].resources lacks limits.cpu, requests.memory, which ResourceQuota ns/quota counts;"
        " set it, or a default in the LimitRange",
    ]
    assert said(quota(**{"limits.memory": "100Gi"}), deployment(container()), DEFAULTS) == []


NOT_JUDGED = [
    [obj("ResourceQuota", "quota", namespace="other", spec={"hard": {"pods": "0"}}), deployment(CPU)],
    [obj("ResourceQuota", "quota", spec={"hard": {"pods": "0"}, "scopes": ["BestEffort"]}), deployment(CPU)],
    [quota(pods="many"), deployment(CPU)],
    [quota(**{"requests.nvidia.com/gpu": "1"}), deployment(container({"nvidia.com/gpu": "lots"}))],
]


@pytest.mark.parametrize("objects", NOT_JUDGED)
def test_what_cannot_be_judged_here(objects):
    assert said(*objects) == []


def test_a_pod_counts_what_the_scheduler_counts():
    """The example of the documentation on sidecars: each init container beside the sidecars before it, or all that runs."""
    spec = {
        "initContainers": [container({"cpu": "4"}), container({"cpu": "1"}, restartPolicy="Always"), container({"cpu": "2"})],
        "containers": [container({"cpu": "1"}), container({"cpu": "1"}, {"memory": "1Gi"})],
    }
    none = {"requests": {}, "limits": {}}
    assert of_pod(spec, none) == {"requests.cpu": 4, "requests.memory": 2**30, "limits.memory": 2**30}


# --- Pod Security ----------------------------------------------------------------------------------------------------
GOOD = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}],
    },
}
POD, MAIN = "spec.securityContext", "spec.containers.0.securityContext"
HOST_PATH, PROBE = [{"name": "v", "hostPath": {"path": "/"}}], {"httpGet": {"host": "10.0.0.1", "port": 80}}
APPARMOR = {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}
# (path, value there, the field that is named, the first level that forbids it)
BROKEN = [
    ("spec.hostNetwork", True, "spec.hostNetwork", "baseline"),
    ("spec.hostPID", True, "spec.hostPID", "baseline"),
    ("spec.hostIPC", True, "spec.hostIPC", "baseline"),
    (f"{MAIN}.privileged", True, "spec.containers[0].securityContext.privileged", "baseline"),
    (f"{MAIN}.capabilities.add", ["SYS_ADMIN"], "spec.containers[0].securityContext.capabilities.add", "baseline"),
    (f"{MAIN}.capabilities.add", ["CHOWN"], "spec.containers[0].securityContext.capabilities.add", "restricted"),
    ("spec.volumes", HOST_PATH, "spec.volumes[0].hostPath", "baseline"),
    ("spec.volumes", [{"name": "v", "nfs": {"server": "s", "path": "/"}}], "spec.volumes[0]", "restricted"),
    ("spec.containers.0.ports", [{"containerPort": 80, "hostPort": 80}], "spec.containers[0].ports[0].hostPort", "baseline"),
    ("spec.containers.0.livenessProbe", PROBE, "spec.containers[0].livenessProbe.httpGet.host", "baseline"),
    ("spec.containers.0.lifecycle", {"preStop": PROBE}, "spec.containers[0].lifecycle.preStop.httpGet.host", "baseline"),
    (f"{POD}.appArmorProfile", {"type": "Unconfined"}, "spec.securityContext.appArmorProfile.type", "baseline"),
    ("metadata.annotations", APPARMOR, "metadata.annotations[container.apparmor.security.beta.kubernetes.io/main]", "baseline"),
    (f"{MAIN}.seLinuxOptions", {"type": "spc_t"}, "spec.containers[0].securityContext.seLinuxOptions", "baseline"),
    (f"{POD}.seLinuxOptions", {"user": "root"}, "spec.securityContext.seLinuxOptions", "baseline"),
    (f"{MAIN}.procMount", "Unmasked", "spec.containers[0].securityContext.procMount", "baseline"),
    (f"{MAIN}.seccompProfile", {"type": "Unconfined"}, "spec.containers[0].securityContext.seccompProfile.type", "baseline"),
    (f"{POD}.seccompProfile", None, "spec.containers[0].securityContext.seccompProfile.type", "restricted"),
    (f"{POD}.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "spec.securityContext.sysctls[0]", "baseline"),
    (f"{POD}.windowsOptions", {"hostProcess": True}, "spec.securityContext.windowsOptions.hostProcess", "baseline"),
    (f"{MAIN}.allowPrivilegeEscalation", True, "spec.containers[0].securityContext.allowPrivilegeEscalation", "restricted"),
    (f"{MAIN}.allowPrivilegeEscalation", None, "spec.containers[0].securityContext.allowPrivilegeEscalation", "restricted"),
    (f"{POD}.runAsNonRoot", None, "spec.containers[0].securityContext.runAsNonRoot", "restricted"),
    (f"{POD}.runAsNonRoot", False, "spec.securityContext.runAsNonRoot", "restricted"),
    (f"{MAIN}.runAsNonRoot", False, "spec.containers[0].securityContext.runAsNonRoot", "restricted"),
    (f"{POD}.runAsUser", 0, "spec.securityContext.runAsUser", "restricted"),
    (f"{MAIN}.runAsUser", 0, "spec.containers[0].securityContext.runAsUser", "restricted"),
    (f"{MAIN}.capabilities.drop", ["NET_RAW"], "spec.containers[0].securityContext.capabilities.drop", "restricted"),
    ("spec.initContainers", [{"name": "i"}], "spec.initContainers[0].securityContext.capabilities.drop", "restricted"),
]


def broken(path, value):
    template = copy.deepcopy(GOOD)
    *keys, last = path.split(".")
    place = template
    for key in keys:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return template


@pytest.mark.parametrize(("path", "value", "field", "level"), BROKEN, ids=[f"{row[0]}={row[1]}" for row in BROKEN])
def test_controls(path, value, field, level):
    template = broken(path, value)
    assert field in [found.field for found in violations(template, "restricted")]
    assert (field in [found.field for found in violations(template, "baseline")]) == (level == "baseline")
    assert violations(template, "privileged") == []
    fields = [found.field for found in violations(template, "restricted")]
    assert len(fields) == len(set(fields)), "each field is named once"


def test_what_restricted_allows():
    assert violations(GOOD, "restricted") == []
    assert violations(broken(f"{MAIN}.capabilities.add", ["NET_BIND_SERVICE"]), "restricted") == []
    own = broken(f"{POD}.runAsNonRoot", None)
    own["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] = True
    assert violations(own, "restricted") == [], "a container may say it for itself"
    windows = {"spec": {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": True}, "containers": [{"name": "main"}]}}
    assert violations(windows, "restricted") == [], "controls of Linux do not hold for Windows"


def test_every_kind_that_makes_pods():
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    bad = {"containers": [{"name": "main"}], "hostNetwork": True}
    kinds = [deployment(), DAEMON, CRON, obj("Pod", "p", spec=bad), job(), obj("StatefulSet", "s", "apps/v1", spec={"template": {"spec": bad}})]
    for kind in kinds:
        kind = copy.deepcopy(kind)
        template = kind["spec"].get("jobTemplate", kind)["spec"].get("template", kind)
        template["spec"] = bad
        lines = said(obj("Namespace", "ns", namespace=None, metadata={"labels": labels}), kind)
        assert any("hostNetwork is against Pod Security baseline, and Namespace ns enforces restricted; remove it" in line for line in lines), kind["kind"]
        assert said(obj("Namespace", "ns", namespace=None, metadata={"labels": {"pod-security.kubernetes.io/warn": "restricted"}}), kind) == []


# --- whatever shape it has ---------------------------------------------------------------------------------------------
KEYS = st.sampled_from([
    "template", "spec", "containers", "initContainers", "securityContext", "sysctls", "name", "ports", "hostPort", "resources", "requests", "limits",
    "cpu", "volumes", "hostPath", "capabilities", "add", "seccompProfile", "type", "hard", "pods", "jobTemplate", "livenessProbe", "httpGet", "host",
    "volumeClaimTemplates", "os", "overhead", "default", "max", "scopes", "suspend", "appArmorProfile", "metadata", "annotations", "labels",
])  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "1", "1Gi", "Container", "ALL", "x"]))
JSON = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=25)
SPECS = st.dictionaries(KEYS, JSON, max_size=5)


@given(st.lists(st.tuples(st.sampled_from(["Pod", "ResourceQuota", "LimitRange", "PersistentVolumeClaim"]), SPECS), max_size=3), SPECS, SPECS)
def test_no_shape_ends_in_a_traceback(drawn, template, job_template):
    level = obj("Namespace", "ns", namespace=None, metadata={"labels": {"pod-security.kubernetes.io/enforce": "restricted"}})
    odd = [obj(kind, f"o{number}", spec=spec) for number, (kind, spec) in enumerate(drawn)]
    odd += [obj("Deployment", api="apps/v1", spec={"template": template}), obj("CronJob", api="batch/v1", spec={"jobTemplate": job_template})]
    with contextlib.suppress(InvalidInput):  # labels that are no texts, say
        assert all(isinstance(line, str) for line in said(level, quota(**{"pods": "9", "requests.cpu": "1"}), *odd))


# --- in the order of work --------------------------------------------------------------------------------------------
LABELS = {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}
NOTE = {"annotations": {ANNOTATION_FINDING: "namespaces_flows[0].to names 'db', which is no component", "genai.platform/source": "a.yaml.j2"}}
CONTRADICTIONS = [
    obj("Namespace", "ns", namespace=None, metadata=LABELS),
    quota(pods="2"),
    deployment(CPU, hostNetwork=True),
    obj("ConfigMap", "policy", metadata=NOTE),
]


def release(cluster, bundle, **options):
    facts = {"by": "t", "why": "", "commit": "", "profile": ""}
    releaser = Releaser(cluster, Ledger(cluster, "genai-ledger", "genai"), Options("genai", wait=False, facts=facts, **options), lambda _line: None)
    return releaser.deploy(bundle)


@pytest.mark.parametrize("check", [True, False])
def test_one_error_lists_everything_and_nothing_is_written(check):
    cluster = FakeCluster()
    with pytest.raises(InvalidInput, match="contradicts itself, nothing was written") as caught:
        release(cluster, {"app": CONTRADICTIONS}, check=check)
    assert [error.split(";")[0] for error in caught.value.facts["errors"]] == [
        "app (a.yaml.j2): namespaces_flows[0].to names 'db', which is no component",
        "app: ResourceQuota ns/quota: spec.hard.pods is 2, and the bundle's objects need 3 (Deployment app 3)",
        "app: Deployment ns/app: spec.template.spec.hostNetwork is against Pod Security baseline, and Namespace ns enforces baseline",
    ]
    assert cluster.requests == {}


def test_it_can_be_switched_off_and_a_rollback_does_not_ask():
    cluster = FakeCluster()
    namespace, noted = CONTRADICTIONS[0], CONTRADICTIONS[3]  # of kinds that this cluster knows
    release(cluster, {"app": [namespace, noted]}, consistency=False)
    release(cluster, {"app": [namespace]})
    facts = {"by": "t", "why": "", "commit": "", "profile": ""}
    releaser = Releaser(cluster, Ledger(cluster, "genai-ledger", "genai"), Options("genai", wait=False, facts=facts), lambda _line: None)
    assert releaser.roll_back("previous", None)["changed"]


def test_a_run_of_one_component_looks_at_what_it_has():
    refuse_contradictions(prepare({"app": CONTRADICTIONS[2:3]}, "genai"))
    refuse_contradictions(prepare({"app": CONTRADICTIONS[:2]}, "genai"))
