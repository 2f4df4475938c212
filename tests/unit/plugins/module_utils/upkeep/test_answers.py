# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is ready and answers nobody, and what others did."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects.fields import MANAGER, applied_fingerprint
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_PLATFORM, Ref
from ansible_collections.genai.platform.plugins.module_utils.plan.record import TAKEN_OVER, record_key
from ansible_collections.genai.platform.plugins.module_utils.upkeep import answers as _answers
from ansible_collections.genai.platform.plugins.module_utils.upkeep.answers import by_whom, edited, silent, strangers

WEB, WORKLOAD = Ref("", "Service", "ns", "web"), Ref("apps", "Deployment", "ns", "web")
SCALER = Ref("autoscaling", "HorizontalPodAutoscaler", "ns", "web")
SHOP = {"app": "shop"}


def look(judged, slices=(), live=None, touched=()):
    return silent(judged, {**judged, **(live or {})}, slices, touched)


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
    assert [each.reason for each in look({WEB: service(), WORKLOAD: deployment()}, slices)] == ([] if answered else ["NoEndpoints"])


@pytest.mark.parametrize("about", [service(selector={}), service(selector=None), service(type="ExternalName")])
def test_what_has_endpoints_of_its_own_is_not_judged(about):
    assert look({WEB: about, WORKLOAD: deployment()}, []) == []


def keda(annotations=None, **spec):
    return {"metadata": {"annotations": annotations}, "spec": {"scaleTargetRef": {"name": "web"}, **spec}}


QUEUE = Ref("keda.sh", "ScaledObject", "ns", "web")
NONE = "none of the pods that it selects (app=shop) is ready"


def kind(name, **status):
    return {WORKLOAD._replace(kind=name): {**deployment(), "status": status}}


@pytest.mark.parametrize(("beside", "says"), [
    ({WORKLOAD: deployment()}, NONE),
    ({WORKLOAD: deployment(0, owned=True)}, ""),  # released without replicas
    ({WORKLOAD: deployment(0), QUEUE: keda()}, ""),
    ({WORKLOAD: deployment(0), QUEUE: keda(minReplicaCount=1)}, NONE),
    ({WORKLOAD: deployment(0), QUEUE: keda(minReplicaCount=1, idleReplicaCount=0)}, ""),
    ({WORKLOAD: deployment(0), QUEUE: keda({"autoscaling.keda.sh/paused-replicas": "0"}, minReplicaCount=1)}, ""),
    ({WORKLOAD: deployment(0), QUEUE._replace(namespace="other"): keda()}, NONE),
    ({WORKLOAD: deployment(0)}, NONE),
    (kind("DaemonSet", desiredNumberScheduled=0), ""),
    (kind("DaemonSet", desiredNumberScheduled=2), NONE),
    (kind("Job"), ""),
    ({}, ""),  # an operator's pods, a CronJob's, or those of a Job that is gone
    ({WORKLOAD: deployment(app="other")}, ""),
])  # fmt: skip
def test_who_should_answer_for_a_service(beside, says):
    """Red where "healthy" means that every object says so of itself; or where what is meant to be silent is not."""
    found = look({WEB: service()}, live=beside)
    assert [each.message for each in found] == ([says] if says else [])
    assert all(each.hint for each in found)


@pytest.mark.parametrize("touched", [WEB, WORKLOAD])
def test_a_service_that_was_led_away_is_told(touched):
    found = look({WEB: service(), WORKLOAD: deployment(app="other")}, touched={touched})
    assert [each.message for each in found] == ["it selects app=shop, which no workload of the platform has, and no pod answers"]


def test_what_others_made_with_our_labels_is_not_judged():
    """KEDA gives its autoscaler the labels of what it was made for, and a minimum of one where that may be none."""
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1}
    others = {SCALER: {"metadata": {}, "spec": target}, WEB: service()}
    assert silent({WORKLOAD: deployment(0)}, {WORKLOAD: deployment(0), **others}, []) == []


@pytest.mark.parametrize(("replicas", "least", "idle"), [(0, 2, True), (0, None, True), (2, 2, False), (0, 0, False)])
def test_an_autoscaler_does_nothing_for_a_workload_without_replicas(replicas, least, idle):
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, **({} if least is None else {"minReplicas": least})}
    found = look({SCALER: {"metadata": {"namespace": "ns"}, "spec": target}, WORKLOAD: deployment(replicas)})
    assert [(each.ref, each.reason) for each in found] == ([(SCALER, "ScalingDisabled")] if idle else [])


@pytest.mark.parametrize(
    ("status", "reason", "named"),
    [
        ("True", "ScaledObjectReady", False), ("Unknown", "Any", False), ("", "", False),
        ("False", "ScaledObjectCheckFailed", True), ("False", "TriggerError", False),
    ],
)
def test_a_scaled_object_that_keda_cannot_use_wakes_nobody(status, reason, named):
    conditions = [{"type": "Active", "status": "False"}, {"type": "Ready", "status": status, "reason": reason, "message": "no way"}]
    found = look({QUEUE: {**keda(), "status": {"conditions": conditions} if status else {}}})
    assert [(each.reason, each.message) for each in found] == ([(reason, "no way")] if named else [])


ROUTE = Ref("gateway.networking.k8s.io", "HTTPRoute", "ns", "web")


def route(*conditions, parents=True, generation=2):
    """Of one Gateway; `conditions`: (type, status, generation)."""
    said = [{"type": name, "status": status, "reason": "Why", "message": "so", "observedGeneration": seen} for name, status, seen in conditions]
    status = {"parents": [{"parentRef": {"name": "public"}, "conditions": said}] if parents else []}
    return {"metadata": {"name": "web", "generation": generation}, "spec": {"parentRefs": [{"name": "public"}]}, "status": status}


@pytest.mark.parametrize(("about", "reasons"), [
    (route(("Accepted", "True", 2), ("ResolvedRefs", "True", 2)), []),
    (route(("Accepted", "False", 2), ("ResolvedRefs", "True", 2)), ["RouteRefused"]),
    (route(("Accepted", "True", 2), ("ResolvedRefs", "False", 2)), ["RouteRefused"]),
    (route(("Accepted", "False", 1)), []),  # of the route before
    (route(("Programmed", "False", 2)), []),  # of a controller's own
    (route(parents=False), ["NoGateway"]),
    ({**route(parents=False), "status": {}}, ["NoGateway"]),
    ({**route(), "spec": {}}, []),
])  # fmt: skip
def test_a_route_leads_to_us_once_a_gateway_takes_it(about, reasons):
    found = look({ROUTE: about})
    assert [each.reason for each in found] == reasons
    assert all(each.message and each.hint for each in found)


def policy(name, **meta):
    return Ref("networking.k8s.io", "NetworkPolicy", "ns", name), {"metadata": {"name": name, **meta}}


def test_strangers_are_named_with_who_made_them():
    entry = {"manager": "kubectl-create", "operation": "Update", "time": "2026-01-01T00:00:00Z"}
    found = strangers([
        policy("ours", labels={LABEL_PLATFORM: "genai"}), policy("others", labels={LABEL_PLATFORM: "other"}), policy("bare"),
        policy("operators", ownerReferences=[{"kind": "Kafka"}]), policy("lockdown", managedFields=[entry]), policy("copied", labels={LABEL_PLATFORM: "genai"}),
    ], "genai", {policy(name)[0] for name in ("ours", "bare")})  # fmt: skip
    assert found == ["NetworkPolicy ns/copied", "NetworkPolicy ns/lockdown (kubectl-create, 2026-01-01T00:00:00Z)"]


def test_the_last_of_others_is_named():
    entries = [
        {"manager": MANAGER, "operation": "Apply", "time": "2026-01-04T00:00:00Z"},
        {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T00:00:00Z"},
        {"manager": "kubectl-patch", "operation": "Update", "time": "2026-01-03T00:00:00Z"},
        {"manager": "kubelet", "operation": "Update", "time": "2026-01-05T00:00:00Z"},
        {"manager": "argocd", "operation": "Update", "subresource": "status", "time": "2026-01-05T00:00:00Z"},
    ]
    assert by_whom({"metadata": {"managedFields": entries}}) == " (kubectl-patch, 2026-01-03T00:00:00Z)"
    assert by_whom({"metadata": {"managedFields": [{"operation": "Update"}]}}) == " (unknown, )"
    assert by_whom({"metadata": {}}) == ""


# --- what was changed ------------------------------------------------------------------------------------------------

CONFIG = Ref("", "ConfigMap", "ns", "settings")


def config(*entries, api="v1", value="1"):
    """A ConfigMap in which we own `data.a`, applied at second 10."""
    ours = {"manager": MANAGER, "operation": "Apply", "apiVersion": api, "time": "2026-01-01T00:00:10Z", "fieldsV1": {"f:data": {"f:a": {}}}}
    meta = {"name": "settings", "namespace": "ns", "managedFields": [ours, *entries]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": value, "b": "2"}}


def entry(field="f:data", second=20, manager="kubectl-edit"):
    return {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": f"2026-01-01T00:00:{second:02}Z", "fieldsV1": {field: {"f:b": {}}}}


@pytest.mark.parametrize(("live", "more", "said"), [
    (config(), [], False),
    (config(value="2"), [], True),
    (config(entry()), [], True),  # a key was added
    (config(entry(second=5)), [], False),  # before it was released
    (config(entry("f:metadata")), [], False),  # an operator's annotation
    (config(entry(manager="kubelet")), [], False),
    (config(entry(), value="2"), [TAKEN_OVER], False),  # what others have in it is theirs
    (config(api="v1beta1", value="2"), [], False),  # the same in other words is another print
])  # fmt: skip
def test_what_was_changed_since_it_was_released(live, more, said):
    record = {"app": {record_key(CONFIG): ["x", applied_fingerprint(config()), *more]}}
    assert edited(record, {CONFIG: live}) == ([CONFIG] if said else [])
    assert edited({}, {CONFIG: live}) == [], "what is not ours was not released"


@pytest.mark.parametrize(("ours", "said"), [(True, True), (False, False)])
def test_a_workload_under_an_autoscaler_of_ours_is_compared(ours, said):
    """Its replicas are not applied, so that its print does not depend on them; under somebody else's it would."""
    scale = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    live = deployment(3)
    live.update(apiVersion="apps/v1", kind="Deployment")
    live["metadata"]["managedFields"].append(scale)
    target = {"metadata": {"namespace": "ns"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}}}
    assert edited({"app": {record_key(WORKLOAD): ["x", "another"]}}, {WORKLOAD: live, **({SCALER: target} if ours else {})}) == ([WORKLOAD] if said else [])


# --- webhooks and room -----------------------------------------------------------------------------------------------
HOOK = Ref("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "", "hook")
SPACE = Ref("", "Namespace", "", "ns")
IGNORED = [{"key": "ignore", "operator": "DoesNotExist"}]


def configuration(resources=("pods",), **rest):
    rule = {"apiGroups": [""], "operations": ["CREATE"], "resources": list(resources)}
    hook = {"name": "h.example.com", "clientConfig": {"service": {"namespace": "far", "name": "hook"}}, "rules": [rule], **rest}
    return {"metadata": {"name": "hook"}, "webhooks": [hook]}


def space(**labels):
    return {"metadata": {"name": "ns", "labels": {_answers.NAME_LABEL: "ns", **labels}}}


@pytest.mark.parametrize("judged, hook, alarm", [
    ({WORKLOAD: deployment()}, configuration(), True),
    ({WORKLOAD: deployment()}, configuration(namespaceSelector={"matchLabels": {_answers.NAME_LABEL: "ns"}}), True),
    ({WORKLOAD: deployment()}, configuration(namespaceSelector={"matchLabels": {_answers.NAME_LABEL: "other"}}), False),
    # Of a Namespace that is not ours, or not looked at, only the name is known.
    ({WORKLOAD: deployment()}, configuration(namespaceSelector={"matchExpressions": IGNORED}), False),
    ({WORKLOAD: deployment(), SPACE: space()}, configuration(namespaceSelector={"matchExpressions": IGNORED}), True),
    ({WORKLOAD: deployment(), SPACE: space(ignore="yes")}, configuration(namespaceSelector={"matchExpressions": IGNORED}), False),
    ({WORKLOAD: deployment()}, configuration(failurePolicy="Ignore"), False),
    ({WORKLOAD: deployment()}, configuration(resources=["services"]), False),
    ({WORKLOAD: deployment()}, configuration(objectSelector={"matchLabels": {"a": "b"}}), False),
    ({WORKLOAD: deployment()}, configuration(matchConditions=[{"name": "x", "expression": "false"}]), False),
    ({WORKLOAD: deployment()}, configuration(clientConfig={"url": "https://elsewhere"}), False),
    ({WEB: service()}, configuration(), False),  # no pod is meant to be there
    ({HOOK: {}, WEB: service()}, configuration(resources=["gauges"]), True),  # ours, whatever it judges
])  # fmt: skip
def test_a_webhook_that_nobody_serves(judged, hook, alarm):
    found = _answers.hooks([(HOOK, hook)], judged)
    said = [each.reason for each in silent(judged, judged, [slice_of(True)], hooks=found) if each.ref == HOOK]
    assert said == (["NoWebhookServer"] if alarm else [])
    assert not [each for each in silent(judged, judged, [slice_of(True, name="hook", namespace="far")], hooks=found) if each.ref == HOOK]


QUOTA = Ref("", "ResourceQuota", "ns", "all")


@pytest.mark.parametrize("judged, spec, touched, ours, hint", [
    ({WORKLOAD: deployment()}, {"hard": {"pods": "0"}}, [], [], "kubectl delete resourcequota -n ns all"),
    ({WORKLOAD: deployment()}, {"hard": {"pods": "0"}}, [QUOTA], [QUOTA], "drift.yml"),
    ({WORKLOAD: deployment()}, {"hard": {"pods": "0"}}, [], [QUOTA], None),  # released so
    ({WORKLOAD: deployment()}, {"hard": {"pods": "1", "services": "0"}}, [], [], None),
    ({WORKLOAD: deployment()}, {"hard": {"requests.cpu": "0"}, "scopes": ["BestEffort"]}, [], [], None),
    ({WORKLOAD: deployment(0, owned=True)}, {"hard": {"pods": "0"}}, [], [], None),  # none is wanted
], ids=["a stranger's", "changed", "released so", "of no pods", "of some pods", "no pods wanted"])
def test_a_quota_under_which_no_pod_can_start(judged, spec, touched, ours, hint):
    found = _answers.no_room([(QUOTA, {"metadata": {}, "spec": spec})], judged, touched, ours)
    assert [hint in each.hint for each in found] == ([True] if hint else [])
