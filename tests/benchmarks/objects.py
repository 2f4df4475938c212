# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A platform's worth of objects, the same every time: N of them in up to twelve namespaces. Pure."""
from __future__ import annotations

import itertools
import json
import typing as t

NAMESPACES = 12
PER_NAMESPACE = 25  # a small set has fewer namespaces, so that it still has every kind
IMAGE = "genai-platform/inference:1.0.0"
COMPONENTS = {  # what a role of its own would describe
    "namespaces": ("Namespace",),
    "settings": ("ConfigMap", "Secret"),
    "policies": ("Role", "NetworkPolicy", "PodDisruptionBudget"),
    "services": ("Service", "Deployment", "HorizontalPodAutoscaler"),
}


def objects(count: int, prefix: str, version: int = 1, changed: int = 0) -> list[dict]:
    """`count` manifests, namespaces first. Another `version` changes every one of them, `changed` only the first ConfigMaps."""
    spaces = [f"{prefix}-{i:02}" for i in range(max(1, min(NAMESPACES, count // PER_NAMESPACE)))]
    made = [_body("v1", "Namespace", name, None, version) for name in spaces]
    numbers = itertools.count()
    while len(made) < count:
        number, namespace = divmod(next(numbers), len(spaces))
        make, index = KINDS[number % len(KINDS)], number // len(KINDS)
        made.append(make(f"app-{index:03}", spaces[namespace], version))
    settings = [body for body in made if body["kind"] == "ConfigMap"]
    for body in settings[:changed]:
        body["data"]["GENAI_MODEL_TITLE"] = "One thing changed"
    return made


def bundle(manifests: t.Iterable[dict]) -> dict[str, list[dict]]:
    """The manifests as `genai.platform.release` takes them: {component: [manifest]}."""
    sorted_in: dict[str, list[dict]] = {component: [] for component in COMPONENTS}
    for manifest in manifests:
        sorted_in[next(name for name, kinds in COMPONENTS.items() if manifest["kind"] in kinds)].append(manifest)
    return sorted_in


def as_list(manifests: list[dict]) -> str:
    """The manifests as one JSON document, which every tool reads faster than YAML."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def as_documents(manifests: list[dict]) -> str:
    """The manifests as documents of one file, which is how a Helm chart has them."""
    return "\n---\n".join(map(json.dumps, manifests))


def kinds(manifests: t.Iterable[dict]) -> int:
    return len({manifest["kind"] for manifest in manifests})


# --- the kinds -------------------------------------------------------------------------------------------------------


def _body(api_version: str, kind: str, name: str, namespace: str | None, version: int, **rest: t.Any) -> dict:
    meta: dict[str, t.Any] = {
        "name": name,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "benchmark"},
        "annotations": {"example.com/version": str(version), "example.com/owner": "a team with a name of usual length"},
    }
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}


def _selector(name: str) -> dict:
    return {"matchLabels": {"app.kubernetes.io/name": name}}


def _config_map(name: str, namespace: str, version: int) -> dict:
    settings = {f"GENAI_SETTING_{i:02}": f"a value that somebody chose, number {i} of {name}" for i in range(12)}
    data = {"GENAI_MODEL_TITLE": f"Handwritten digits {version}", **settings}
    return _body("v1", "ConfigMap", name, namespace, version, data=data)


def _secret(name: str, namespace: str, version: int) -> dict:
    # base64 of "not a secret at all, but about as long as one": server-side apply keeps `stringData` out of the live object
    value = "bm90IGEgc2VjcmV0IGF0IGFsbCwgYnV0IGFib3V0IGFzIGxvbmcgYXMgb25l"
    return _body("v1", "Secret", name, namespace, version, type="Opaque", data={key: value for key in ("token", "password", "dsn")})


def _role(name: str, namespace: str, version: int) -> dict:
    rules = [
        {"apiGroups": [""], "resources": ["configmaps", "secrets"], "resourceNames": [name], "verbs": ["get", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]},
    ]
    return _body("rbac.authorization.k8s.io/v1", "Role", name, namespace, version, rules=rules)


def _network_policy(name: str, namespace: str, version: int) -> dict:
    spec = {
        "podSelector": _selector(name),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 8080, "protocol": "TCP"}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 53, "protocol": "UDP"}]}],
    }
    return _body("networking.k8s.io/v1", "NetworkPolicy", name, namespace, version, spec=spec)


def _service(name: str, namespace: str, version: int) -> dict:
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    # Headless: 5,000 objects would use up the cluster's addresses.
    spec = {"clusterIP": "None", "selector": _selector(name)["matchLabels"], "ports": ports}
    return _body("v1", "Service", name, namespace, version, spec=spec)


def _deployment(name: str, namespace: str, version: int) -> dict:
    container = {
        "name": "api",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "envFrom": [{"configMapRef": {"name": name}}],
        "resources": {"requests": {"cpu": "100m", "memory": "384Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 2, "failureThreshold": 3},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
    }
    spec = {
        "replicas": 0,  # what is measured is the way to the API server, not the kubelet
        "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": _selector(name),
        "template": {"metadata": {"labels": _selector(name)["matchLabels"]}, "spec": pod},
    }
    return _body("apps/v1", "Deployment", name, namespace, version, spec=spec)


def serving(name: str, namespace: str, labels: dict) -> dict:
    """A Deployment with one pod that becomes ready by itself."""
    body = _deployment(name, namespace, 1)
    body["metadata"]["labels"].update(labels)
    body["spec"]["replicas"] = 1
    del body["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    return body


def _autoscaler(name: str, namespace: str, version: int) -> dict:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    # A Deployment outside of the set: with an autoscaler over one of its own, the set would start pods.
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{name}-elsewhere"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 4, "metrics": [cpu]}
    return _body("autoscaling/v2", "HorizontalPodAutoscaler", name, namespace, version, spec=spec)


def _disruption_budget(name: str, namespace: str, version: int) -> dict:
    return _body("policy/v1", "PodDisruptionBudget", name, namespace, version, spec={"maxUnavailable": 1, "selector": _selector(name)})


KINDS = (_config_map, _secret, _role, _network_policy, _service, _deployment, _autoscaler, _disruption_budget)
