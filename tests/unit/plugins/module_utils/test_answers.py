# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is ready and answers nobody, and what others did."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils import _answers
from ansible_collections.genai.platform.plugins.module_utils._answers import by_whom, silent, strangers
from ansible_collections.genai.platform.plugins.module_utils._fields import MANAGER
from ansible_collections.genai.platform.plugins.module_utils._manifest import LABEL_PLATFORM, Ref

WEB, WORKLOAD = Ref("", "Service", "ns", "web"), Ref("apps", "Deployment", "ns", "web")
SCALER = Ref("autoscaling", "HorizontalPodAutoscaler", "ns", "web")
SHOP = {"app": "shop"}


def service(**spec):
    return {"metadata": {"name": "web", "namespace": "ns"}, "spec": {"selector": SHOP, **spec}}


def slice_of(*ready, name="web", namespace="ns"):
    ends = [{"conditions": {} if each is None else {"ready": each}} for each in ready]
    return {"metadata": {"name": f"{name}-x", "namespace": namespace, "labels": {_answers.SERVICE_NAME: name}}, "endpoints": ends}


def deployment(replicas=2, owned=False, **labels):
    entries = [{"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}} if owned else {}}}]
    template = {"metadata": {"labels": {**SHOP, "more": "x", **labels}}}
    return {"metadata": {"name": "web", "managedFields": entries}, "spec": {"replicas": replicas, "template": template}}


@pytest.mark.parametrize(("slices", "answered"), [
    ([slice_of(True)], True), ([slice_of(None)], True), ([slice_of(False), slice_of(True)], True),
    ([slice_of(False)], False), ([slice_of()], False), ([], False), ([slice_of(True, name="other")], False), ([slice_of(True, namespace="other")], False),
    ([{**slice_of(), "endpoints": None}], False),
])  # fmt: skip
def test_a_service_answers_with_one_endpoint_that_is_ready(slices, answered):
    assert [each.reason for each in silent({WEB: service(), WORKLOAD: deployment()}, slices)] == ([] if answered else ["NoEndpoints"])


@pytest.mark.parametrize("about", [service(selector={}), service(selector=None), service(type="ExternalName")])
def test_what_has_endpoints_of_its_own_is_not_judged(about):
    assert silent({WEB: about}, []) == []


def keda(**spec):
    return {"metadata": {}, "spec": {"scaleTargetRef": {"name": "web"}, **spec}}


QUEUE = Ref("keda.sh", "ScaledObject", "ns", "web")


@pytest.mark.parametrize(("workload", "more", "says"), [
    (deployment(), {}, "none of the pods that it selects (app=shop) is ready"),
    (deployment(app="other"), {}, "it selects app=shop, which no workload of the platform has"),
    (deployment(0, owned=True), {}, ""),  # released without replicas
    (deployment(0), {QUEUE: keda()}, ""),
    (deployment(0), {QUEUE: keda(minReplicaCount=1)}, "none of the pods"),
    (deployment(0), {QUEUE._replace(namespace="other"): keda()}, "none of the pods"),
    (deployment(0), {}, "none of the pods"),
])  # fmt: skip
def test_why_a_service_does_not_answer(workload, more, says):
    """Red where "healthy" means that every object says so of itself."""
    found = silent({WEB: service(), WORKLOAD: workload, **more}, [])
    assert [each.message.startswith(says) for each in found] == ([True] if says else [])
    assert all(each.hint for each in found)


@pytest.mark.parametrize(("replicas", "least", "idle"), [(0, 2, True), (0, None, True), (2, 2, False), (0, 0, False)])
def test_an_autoscaler_does_nothing_for_a_workload_without_replicas(replicas, least, idle):
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, **({} if least is None else {"minReplicas": least})}
    found = silent({SCALER: {"metadata": {}, "spec": target}, WORKLOAD: deployment(replicas)}, [])
    assert [(each.ref, each.reason) for each in found] == ([(SCALER, "ScalingDisabled")] if idle else [])


def policy(name, **meta):
    return Ref("networking.k8s.io", "NetworkPolicy", "ns", name), {"metadata": {"name": name, **meta}}


def test_strangers_are_named_with_who_made_them():
    entry = {"manager": "kubectl-create", "operation": "Update", "time": "2026-01-01T00:00:00Z"}
    found = strangers([
        policy("ours", labels={LABEL_PLATFORM: "genai"}), policy("others", labels={LABEL_PLATFORM: "other"}),
        policy("operators", ownerReferences=[{"kind": "Kafka"}]), policy("lockdown", managedFields=[entry]), policy("a"),
    ])  # fmt: skip
    assert found == ["NetworkPolicy ns/a", "NetworkPolicy ns/lockdown (kubectl-create, 2026-01-01T00:00:00Z)"]


def test_the_last_of_others_is_named():
    entries = [
        {"manager": MANAGER, "operation": "Apply", "time": "2026-01-04T00:00:00Z"},
        {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T00:00:00Z"},
        {"manager": "kubectl-patch", "operation": "Update", "time": "2026-01-03T00:00:00Z"},
        {"manager": "kubelet", "operation": "Update", "time": "2026-01-05T00:00:00Z"},
        {"manager": "argocd", "operation": "Update", "subresource": "status", "time": "2026-01-05T00:00:00Z"},
    ]
    assert by_whom({"metadata": {"managedFields": entries}}) == " (kubectl-patch, 2026-01-03T00:00:00Z)"
    assert by_whom({"metadata": {}}) == ""
