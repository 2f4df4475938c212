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

from .kinds import MADE_BY_CLUSTER, POD_SPECS, RBAC, SCHEDULING
from .manifest import Desired, Ref
from .shapes import mapping_at, mappings_at, text_at

GATEWAYS, ISTIO = "gateway.networking.k8s.io", "networking.istio.io"
Found = t.Iterator[t.Tuple[str, Ref]]  # (path of the field, what it names)


class Reference(t.NamedTuple):
    """`by` names `ref` in its field `path`."""

    by: Desired
    path: str
    ref: Ref

    def __str__(self) -> str:
        return f"{self.by.where}: {self.path} names {self.ref}"


def missing_references(desired: dict[Ref, Desired]) -> list[Reference]:
    """What is needed and not in the bundle; the cluster may have it."""
    made = _claims(desired.values())
    return [need for need in needed(desired.values()) if need.ref not in desired and not any(made_as.fullmatch(str(need.ref)) for made_as in made)]


def needed(objects: t.Iterable[Desired], pull_secrets: bool = False) -> list[Reference]:
    """Everything that objects need by name. `pull_secrets`: those, too, without which an image may be there all the same."""
    return [
        Reference(item, path, ref)
        for item in objects for path, ref in (*_references(item), *(_pull_secrets(item) if pull_secrets else ()))
        if ref.name and (ref.kind, ref.name) not in MADE_BY_CLUSTER
    ]


def _references(item: Desired) -> Found:
    key, body, namespace = (item.ref.group, item.ref.kind), item.body, item.ref.namespace
    if key in POD_SPECS:
        yield from _named_by_pod(mapping_at(body, *POD_SPECS[key]), ".".join(POD_SPECS[key]), namespace)
    elif key in _REFERENCES:
        yield from _REFERENCES[key](body, namespace)


def _pull_secrets(item: Desired) -> Found:
    keys = POD_SPECS.get((item.ref.group, item.ref.kind), ())
    for index, secret in mappings_at(mapping_at(item.body, *keys), "imagePullSecrets"):
        yield f"{'.'.join(keys)}.imagePullSecrets[{index}].name", Ref("", "Secret", item.ref.namespace, text_at(secret, "name"))


def _claims(objects: t.Iterable[Desired]) -> list[re.Pattern]:
    """How the claims are called that StatefulSets of the bundle make: `PersistentVolumeClaim ns/<template>-<set>-<number>`."""
    return [
        re.compile(re.escape(f"PersistentVolumeClaim {item.ref.namespace}/{text_at(mapping_at(template, 'metadata'), 'name')}-{item.ref.name}-") + r"\d+")
        for item in objects if (item.ref.group, item.ref.kind) == ("apps", "StatefulSet")
        for _index, template in mappings_at(item.body, "spec", "volumeClaimTemplates")
    ]


# --- rules -----------------------------------------------------------------------------------------------------------


def _named_by_pod(spec: dict, path: str, namespace: str) -> Found:
    yield f"{path}.serviceAccountName", Ref("", "ServiceAccount", namespace, text_at(spec, "serviceAccountName"))
    yield f"{path}.priorityClassName", Ref(SCHEDULING, "PriorityClass", "", text_at(spec, "priorityClassName"))
    for index, volume in mappings_at(spec, "volumes"):
        yield from _of_volume(volume, f"{path}.volumes[{index}]", namespace)
    for field in ("initContainers", "containers"):
        for index, container in mappings_at(spec, field):
            yield from _named_by_container(container, f"{path}.{field}[{index}]", namespace)


def _of_volume(volume: dict, path: str, namespace: str) -> Found:
    claim = text_at(mapping_at(volume, "persistentVolumeClaim"), "claimName")
    yield f"{path}.persistentVolumeClaim.claimName", Ref("", "PersistentVolumeClaim", namespace, claim)
    yield from _values(volume, path, namespace, configMap="ConfigMap name", secret="Secret secretName")
    for index, source in mappings_at(volume, "projected", "sources"):
        yield from _values(source, f"{path}.projected.sources[{index}]", namespace, configMap="ConfigMap name", secret="Secret name")


def _named_by_container(container: dict, path: str, namespace: str) -> Found:
    for index, variable in mappings_at(container, "env"):
        where = f"{path}.env[{index}].valueFrom"
        yield from _values(mapping_at(variable, "valueFrom"), where, namespace, configMapKeyRef="ConfigMap name", secretKeyRef="Secret name")
    for index, source in mappings_at(container, "envFrom"):
        yield from _values(source, f"{path}.envFrom[{index}]", namespace, configMapRef="ConfigMap name", secretRef="Secret name")


def _values(holder: dict, path: str, namespace: str, **fields: str) -> Found:
    """ConfigMaps and Secrets that `holder` names. `fields`: {field: its kind, and below it the field that holds the name}."""
    for field, rule in fields.items():
        kind, name = rule.split()
        source = mapping_at(holder, field)
        if source.get("optional") is not True:
            yield f"{path}.{field}.{name}", Ref("", kind, namespace, text_at(source, name))


def _of_binding(body: dict, namespace: str) -> Found:
    role = mapping_at(body, "roleRef")
    kind = text_at(role, "kind")
    if kind in ("Role", "ClusterRole"):
        yield "roleRef.name", Ref(RBAC, kind, namespace if kind == "Role" else "", text_at(role, "name"))


def _of_autoscaler(body: dict, namespace: str) -> Found:
    target = mapping_at(body, "spec", "scaleTargetRef")
    group, slash, _version = text_at(target, "apiVersion").rpartition("/")
    if slash and text_at(target, "kind"):
        yield "spec.scaleTargetRef.name", Ref(group, text_at(target, "kind"), namespace, text_at(target, "name"))


def _of_ingress(body: dict, namespace: str) -> Found:
    yield _backend("spec.defaultBackend", mapping_at(body, "spec", "defaultBackend"), namespace)
    for number, rule in mappings_at(body, "spec", "rules"):
        for index, path in mappings_at(rule, "http", "paths"):
            yield _backend(f"spec.rules[{number}].http.paths[{index}].backend", mapping_at(path, "backend"), namespace)


def _of_http_route(body: dict, namespace: str) -> Found:
    """Its Gateways and Services; what else it may name is for others."""
    for index, parent in mappings_at(body, "spec", "parentRefs"):
        if (parent.get("group", GATEWAYS), parent.get("kind", "Gateway")) == (GATEWAYS, "Gateway"):
            yield f"spec.parentRefs[{index}].name", Ref(GATEWAYS, "Gateway", text_at(parent, "namespace") or namespace, text_at(parent, "name"))
    for number, rule in mappings_at(body, "spec", "rules"):
        for index, backend in mappings_at(rule, "backendRefs"):
            if (backend.get("group", ""), backend.get("kind", "Service")) == ("", "Service"):
                path = f"spec.rules[{number}].backendRefs[{index}].name"
                yield path, Ref("", "Service", text_at(backend, "namespace") or namespace, text_at(backend, "name"))


def _of_virtual_service(body: dict, namespace: str) -> Found:
    """Its Gateways: `namespace/name`, a name in its own namespace, or `mesh`, which is none."""
    named = mapping_at(body, "spec").get("gateways")
    for index, gateway in enumerate(named if isinstance(named, list) else []):
        if isinstance(gateway, str) and gateway != "mesh":
            where, slash, name = gateway.rpartition("/")
            yield f"spec.gateways[{index}]", Ref(ISTIO, "Gateway", where if slash else namespace, name)


def _backend(path: str, backend: dict, namespace: str) -> tuple[str, Ref]:
    return f"{path}.service.name", Ref("", "Service", namespace, text_at(mapping_at(backend, "service"), "name"))


_REFERENCES: dict[tuple[str, str], t.Callable[[dict, str], Found]] = {
    (RBAC, "RoleBinding"): _of_binding,
    (RBAC, "ClusterRoleBinding"): _of_binding,
    ("autoscaling", "HorizontalPodAutoscaler"): _of_autoscaler,
    ("networking.k8s.io", "Ingress"): _of_ingress,
    (GATEWAYS, "HTTPRoute"): _of_http_route,
    (ISTIO, "VirtualService"): _of_virtual_service,
}
