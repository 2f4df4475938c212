# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check finds the mistake it is there for, and nothing in a bundle without mistakes."""
from __future__ import annotations

import copy
import typing as t

import checks
import pytest
import yaml

GOOD = """
- apiVersion: v1
  kind: Namespace
  metadata: {name: ns}
- apiVersion: v1
  kind: ServiceAccount
  metadata: {name: app, namespace: ns}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: app, namespace: ns}
  data: {LEVEL: info}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: app, namespace: ns}
  spec:
    selector: {matchLabels: {app: one}}
    template:
      metadata:
        labels: {app: one, tier: api}
        annotations: {genai.platform/config-checksum: abc}
      spec:
        serviceAccountName: app
        securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
        containers:
          - name: api
            image: registry.example.com:5000/team/app:1.2.3
            ports: [{name: http, containerPort: 8080}]
            envFrom: [{configMapRef: {name: app}}]
            env: [{name: MODE, valueFrom: {secretKeyRef: {name: mode, key: mode, optional: true}}}]
            resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}
            readinessProbe: {httpGet: {path: /ready, port: http}}
            livenessProbe: {httpGet: {path: /health, port: http}}
            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
            volumeMounts: [{name: tmp, mountPath: /tmp}]
        volumes: [{name: tmp, emptyDir: {}}]
- apiVersion: v1
  kind: Service
  metadata: {name: app, namespace: ns}
  spec:
    selector: {app: one}
    ports: [{name: web, port: 80, targetPort: http}]
- apiVersion: policy/v1
  kind: PodDisruptionBudget
  metadata: {name: app, namespace: ns}
  spec: {maxUnavailable: 1, selector: {matchLabels: {app: one}}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: app, namespace: ns}
  spec:
    podSelector: {matchLabels: {app: one}}
    policyTypes: [Ingress]
    ingress: [{ports: [{protocol: TCP, port: http}]}]
- apiVersion: autoscaling/v2
  kind: HorizontalPodAutoscaler
  metadata: {name: app, namespace: ns}
  spec:
    scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}
    minReplicas: 1
    maxReplicas: 3
    metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}]
- apiVersion: networking.k8s.io/v1
  kind: Ingress
  metadata: {name: app, namespace: ns}
  spec:
    rules:
      - host: app.example.com
        http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {name: web}}}}]}
- apiVersion: route.openshift.io/v1
  kind: Route
  metadata: {name: app, namespace: ns}
  spec: {host: app.example.com, to: {kind: Service, name: app}, alternateBackends: [{kind: Service, name: app}], port: {targetPort: http}}
- apiVersion: keda.sh/v1alpha1
  kind: ScaledObject
  metadata: {name: app, namespace: ns}
  spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}}
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: app, namespace: ns}
  spec: {rules: [{backendRefs: [{name: app, port: 80, weight: 1}]}]}
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata: {name: app, namespace: ns}
  spec: {http: [{route: [{destination: {host: app.ns.svc.cluster.local, port: {number: 80}}}]}]}
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: app, namespace: ns}
  spec: {host: app.ns.svc.cluster.local}
"""

POD = "Deployment.spec.template.spec"
CONTAINER = f"{POD}.containers.0"
CONTEXT = f"{CONTAINER}.securityContext"
MISSING = object()

# Which check, where the mistake is put (a kind, then a path in it), the mistake, and what has to be said about it.
BAD: list[tuple[str, str, t.Any, str]] = [
    ("schema", "Deployment.spec.replicas", "three", "replicas"),
    ("schema", "Deployment.spec.templat", {}, "templat"),
    ("schema", f"{CONTAINER}.imagePullPolice", "Always", "imagePullPolice"),
    ("schema", "Service.apiVersion", "v7", "NO_SCHEMA"),
    ("schema", "HorizontalPodAutoscaler.spec.maxReplicas", MISSING, "maxReplicas"),
    ("pod_security", f"{POD}.hostNetwork", True, "host namespaces"),
    ("pod_security", f"{POD}.hostPID", True, "host namespaces"),
    ("pod_security", f"{POD}.hostIPC", True, "host namespaces"),
    ("pod_security", f"{POD}.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}, "volume types"),
    ("pod_security", f"{POD}.volumes.0", {"name": "tmp", "nfs": {"server": "x", "path": "/"}}, "volume types"),
    ("pod_security", f"{POD}.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctls"),
    ("pod_security", f"{POD}.securityContext.seLinuxOptions", {"type": "spc_t"}, "SELinux"),
    ("pod_security", f"{POD}.securityContext.appArmorProfile", {"type": "Unconfined"}, "AppArmor"),
    ("pod_security", f"{POD}.securityContext.runAsUser", 0, "runAsUser"),
    ("pod_security", f"{POD}.securityContext.runAsNonRoot", MISSING, "runAsNonRoot"),
    ("pod_security", f"{POD}.securityContext.seccompProfile", MISSING, "seccompProfile"),
    ("pod_security", f"{POD}.securityContext.windowsOptions", {"hostProcess": True}, "Windows"),
    (
        "pod_security",
        "Deployment.spec.template.metadata.annotations",
        {"container.apparmor.security.beta.kubernetes.io/api": "unconfined"},
        "AppArmor annotations",
    ),
    ("pod_security", f"{CONTEXT}", MISSING, "allowPrivilegeEscalation"),
    ("pod_security", f"{CONTEXT}.privileged", True, "not privileged"),
    ("pod_security", f"{CONTEXT}.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"),
    ("pod_security", f"{CONTEXT}.capabilities.drop", ["NET_RAW"], "drop ALL"),
    ("pod_security", f"{CONTEXT}.capabilities.add", ["SYS_ADMIN"], "capabilities: add"),
    ("pod_security", f"{CONTEXT}.runAsNonRoot", False, "runAsNonRoot"),
    ("pod_security", f"{CONTEXT}.runAsUser", 0, "runAsUser"),
    ("pod_security", f"{CONTEXT}.seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
    ("pod_security", f"{CONTEXT}.seLinuxOptions", {"user": "system_u"}, "SELinux"),
    ("pod_security", f"{CONTEXT}.appArmorProfile", {"type": "Unconfined"}, "AppArmor"),
    ("pod_security", f"{CONTEXT}.procMount", "Unmasked", "procMount"),
    ("pod_security", f"{CONTEXT}.windowsOptions", {"hostProcess": True}, "Windows"),
    ("pod_security", f"{CONTAINER}.ports.0.hostPort", 80, "host ports"),
    ("pod_security", f"{CONTAINER}.livenessProbe.httpGet.host", "10.0.0.1", "without host"),
    ("pod_security", f"{CONTAINER}.lifecycle", {"preStop": {"httpGet": {"port": 1, "host": "10.0.0.1"}}}, "without host"),
    ("pod_security", f"{POD}.initContainers", [{"name": "first", "image": "x:1"}], "container first"),
    ("pod_security", f"{POD}.ephemeralContainers", [{"name": "debug", "image": "x:1"}], "container debug"),
    ("resources", f"{CONTAINER}.resources", MISSING, "resources.requests.cpu"),
    ("resources", f"{CONTAINER}.resources.limits", {"cpu": 1}, "resources.limits.memory"),
    ("resources", f"{POD}.initContainers", [{"name": "first", "image": "x:1"}], "container first"),
    ("probes", f"{CONTAINER}.readinessProbe", MISSING, "readinessProbe"),
    ("probes", f"{CONTAINER}.livenessProbe", MISSING, "livenessProbe"),
    ("probes", f"{POD}.initContainers", [{"name": "side", "image": "x:1", "restartPolicy": "Always"}], "container side"),
    ("images", f"{CONTAINER}.image", "app", "without a version"),
    ("images", f"{CONTAINER}.image", "app:latest", "without a version"),
    ("images", f"{CONTAINER}.image", "registry.example.com:5000/app", "without a version"),
    ("images", f"{CONTAINER}.image", "app:", "without a version"),
    ("images", f"{CONTAINER}.image", MISSING, "without a version"),
    ("own_selectors", "Deployment.spec.selector.matchLabels", {"app": "two"}, "its own template"),
    ("own_selectors", "Deployment.spec.template.metadata.labels", MISSING, "its own template"),
    ("own_selectors", "Deployment.spec.selector", MISSING, "its own template"),
    ("own_selectors", "Deployment.spec.selector", {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, "its own template"),
    ("services", "Service.spec.selector.app", "two", "takes no pod"),
    ("services", "Service.metadata.namespace", "elsewhere", "takes no pod"),
    ("services", "Service.spec.ports.0.targetPort", "grpc", "'grpc' is no port"),
    ("services", "Service.spec.ports.0.targetPort", MISSING, "is no port"),
    ("disruption_budgets", "PodDisruptionBudget.spec.selector.matchLabels.app", "two", "takes no pod"),
    ("network_policies", "NetworkPolicy.spec.podSelector.matchLabels.app", "two", "takes no pod"),
    ("network_policies", "NetworkPolicy.spec.ingress.0.ports.0.port", "grpc", "'grpc' is no port"),
    ("autoscalers", "HorizontalPodAutoscaler.spec.scaleTargetRef.name", "two", "Deployment two is not in the bundle"),
    ("autoscalers", "HorizontalPodAutoscaler.spec.scaleTargetRef.apiVersion", "apps/v1beta1", "is not in the bundle"),
    ("autoscalers", f"{CONTAINER}.resources.requests", {"memory": "1Gi"}, "steers by cpu"),
    ("autoscalers", "ScaledObject.spec.scaleTargetRef.name", "two", "Deployment two is not in the bundle"),
    ("entrances", "Ingress.spec.rules.0.http.paths.0.backend.service.name", "two", "Service two is not in the bundle"),
    ("entrances", "Ingress.spec.rules.0.http.paths.0.backend.service.port.name", "http", "no port 'http'"),
    ("entrances", "Ingress.spec.defaultBackend", {"service": {"name": "two", "port": {"number": 80}}}, "Service two"),
    ("entrances", "Route.spec.to.name", "two", "Service two is not in the bundle"),
    ("entrances", "Route.spec.port.targetPort", "grpc", "no port 'grpc'"),
    ("entrances", "Route.spec.alternateBackends.0.name", "two", "Service two is not in the bundle"),
    ("entrances", "HTTPRoute.spec.rules.0.backendRefs.0.name", "two", "Service two is not in the bundle"),
    ("entrances", "HTTPRoute.spec.rules.0.backendRefs.0.port", 8080, "no port 8080"),
    ("entrances", "VirtualService.spec.http.0.route.0.destination.host", "app.other.svc.cluster.local", "app.other.svc.cluster.local is not in"),
    ("entrances", "VirtualService.spec.http.0.route.0.destination.port.number", 8080, "no port 8080"),
    ("entrances", "DestinationRule.spec.host", "two.ns.svc.cluster.local", "Service two is not in the bundle"),
    ("needs", "Namespace.metadata.name", "two", "Namespace ns"),
    ("needs", "ServiceAccount.metadata.name", "two", "ServiceAccount app"),
    ("needs", "ConfigMap.metadata.name", "two", "ConfigMap app"),
    ("needs", f"{CONTAINER}.env.0.valueFrom.secretKeyRef.optional", False, "Secret mode"),
    ("needs", f"{POD}.volumes.0", {"name": "tmp", "secret": {"secretName": "s"}}, "Secret s"),
    ("needs", f"{POD}.volumes.0", {"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}, "PersistentVolumeClaim c"),
    ("mounts", f"{CONTAINER}.volumeMounts.0.name", "cache", "volume cache"),
]


def good() -> list[dict]:
    return yaml.safe_load(GOOD)


def spoil(manifests: list[dict], where: str, mistake: t.Any) -> None:
    """Puts a mistake at `Kind.path.to.field`; a number in the path counts in a list. Missing mappings are made."""
    kind, *path, last = where.split(".")
    target: t.Any = next(manifest for manifest in manifests if manifest["kind"] == kind)
    for name in path:
        target = target[int(name)] if name.isdigit() else target.setdefault(name, {})
    key = int(last) if last.isdigit() else last
    if mistake is MISSING:
        del target[key]
    else:
        target[key] = mistake


@pytest.mark.parametrize("name", checks.CHECKS)
def test_good_bundle_passes(name):
    assert checks.CHECKS[name](good()) == []


@pytest.mark.parametrize(("name", "where", "mistake", "said"), BAD, ids=[f"{row[0]}-{row[1].rpartition('.')[2]}-{row[3]}" for row in BAD])
def test_mistake_is_found(name, where, mistake, said):
    manifests = good()
    spoil(manifests, where, mistake)
    problems = checks.CHECKS[name](manifests)
    assert any(said in problem for problem in problems), problems


def test_every_check_and_rule_can_fail():
    """Neither a check nor a Pod Security rule without a bad example."""
    assert {row[0] for row in BAD} == set(checks.CHECKS)
    found = []
    for name, where, mistake, _said in BAD:
        manifests = good()
        spoil(manifests, where, mistake)
        found += checks.pod_security(manifests) if name == "pod_security" else []
    for owner, rules in (("Deployment ns/app", checks.POD_RULES), ("Deployment ns/app, container api", checks.CONTAINER_RULES)):
        assert [rule for rule in rules if f"{owner}: Pod Security restricted: {rule}" not in found] == []


@pytest.mark.parametrize(
    "image", ["app:1", "app:1.0-rc.1", "registry.example.com:5000/a/b:v2", "app@sha256:" + "0" * 64, "app:1@sha256:" + "0" * 64]
)
def test_good_images(image):
    manifests = good()
    spoil(manifests, f"{CONTAINER}.image", image)
    assert checks.images(manifests) == []


def test_jobs_need_no_probes():
    manifests = good()
    job = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    job["kind"] = "Job"
    del job["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
    assert checks.probes(manifests) == []


def test_pods_of_cron_jobs_are_looked_at():
    template = next(manifest for manifest in good() if manifest["kind"] == "Deployment")["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "app"
    job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    assert checks.images([job]) and checks.pod_of({"kind": "Service"}) is None


@pytest.mark.parametrize(
    ("operator", "values", "taken"),
    [("In", ["one"], True), ("In", ["two"], False), ("NotIn", ["one"], False), ("Exists", None, True), ("DoesNotExist", None, False)],
)
def test_match_expressions(operator, values, taken):
    assert checks.selects({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}, {"app": "one"}) is taken


@pytest.mark.parametrize(("level", "checksum", "problems"), [("debug", "abc", 1), ("debug", "def", 0), ("info", "abc", 0)])
def test_settings_without_restart(level, checksum, problems):
    before, after = good(), copy.deepcopy(good())
    spoil(after, "ConfigMap.data.LEVEL", level)
    next(m for m in after if m["kind"] == "Deployment")["spec"]["template"]["metadata"]["annotations"][checks.CHECKSUM] = checksum
    assert len(checks.settings_without_restart(before, after)) == problems


@pytest.mark.parametrize(("mount", "problems"), [({}, 0), ({"subPath": "LEVEL"}, 1)])
def test_a_file_is_followed_unless_it_is_mounted_alone(mount, problems):
    before = good()
    spoil(before, f"{CONTAINER}.envFrom", [])
    spoil(before, f"{POD}.volumes.0", {"name": "tmp", "configMap": {"name": "app"}})
    spoil(before, f"{CONTAINER}.volumeMounts.0", {"name": "tmp", "mountPath": "/etc/app", **mount})
    after = copy.deepcopy(before)
    spoil(after, "ConfigMap.data.LEVEL", "debug")
    assert len(checks.settings_without_restart(before, after)) == problems


@pytest.mark.parametrize(("name", "problems"), [("inference-redis", 0), ("redis", 1)])
def test_what_exists_already_need_not_be_in_the_bundle(name, problems):
    manifests = good()
    spoil(manifests, f"{CONTAINER}.env.0.valueFrom.secretKeyRef", {"name": name, "key": "url"})
    assert len(checks.needs(manifests)) == problems
