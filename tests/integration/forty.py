# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two versions of a platform of many kinds; going from the first to the second takes exactly forty writes."""
from __future__ import annotations

import base64
import typing as t

from cluster import own

NAME = own("faults")
A, B = f"{NAME}-a", f"{NAME}-b"
NAMESPACES = (A, B)
GROUP = f"{NAME}.example.com"
VERSION = f"{GROUP}/version"  # label: which of the two versions an object is of
IMAGE = "registry.k8s.io/pause:3.10.1"  # on every node of every kind cluster
WRITES = {"update": 28, "create": 6, "delete": 6}
HPA_MINIMUM = 2

Bundle = t.Dict[str, t.List[dict]]


def bundle(version: int, hpa_minimum: int = HPA_MINIMUM) -> Bundle:
    """{component: [manifests]} of version 1 or 2."""
    name = {1: "old", 2: "new"}[version]
    parts = {
        "faults_base": _base(version),
        "faults_access": _access(version),
        "faults_apps": _apps(version, hpa_minimum),
        "faults_rest": [*_rest(version), *_only(name)],
    }
    for manifests in parts.values():
        for manifest in manifests:
            manifest["metadata"]["labels"] = {VERSION: str(version)}
    parts["faults_base"] += _constant()
    return parts


def obj(kind: str, name: str, namespace: str | None = A, api: str = "v1", **rest: t.Any) -> dict:
    meta: dict[str, t.Any] = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


# --- the kinds ---------------------------------------------------------------------------------------------------------

RBAC = "rbac.authorization.k8s.io"


def configmap(name: str, namespace: str, value: object) -> dict:
    return obj("ConfigMap", name, namespace, data={"value": str(value), f"only-in-{value}": "x"})


def secret(name: str, namespace: str, value: object) -> dict:
    return obj("Secret", name, namespace, data={"value": base64.b64encode(str(value).encode()).decode()})


def role(name: str, namespace: str, version: object) -> dict:
    verbs = ["get", "list"] if version == 1 else ["get", "list", "watch"]
    return obj("Role", name, namespace, f"{RBAC}/v1", rules=[{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}])


def role_binding(name: str, namespace: str, version: int) -> dict:
    subjects = [{"kind": "ServiceAccount", "name": f"app-{n}", "namespace": namespace} for n in range(version)]
    return obj("RoleBinding", name, namespace, f"{RBAC}/v1", roleRef={"apiGroup": RBAC, "kind": "Role", "name": name}, subjects=subjects)


def service(name: str, namespace: str, version: int) -> dict:
    ports = [{"name": f"port-{n}", "port": 80 + n, "protocol": "TCP"} for n in range(version)]
    return obj("Service", name, namespace, spec={"selector": {"app": name}, "ports": ports})


def pod_template(name: str, version: object) -> dict:
    container = {"name": "main", "image": IMAGE, "env": [{"name": "VERSION", "value": str(version)}]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def deployment(name: str, namespace: str, version: object, **spec: t.Any) -> dict:
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": pod_template(name, version), **spec}
    return obj("Deployment", name, namespace, "apps/v1", spec=spec)


def stateful_set(name: str, namespace: str, version: object) -> dict:
    spec = {"replicas": 0, "serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": pod_template(name, version)}
    return obj("StatefulSet", name, namespace, "apps/v1", spec=spec)


def autoscaler(name: str, namespace: str, minimum: int, version: int) -> dict:
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70 + version}}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    spec = {"minReplicas": minimum, "maxReplicas": 3 + version, "scaleTargetRef": target, "metrics": [metric]}
    return obj("HorizontalPodAutoscaler", name, namespace, "autoscaling/v2", spec=spec)


def cron_job(name: str, namespace: str, version: int) -> dict:
    pod = pod_template(name, version)
    pod["spec"]["restartPolicy"] = "Never"
    spec = {"schedule": f"{version} 4 * * *", "suspend": True, "jobTemplate": {"spec": {"template": pod}}}
    return obj("CronJob", name, namespace, "batch/v1", spec=spec)


def ingress(name: str, namespace: str, version: int) -> dict:
    backend = {"service": {"name": name, "port": {"number": 80}}}
    path = {"path": f"/v{version}", "pathType": "Prefix", "backend": backend}
    return obj("Ingress", name, namespace, "networking.k8s.io/v1", spec={"rules": [{"host": GROUP, "http": {"paths": [path]}}]})


def network_policy(name: str, namespace: str, version: int) -> dict:
    rules = [{"ports": [{"port": 8000 + n, "protocol": "TCP"}]} for n in range(version)]
    spec = {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"], "ingress": rules}
    return obj("NetworkPolicy", name, namespace, "networking.k8s.io/v1", spec=spec)


def definition(version: int, group: str = GROUP) -> dict:
    """A CustomResourceDefinition of Widgets; each version knows a field that the other refuses."""
    known = {"size": {"type": "integer"}, _own_field(version): {"type": "string"}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": known}}}
    names = {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"}
    served = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [served]}
    return obj("CustomResourceDefinition", f"widgets.{group}", None, "apiextensions.k8s.io/v1", spec=spec)


def widget(name: str, namespace: str, version: int, group: str = GROUP) -> dict:
    return obj("Widget", name, namespace, f"{group}/v1", spec={"size": version, _own_field(version): "own"})


def _own_field(version: int) -> str:
    return {1: "shape", 2: "colour"}[version]


# Claims of it stay unbound until a pod wants them, and here none does.
STORAGE = obj(
    "StorageClass", f"{NAME}-later", None, "storage.k8s.io/v1", provisioner="kubernetes.io/no-provisioner", volumeBindingMode="WaitForFirstConsumer"
)


def claim(name: str, namespace: str) -> dict:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": STORAGE["metadata"]["name"], "resources": {"requests": {"storage": "1Mi"}}}
    return obj("PersistentVolumeClaim", name, namespace, spec=spec)


# --- the components ----------------------------------------------------------------------------------------------------


def _base(version: int) -> list[dict]:
    limit = {"type": "Container", "default": {"memory": f"{version}Gi"}, "defaultRequest": {"memory": "8Mi"}}
    return [
        obj("Namespace", A, None),
        obj("PriorityClass", f"{NAME}-high", None, "scheduling.k8s.io/v1", value=7, description=f"version {version}"),
        definition(version),
        obj("ResourceQuota", "quota", spec={"hard": {"configmaps": str(50 + version), "pods": "20"}}),
        obj("LimitRange", "limits", spec={"limits": [limit]}),
        {**role(f"{NAME}-reader", "", version), "kind": "ClusterRole"},
    ]


def _constant() -> list[dict]:
    """Six that are the same in both versions."""
    return [
        obj("Namespace", B, None), configmap("constant", B, 0), secret("constant", B, 0), obj("ServiceAccount", "constant", B),
        service("constant", B, 1), claim("data", A),
    ]


def _access(version: int) -> list[dict]:
    both = [
        [
            obj("ServiceAccount", "app", space, automountServiceAccountToken=version == 1),
            role("app", space, version), role_binding("app", space, version), network_policy("app", space, version),
        ]
        for space in NAMESPACES
    ]
    return [*both[0], *both[1]]


def _apps(version: int, hpa_minimum: int) -> list[dict]:
    # The pods of the scaled Deployment are real: its template stays the same, or each attempt would wait for a rollout.
    scaled = deployment("scaled", B, 0, revisionHistoryLimit=version)
    del scaled["spec"]["replicas"]
    return [
        deployment("app", A, version), scaled, autoscaler("scaled", B, hpa_minimum, version), stateful_set("db", A, version),
        cron_job("app", A, version),
        obj("PodDisruptionBudget", "app", A, "policy/v1", spec={"maxUnavailable": version, "selector": {"matchLabels": {"app": "app"}}}),
        *(service("app", space, version) for space in NAMESPACES),
    ]


def _rest(version: int) -> list[dict]:
    spaces = [[configmap("app", space, version), secret("app", space, version)] for space in NAMESPACES]
    return [*spaces[0], *spaces[1], ingress("app", A, version), widget("app", A, version)]


def _only(name: str) -> list[dict]:
    """Six that only one of the versions has."""
    return [
        configmap(name, A, name), secret(name, B, name), service(name, A, 1), role(name, B, 1), deployment(name, A, name),
        widget(name, B, {"old": 1, "new": 2}[name]),
    ]
