# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects import health


def workload(kind, replicas=2, generation=1, spec=None, **status):
    spec, status = {"replicas": replicas, **(spec or {})}, {"observedGeneration": 1, **status}
    return {"kind": kind, "metadata": {"generation": generation}, "spec": spec, "status": status}


def strategy(kind="RollingUpdate", partition=None):
    return {"updateStrategy": {"type": kind, **({} if partition is None else {"rollingUpdate": {"partition": partition}})}}


def paused(**status):
    body = workload("Deployment", spec={"paused": True})
    return {**body, "status": {"observedGeneration": 1, **status}}


COMPLETE = {"type": "Complete", "status": "True"}


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (workload("Deployment", updatedReplicas=2, availableReplicas=2), ""),
        (workload("Deployment", generation=2, updatedReplicas=2, availableReplicas=2), "not yet seen by its controller"),
        (workload("Deployment", updatedReplicas=1, availableReplicas=2), "1 of 2 replicas updated"),
        ({**workload("Deployment"), "status": {"observedGeneration": 1, "updatedReplicas": 2, "replicas": 3}}, "1 old replicas still there"),
        (workload("Deployment", updatedReplicas=2, availableReplicas=1), "1 of 2 replicas available"),
        (workload("Deployment", replicas=0), ""),
        ({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {}}, "not yet seen by its controller"),
        (workload("StatefulSet", updatedReplicas=2, readyReplicas=1), "1 of 2 replicas ready"),
        (workload("StatefulSet", updatedReplicas=2, readyReplicas=2), ""),
        (workload("StatefulSet", spec=strategy(partition=1), updatedReplicas=1, readyReplicas=2), ""),
        (workload("StatefulSet", spec=strategy(partition=1), updatedReplicas=0, readyReplicas=2), "0 of 1 replicas updated"),
        (workload("StatefulSet", spec=strategy(partition=1), updatedReplicas=1, readyReplicas=1), "1 of 2 replicas ready"),
        (workload("StatefulSet", spec=strategy(partition=5), updatedReplicas=0, readyReplicas=2), ""),
        (workload("StatefulSet", spec=strategy("OnDelete"), updatedReplicas=0, readyReplicas=2), ""),
        (workload("DaemonSet", spec=strategy("OnDelete"), desiredNumberScheduled=3, updatedNumberScheduled=0, numberAvailable=3), ""),
        (paused(replicas=2, availableReplicas=2), ""),
        (paused(unavailableReplicas=3), "paused, 3 replicas unavailable"),  # its ReplicaSet may not make them
        (paused(), ""),  # it was paused when it was made
        (workload("Job", spec={"suspend": True}), ""),
        (workload("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=3, numberAvailable=2), "2 of 3 pods available"),
        (workload("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=3, numberAvailable=3), ""),
        (workload("Job"), "not complete"),
        (workload("Job", conditions=[COMPLETE]), ""),
        ({"kind": "CustomResourceDefinition", "metadata": {}}, "not established"),
        ({"kind": "ConstraintTemplate", "metadata": {}}, "not taken up by Gatekeeper"),
        ({"kind": "ConstraintTemplate", "metadata": {}, "status": {"created": True}}, ""),
        ({"kind": "ConfigMap", "metadata": {}}, ""),
    ],
)
def test_readiness(obj, said):
    assert health.not_ready(obj) == said


def container(reason, message="", **last):
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"containerStatuses": [{"name": "c", "image": "i:1", "state": state, "lastState": last}]}}


@pytest.mark.parametrize(
    ("pod", "reason", "patience", "log"),
    [
        (container("ImagePullBackOff"), "ImagePullBackOff", 0, ""),
        (container("ErrImagePull"), "ErrImagePull", 3, ""),
        (container("InvalidImageName"), "InvalidImageName", 0, ""),
        (container("CreateContainerConfigError"), "CreateContainerConfigError", 5, ""),
        (container("CrashLoopBackOff", terminated={"exitCode": 3}), "CrashLoopBackOff", 0, "previous"),
        (container("CrashLoopBackOff", terminated={"exitCode": 137, "reason": "OOMKilled"}), "OOMKilled", 0, "previous"),
        ({"status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}]}}, "Unschedulable", 13, ""),
        (
            {"status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "pod has unbound immediate PersistentVolumeClaims"}]}},
            "Unschedulable", 60, "",
        ),
    ],
)
def test_hopeless_pods(pod, reason, patience, log):
    problem = health.pod_problem(pod)
    assert (problem.reason, problem.patience, problem.log) == (reason, patience, log)
    assert problem.hint


@pytest.mark.parametrize("pod", [{}, {"status": {}}])
def test_pods_that_may_still_come_up(pod):
    assert health.pod_problem(pod) is None


def event(reason, message=""):
    return {"type": "Warning", "reason": reason, "message": message}


def unready(started=True, **probe):
    container = {"name": "c", "started": started, "ready": False, "state": {"running": {}}}
    return {"spec": {"containers": [{"name": "c", "readinessProbe": probe}]}, "status": {"containerStatuses": [container]}}


def claim(phase):
    return {"kind": "PersistentVolumeClaim", "metadata": {}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("problem", "events", "said"),
    [
        (health.pod_problem(container("ContainerCreating")), [], None),
        (health.pod_problem(container("ContainerCreating")), [event("FailedMount", "timed out waiting")], None),
        (health.pod_problem(container("ContainerCreating")), [event("FailedMount", 'secret "x" not found')], 'secret "x" not found'),
        (health.pod_problem(container("ContainerCreating")), [event("FailedMount", "not found"), event("Pulling")], None),
        (health.pod_problem(unready(periodSeconds=1)), [], None),
        (health.pod_problem(unready(periodSeconds=1)), [event("Unhealthy", "Readiness probe failed: 500")], "Readiness probe failed: 500"),
        (health.pod_problem(unready(periodSeconds=1)), [event("Unhealthy", "Startup probe failed: 500")], None),
        (health.stuck(workload("StatefulSet", replicas=1)), [event("FailedCreate", "exceeded quota: q")], "exceeded quota: q"),
        (health.stuck(workload("StatefulSet", replicas=1)), [event("FailedCreate", "x"), event("SuccessfulCreate")], None),
        (health.stuck(workload("Job")), [event("FailedCreate", "violates PodSecurity")], "violates PodSecurity"),
        (health.stuck(claim("Pending")), [event("ProvisioningFailed", 'class "x" not found')], 'class "x" not found'),
        (health.stuck(claim("Pending")), [event("WaitForFirstConsumer")], None),
        (health.stuck(claim("Lost")), [], "its volume is gone"),
    ],
)
def test_a_suspicion_counts_when_the_newest_event_bears_it_out(problem, events, said):
    confirmed = problem.confirmed(events)
    assert (confirmed and confirmed.message) == said
    assert confirmed is None or confirmed.hint


@pytest.mark.parametrize("obj", [claim("Bound"), workload("StatefulSet", replicas=1), workload("ConfigMap")])
def test_nothing_to_suspect(obj):
    obj["status"]["replicas"] = 1
    assert health.stuck(obj) is None


def test_a_probe_has_three_times_what_it_allows_itself_and_a_slow_start_its_own_probe():
    assert health.pod_problem(unready(initialDelaySeconds=5, periodSeconds=2, failureThreshold=4)).patience == 39
    assert health.pod_problem(unready(periodSeconds=1)).patience == 10
    assert health.pod_problem(unready(started=False, periodSeconds=1)) is None


def test_the_scheduler_is_quoted_with_the_resource_that_is_short():
    message = "0/3 nodes are available: 1 Insufficient cpu, 3 Insufficient nvidia.com/gpu. preemption: no victims"
    pod = {"status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": message}]}}
    assert "no node has enough cpu and nvidia.com/gpu free" in health.pod_problem(pod).hint


@pytest.mark.parametrize(
    ("reasons", "awaits"),
    [([], False), (["WaitForFirstConsumer"], True), (["WaitForFirstConsumer", "Provisioning"], False), (["ProvisioningFailed"], False)],
)
def test_a_claim_that_awaits_its_first_pod_says_so_by_its_newest_event(reasons, awaits):
    assert health.awaits_consumer([{"reason": reason} for reason in reasons]) is awaits


@pytest.mark.parametrize("condition", [
    {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"},
], ids=lambda condition: condition["type"])  # fmt: skip
def test_a_condition_of_the_spec_before_says_nothing_about_the_newest(condition):
    """Red where a release that mends a rollout is undone for the deadline that the one before it missed."""
    assert health.stuck(workload("Deployment", conditions=[condition]))
    assert health.stuck(workload("Deployment", generation=2, conditions=[condition])) is None


def test_a_job_that_is_over_is_taken_away_by_its_time_to_live():
    over = workload("Job", conditions=[COMPLETE])
    over["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert health.not_ready(over) == ""
    assert health.not_ready({**over, "status": {}}) == "being deleted"


def test_what_is_being_deleted_is_not_ready():
    assert health.not_ready({"kind": "ConfigMap", "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}) == "being deleted"


def test_init_containers_count():
    pod = {"status": {"initContainerStatuses": container("ImagePullBackOff")["status"]["containerStatuses"]}}
    assert health.pod_problem(pod).reason == "ImagePullBackOff"


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}, "raise the namespace's quota"),
        ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "violates PodSecurity"}, "securityContext"),
        ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "failed calling webhook"}, "webhook's service"),
        ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, "no progress"),
    ],
)
def test_stuck_workloads(condition, hint):
    assert hint in health.stuck(workload("Deployment", conditions=[condition])).hint


def test_owner_is_found_through_the_replicaset():
    meta = {"name": "api-5f-x", "labels": {"pod-template-hash": "5f"}}
    pod = {"metadata": {**meta, "ownerReferences": [{"kind": "ReplicaSet", "name": "api-5f", "controller": True}]}}
    assert health.owner_of(pod) == ("Deployment", "api")
    alone = {"metadata": {"name": "p"}}
    assert health.owner_of(alone) == ("Pod", "p")
    of_set = {"metadata": {"name": "db-0", "labels": {}, "ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}]}}
    assert health.owner_of(of_set) == ("StatefulSet", "db")


def events(*reasons):
    return [{"reason": reason, "message": ""} for reason in reasons]


@pytest.mark.parametrize(("reasons", "counts"), [
    ([], True),
    (["FailedScheduling"], True),
    (["FailedScheduling", "TriggeredScaleUp"], False),
    (["TriggeredScaleUp", "FailedScheduling"], False),  # the scheduler tries again and again meanwhile
    (["Nominated"], False),
    (["TriggeredScaleUp", "NotTriggerScaleUp"], True),  # the autoscaler has given it up
    (["NotTriggerScaleUp", "TriggeredScaleUp"], False),
])  # fmt: skip
def test_a_pod_for_which_a_node_is_on_its_way_is_not_hopeless(reasons, counts):
    """Red where an autoscaler is given the ten seconds of a scheduler."""
    unschedulable = health.pod_problem({"status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}]}})
    assert unschedulable.asks and bool(unschedulable.confirmed(events(*reasons))) == counts
