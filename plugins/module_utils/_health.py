# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure health rules: is an object ready, and is a pod's trouble the kind that does not go away by itself."""
from __future__ import annotations

import dataclasses
import typing as t

READY = ""  # an object's verdict is the reason it is not ready yet; no reason, no wait


@dataclasses.dataclass(frozen=True)
class Problem:
    """Trouble that waiting does not cure. `patience`: seconds it may last before it counts (a scheduler, an image
    registry or a Secret created a moment later may still cure it)."""

    reason: str
    message: str
    hint: str
    patience: float = 0.0
    container: str = ""
    crashed: bool = False


def not_ready(obj: dict) -> str:
    """Why `obj` is not ready, in a few words; READY when it is, and for kinds that are ready once they exist."""
    rule = _RULES.get(obj.get("kind", ""))
    return rule(obj) if rule else READY


def stuck(obj: dict) -> Problem | None:
    """Hopeless conditions that a workload reports about itself."""
    for condition in obj.get("status", {}).get("conditions") or []:
        kind, status, reason = condition.get("type"), condition.get("status"), condition.get("reason", "")
        message = condition.get("message", "")
        if kind == "ReplicaFailure" and status == "True":
            return Problem(reason, message, _create_hint(message), patience=5.0)
        if kind == "Progressing" and status == "False" and reason == "ProgressDeadlineExceeded":
            return Problem(reason, message, "the rollout made no progress; look at the pods' events and readiness probe")
        if kind == "Failed" and status == "True" and obj.get("kind") == "Job":
            return Problem(reason or "JobFailed", message, "read the Job's pod logs, fix the cause, run again")
    return None


def _create_hint(message: str) -> str:
    if "exceeded quota" in message:
        return "raise the namespace's quota, or ask for less"
    if "violates PodSecurity" in message:
        return "fix the pod's securityContext, or lower the namespace's Pod Security level"
    return "the API server refuses the pods of this workload; the message says why"


def pod_problem(pod: dict) -> Problem | None:
    """The first hopeless thing in a pod's status."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            hint = "add nodes with the resource named, lower the requests, or fix nodeSelector and tolerations"
            return Problem("Unschedulable", condition.get("message", ""), hint, patience=10.0)
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        problem = _container_problem(container)
        if problem:
            return problem
    return None


def _container_problem(container: dict) -> Problem | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, name = waiting.get("reason", ""), container.get("name", "")
    message = waiting.get("message", "") or reason
    if reason in _IMAGE:
        hint = f"check that image {container.get('image', '')} exists and that the node may pull it (imagePullSecrets)"
        return Problem(reason, message, hint, _IMAGE[reason], name)
    if reason in _CONFIG:
        return Problem(reason, message, "a ConfigMap, Secret or volume that the container names is missing", 5.0, name)
    if reason == "CrashLoopBackOff":
        return _crash(container, name)
    return None


def _crash(container: dict, name: str) -> Problem:
    last = container.get("lastState", {}).get("terminated") or {}
    code = last.get("exitCode", "?")
    if last.get("reason") == "OOMKilled":
        return Problem("OOMKilled", "the container used more memory than its limit", "raise resources.limits.memory", 0.0, name, True)
    hint = "the container starts and ends again; its last log lines say why"
    return Problem("CrashLoopBackOff", f"the container exits with code {code}", hint, 0.0, name, True)


# Seconds each image error may last: the kubelet retries, and a registry may hiccup. The back-off state comes after a retry.
_IMAGE = {"InvalidImageName": 0.0, "ErrImageNeverPull": 0.0, "ImagePullBackOff": 0.0, "ErrImagePull": 3.0}
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def observed(obj: dict) -> bool:
    """The controller has acted on the newest spec; until then, what hangs below it is about the one before."""
    return obj.get("status", {}).get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)


def _deployment(obj: dict) -> str:
    wanted, status = obj["spec"].get("replicas", 1), obj.get("status", {})
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if not observed(obj):
        return "not yet seen by its controller"
    if updated < wanted:
        return f"{updated} of {wanted} replicas updated"
    if status.get("replicas", 0) > updated:
        return f"{status['replicas'] - updated} old replicas still there"
    return READY if available >= wanted else f"{available} of {wanted} replicas available"


def _statefulset(obj: dict) -> str:
    wanted, status = obj["spec"].get("replicas", 1), obj.get("status", {})
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    if not observed(obj):
        return "not yet seen by its controller"
    if obj["spec"].get("updateStrategy", {}).get("type") == "OnDelete":
        updated = wanted
    if updated < wanted:
        return f"{updated} of {wanted} replicas updated"
    return READY if ready >= wanted else f"{ready} of {wanted} replicas ready"


def _daemonset(obj: dict) -> str:
    status = obj.get("status", {})
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    if not observed(obj):
        return "not yet seen by its controller"
    available = status.get("numberAvailable", 0)
    return READY if min(updated, available) >= wanted else f"{min(updated, available)} of {wanted} pods available"


def _job(obj: dict) -> str:
    return READY if _condition(obj, "Complete") else "not complete"


def _crd(obj: dict) -> str:
    return READY if _condition(obj, "Established") else "not established"


def _condition(obj: dict, name: str) -> bool:
    conditions = obj.get("status", {}).get("conditions") or []
    return any(c.get("type") == name and c.get("status") == "True" for c in conditions)


_RULES: dict[str, t.Callable[[dict], str]] = {
    "Deployment": _deployment,
    "StatefulSet": _statefulset,
    "DaemonSet": _daemonset,
    "Job": _job,
    "CustomResourceDefinition": _crd,
}
WORKLOADS = frozenset(("Deployment", "StatefulSet", "DaemonSet", "Job"))


def owner_of(pod: dict) -> tuple[str, str]:
    """(kind, name) of the workload a pod belongs to; a Deployment is found through its ReplicaSet's name."""
    meta = pod["metadata"]
    for owner in meta.get("ownerReferences") or []:
        if owner.get("controller"):
            suffix = "-" + meta.get("labels", {}).get("pod-template-hash", "")
            if owner["kind"] == "ReplicaSet" and owner["name"].endswith(suffix):
                return "Deployment", owner["name"][: -len(suffix)]
            return owner["kind"], owner["name"]
    return "Pod", meta["name"]
