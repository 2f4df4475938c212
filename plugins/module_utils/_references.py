# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What objects of a bundle need by name: found before the first write instead of by a pod that never starts. Pure.

Left out is what works, or may work later, while the other side is missing: a binding's subjects, pull secrets, a StatefulSet's
serviceName, an Ingress's tls (certificate managers make that Secret), and whatever says `optional: true`.
"""
from __future__ import annotations

import re
import typing as t

from ._manifest import Desired, Ref

RBAC, SCHEDULING = "rbac.authorization.k8s.io", "scheduling.k8s.io"
GATEWAYS, ISTIO = "gateway.networking.k8s.io", "networking.istio.io"
Found = t.Iterator[t.Tuple[str, Ref]]  # (path of the field, what it names)
# Where a kind keeps its pod's specification, by (group, kind).
POD_SPECS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("spec",),
    **dict.fromkeys([("apps", kind) for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")], ("spec", "template", "spec")),
    ("batch", "Job"): ("spec", "template", "spec"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template", "spec"),
}
# Made by the cluster itself: in every namespace, and once.
BUILT_IN = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
BUILT_IN |= {("ServiceAccount", "builder"), ("ServiceAccount", "deployer"), ("ConfigMap", "openshift-service-ca.crt")}  # on OpenShift
BUILT_IN |= {("RoleBinding", f"system:{name}") for name in ("deployers", "image-builders", "image-pullers")}  # there, too
BUILT_IN |= {("ConfigMap", "istio-ca-root-cert")}  # by Istio
BUILT_IN |= {("PriorityClass", f"system-{scope}-critical") for scope in ("node", "cluster")}


class Need(t.NamedTuple):
    """`by` names `ref` in its field `path`."""

    by: Desired
    path: str
    ref: Ref

    def __str__(self) -> str:
        return f"{self.by.where}: {self.path} names {self.ref}"


def missing(desired: dict[Ref, Desired]) -> list[Need]:
    """What is needed and not in the bundle; the cluster may have it."""
    made = _claims(desired.values())
    return [need for need in needed(desired.values()) if need.ref not in desired and not any(made_as.fullmatch(str(need.ref)) for made_as in made)]


def needed(objects: t.Iterable[Desired], pull_secrets: bool = False) -> list[Need]:
    """Everything that objects need by name. `pull_secrets`: those, too, without which an image may be there all the same."""
    return [
        Need(item, path, ref)
        for item in objects for path, ref in (*_references(item), *(_pull_secrets(item) if pull_secrets else ()))
        if ref.name and (ref.kind, ref.name) not in BUILT_IN
    ]


def _references(item: Desired) -> Found:
    key, body, namespace = (item.ref.group, item.ref.kind), item.body, item.ref.namespace
    if key in POD_SPECS:
        yield from _of_pod(at(body, *POD_SPECS[key]), ".".join(POD_SPECS[key]), namespace)
    elif key in _RULES:
        yield from _RULES[key](body, namespace)


def _pull_secrets(item: Desired) -> Found:
    keys = POD_SPECS.get((item.ref.group, item.ref.kind), ())
    for index, secret in each(at(item.body, *keys), "imagePullSecrets"):
        yield f"{'.'.join(keys)}.imagePullSecrets[{index}].name", Ref("", "Secret", item.ref.namespace, text(secret, "name"))


def _claims(objects: t.Iterable[Desired]) -> list[re.Pattern]:
    """How the claims are called that StatefulSets of the bundle make: `PersistentVolumeClaim ns/<template>-<set>-<number>`."""
    return [
        re.compile(re.escape(f"PersistentVolumeClaim {item.ref.namespace}/{text(at(template, 'metadata'), 'name')}-{item.ref.name}-") + r"\d+")
        for item in objects if (item.ref.group, item.ref.kind) == ("apps", "StatefulSet")
        for _index, template in each(item.body, "spec", "volumeClaimTemplates")
    ]


# --- rules -----------------------------------------------------------------------------------------------------------


def _of_pod(spec: dict, path: str, namespace: str) -> Found:
    yield f"{path}.serviceAccountName", Ref("", "ServiceAccount", namespace, text(spec, "serviceAccountName"))
    yield f"{path}.priorityClassName", Ref(SCHEDULING, "PriorityClass", "", text(spec, "priorityClassName"))
    for index, volume in each(spec, "volumes"):
        yield from _of_volume(volume, f"{path}.volumes[{index}]", namespace)
    for field in ("initContainers", "containers"):
        for index, container in each(spec, field):
            yield from _of_container(container, f"{path}.{field}[{index}]", namespace)


def _of_volume(volume: dict, path: str, namespace: str) -> Found:
    claim = text(at(volume, "persistentVolumeClaim"), "claimName")
    yield f"{path}.persistentVolumeClaim.claimName", Ref("", "PersistentVolumeClaim", namespace, claim)
    yield from _values(volume, path, namespace, configMap="ConfigMap name", secret="Secret secretName")
    for index, source in each(volume, "projected", "sources"):
        yield from _values(source, f"{path}.projected.sources[{index}]", namespace, configMap="ConfigMap name", secret="Secret name")


def _of_container(container: dict, path: str, namespace: str) -> Found:
    for index, variable in each(container, "env"):
        where = f"{path}.env[{index}].valueFrom"
        yield from _values(at(variable, "valueFrom"), where, namespace, configMapKeyRef="ConfigMap name", secretKeyRef="Secret name")
    for index, source in each(container, "envFrom"):
        yield from _values(source, f"{path}.envFrom[{index}]", namespace, configMapRef="ConfigMap name", secretRef="Secret name")


def _values(holder: dict, path: str, namespace: str, **fields: str) -> Found:
    """ConfigMaps and Secrets that `holder` names. `fields`: {field: its kind, and below it the field that holds the name}."""
    for field, rule in fields.items():
        kind, name = rule.split()
        source = at(holder, field)
        if source.get("optional") is not True:
            yield f"{path}.{field}.{name}", Ref("", kind, namespace, text(source, name))


def _of_binding(body: dict, namespace: str) -> Found:
    role = at(body, "roleRef")
    kind = text(role, "kind")
    if kind in ("Role", "ClusterRole"):
        yield "roleRef.name", Ref(RBAC, kind, namespace if kind == "Role" else "", text(role, "name"))


def _of_autoscaler(body: dict, namespace: str) -> Found:
    target = at(body, "spec", "scaleTargetRef")
    group, slash, _version = text(target, "apiVersion").rpartition("/")
    if slash and text(target, "kind"):
        yield "spec.scaleTargetRef.name", Ref(group, text(target, "kind"), namespace, text(target, "name"))


def _of_ingress(body: dict, namespace: str) -> Found:
    yield _backend("spec.defaultBackend", at(body, "spec", "defaultBackend"), namespace)
    for number, rule in each(body, "spec", "rules"):
        for index, path in each(rule, "http", "paths"):
            yield _backend(f"spec.rules[{number}].http.paths[{index}].backend", at(path, "backend"), namespace)


def _of_http_route(body: dict, namespace: str) -> Found:
    """Its Gateways and Services; what else it may name is for others."""
    for index, parent in each(body, "spec", "parentRefs"):
        if (parent.get("group", GATEWAYS), parent.get("kind", "Gateway")) == (GATEWAYS, "Gateway"):
            yield f"spec.parentRefs[{index}].name", Ref(GATEWAYS, "Gateway", text(parent, "namespace") or namespace, text(parent, "name"))
    for number, rule in each(body, "spec", "rules"):
        for index, backend in each(rule, "backendRefs"):
            if (backend.get("group", ""), backend.get("kind", "Service")) == ("", "Service"):
                path = f"spec.rules[{number}].backendRefs[{index}].name"
                yield path, Ref("", "Service", text(backend, "namespace") or namespace, text(backend, "name"))


def _of_virtual_service(body: dict, namespace: str) -> Found:
    """Its Gateways: `namespace/name`, a name in its own namespace, or `mesh`, which is none."""
    named = at(body, "spec").get("gateways")
    for index, gateway in enumerate(named if isinstance(named, list) else []):
        if isinstance(gateway, str) and gateway != "mesh":
            where, slash, name = gateway.rpartition("/")
            yield f"spec.gateways[{index}]", Ref(ISTIO, "Gateway", where if slash else namespace, name)


def _backend(path: str, backend: dict, namespace: str) -> tuple[str, Ref]:
    return f"{path}.service.name", Ref("", "Service", namespace, text(at(backend, "service"), "name"))


_RULES: dict[tuple[str, str], t.Callable[[dict, str], Found]] = {
    (RBAC, "RoleBinding"): _of_binding,
    (RBAC, "ClusterRoleBinding"): _of_binding,
    ("autoscaling", "HorizontalPodAutoscaler"): _of_autoscaler,
    ("networking.k8s.io", "Ingress"): _of_ingress,
    (GATEWAYS, "HTTPRoute"): _of_http_route,
    (ISTIO, "VirtualService"): _of_virtual_service,
}


# --- reading what may have any shape ---------------------------------------------------------------------------------


def at(value: t.Any, *keys: str) -> dict:
    """The mapping below `keys`; an empty one where there is none. What has the wrong shape, the API server will say."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def each(value: t.Any, *keys: str) -> t.Iterator[tuple[int, dict]]:
    """The mappings in the list below `keys`, with their positions."""
    items = at(value, *keys[:-1]).get(keys[-1])
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield index, item


def text(value: dict, key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""
