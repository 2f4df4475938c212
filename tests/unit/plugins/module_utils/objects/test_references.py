# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What names what: pure, and in the order of work on the cluster in memory."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.kinds import RBAC
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import ANNOTATION_SOURCE, Ref, cycles, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.references import GATEWAYS, ISTIO, missing_references, needed
from fake import FakeCluster
from hypothesis import given
from hypothesis import strategies as st


def obj(kind, name="one", api="v1", namespace="ns", **rest):
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


def pod(**spec):
    return obj("Pod", spec=spec)


def volume(**source):
    return pod(volumes=[{"name": "v", **source}])


def container(**fields):
    return pod(containers=[{"name": "main", **fields}])


def env(**source):
    return container(env=[{"name": "A", "value": "a"}, {"name": "B", "valueFrom": source}])


def binding(kind, role, namespace="ns"):
    return obj(kind, api=f"{RBAC}/v1", namespace=namespace, roleRef={"apiGroup": RBAC, "kind": role, "name": "r"})


def hpa(**target):
    return obj("HorizontalPodAutoscaler", api="autoscaling/v2", spec={"minReplicas": 1, "maxReplicas": 2, "scaleTargetRef": target})


def ingress(**spec):
    return obj("Ingress", api="networking.k8s.io/v1", spec=spec)


def route(**spec):
    return obj("HTTPRoute", api=f"{GATEWAYS}/v1", spec=spec)


def virtual(*gateways):
    return obj("VirtualService", api=f"{ISTIO}/v1", spec={"gateways": [*gateways], "http": [{"route": [{"destination": {"host": "x"}}]}]})


def templated(kind, api):
    return obj(kind, api=api, spec={"template": {"spec": {"serviceAccountName": "sa"}}})


def of(bundle):
    return prepare({"app": bundle}, "genai")


SECRET, CONFIG = Ref("", "Secret", "ns", "x"), Ref("", "ConfigMap", "ns", "x")
ACCOUNT = Ref("", "ServiceAccount", "ns", "sa")
BACKEND = {"service": {"name": "x"}}
NEEDED = [
    ("secret volume", volume(secret={"secretName": "x"}), "spec.volumes[0].secret.secretName", SECRET),
    ("config volume", volume(configMap={"name": "x"}), "spec.volumes[0].configMap.name", CONFIG),
    (
        "projected secret", volume(projected={"sources": [{"serviceAccountToken": {}}, {"secret": {"name": "x"}}]}),
        "spec.volumes[0].projected.sources[1].secret.name", SECRET,
    ),
    ("projected config", volume(projected={"sources": [{"configMap": {"name": "x"}}]}), "spec.volumes[0].projected.sources[0].configMap.name", CONFIG),
    (
        "claim", volume(persistentVolumeClaim={"claimName": "x"}),
        "spec.volumes[0].persistentVolumeClaim.claimName", Ref("", "PersistentVolumeClaim", "ns", "x"),
    ),
    ("secret in env", env(secretKeyRef={"name": "x", "key": "k"}), "spec.containers[0].env[1].valueFrom.secretKeyRef.name", SECRET),
    ("config in env", env(configMapKeyRef={"name": "x", "key": "k"}), "spec.containers[0].env[1].valueFrom.configMapKeyRef.name", CONFIG),
    ("secret as env", container(envFrom=[{"secretRef": {"name": "x"}}]), "spec.containers[0].envFrom[0].secretRef.name", SECRET),
    ("config as env", container(envFrom=[{"configMapRef": {"name": "x"}}]), "spec.containers[0].envFrom[0].configMapRef.name", CONFIG),
    (
        "init container", pod(initContainers=[{"envFrom": [{"secretRef": {"name": "x"}}]}]),
        "spec.initContainers[0].envFrom[0].secretRef.name", SECRET,
    ),
    ("optional is not true", volume(secret={"secretName": "x", "optional": False}), "spec.volumes[0].secret.secretName", SECRET),
    ("account", pod(serviceAccountName="sa"), "spec.serviceAccountName", ACCOUNT),
    ("priority", pod(priorityClassName="high"), "spec.priorityClassName", Ref("scheduling.k8s.io", "PriorityClass", "", "high")),
    *((kind, templated(kind, "apps/v1"), "spec.template.spec.serviceAccountName", ACCOUNT) for kind in ("Deployment", "StatefulSet", "DaemonSet")),
    ("ReplicaSet", templated("ReplicaSet", "apps/v1"), "spec.template.spec.serviceAccountName", ACCOUNT),
    ("Job", templated("Job", "batch/v1"), "spec.template.spec.serviceAccountName", ACCOUNT),
    (
        "CronJob", obj("CronJob", api="batch/v1", spec={"jobTemplate": {"spec": {"template": {"spec": {"serviceAccountName": "sa"}}}}}),
        "spec.jobTemplate.spec.template.spec.serviceAccountName", ACCOUNT,
    ),
    ("role", binding("RoleBinding", "Role"), "roleRef.name", Ref(RBAC, "Role", "ns", "r")),
    ("cluster role in a namespace", binding("RoleBinding", "ClusterRole"), "roleRef.name", Ref(RBAC, "ClusterRole", "", "r")),
    ("cluster role", binding("ClusterRoleBinding", "ClusterRole", ""), "roleRef.name", Ref(RBAC, "ClusterRole", "", "r")),
    ("scaled", hpa(apiVersion="apps/v1", kind="Deployment", name="x"), "spec.scaleTargetRef.name", Ref("apps", "Deployment", "ns", "x")),
    ("default backend", ingress(defaultBackend=BACKEND), "spec.defaultBackend.service.name", Ref("", "Service", "ns", "x")),
    (
        "backend", ingress(rules=[{"host": "h"}, {"http": {"paths": [{"backend": BACKEND}]}}]),
        "spec.rules[1].http.paths[0].backend.service.name", Ref("", "Service", "ns", "x"),
    ),
    ("gateway", route(parentRefs=[{"name": "g"}]), "spec.parentRefs[0].name", Ref(GATEWAYS, "Gateway", "ns", "g")),
    ("gateway elsewhere", route(parentRefs=[{"namespace": "infra", "name": "g"}]), "spec.parentRefs[0].name", Ref(GATEWAYS, "Gateway", "infra", "g")),
    ("behind it", route(rules=[{"backendRefs": [{"name": "x", "port": 80}]}]), "spec.rules[0].backendRefs[0].name", Ref("", "Service", "ns", "x")),
    ("gateway of Istio", virtual("mesh", "infra/g"), "spec.gateways[1]", Ref(ISTIO, "Gateway", "infra", "g")),
    ("gateway of Istio here", virtual("g"), "spec.gateways[0]", Ref(ISTIO, "Gateway", "ns", "g")),
]
NOT_NEEDED = [
    ("optional secret", volume(secret={"secretName": "x", "optional": True})),
    ("optional config in env", env(configMapKeyRef={"name": "x", "key": "k", "optional": True})),
    ("optional as env", container(envFrom=[{"secretRef": {"name": "x", "optional": True}}])),
    ("optional projected", volume(projected={"sources": [{"secret": {"name": "x", "optional": True}}]})),
    ("other volumes", volume(emptyDir={})),
    ("the cluster's own config", volume(configMap={"name": "kube-root-ca.crt"})),
    ("default account", pod(serviceAccountName="default")),
    ("system priority", pod(priorityClassName="system-node-critical")),
    ("pull secret", pod(imagePullSecrets=[{"name": "x"}])),
    ("scaled, version unknown", hpa(kind="Deployment", name="x")),
    ("a kind of others that is called Job", templated("Job", "batch.volcano.sh/v1alpha1")),
    ("odd shapes", pod(volumes={"a": 1}, containers=["x", {"env": "y", "envFrom": [7]}], initContainers=None, serviceAccountName=7)),
    ("no spec", obj("Deployment", api="apps/v1")),
    ("a mesh is no gateway", virtual("mesh")),
    ("in front of a Service", route(parentRefs=[{"group": "", "kind": "Service", "name": "x"}])),
    ("behind it something else", route(rules=[{"backendRefs": [{"group": "g", "kind": "Pool", "name": "x"}]}])),
    ("odd routes", obj("VirtualService", api=f"{ISTIO}/v1", spec={"gateways": [7, {"a": 1}]})),
]


@pytest.mark.parametrize(("what", "manifest", "path", "ref"), NEEDED, ids=[row[0] for row in NEEDED])
def test_needed(what, manifest, path, ref):
    desired = of([manifest])
    assert [(need.path, need.ref) for need in needed(desired.values())] == [(path, ref)]
    assert [need.ref for need in missing_references(desired)] == [ref]


@pytest.mark.parametrize(("what", "manifest"), NOT_NEEDED, ids=[row[0] for row in NOT_NEEDED])
def test_not_needed(what, manifest):
    assert needed(of([manifest]).values()) == []


def test_what_the_bundle_has_is_not_missing():
    desired = of([volume(secret={"secretName": "x"}), obj("Secret", "x"), obj("ConfigMap", "y", namespace="other")])
    assert len(needed(desired.values())) == 1 and missing_references(desired) == []


def test_the_same_name_elsewhere_is_missing():
    assert len(missing_references(of([volume(secret={"secretName": "x"}), obj("Secret", "x", namespace="other"), obj("ConfigMap", "x")]))) == 1


@pytest.mark.parametrize(("claim", "made"), [("data-db-0", True), ("data-db-12", True), ("data-db-x", False), ("data-db", False), ("log-db-0", False)])
def test_claims_of_a_statefulset_in_the_bundle(claim, made):
    database = obj("StatefulSet", "db", "apps/v1", spec={"volumeClaimTemplates": [{"metadata": {"name": "data"}}]})
    assert (missing_references(of([database, volume(persistentVolumeClaim={"claimName": claim})])) == []) is made


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(
        st.sampled_from(
            ["parentRefs", "backendRefs", "gateways",
             "template", "spec", "volumes", "secret", "secretName", "optional", "projected", "sources", "containers", "env", "valueFrom", "envFrom",
             "rules", "http", "paths", "scaleTargetRef", "apiVersion", "kind", "name", "volumeClaimTemplates", "metadata", "defaultBackend"]
        ),
        leaf, max_size=5,
    ),
    max_leaves=25,
)
KINDS = [("apps/v1", "StatefulSet"), ("v1", "Pod"), ("batch/v1", "CronJob"), ("networking.k8s.io/v1", "Ingress"), (f"{RBAC}/v1", "RoleBinding")]
KINDS += [(f"{GATEWAYS}/v1", "HTTPRoute"), (f"{ISTIO}/v1", "VirtualService")]


@given(st.sampled_from(KINDS), ODD, ODD)
def test_no_shape_is_too_odd(kind, spec, owners):
    manifest = obj(kind[1], api=kind[0], spec=spec, roleRef=spec, metadata={"ownerReferences": owners})
    try:
        desired = of([manifest])
    except InvalidInput:
        return
    missing_references(desired)


# --- owners -----------------------------------------------------------------------------------------------------------


def owned(name, *owners, namespace="ns"):
    references = [{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": "u"} for owner in owners]
    return obj("ConfigMap", name, namespace=namespace, metadata={"ownerReferences": references})


CIRCLES = [
    ("none", [owned("a", "b"), owned("b", "c"), owned("c")], []),
    ("owner elsewhere", [owned("a", "gone")], []),
    ("two ways up", [owned("a", "b", "c"), owned("b", "d"), owned("c", "d"), owned("d")], []),
    ("the same name in another namespace", [owned("a", "b"), owned("b", "a", namespace="other")], []),
    ("itself", [owned("a", "a")], [{"a"}]),
    ("two", [owned("a", "b"), owned("b", "a"), owned("c", "a")], [{"a", "b"}]),
    ("three and two", [owned("a", "b"), owned("b", "c"), owned("c", "a"), owned("x", "y", "a"), owned("y", "x")], [{"a", "b", "c"}, {"x", "y"}]),
]


@pytest.mark.parametrize(("what", "bundle", "found"), CIRCLES, ids=[row[0] for row in CIRCLES])
def test_circles_of_owners(what, bundle, found):
    if found:
        with pytest.raises(InvalidInput) as caught:
            of(bundle)
        assert len(caught.value.facts["errors"]) == len(found)
        assert all("ownerReferences go round in a circle" in text for text in caught.value.facts["errors"])
    else:
        of(bundle)


def test_a_circle_is_named_from_object_to_owner():
    manifests = [owned("a", "b"), owned("b", "c"), owned("c", "a")]
    manifests[0]["metadata"]["annotations"] = {ANNOTATION_SOURCE: "roles/app/templates/a.yaml.j2"}
    names = ["ConfigMap ns/a", "ConfigMap ns/b", "ConfigMap ns/c"]
    with pytest.raises(InvalidInput) as caught:
        of(manifests)
    text = caught.value.message
    assert any(" owned by ".join([*names[i:], *names[:i], names[i]]) in text for i in range(3)), text
    assert not cycles(of(manifests[1:]))


# --- in the order of work ---------------------------------------------------------------------------------------------

NAMESPACE = obj("Namespace", "ns", namespace=None)
POD = volume(secret={"secretName": "x"})
SOURCED = {**POD, "metadata": {**POD["metadata"], "annotations": {ANNOTATION_SOURCE: "roles/app/templates/pod.yaml.j2"}}}


@pytest.fixture
def cluster():
    return FakeCluster()


def releaser(cluster, **options):
    facts = {"by": "tester", "why": "", "commit": "", "profile": ""}
    chosen = Options("genai", **{"complete": True, "wait": False, **options}, facts=facts)
    return Releaser(cluster, Ledger(cluster, "genai-ledger", "genai"), chosen, lambda _line: None)


@pytest.mark.parametrize("check", [False, True])
def test_what_is_nowhere_is_refused_before_any_write(cluster, check):
    with pytest.raises(InvalidInput) as caught:
        releaser(cluster, check=check).deploy({"base": [NAMESPACE], "app": [SOURCED]})
    assert (
        "app (roles/app/templates/pod.yaml.j2): Pod ns/one: spec.volumes[0].secret.secretName names Secret ns/x, which is neither in the "
        "bundle nor in the cluster; fix the name, add it, or mark it optional"
    ) in caught.value.message
    assert cluster.writes == []


def test_what_others_made_is_found(cluster):
    # The namespace too: that it is "created" in this run does not mean that it is not there.
    cluster.make(NAMESPACE)
    cluster.make(obj("Secret", "x", data={"a": "MQ=="}))
    assert releaser(cluster).deploy({"base": [NAMESPACE], "app": [POD]})["release"] == 1


def test_it_can_be_switched_off(cluster):
    assert releaser(cluster, references=False).deploy({"base": [NAMESPACE], "app": [POD]})["release"] == 1


def test_what_the_release_itself_removes_is_missing(cluster):
    releaser(cluster).deploy({"base": [NAMESPACE], "app": [POD, obj("Secret", "x")]})
    writes = len(cluster.writes)
    with pytest.raises(InvalidInput, match="Secret ns/x, which this release removes"):
        releaser(cluster).deploy({"base": [NAMESPACE], "app": [POD]})
    assert len(cluster.writes) == writes
    releaser(cluster, prune=False).deploy({"base": [NAMESPACE], "app": [POD]})


def test_what_is_not_written_is_not_looked_at(cluster):
    bundle = {"base": [NAMESPACE], "app": [POD]}
    releaser(cluster, references=False).deploy(bundle)
    assert releaser(cluster).deploy(bundle)["changed"] is False


def test_a_rollback_does_not_look(cluster):
    releaser(cluster, references=False).deploy({"base": [NAMESPACE], "app": [POD]})
    releaser(cluster).deploy({"base": [NAMESPACE]})
    assert releaser(cluster).roll_back("previous", None)["release"] == 3


@pytest.mark.parametrize(("status", "accepted"), [(403, True), (500, False)])
def test_what_we_may_not_look_at_is_taken_for_there(cluster, monkeypatch, status, accepted):
    def get(rtype, namespace, name):
        if name == "x":
            raise ApiError("no", status)
        return FakeCluster.get(cluster, rtype, namespace, name)

    monkeypatch.setattr(cluster, "get", get)
    try:
        result = releaser(cluster).deploy({"base": [NAMESPACE], "app": [POD]})
    except ApiError:
        result = None
    assert bool(result) is accepted and bool(cluster.writes) is accepted
