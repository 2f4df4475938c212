# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to hold for the manifests of one bundle. Pure functions: list of manifests in, list of problems out."""
from __future__ import annotations

import functools
import json
import re
import typing as t

import kubernetes_validate

KUBERNETES = "1.34"

# APIs that no published Kubernetes schema describes, each with the reason why it goes without.
NO_SCHEMA = {
    "route.openshift.io/v1": "an API of OpenShift's own; its references are checked as those of every other object",
    "templates.gatekeeper.sh/v1": "Gatekeeper's; `make manifests` has its own gator read it",
    "constraints.gatekeeper.sh/v1beta1": "made by Gatekeeper from the templates; gator reads them too",
    "keda.sh/v1alpha1": "KEDA's; what it scales is checked as of an autoscaler",
    "gateway.networking.k8s.io/v1": "the Gateway API's; its backends are checked as those of an Ingress",
    "networking.istio.io/v1": "Istio's; its destinations are checked too",
}

# Named by the variants and made by whoever deploys: Secrets with URLs and keys, claims with data.
GIVEN = {("Secret", f"inference-{what}") for what in ("redis", "postgres", "keys", "s3")} | {("PersistentVolumeClaim", "models")}

Manifests = t.Sequence[dict]
Check = t.Callable[[Manifests], list[str]]


def label(manifest: dict) -> str:
    meta = manifest["metadata"]
    return f"{manifest['kind']} {meta.get('namespace', '')}/{meta['name']}"


def dig(value: t.Any, path: str, default: t.Any = None) -> t.Any:
    """`dig(pod, 'securityContext.seccompProfile.type')`: what stands there, `default` where something is missing."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return default
    return value


# --- pods -------------------------------------------------------------------------------------------------------------
POD_TEMPLATE = {
    "Pod": "",
    "CronJob": "spec.jobTemplate.spec.template",
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"), "spec.template"),
}
RUNS_TO_ITS_END = ("Job", "CronJob")


def pod_of(manifest: dict) -> dict | None:
    """The pod (metadata and spec) that a manifest makes; None when it makes none."""
    path = POD_TEMPLATE.get(manifest["kind"])
    return manifest if path == "" else dig(manifest, path) if path else None


def pods(manifests: Manifests) -> t.Iterator[tuple[dict, dict]]:
    for manifest in manifests:
        pod = pod_of(manifest)
        if pod is not None:
            yield manifest, pod


def containers(spec: dict) -> list[dict]:
    return [each for kind in ("initContainers", "containers", "ephemeralContainers") for each in spec.get(kind) or []]


def keeps_running(manifest: dict, spec: dict) -> list[dict]:
    """Containers that serve for as long as their pod lives; sidecars are init containers that restart always."""
    if manifest["kind"] in RUNS_TO_ITS_END:
        return []
    sidecars = [each for each in spec.get("initContainers") or [] if each.get("restartPolicy") == "Always"]
    return sidecars + spec["containers"]


# --- schemas ----------------------------------------------------------------------------------------------------------
def schema(manifests: Manifests) -> list[str]:
    """Strict: a field that the API does not have is a problem too."""
    return [problem for manifest in manifests if manifest["apiVersion"] not in NO_SCHEMA for problem in _misfits(json.dumps(manifest))]


@functools.cache  # most hosts of an inventory have most of their manifests in common
def _misfits(text: str) -> tuple[str, ...]:
    manifest = json.loads(text)
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as exc:
        return (f"{label(manifest)}: {'.'.join(map(str, exc.path))}: {exc.message}",)
    except kubernetes_validate.SchemaNotFoundError:
        return (f"{label(manifest)}: no schema of {manifest['apiVersion']}; give NO_SCHEMA the reason",)
    return ()


# --- Pod Security, profile restricted (https://kubernetes.io/docs/concepts/security/pod-security-standards/) -----------
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
PROFILES = ("RuntimeDefault", "Localhost")
SELINUX_TYPES = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")


def _selinux(owner: dict) -> bool:
    options = dig(owner, "securityContext.seLinuxOptions", {})
    return options.get("type") in SELINUX_TYPES and not options.get("user") and not options.get("role")


def _apparmor(owner: dict) -> bool:
    return dig(owner, "securityContext.appArmorProfile.type", "RuntimeDefault") in PROFILES


def _apparmor_annotations(meta: dict) -> bool:
    values = [v for k, v in (meta.get("annotations") or {}).items() if k.startswith("container.apparmor.security.beta.kubernetes.io/")]
    return all(value in ("", "runtime/default") or value.startswith("localhost/") for value in values)


def _own_or_pods(pod: dict, container: dict, path: str) -> t.Any:
    """A field of the security context: the container's where it sets one, else the pod's."""
    own = dig(container, f"securityContext.{path}")
    return dig(pod, f"securityContext.{path}") if own is None else own


def _targets_itself(container: dict) -> bool:
    """Probes and hooks that name a host could reach other machines from the node's network."""
    handlers = [dig(container, path, {}) for path in HANDLERS]
    return not any(dig(handler, f"{action}.host") for handler in handlers for action in ("httpGet", "tcpSocket"))


POD_RULES: dict[str, t.Callable[[dict], bool]] = {
    "host namespaces are not shared": lambda pod: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "no Windows host process": lambda pod: not dig(pod, "securityContext.windowsOptions.hostProcess"),
    "volume types": lambda pod: all(VOLUMES & set(volume) for volume in pod.get("volumes") or []),
    "sysctls": lambda pod: all(each["name"] in SYSCTLS for each in dig(pod, "securityContext.sysctls", [])),
    "SELinux options": _selinux,
    "AppArmor profile": _apparmor,
    "runAsUser is not 0": lambda pod: dig(pod, "securityContext.runAsUser") != 0,
}
CONTAINER_RULES: dict[str, t.Callable[[dict, dict], bool]] = {
    "not privileged": lambda _pod, c: not dig(c, "securityContext.privileged"),
    "allowPrivilegeEscalation is false": lambda _pod, c: dig(c, "securityContext.allowPrivilegeEscalation") is False,
    "capabilities: drop ALL": lambda _pod, c: "ALL" in dig(c, "securityContext.capabilities.drop", []),
    "capabilities: add": lambda _pod, c: set(dig(c, "securityContext.capabilities.add", [])) <= {"NET_BIND_SERVICE"},
    "runAsNonRoot is true": lambda pod, c: _own_or_pods(pod, c, "runAsNonRoot") is True,
    "runAsUser is not 0": lambda _pod, c: dig(c, "securityContext.runAsUser") != 0,
    "seccompProfile": lambda pod, c: _own_or_pods(pod, c, "seccompProfile.type") in PROFILES,
    "SELinux options": lambda _pod, c: _selinux(c),
    "AppArmor profile": lambda _pod, c: _apparmor(c),
    "procMount is Default": lambda _pod, c: dig(c, "securityContext.procMount", "Default") == "Default",
    "no host ports": lambda _pod, c: not any(port.get("hostPort") for port in c.get("ports") or []),
    "no Windows host process": lambda _pod, c: not dig(c, "securityContext.windowsOptions.hostProcess"),
    "probes and hooks without host": lambda _pod, c: _targets_itself(c),
}


def pod_security(manifests: Manifests) -> list[str]:
    problems = []
    for manifest, pod in pods(manifests):
        spec = pod["spec"]
        if not _apparmor_annotations(pod.get("metadata") or {}):
            problems.append(f"{label(manifest)}: Pod Security restricted: AppArmor annotations")
        problems += [f"{label(manifest)}: Pod Security restricted: {rule}" for rule, holds in POD_RULES.items() if not holds(spec)]
        problems += [
            f"{label(manifest)}, container {container['name']}: Pod Security restricted: {rule}"
            for container in containers(spec)
            for rule, holds in CONTAINER_RULES.items()
            if not holds(spec, container)
        ]
    return problems


# --- containers -------------------------------------------------------------------------------------------------------
def resources(manifests: Manifests) -> list[str]:
    return [
        f"{label(manifest)}, container {container['name']}: resources.{kind}.{what} is missing"
        for manifest, pod in pods(manifests)
        for container in containers(pod["spec"])
        for kind in ("requests", "limits")
        for what in ("cpu", "memory")
        if not dig(container, f"resources.{kind}.{what}")
    ]


def probes(manifests: Manifests) -> list[str]:
    return [
        f"{label(manifest)}, container {container['name']}: {probe} is missing"
        for manifest, pod in pods(manifests)
        for container in keeps_running(manifest, pod["spec"])
        for probe in ("readinessProbe", "livenessProbe")
        if probe not in container
    ]


def images(manifests: Manifests) -> list[str]:
    """A digest is better than a tag; a tag has to be there and say more than `latest`."""
    return [
        f"{label(manifest)}, container {container['name']}: image {container.get('image')!r} without a version"
        for manifest, pod in pods(manifests)
        for container in containers(pod["spec"])
        if not re.search(r"(@sha256:[0-9a-f]{64}|:(?!latest$)[\w][\w.-]*)$", (container.get("image") or "").rpartition("/")[2])
    ]


# --- references -------------------------------------------------------------------------------------------------------
def selects(selector: dict | None, labels: dict | None) -> bool:
    """Whether a label selector (matchLabels, matchExpressions) takes these labels. An empty one takes everything."""
    have = labels or {}
    outcomes = [have.get(key) == value for key, value in ((selector or {}).get("matchLabels") or {}).items()]
    for expression in (selector or {}).get("matchExpressions") or []:
        key, values = expression["key"], expression.get("values") or []
        outcomes.append(
            {
                "In": have.get(key) in values,
                "NotIn": have.get(key) not in values,
                "Exists": key in have,
                "DoesNotExist": key not in have,
            }[expression["operator"]]
        )
    return all(outcomes)


def _same_namespace(one: dict, other: dict) -> bool:
    return one["metadata"].get("namespace") == other["metadata"].get("namespace")


def _selected(manifest: dict, selector: dict | None, manifests: Manifests) -> list[dict]:
    """Pods of the same namespace that a selector takes."""
    return [
        pod for owner, pod in pods(manifests) if _same_namespace(manifest, owner) and selects(selector, dig(pod, "metadata.labels"))
    ]


def _find(manifests: Manifests, near: dict, kind: str, name: str) -> dict | None:
    return next((m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name and _same_namespace(near, m)), None)


def own_selectors(manifests: Manifests) -> list[str]:
    """A workload that does not select its own pods is refused by the API server."""
    return [
        f"{label(manifest)}: spec.selector does not take the labels of its own template"
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
        and not (dig(manifest, "spec.selector") and selects(manifest["spec"]["selector"], dig(manifest, "spec.template.metadata.labels")))
    ]


def _port_names(pod: dict) -> set[object]:
    return {port[key] for c in containers(pod["spec"]) for port in c.get("ports") or [] for key in ("name", "containerPort") if key in port}


def services(manifests: Manifests) -> list[str]:
    problems = []
    for manifest in manifests:
        if manifest["kind"] != "Service" or not dig(manifest, "spec.selector"):
            continue  # without a selector somebody else keeps its endpoints
        behind = _selected(manifest, {"matchLabels": manifest["spec"]["selector"]}, manifests)
        if not behind:
            problems.append(f"{label(manifest)}: spec.selector takes no pod of the bundle")
        problems += [
            f"{label(manifest)}: targetPort {port.get('targetPort')!r} is no port of the pods"
            for port in manifest["spec"]["ports"]
            if behind and not any(port.get("targetPort", port["port"]) in _port_names(pod) for pod in behind)
        ]
    return problems


def disruption_budgets(manifests: Manifests) -> list[str]:
    return [
        f"{label(manifest)}: spec.selector takes no pod of the bundle"
        for manifest in manifests
        if manifest["kind"] == "PodDisruptionBudget" and not _selected(manifest, dig(manifest, "spec.selector"), manifests)
    ]


def network_policies(manifests: Manifests) -> list[str]:
    """An empty selector means every pod, also those of others; any other has to take one of ours, with the port it names."""
    problems = []
    for manifest in manifests:
        if manifest["kind"] != "NetworkPolicy" or not dig(manifest, "spec.podSelector"):
            continue
        behind = _selected(manifest, manifest["spec"]["podSelector"], manifests)
        if not behind:
            problems.append(f"{label(manifest)}: spec.podSelector takes no pod of the bundle")
        named = [port.get("port") for rule in manifest["spec"].get("ingress") or [] for port in rule.get("ports") or []]
        problems += [
            f"{label(manifest)}: ingress port {port!r} is no port of the pods"
            for port in named
            if behind and port is not None and not any(port in _port_names(pod) for pod in behind)
        ]
    return problems


def autoscalers(manifests: Manifests) -> list[str]:
    """The target has to be in the bundle, and request what the autoscaler steers by. KEDA's objects name their target the same way."""
    problems = []
    for manifest in manifests:
        if manifest["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject"):
            continue
        target = manifest["spec"]["scaleTargetRef"]
        found = _find(manifests, manifest, target["kind"], target["name"])
        if found is None or found["apiVersion"] != target.get("apiVersion"):
            problems.append(f"{label(manifest)}: {target['kind']} {target['name']} is not in the bundle")
            continue
        for resource in (dig(metric, "resource.name") for metric in manifest["spec"].get("metrics") or []):
            if resource and not all(dig(c, f"resources.requests.{resource}") for c in found["spec"]["template"]["spec"]["containers"]):
                problems.append(f"{label(manifest)}: steers by {resource}, which a container of {target['name']} does not request")
    return problems


def _backends(manifest: dict) -> list[tuple[str, t.Any]]:
    """Services, and their ports, that an Ingress, a Route, an HTTPRoute, a VirtualService or a DestinationRule leads to."""
    return _BACKENDS[manifest["kind"]](manifest)


def _of_ingress(manifest: dict) -> list[tuple[str, t.Any]]:
    rules = [path["backend"] for rule in dig(manifest, "spec.rules", []) for path in dig(rule, "http.paths", [])]
    default = dig(manifest, "spec.defaultBackend")
    return [
        (dig(backend, "service.name"), dig(backend, "service.port.name") or dig(backend, "service.port.number"))
        for backend in [*rules, *([default] if default else [])]
    ]


def _of_route(manifest: dict) -> list[tuple[str, t.Any]]:
    return [(each["name"], dig(manifest, "spec.port.targetPort")) for each in [manifest["spec"]["to"], *(manifest["spec"].get("alternateBackends") or [])]]


def _of_http_route(manifest: dict) -> list[tuple[str, t.Any]]:
    return [(each["name"], each.get("port")) for rule in manifest["spec"]["rules"] for each in rule["backendRefs"]]


def _of_virtual_service(manifest: dict) -> list[tuple[str, t.Any]]:
    found = [each["destination"] for rule in manifest["spec"]["http"] for each in rule["route"]]
    return [(_service(manifest, each["host"]), dig(each, "port.number")) for each in found]


def _service(manifest: dict, host: str) -> str:
    """The Service of the same namespace that a full host name means; the whole name where it means none."""
    return host.removesuffix(f".{manifest['metadata']['namespace']}.svc.cluster.local")


_BACKENDS: dict[str, t.Callable[[dict], list[tuple[str, t.Any]]]] = {
    "Ingress": _of_ingress, "Route": _of_route, "HTTPRoute": _of_http_route, "VirtualService": _of_virtual_service,
    "DestinationRule": lambda manifest: [(_service(manifest, manifest["spec"]["host"]), None)],
}  # fmt: skip


def entrances(manifests: Manifests) -> list[str]:
    """What leads requests leads to a Service of the bundle and to a port of it. A Route may name the target port as well."""
    problems = []
    for manifest in manifests:
        if manifest["kind"] not in _BACKENDS:
            continue
        for name, port in _backends(manifest):
            service = _find(manifests, manifest, "Service", name)
            ports = dig(service, "spec.ports", [])
            keys = ("name", "targetPort") if manifest["kind"] == "Route" else ("name", "port")
            if service is None:
                problems.append(f"{label(manifest)}: Service {name} is not in the bundle")
            elif port is not None and port not in [each.get(key) for each in ports for key in keys]:
                problems.append(f"{label(manifest)}: Service {name} has no port {port!r}")
    return problems


def _needed(pod: dict) -> t.Iterator[tuple[str, str]]:
    """Objects that a pod cannot start without, as kind and name."""
    spec = pod["spec"]
    if spec.get("serviceAccountName", "default") != "default":
        yield "ServiceAccount", spec["serviceAccountName"]
    sources = [entry for c in containers(spec) for entry in c.get("envFrom") or []]
    sources += [variable.get("valueFrom") or {} for c in containers(spec) for variable in c.get("env") or []]
    for source in sources:
        for field, kind in (("configMapRef", "ConfigMap"), ("configMapKeyRef", "ConfigMap"), ("secretRef", "Secret"), ("secretKeyRef", "Secret")):
            if field in source and not source[field].get("optional"):
                yield kind, source[field]["name"]
    for volume in spec.get("volumes") or []:
        for path, kind in (
            ("configMap.name", "ConfigMap"), ("secret.secretName", "Secret"), ("persistentVolumeClaim.claimName", "PersistentVolumeClaim"),
        ):  # fmt: skip
            name = dig(volume, path)
            if name and not dig(volume, f"{path.partition('.')[0]}.optional"):
                yield kind, name


def needs(manifests: Manifests) -> list[str]:
    """What a pod mounts or reads at its start is in the bundle, and so is the namespace of every object."""
    problems = [
        f"{label(manifest)}: {kind} {name} is not in the bundle"
        for manifest, pod in pods(manifests)
        for kind, name in _needed(pod)
        if _find(manifests, manifest, kind, name) is None and (kind, name) not in GIVEN
    ]
    namespaces = {m["metadata"]["name"] for m in manifests if m["kind"] == "Namespace"}
    wanted = {m["metadata"]["namespace"] for m in manifests if m["metadata"].get("namespace")}
    return problems + [f"Namespace {name} is not in the bundle" for name in sorted(wanted - namespaces)]


def mounts(manifests: Manifests) -> list[str]:
    return [
        f"{label(manifest)}, container {container['name']}: volume {mount['name']} is not defined"
        for manifest, pod in pods(manifests)
        for container in containers(pod["spec"])
        for mount in container.get("volumeMounts") or []
        if mount["name"] not in [volume["name"] for volume in pod["spec"].get("volumes") or []]
    ]


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        schema, pod_security, resources, probes, images, own_selectors, services, disruption_budgets, network_policies,
        autoscalers, entrances, needs, mounts,
    )
}  # fmt: skip


# --- two renderings ---------------------------------------------------------------------------------------------------
CHECKSUM = "genai.platform/config-checksum"


def _read_once(pod: dict) -> set[str]:
    """ConfigMaps whose change a running pod does not see: in its environment, or mounted file by file."""
    spec = pod["spec"]
    single = {mount["name"] for c in containers(spec) for mount in c.get("volumeMounts") or [] if mount.get("subPath")}
    followed = [volume for volume in spec.get("volumes") or [] if volume["name"] not in single]
    in_folders = {dig(volume, "configMap.name") for volume in followed}
    in_environment = {name for kind, name in _needed({"spec": {**spec, "volumes": []}}) if kind == "ConfigMap"}
    return in_environment | ({name for kind, name in _needed(pod) if kind == "ConfigMap"} - in_folders)


def settings_without_restart(before: Manifests, after: Manifests) -> list[str]:
    """ConfigMaps that changed while a pod that reads them kept its checksum: it would go on with the old settings."""
    pick: t.Callable[[Manifests], dict] = functools.partial(_by_label, kind="ConfigMap")
    old, new = pick(before), pick(after)
    changed = {name for name in old.keys() & new.keys() if old[name].get("data") != new[name].get("data")}
    previous = {label(manifest): pod for manifest, pod in pods(before)}
    return [
        f"{label(manifest)}: {name} changed and the annotation {CHECKSUM} did not"
        for manifest, pod in pods(after)
        for name in sorted(changed)
        if name in [f"ConfigMap {manifest['metadata'].get('namespace', '')}/{n}" for n in _read_once(pod)]
        and label(manifest) in previous
        and _checksum(pod) == _checksum(previous[label(manifest)])
    ]


def _by_label(manifests: Manifests, kind: str) -> dict[str, dict]:
    return {label(manifest): manifest for manifest in manifests if manifest["kind"] == kind}


def _checksum(pod: dict) -> str | None:
    return (dig(pod, "metadata.annotations") or {}).get(CHECKSUM)
