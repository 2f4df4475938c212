# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controls of the Pod Security Standards as a table of predicates on a pod's specification. Pure.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ as of Kubernetes 1.34. `enforce-version` is not considered:
what an older version of a level still allowed is refused here.
"""
from __future__ import annotations

import typing as t

from ..objects.shapes import mapping_at, mappings_at

BASELINE, RESTRICTED = "baseline", "restricted"
LEVELS = {BASELINE: (BASELINE,), RESTRICTED: (BASELINE, RESTRICTED)}  # restricted asks for all that baseline does

_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
    "SYS_CHROOT",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}
_SELINUX_TYPES = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_PROFILES = ("RuntimeDefault", "Localhost")
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
_HANDLERS = (("livenessProbe",), ("readinessProbe",), ("startupProbe",), ("lifecycle", "postStart"), ("lifecycle", "preStop"))
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"

Fields = t.Iterator[str]  # paths below the pod's `spec`


class Control(t.NamedTuple):
    """`broken` yields the fields that break it, `fix` says what they should be. Windows pods are exempt from what is not for `windows`."""

    level: str
    broken: t.Callable[[dict], Fields]
    fix: str
    windows: bool = True


class Violation(t.NamedTuple):
    field: str
    level: str
    fix: str


def violations(template: dict, level: str) -> list[Violation]:
    """What a pod template (`metadata`, `spec`) breaks of a level; nothing under `privileged`."""
    spec, asked = mapping_at(template, "spec"), LEVELS.get(level, ())
    windows = mapping_at(spec, "os").get("name") == "windows"
    found = {
        f"spec.{field}": Violation(f"spec.{field}", control.level, control.fix)  # what two levels forbid is said once, as the stricter says it
        for control in CONTROLS if control.level in asked and (control.windows or not windows)
        for field in control.broken(spec)
    }
    return [*found.values(), *(Violation(field, BASELINE, "use runtime/default or localhost/...") for field in _annotations(template) if asked)]


# --- where to look ---------------------------------------------------------------------------------------------------


def pod_containers(spec: dict) -> t.Iterator[tuple[str, dict]]:
    """(path, container), those that run before and beside the others included."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in mappings_at(spec, field):
            yield f"{field}[{index}]", container


def _contexts(spec: dict) -> t.Iterator[tuple[str, dict]]:
    """(path, securityContext) of the pod and of every container."""
    yield "securityContext", mapping_at(spec, "securityContext")
    yield from _own_contexts(spec)


def _own_contexts(spec: dict) -> t.Iterator[tuple[str, dict]]:
    for path, container in pod_containers(spec):
        yield f"{path}.securityContext", mapping_at(container, "securityContext")


def _unless(good: t.Callable[[dict], bool], field: str, where: t.Callable[[dict], t.Iterator[tuple[str, dict]]]) -> t.Callable[[dict], Fields]:
    """Yields `field` of each mapping in `where` that is not good."""
    return lambda spec: (f"{path}.{field}" for path, found in where(spec) if not good(found))


def _inherited(good: t.Callable[[t.Any], bool], *keys: str) -> t.Callable[[dict], Fields]:
    """A field that a container may leave to the pod: good where it is set, and good in one of the two."""

    def broken(spec: dict) -> Fields:
        pods = _value(mapping_at(spec, "securityContext"), keys)
        if pods is not None and not good(pods):
            yield f"securityContext.{'.'.join(keys)}"
        for path, context in _own_contexts(spec):
            own = _value(context, keys)
            if not good(pods if own is None else own) and (own is not None or pods is None):
                yield f"{path}.{'.'.join(keys)}"

    return broken


def _value(context: dict, keys: tuple[str, ...]) -> t.Any:
    return mapping_at(context, *keys[:-1]).get(keys[-1])


# --- predicates that need more than one line -------------------------------------------------------------------------


def _selinux(context: dict) -> bool:
    options = mapping_at(context, "seLinuxOptions")
    return options.get("type") in _SELINUX_TYPES and not options.get("user") and not options.get("role")


def _adds(context: dict, allowed: set[str]) -> bool:
    return set(_strings(mapping_at(context, "capabilities").get("add"))) <= allowed


def _strings(value: t.Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _host_namespaces(spec: dict) -> Fields:
    return (field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field))


def _host_paths(spec: dict) -> Fields:
    return (f"volumes[{index}].hostPath" for index, volume in mappings_at(spec, "volumes") if "hostPath" in volume)


def _volume_types(spec: dict) -> Fields:
    return (f"volumes[{index}]" for index, volume in mappings_at(spec, "volumes") if not _VOLUMES & set(volume) and "hostPath" not in volume)


def _host_ports(spec: dict) -> Fields:
    for path, container in pod_containers(spec):
        yield from (f"{path}.ports[{index}].hostPort" for index, port in mappings_at(container, "ports") if port.get("hostPort"))


def _hosts(spec: dict) -> Fields:
    """Probes and hooks are sent from the node's network: naming a host would let a pod reach what it cannot."""
    for path, container in pod_containers(spec):
        for keys in _HANDLERS:
            yield from (f"{path}.{'.'.join(keys)}.{how}.host" for how in ("httpGet", "tcpSocket") if mapping_at(container, *keys, how).get("host"))


def _sysctls(spec: dict) -> Fields:
    options = mappings_at(spec, "securityContext", "sysctls")
    return (f"securityContext.sysctls[{index}]" for index, option in options if str(option.get("name")) not in _SYSCTLS)


def _annotations(template: dict) -> Fields:
    for key, value in mapping_at(template, "metadata", "annotations").items():
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not str(value).startswith("localhost/"):
            yield f"metadata.annotations[{key}]"


def _profile(value: t.Any) -> bool:
    return value in _PROFILES


# --- the table -------------------------------------------------------------------------------------------------------
CONTROLS: tuple[Control, ...] = (
    Control(BASELINE, _unless(lambda c: not mapping_at(c, "windowsOptions").get("hostProcess"), "windowsOptions.hostProcess", _contexts), "remove it"),
    Control(BASELINE, _host_namespaces, "remove it"),
    Control(BASELINE, _unless(lambda c: not c.get("privileged"), "privileged", _own_contexts), "remove it"),
    Control(BASELINE, _unless(lambda c: _adds(c, _CAPABILITIES), "capabilities.add", _own_contexts), "add no more than the runtime's default"),
    Control(BASELINE, _host_paths, "use a claim or emptyDir"),
    Control(BASELINE, _host_ports, "use a Service"),
    Control(BASELINE, _hosts, "leave the host out, it is the pod"),
    Control(BASELINE, _unless(lambda c: mapping_at(c, "appArmorProfile").get("type", "RuntimeDefault") in _PROFILES, "appArmorProfile.type", _contexts),
            "use RuntimeDefault or Localhost"),
    Control(BASELINE, _unless(_selinux, "seLinuxOptions", _contexts), "set neither user nor role, and a container type"),
    Control(BASELINE, _unless(lambda c: c.get("procMount", "Default") == "Default", "procMount", _own_contexts), "use Default"),
    Control(BASELINE, _unless(lambda c: mapping_at(c, "seccompProfile").get("type") != "Unconfined", "seccompProfile.type", _contexts),
            "use RuntimeDefault or Localhost"),
    Control(BASELINE, _sysctls, "set only sysctls that are safe and the pod's own"),
    Control(RESTRICTED, _volume_types, "use a claim, emptyDir, configMap, secret or projected volume"),
    Control(RESTRICTED, _unless(lambda c: c.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation", _own_contexts), "set it to false",
            False),
    Control(RESTRICTED, _inherited(lambda value: value is True, "runAsNonRoot"), "set it to true"),
    Control(RESTRICTED, _unless(lambda c: c.get("runAsUser") != 0, "runAsUser", _contexts), "use another user than 0"),
    Control(RESTRICTED, _inherited(_profile, "seccompProfile", "type"), "use RuntimeDefault or Localhost", False),
    Control(RESTRICTED, _unless(lambda c: "ALL" in _strings(mapping_at(c, "capabilities").get("drop")), "capabilities.drop", _own_contexts), "drop ALL", False),
    Control(RESTRICTED, _unless(lambda c: _adds(c, {"NET_BIND_SERVICE"}), "capabilities.add", _own_contexts), "add NET_BIND_SERVICE at most", False),
)
