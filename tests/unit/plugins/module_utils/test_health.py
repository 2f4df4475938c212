# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils import _health as health


def workload(kind, replicas=2, generation=1, **status):
    return {"kind": kind, "metadata": {"generation": generation}, "spec": {"replicas": replicas}, "status": {"observedGeneration": 1, **status}}


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
        (workload("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=3, numberAvailable=2), "2 of 3 pods available"),
        (workload("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=3, numberAvailable=3), ""),
        (workload("Job"), "not complete"),
        (workload("Job", conditions=[{"type": "Complete", "status": "True"}]), ""),
        ({"kind": "CustomResourceDefinition", "metadata": {}}, "not established"),
        ({"kind": "ConfigMap", "metadata": {}}, ""),
    ],
)
def test_readiness(obj, said):
    assert health.not_ready(obj) == said


def container(reason, message="", **last):
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"containerStatuses": [{"name": "c", "image": "i:1", "state": state, "lastState": last}]}}


@pytest.mark.parametrize(
    ("pod", "reason", "patience", "crashed"),
    [
        (container("ImagePullBackOff"), "ImagePullBackOff", 0, False),
        (container("ErrImagePull"), "ErrImagePull", 3, False),
        (container("InvalidImageName"), "InvalidImageName", 0, False),
        (container("CreateContainerConfigError"), "CreateContainerConfigError", 5, False),
        (container("CrashLoopBackOff", terminated={"exitCode": 3}), "CrashLoopBackOff", 0, True),
        (container("CrashLoopBackOff", terminated={"exitCode": 137, "reason": "OOMKilled"}), "OOMKilled", 0, True),
        ({"status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}]}}, "Unschedulable", 10, False),
    ],
)
def test_hopeless_pods(pod, reason, patience, crashed):
    problem = health.pod_problem(pod)
    assert (problem.reason, problem.patience, problem.crashed) == (reason, patience, crashed)
    assert problem.hint


@pytest.mark.parametrize("pod", [{}, {"status": {}}, container("ContainerCreating"), container("PodInitializing")])
def test_pods_that_may_still_come_up(pod):
    assert health.pod_problem(pod) is None


def test_init_containers_count():
    pod = {"status": {"initContainerStatuses": container("ImagePullBackOff")["status"]["containerStatuses"]}}
    assert health.pod_problem(pod).reason == "ImagePullBackOff"


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}, "raise the namespace's quota"),
        ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "violates PodSecurity"}, "securityContext"),
        ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, "no progress"),
    ],
)
def test_stuck_workloads(condition, hint):
    assert hint in health.stuck({"kind": "Deployment", "status": {"conditions": [condition]}}).hint


def test_owner_is_found_through_the_replicaset():
    meta = {"name": "api-5f-x", "labels": {"pod-template-hash": "5f"}}
    pod = {"metadata": {**meta, "ownerReferences": [{"kind": "ReplicaSet", "name": "api-5f", "controller": True}]}}
    assert health.owner_of(pod) == ("Deployment", "api")
    alone = {"metadata": {"name": "p"}}
    assert health.owner_of(alone) == ("Pod", "p")
    of_set = {"metadata": {"name": "db-0", "labels": {}, "ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}]}}
    assert health.owner_of(of_set) == ("StatefulSet", "db")
