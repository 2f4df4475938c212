# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What keeps a namespace from being deleted, and what does not."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils._errors import ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils._manifest import LABEL_PLATFORM, Ref
from ansible_collections.genai.platform.plugins.module_utils._occupied import occupied
from ansible_collections.genai.platform.plugins.module_utils._types import ResourceType
from fake import FakeCluster
from story import STATE, config, configmap, deploy, fail_when, just_before, kill_at, obj, tear_down

SPACE = obj("Namespace", "ns", None)
MORE = [
    ResourceType("", "v1", "ServiceAccount", "serviceaccounts", True),
    ResourceType("", "v1", "Event", "events", True),
    ResourceType("apps", "v1", "StatefulSet", "statefulsets", True),
    ResourceType("apps", "v1", "ControllerRevision", "controllerrevisions", True),
    ResourceType("coordination.k8s.io", "v1", "Lease", "leases", True),
    ResourceType("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True),
    ResourceType("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", True),
    ResourceType("packages.operators.coreos.com", "v1", "PackageManifest", "packagemanifests", True),
    ResourceType("operators.coreos.com", "v1alpha1", "ClusterServiceVersion", "clusterserviceversions", True),
    ResourceType("metrics.k8s.io", "v1beta1", "PodMetrics", "podmetrics", True),
    ResourceType("example.com", "v1", "Database", "databases", True),
    ResourceType("example.com", "v1", "Lease", "carleases", True),
]


@pytest.fixture
def cluster():
    made = FakeCluster()
    made.served += MORE
    made.make(SPACE)
    return made


def thing(kind, name="it", api="v1", **meta):
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "ns", **meta}, "data": {"x": "y"}}


def put(cluster, body):
    """Somebody else's object, with metadata that only the server writes."""
    cluster.make(body)
    cluster.objects[Ref.of(body)]["metadata"] |= body["metadata"]


OURS = {"labels": {LABEL_PLATFORM: "genai"}}
OWNED = {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pg", "uid": "u"}]}
BY_DATABASE = {"ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Database", "name": "pg", "uid": "u"}]}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (thing("Secret"), "it holds Secret ns/it, which is not ours"),
        (thing("ConfigMap"), "it holds ConfigMap ns/it, which is not ours"),
        (thing("ConfigMap", **OURS), "it holds ConfigMap ns/it, which is not ours"),  # somebody's copy of an object of ours
        (thing("ConfigMap", labels={LABEL_PLATFORM: "other"}), "it holds ConfigMap ns/it, which is not ours"),
        (thing("PersistentVolumeClaim"), "it holds 1 claims with data"),
        (thing("PersistentVolumeClaim", **OURS), "it holds 1 claims with data"),
        (thing("Database", api="example.com/v1"), "it holds Database ns/it, which is not ours"),
        (thing("Lease", api="example.com/v1"), "it holds Lease ns/it, which is not ours"),
        (thing("ServiceAccount", "somebody"), "it holds ServiceAccount ns/somebody, which is not ours"),
        (thing("RoleBinding", "somebody", api="rbac.authorization.k8s.io/v1"), "not ours"),
        (thing("ClusterServiceVersion", api="operators.coreos.com/v1alpha1"), "not ours"),
        (thing("Secret", ownerReferences=[{"apiVersion": "db.example.org/v1", "kind": "Instance", "name": "x", "uid": "u"}]), "Secret ns/it"),
    ],
)
def test_what_keeps_a_namespace(cluster, what, said):
    put(cluster, what)
    assert said in occupied(cluster, "ns", "genai")


@pytest.mark.parametrize(
    "what",
    [
        thing("ConfigMap", **OURS, managedFields=[{"manager": "genai.platform", "operation": "Apply", "fieldsV1": {"f:data": {}}}]),
        thing("Pod", **OWNED),
        thing("Secret", deletionTimestamp="2026-01-01T00:00:00Z"),
        thing("PersistentVolumeClaim", deletionTimestamp="2026-01-01T00:00:00Z"),
        thing("Secret", annotations={"kubernetes.io/service-account.name": "default"}),
        thing("ServiceAccount", "default"),
        thing("ConfigMap", "kube-root-ca.crt"),
        thing("Event"),
        thing("ControllerRevision", api="apps/v1"),
        thing("Lease", api="coordination.k8s.io/v1"),
        thing("EndpointSlice", api="discovery.k8s.io/v1"),
        thing("PodMetrics", api="metrics.k8s.io/v1beta1"),
        thing("ConfigMap", "openshift-service-ca.crt"),
        thing("RoleBinding", "system:deployers", api="rbac.authorization.k8s.io/v1"),
        thing("PackageManifest", api="packages.operators.coreos.com/v1"),
        thing("ClusterServiceVersion", api="operators.coreos.com/v1alpha1", labels={"olm.copiedFrom": "openshift-operators"}),
    ],
    ids=lambda what: f"{what['kind']} {what['metadata']['name']}",
)
def test_what_does_not(cluster, what):
    put(cluster, what)
    assert occupied(cluster, "ns", "genai") == ""


def test_claims_are_not_asked_about_where_the_data_goes_too(cluster):
    put(cluster, thing("PersistentVolumeClaim"))
    assert "PersistentVolumeClaim ns/it, which is not ours" in occupied(cluster, "ns", "genai", claims=False)
    assert occupied(cluster, "ns", "genai", {Ref("", "PersistentVolumeClaim", "ns", "it")}, claims=False) == ""


@pytest.mark.parametrize(
    ("forbidden", "holding", "said"),
    [
        ("secrets", None, "perhaps secrets (this identity may not list them)"),
        ("persistentvolumeclaims", None, "perhaps persistentvolumeclaims (this identity may not list them)"),
        ("databases", None, ""),
        ("databases", thing("Pod", **BY_DATABASE), "Pod ns/it"),
        ("statefulsets", thing("Service", **OWNED), "perhaps statefulsets"),
        ("leases", thing("Pod", **OWNED), ""),
    ],
)
def test_who_may_not_look_deletes_nothing_that_might_be_there(cluster, forbidden, holding, said):
    """What is owned by something of a kind that may not be listed is not known to be ours."""
    cluster.forbidden.add(forbidden)
    if holding:
        put(cluster, holding)
    found = occupied(cluster, "ns", "genai")
    assert said in found and bool(said) is bool(found)


# --- whoever asks ----------------------------------------------------------------------------------------------------

SECRET = thing("Secret", "theirs")


def test_an_undo_keeps_the_namespace_for_what_came_into_it(cluster):
    del cluster.objects[Ref("", "Namespace", "", "ns")]
    fail_when(cluster, STATE)
    just_before(cluster, STATE, lambda: cluster.make(SECRET))
    with pytest.raises(ReleaseFailed, match="1 kept: Namespace ns: it holds Secret ns/theirs"):
        deploy(cluster, {"app": [SPACE, config("one")]})
    assert Ref.of(SECRET) in cluster.objects and configmap("one") not in cluster.objects


@pytest.mark.parametrize("killed", [False, True])
def test_an_undo_keeps_it_for_what_has_a_name_of_ours_but_was_made_by_others(cluster, killed, monkeypatch):
    del cluster.objects[Ref("", "Namespace", "", "ns")]
    deploy(cluster, {"app": [obj("Namespace", "elsewhere", None)]})
    bundle = {"app": [obj("Namespace", "elsewhere", None), SPACE, config("one", ours="y"), config("two")]}
    just_before(cluster, "apply ConfigMap ns/one", lambda: cluster.make(config("one", theirs="x")))
    if killed:
        kill_at(cluster, monkeypatch, STATE, bundle)
        assert deploy(cluster, {"app": [obj("Namespace", "elsewhere", None)]})["repaired"]
    else:
        fail_when(cluster, STATE)
        with pytest.raises(ReleaseFailed, match="Namespace ns: it holds ConfigMap ns/one"):
            deploy(cluster, bundle)
    assert cluster.objects[configmap("one")]["data"] == {"theirs": "x"} and configmap("two") not in cluster.objects


def test_a_repair_keeps_it_for_what_the_killed_run_had_not_come_to(cluster, monkeypatch):
    del cluster.objects[Ref("", "Namespace", "", "ns")]
    deploy(cluster, {"app": [obj("Namespace", "elsewhere", None)]})
    kill_at(cluster, monkeypatch, "apply ConfigMap ns/one", {"app": [obj("Namespace", "elsewhere", None), SPACE, config("one", ours="y")]})
    cluster.make(config("one", theirs="x"))
    assert deploy(cluster, {"app": [obj("Namespace", "elsewhere", None)]})["repaired"]
    assert cluster.objects[configmap("one")]["data"] == {"theirs": "x"}


def test_a_teardown_keeps_it(cluster):
    del cluster.objects[Ref("", "Namespace", "", "ns")]
    deploy(cluster, {"app": [SPACE, config("one")]})
    cluster.make(SECRET)
    for data in (False, True):
        assert "Namespace ns: it holds Secret ns/theirs, which is not ours" in tear_down(cluster, data=data)["kept"]
    assert Ref.of(SECRET) in cluster.objects and configmap("one") not in cluster.objects


@pytest.mark.parametrize("before", [True, False], ids=["there before", "made by a platform"])
def test_to_forget_the_ledger_leaves_its_namespace_to_others(cluster, before):
    ledger = obj("Namespace", "genai-ledger", None)
    if before:
        cluster.make(ledger)
    deploy(cluster, {"app": [config("one")]})
    if not before:
        cluster.make(thing("Secret", "theirs", namespace="genai-ledger"))
    result = tear_down(cluster, forget=True)
    assert Ref.of(ledger) in cluster.objects and "stays" in result["ledger"][1]
    assert not any(ref.name.startswith("genai.") for ref in cluster.objects)


def test_a_ledger_namespace_that_holds_nothing_else_goes(cluster):
    deploy(cluster, {"app": [config("one")]})
    tear_down(cluster, forget=True)
    assert Ref("", "Namespace", "", "genai-ledger") not in cluster.objects


def test_a_failed_first_release_leaves_the_ledgers_namespace_to_another_platform(cluster):
    other = thing("Secret", "other.state", namespace="genai-ledger", labels={"genai.platform/ledger": "other"})
    fail_when(cluster, STATE)
    just_before(cluster, STATE, lambda: cluster.make(other))
    with pytest.raises(ReleaseFailed):
        deploy(cluster, {"app": [config("one")]})
    assert Ref.of(other) in cluster.objects
