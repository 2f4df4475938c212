# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.fields import MANAGER, applied_fingerprint
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.plan import plan as planning

TYPES = {
    (t.api_version, t.kind): t
    for t in (
        ResourceType("", "v1", "ConfigMap", "configmaps", True),
        ResourceType("", "v1", "Namespace", "namespaces", False),
        ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True),
        ResourceType("apps", "v1", "Deployment", "deployments", True),
        ResourceType("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
        ResourceType("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False),
        ResourceType("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False),
        ResourceType("templates.gatekeeper.sh", "v1", "ConstraintTemplate", "constrainttemplates", False),
    )
}
OWNED = {(t.group, t.kind): t for t in TYPES.values()}


def obj(kind, name, namespace="ns", api="v1", **rest):
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


def granular(value):
    return {f"f:{key}": granular(sub) for key, sub in value.items()} if isinstance(value, dict) else {}


def applied(body):
    """A live object as it is right after we applied `body`."""
    owned = {f"f:{k}": granular(v) for k, v in body.items() if k not in ("apiVersion", "kind", "metadata")}
    owned["f:metadata"] = {"f:labels": granular(body["metadata"]["labels"])}
    entry = {"manager": MANAGER, "operation": "Apply", "fieldsV1": owned}
    return {**body, "metadata": {**body["metadata"], "uid": "u", "managedFields": [entry]}}


def plan(bundle, live=None, record=None, scope=None, **options):
    desired = prepare(bundle, "genai")
    resolved = planning.resolve(desired, TYPES)
    return planning.make_plan(desired, resolved, live or {}, record or {}, scope or set(bundle), OWNED, **options)


def after(bundle):
    """(live, record) as they are after `bundle` was released."""
    live, record = {}, {}
    for ref, item in prepare(bundle, "genai").items():
        live[ref] = applied(item.body)
        prints = [item.fingerprint, applied_fingerprint(live[ref])]
        record.setdefault(item.component, {})[planning.record_key(ref)] = prints
    return live, record


def verbs(result):
    return {str(action.ref): action.verb for action in result.actions}


BUNDLE = {
    "base": [obj("Namespace", "ns", None)],
    "app": [obj("ConfigMap", "one", data={"a": "b"}), obj("PersistentVolumeClaim", "disk", spec={"x": 1})],
}


def test_empty_cluster_is_all_creates_and_what_needs_the_new_namespace_is_pending():
    result = plan(BUNDLE)
    assert set(verbs(result).values()) == {"create"}
    assert [bool(action.pending) for action in result.actions] == [False, True, True]


def test_plan_of_what_was_applied_is_empty():
    live, record = after(BUNDLE)
    assert plan(BUNDLE, live, record).writes == []


def test_changed_description_and_hand_edit_are_updates():
    live, record = after(BUNDLE)
    changed = {**BUNDLE, "app": [obj("ConfigMap", "one", data={"a": "c"}), BUNDLE["app"][1]]}
    assert [str(a.ref) for a in plan(changed, live, record).writes] == ["ConfigMap ns/one"]
    live[Ref("", "ConfigMap", "ns", "one")]["data"]["a"] = "by hand"
    assert verbs(plan(BUNDLE, live, record))["ConfigMap ns/one"] == "update"


def test_lost_record_means_apply_again_not_prune():
    live, _record = after(BUNDLE)
    assert set(verbs(plan(BUNDLE, live, {})).values()) == {"update"}
    assert verbs(plan({"app": []}, live, {})) == {}


def test_prune_is_for_the_scope_and_spares_what_holds_data():
    live, record = after(BUNDLE)
    assert verbs(plan({"app": []}, live, record)) == {"ConfigMap ns/one": "delete", "PersistentVolumeClaim ns/disk": "keep"}
    assert verbs(plan({"app": []}, live, record, spared=lambda ref: True)) == {"ConfigMap ns/one": "keep", "PersistentVolumeClaim ns/disk": "keep"}
    told = plan({"app": []}, live, record, scope={"app", "base"}, spared=lambda ref: False)
    assert verbs(told) == {"ConfigMap ns/one": "delete", "PersistentVolumeClaim ns/disk": "delete", "Namespace ns": "delete"}
    kinds = [[a.ref.kind for a in batch] for batch in told.deletes()]
    assert kinds == [["ConfigMap"], ["PersistentVolumeClaim"], ["Namespace"]], "data late, its Namespace last"


def test_an_object_that_moved_to_another_component_is_not_pruned():
    live, record = after(BUNDLE)
    moved = {"base": [*BUNDLE["base"], BUNDLE["app"][0]], "app": [BUNDLE["app"][1]]}
    result = verbs(plan(moved, live, record))
    assert result["ConfigMap ns/one"] == "update" and "delete" not in result.values()


def test_waves_are_in_order():
    bundle = {"app": [obj("Deployment", "d", api="apps/v1", spec={}), *BUNDLE["app"], *BUNDLE["base"]]}
    kinds = [[a.ref.kind for a in wave] for wave in plan(bundle).waves()]
    assert kinds == [["Namespace"], ["ConfigMap", "PersistentVolumeClaim"], ["Deployment"]]


def test_a_new_workload_starts_at_the_autoscalers_minimum():
    hpa = obj("HorizontalPodAutoscaler", "d", api="autoscaling/v2",
              spec={"minReplicas": 2, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}})
    bundle = {"app": [obj("Deployment", "d", api="apps/v1", spec={"replicas": 1}), hpa]}
    replicas = {a.ref.kind: a.initial_replicas for a in plan(bundle).actions}
    assert replicas == {"Deployment": 2, "HorizontalPodAutoscaler": None}
    live, record = after(bundle)
    assert all(a.initial_replicas is None for a in plan(bundle, live, record).actions), "later it is the autoscaler's"


CRD = obj(
    "CustomResourceDefinition", "things.example.com", None, "apiextensions.k8s.io/v1",
    spec={"group": "example.com", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"}, "versions": [{"name": "v1"}]},
)


def test_a_custom_resource_whose_definition_comes_along_is_pending():
    result = plan({"app": [obj("Thing", "t", api="example.com/v1"), CRD]})
    (thing,) = [a for a in result.actions if a.ref.kind == "Thing"]
    assert "CustomResourceDefinition" in thing.pending and thing.rtype.plural == "things"


def test_a_constraint_whose_template_comes_along_is_pending():
    template = obj("ConstraintTemplate", "genaiowner", None, "templates.gatekeeper.sh/v1", spec={"crd": {"spec": {"names": {"kind": "GenaiOwner"}}}})
    constraint = obj("GenaiOwner", "genai", None, "constraints.gatekeeper.sh/v1beta1")
    result = plan({"policy": [constraint, template]})
    (found,) = [a for a in result.actions if a.ref.kind == "GenaiOwner"]
    assert found.pending and (found.rtype.plural, found.rtype.namespaced) == ("genaiowner", False)
    assert [a.ref.kind for wave in result.waves() for a in wave] == ["ConstraintTemplate", "GenaiOwner"]


def test_rules_are_written_before_what_they_are_about():
    policy = obj("ValidatingAdmissionPolicy", "p", None, "admissionregistration.k8s.io/v1")
    waves = plan({"app": [obj("Deployment", "d", api="apps/v1")], "policy": [policy], "space": [obj("Namespace", "ns", None)]}).waves()
    assert [a.ref.kind for wave in waves for a in wave] == ["Namespace", "ValidatingAdmissionPolicy", "Deployment"]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (obj("Thing", "t", api="example.com/v1"), "the cluster knows no Thing in example.com/v1"),
        (obj("ConfigMap", "t", None), "metadata.namespace is missing"),
        (obj("Namespace", "t", "ns"), "metadata.namespace must go"),
    ],
)
def test_what_does_not_fit_the_cluster_is_refused(manifest, said):
    with pytest.raises(InvalidInput, match=said):
        plan({"app": [manifest]})


def test_summary_counts_by_component():
    live, record = after(BUNDLE)
    live.pop(Ref("", "ConfigMap", "ns", "one"))
    assert plan(BUNDLE, live, record).summary() == {
        "base": {"create": 0, "update": 0, "delete": 0, "unchanged": 1},
        "app": {"create": 1, "update": 0, "delete": 0, "unchanged": 1},
    }


def dying(live, *refs):
    """Live objects of which some are being deleted."""
    return {ref: {**o, "metadata": {**o["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}} if ref in refs else o for ref, o in live.items()}


@pytest.mark.parametrize("gone", [Ref("", "ConfigMap", "ns", "one"), Ref("", "Namespace", "", "ns")], ids=lambda ref: ref.kind)
def test_what_is_being_deleted_counts_as_not_there(gone):
    live, record = after(BUNDLE)
    result = plan(BUNDLE, dying(live, gone), record)
    made = {str(a.ref): a for a in result.writes}
    assert set(made) == ({"ConfigMap ns/one"} if gone.namespace else {"Namespace ns", "ConfigMap ns/one", "PersistentVolumeClaim ns/disk"})
    assert all(a.verb == "create" and "has to be gone first" in a.pending and a.after for a in made.values())


def test_a_leftover_that_is_being_deleted_is_left_alone():
    live, record = after(BUNDLE)
    result = plan({"app": [BUNDLE["app"][1]]}, dying(live, Ref("", "ConfigMap", "ns", "one")), record)
    assert result.writes == []


@pytest.mark.parametrize(
    ("label", "recorded", "force", "refused"),
    [
        ("other", False, False, True),
        ("other", False, True, True),
        ("other", True, False, True),
        ("other", True, True, False),
        ("genai", False, False, False),
        (None, False, False, False),
    ],
)
def test_what_belongs_to_another_platform_is_refused(label, recorded, force, refused):
    live, record = after(BUNDLE)
    ref = Ref("", "ConfigMap", "ns", "one")
    live[ref]["metadata"]["labels"] = {"genai.platform/platform": label} if label else {}
    desired = prepare(BUNDLE, "genai")
    if refused:
        with pytest.raises(InvalidInput, match="ConfigMap ns/one belongs to platform other"):
            planning.refuse_foreign(desired, live, record if recorded else {}, "genai", force)
    else:
        planning.refuse_foreign(desired, live, record if recorded else {}, "genai", force)


def test_what_was_taken_over_is_marked_until_it_is_let_go():
    live, _record = after(BUNDLE)
    ref = Ref("", "ConfigMap", "ns", "one")
    live[ref]["metadata"]["labels"] = {}
    (first,) = [a for a in plan(BUNDLE, live).actions if a.ref == ref]
    assert first.taken_over and first.newly_taken_over, "also one that was let go earlier, and still has fields of ours"
    live, record = after(BUNDLE)
    record["app"][planning.record_key(ref)].append(planning.TAKEN_OVER)
    changed = {**BUNDLE, "app": [obj("ConfigMap", "one", data={"a": "c"}), BUNDLE["app"][1]]}
    result = plan(changed, live, record)
    (again,) = [a for a in result.actions if a.ref == ref]
    assert again.taken_over and not again.newly_taken_over
    assert result.record({again: applied(again.body)}, record, {"app", "base"})["app"][planning.record_key(ref)][2:] == [planning.TAKEN_OVER]
    assert verbs(plan({"app": [BUNDLE["app"][1]]}, live, record)) == {"ConfigMap ns/one": "orphan", "PersistentVolumeClaim ns/disk": "unchanged"}


def crd(*versions, stored=(), one_way=False):
    """`versions`: names; the one with a star is the storage version."""
    served = [{"name": name.rstrip("*"), "storage": name.endswith("*")} for name in versions]
    body = {**CRD, "metadata": dict(CRD["metadata"]), "spec": {**CRD["spec"], "versions": served}}
    body["metadata"] |= {"annotations": {"genai.platform/one-way": "stores v2"}} if one_way else {}
    return {**body, "status": {"storedVersions": list(stored)}} if stored else body


@pytest.mark.parametrize(
    ("was", "wanted", "said"),
    [
        (crd("v1*", stored=["v1"]), crd("v1*", "v2"), None),
        (crd("v1*", "v2", stored=["v1"]), crd("v1", "v2*"), None),
        (crd("v1*", stored=["v1"]), crd("v1", "v2*"), "version v2 would be new and the storage version at once"),
        (crd("v1*", stored=["v1"]), crd("v1", "v2*", one_way=True), None),
        (crd("v1", "v2*", stored=["v1", "v2"]), crd("v2*"), "objects may be stored in version v1"),
        (crd("v1", "v2*", stored=["v1", "v2"]), crd("v2*", one_way=True), "objects may be stored in version v1"),
        (crd("v1", "v2*", stored=["v2"]), crd("v2*"), None),
    ],
)
def test_a_definition_that_could_not_be_brought_back_is_refused(was, wanted, said):
    live = {Ref.of(was): applied({**was, "metadata": {**was["metadata"], "labels": {}}})}
    result = plan({"app": [wanted]}, live)
    if said:
        with pytest.raises(InvalidInput, match=said):
            planning.refuse_irreversible(result)
    else:
        planning.refuse_irreversible(result)


def test_autoscalers_go_before_what_gets_its_replicas_back():
    def release(*bodies):
        return {"app": list(bodies)}

    hpa = obj("HorizontalPodAutoscaler", "d", api="autoscaling/v2", spec={"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}})
    other = obj("HorizontalPodAutoscaler", "e", api="autoscaling/v2", spec={"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "e"}})
    live, record = after(release(obj("Deployment", "d", api="apps/v1", spec={}), hpa, other))
    result = plan(release(obj("Deployment", "d", api="apps/v1", spec={"replicas": 2})), live, record)
    assert [a.ref.name for a in result.first()] == ["d"]
    assert [[a.ref.name for a in batch] for batch in result.deletes()] == [["e"]]
