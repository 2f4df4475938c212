# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure health rules: is an object ready, and is its trouble the kind that does not go away by itself."""
from __future__ import annotations

import dataclasses
import re
import typing as t

from .hints import creation_hint, scheduling_hint
from .kinds import READY_GROUPS, READY_RULES

BINDING_SECONDS = 60.0  # until a volume that is being made is bound, and the scheduler has looked at its pod again
READY = ""  # an object's verdict is the reason it is not ready yet; no reason, no wait


@dataclasses.dataclass(frozen=True)
class Problem:
    """Trouble that waiting does not cure. `patience`: seconds it may last before it counts (a scheduler, an image
    registry or a Secret created a moment later may still cure it).

    A status often shows only that nothing happens. Such a problem is a suspicion: it counts once the newest event about
    the object, among those whose reason is in `bad` or `good`, is a bad one, whose text matches `pattern`. `fresh`: one from
    before a release's own changes says nothing about them. A problem with `unless` counts at once, but while somebody is at work on it:
    while the newest event about the object, among those whose reason is in `unless` or `despite`, is of `unless`.
    """

    reason: str
    message: str
    hint: str
    patience: float = 0.0
    container: str = ""
    log: str = ""  # whose log lines tell more: of the container that runs (`current`) or ran before (`previous`)
    bad: tuple[str, ...] = ()
    good: tuple[str, ...] = ()
    pattern: str = ""
    fresh: bool = False
    unless: tuple[str, ...] = ()
    despite: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether it takes events to tell."""
        return bool(self.bad or self.unless)

    def confirmed(self, events: list[dict]) -> Problem | None:
        """What the events (oldest first) make of a suspicion; None when they do not bear it out."""
        working = [event["reason"] for event in events if event.get("reason") in (*self.unless, *self.despite)]
        if working and working[-1] in self.unless:
            return None
        if not self.bad:
            return self
        telling = [event for event in events if event.get("reason") in (*self.bad, *self.good)]
        if not telling or telling[-1]["reason"] not in self.bad:
            return None
        message = telling[-1].get("message", "")
        if not re.search(self.pattern, message):
            return None
        hint = creation_hint(message) if telling[-1]["reason"] == "FailedCreate" else self.hint
        return dataclasses.replace(self, message=message, hint=hint)


def not_ready(obj: dict) -> str:
    """Why `obj` is not ready, in a few words; READY when it is, and for kinds that are ready once they exist."""
    if obj.get("metadata", {}).get("deletionTimestamp") and not ended(obj):
        return "being deleted"
    # Others have kinds of the same names (the Job of a batch system). What a list answers has no apiVersion.
    rule = READY_RULES.get(obj.get("kind", "")) if obj.get("apiVersion", "v1").partition("/")[0] in READY_GROUPS else None
    return _RULES[rule](obj) if rule else READY


def ended(obj: dict) -> bool:
    """Whether a Job is over, well or not: its time to live may take it away at once, and that changes nothing."""
    return obj.get("kind") == "Job" and (condition_is(obj, "Complete") or condition_is(obj, "Failed"))


def stuck(obj: dict) -> Problem | None:
    """Hopeless conditions that a workload reports about itself, and not about a spec before its newest."""
    for condition in obj.get("status", {}).get("conditions") or []:
        kind, status, reason = condition.get("type"), condition.get("status"), condition.get("reason", "")
        message = condition.get("message", "")
        if kind == "ReplicaFailure" and status == "True" and observed(obj):
            return Problem(reason, message, creation_hint(message), patience=5.0)
        if kind == "Progressing" and status == "False" and reason == "ProgressDeadlineExceeded" and observed(obj):
            return Problem(reason, message, "the rollout made no progress; look at the pods' events and readiness probe")
        if kind == "Failed" and status == "True" and obj.get("kind") == "Job":
            return Problem(reason or "JobFailed", message, "read the Job's pod logs, fix the cause, run again", log="current")
    return _without_pods(obj) or _unbound(obj)


def _without_pods(obj: dict) -> Problem | None:
    """The suspicion that a controller may not create its pods. The status of these kinds does not say so, only events about them do."""
    spec, status = obj.get("spec", {}), obj.get("status", {})
    lacking = {
        "StatefulSet": status.get("replicas", 0) < spec.get("replicas", 1),
        "DaemonSet": status.get("currentNumberScheduled", 0) < status.get("desiredNumberScheduled", 0),
        "Job": not any(status.get(field) for field in ("active", "succeeded", "failed")),
    }
    if not lacking.get(obj.get("kind", "")):
        return None
    return Problem("FailedCreate", "", "", patience=4.0, bad=("FailedCreate",), good=("SuccessfulCreate",), fresh=True)


def _unbound(obj: dict) -> Problem | None:
    if obj.get("kind") != "PersistentVolumeClaim":
        return None
    if obj.get("status", {}).get("phase") == "Lost":
        return Problem("ClaimLost", "its volume is gone", "restore the volume, or delete the claim and restore its data from a backup")
    if not_ready(obj) == READY:
        return None
    hint = "name a StorageClass that exists (kubectl get storageclass) and that can provide this size and access mode"
    return Problem("ClaimNotBound", "", hint, patience=4.0, bad=("ProvisioningFailed", "FailedBinding"), good=("ProvisioningSucceeded",))


# Events about a pod by which an autoscaler of nodes says that it brings one: the Cluster Autoscaler's, which looks every ten seconds
# (its --scan-interval), and Karpenter's.
SCALING = ("TriggeredScaleUp", "Nominated")


def pod_problem(pod: dict) -> Problem | None:
    """The first hopeless thing in a pod's status."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = condition.get("message", "")
            patience = BINDING_SECONDS if "unbound immediate PersistentVolumeClaims" in message else 13.0
            return Problem("Unschedulable", message, scheduling_hint(message), patience=patience, unless=SCALING, despite=("NotTriggerScaleUp",))
    for container in container_statuses(status):
        problem = _container_problem(container)
        if problem:
            return problem
    return _missing_volume(status) or _probe_failing(pod)


def _missing_volume(status: dict) -> Problem | None:
    """A Secret or ConfigMap to be mounted that does not exist; other mounts may take their time."""
    waiting = [c.get("state", {}).get("waiting", {}).get("reason") for c in container_statuses(status)]
    if not {"ContainerCreating", "PodInitializing"} & set(waiting):
        return None
    hint = "a ConfigMap, Secret or volume that the pod mounts is missing"
    return Problem("FailedMount", "", hint, patience=12.0, bad=("FailedMount",), good=("Pulling", "Pulled", "Started"), pattern="not found")


def _probe_failing(pod: dict) -> Problem | None:
    """The suspicion that a container which is up will never be ready. It has three times what its own probe allows;
    a slow start needs a startupProbe, which is waited for as long as it says."""
    probes = {c["name"]: c["readinessProbe"] for c in pod.get("spec", {}).get("containers", []) if c.get("readinessProbe")}
    for container in pod.get("status", {}).get("containerStatuses") or []:
        probe = probes.get(container.get("name"))
        if probe and container.get("started") and not container.get("ready") and "running" in container.get("state", {}):
            budget = probe.get("initialDelaySeconds", 0) + probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10)
            hint = "the container runs and its readiness probe fails: check the probe's path and port, and what it needs to be ready"
            patience, failed = max(10.0, 3.0 * budget), "^Readiness probe"  # a startup probe's failures are told by the same reason
            return Problem("ProbeFailing", "", hint, patience, container["name"], "current", bad=("Unhealthy",), pattern=failed)
    return None


def container_statuses(status: dict) -> list[dict]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


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
        return Problem("OOMKilled", "the container used more memory than its limit", "raise resources.limits.memory", 0.0, name, "previous")
    hint = "the container starts and ends again; its last log lines say why"
    return Problem("CrashLoopBackOff", f"the container exits with code {code}", hint, 0.0, name, "previous")


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
    if obj["spec"].get("paused"):  # it scales what it has, and no more; one that was made so has no pod
        lacking = status.get("unavailableReplicas", 0)
        return f"paused, {lacking} replicas unavailable" if lacking else READY
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
    follow = 0 if _on_delete(obj) else max(0, wanted - _partition(obj))  # that many are to be at the newest revision
    if updated < follow:
        return f"{updated} of {follow} replicas updated"
    return READY if ready >= wanted else f"{ready} of {wanted} replicas ready"


def rolled_out(obj: dict) -> bool:
    """Whether a workload's newest description has reached as many pods as it is to reach, ready or not."""
    spec, status = obj.get("spec", {}), obj.get("status", {})
    if not obj or not observed(obj):
        return False
    if obj.get("kind") == "DaemonSet":
        return _on_delete(obj) or status.get("updatedNumberScheduled", 0) >= status.get("desiredNumberScheduled", 0)
    follow = spec.get("replicas", 1) - (_partition(obj) if obj.get("kind") == "StatefulSet" else 0)
    return _on_delete(obj) or spec.get("paused") is True or status.get("updatedReplicas", 0) >= follow


def _on_delete(obj: dict) -> bool:
    """Whether pods stay at their revision until somebody deletes them."""
    return obj["spec"].get("updateStrategy", {}).get("type") == "OnDelete"


def _partition(statefulset: dict) -> int:
    """The ordinal below which pods keep the revision they have."""
    return (statefulset["spec"].get("updateStrategy", {}).get("rollingUpdate") or {}).get("partition") or 0


def _daemonset(obj: dict) -> str:
    status = obj.get("status", {})
    if not observed(obj):
        return "not yet seen by its controller"
    wanted, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    updated = wanted if _on_delete(obj) else status.get("updatedNumberScheduled", 0)
    return READY if min(updated, available) >= wanted else f"{min(updated, available)} of {wanted} pods available"


def _job(obj: dict) -> str:
    if obj["spec"].get("suspend"):
        return READY  # it is for a queue, or a person, to start it
    return READY if condition_is(obj, "Complete") else "not complete"


def _claim(obj: dict) -> str:
    return READY if obj.get("status", {}).get("phase") == "Bound" else "not bound"


def _crd(obj: dict) -> str:
    return READY if condition_is(obj, "Established") else "not established"


def condition_is(obj: dict, name: str) -> bool:
    conditions = obj.get("status", {}).get("conditions") or []
    return any(c.get("type") == name and c.get("status") == "True" for c in conditions)


_RULES: dict[str, t.Callable[[dict], str]] = {
    "deployment": _deployment,
    "statefulset": _statefulset,
    "daemonset": _daemonset,
    "job": _job,
    "bound": _claim,
    "established": _crd,
    "taken up": lambda obj: READY if obj.get("status", {}).get("created") else "not taken up by Gatekeeper",
}


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


def rolls(workload: dict) -> bool:
    """Whether its controller has seen the newest spec and replaces pods by itself."""
    return observed(workload) and not _on_delete(workload)


def blocking_pod(statefulset: dict, pods: t.Iterable[dict], leaving: t.Collection[str]) -> dict | None:
    """The pod that keeps a StatefulSet from leaving the revisions `leaving`; None when there is none, or another must be ready first.

    The controller goes on only when all pods are ready, so that a broken one blocks even the way back (kubernetes.io, StatefulSets,
    "Forced rollback"). Like the controller from the highest ordinal down, and no second pod while one is away or not ready.
    """
    meta, spec = statefulset["metadata"], statefulset["spec"]
    newest = statefulset["status"].get("updateRevision")
    left = {*leaving} - {newest}
    if not rolls(statefulset) or newest is None or not left:
        return None
    first = (spec.get("ordinals") or {}).get("start", 0)
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    members = [by_name.get(f"{meta['name']}-{ordinal}") for ordinal in range(first, first + spec.get("replicas", 1))]
    if any(pod is None or pod["metadata"].get("deletionTimestamp") for pod in members):
        return None
    unready = [(index, pod) for index, pod in enumerate(members) if pod and not condition_is(pod, "Ready")]
    if any(pod["metadata"].get("labels", {}).get("controller-revision-hash") not in left for _index, pod in unready):
        return None
    replaced = [pod for index, pod in unready if index >= _partition(statefulset)]  # below it, a pod comes back at the revision it had
    return replaced[-1] if replaced else None


def awaits_consumer(events: list[dict]) -> bool:
    """Whether the newest event about a claim (they are oldest first) says that it is bound only when a pod needs it."""
    return bool(events) and events[-1].get("reason") == "WaitForFirstConsumer"
