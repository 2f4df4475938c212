# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import copy
import threading

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.apply import apply_plan
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, InvalidInput, NodesFailed, NotPermitted, PlatformError
from ansible_collections.genai.platform.plugins.module_utils.objects.fields import MANAGER, fieldset, leaves, path_text, removals, steps, subtree, union
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Desired, Ref
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.plan.drift import CHANGED, REPLICAS, Finding, findings
from ansible_collections.genai.platform.plugins.module_utils.plan.plan import UNCHANGED, UPDATE, Action, Plan
from ansible_collections.genai.platform.plugins.module_utils.upkeep import reconcile as _reconcile
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import _only, drift
from fake import FakeCluster
from story import config, configmap, deploy, fail_when, obj, releaser

REF = Ref("apps", "Deployment", "ns", "api")
API = 'k:{"name":"api"}'
OURS = {
    "f:metadata": {"f:labels": {"f:app": {}}},
    "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {API: {".": {}, "f:image": {}, "f:name": {}}}}}},
}


def entry(manager, fields, operation="Update", at="2026-01-01T00:00:00Z", **rest):
    return {"manager": manager, "operation": operation, "fieldsV1": fields, "time": at, **rest}


def deployment(*entries, replicas=2, image="api:1", labels=None, annotations=None, extra=(), **container):
    spec = {"containers": [*extra, {"name": "api", "image": image, "imagePullPolicy": "Always", **container}]}
    meta = {"name": "api", "namespace": "ns", "labels": labels or {"app": "api"}, "resourceVersion": "7"}
    meta |= {"annotations": annotations} if annotations else {}
    meta["managedFields"] = [entry(MANAGER, OURS, "Apply"), *entries]
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": replicas, "template": {"spec": spec}}}


RELEASED = deployment()


def image_by(manager, at="2026-01-01T00:00:00Z"):
    return entry(manager, {"f:spec": {"f:template": {"f:spec": {"f:containers": {API: {"f:image": {}}}}}}}, at=at)


def replicas_by(manager, **rest):
    return entry(manager, {"f:spec": {"f:replicas": {}}}, **rest)


def found(live, scaled=False, ignored=(), ref=REF):
    return [(f.kind, path_text(f.path), f.by.split()[0]) for f in findings(ref, "app", live, RELEASED, scaled, ignored)]


IMAGE = "spec.template.spec.containers[name=api].image"
SPY = 'k:{"name":"spy"}'
SPY_FIELDS = {"f:spec": {"f:template": {"f:spec": {"f:containers": {SPY: {".": {}, "f:name": {}, "f:image": {}}}}}}}
ENV_FIELDS = {"f:spec": {"f:template": {"f:spec": {"f:containers": {API: {"f:env": {".": {}, 'k:{"name":"A"}': {".": {}, "f:name": {}}}}}}}}}
LABEL_FIELDS = {"f:metadata": {"f:annotations": {".": {}, "f:team": {}}}}


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (RELEASED, []),
        (deployment(image_by("kubectl-set"), image="api:2"), [("changed", IMAGE, "kubectl-set")]),
        (deployment(image_by("old"), image_by("new", "2026-01-02T00:00:00Z"), image="api:2"), [("changed", IMAGE, "new")]),
        (deployment(labels={"other": "x"}), [("removed", "metadata.labels.app", "unknown")]),
        (deployment(entry("kubectl-edit", SPY_FIELDS), extra=[{"name": "spy", "image": "spy:1"}]),
         [("added", "spec.template.spec.containers[name=spy]", "kubectl-edit")]),
        (deployment(entry("kubectl-set", ENV_FIELDS), env=[{"name": "A"}]), [("added", "spec.template.spec.containers[name=api].env", "kubectl-set")]),
        (deployment(entry("kubectl-annotate", LABEL_FIELDS), annotations={"team": "x", "deployment.kubernetes.io/revision": "1"}),
         [("added", "metadata.annotations.team", "kubectl-annotate")]),
        (deployment(replicas_by("kubectl"), replicas=5), [("changed", "spec.replicas", "kubectl")]),
        (deployment(replicas_by("kube-controller-manager", subresource="scale"), replicas=5), []),
        (deployment(entry("kubelet", {"f:status": {"f:x": {}}}, subresource="status")), []),
        (deployment(entry("kube-controller-manager", LABEL_FIELDS), annotations={"team": "x"}), []),
        (deployment(entry("operator", {"f:metadata": {"f:finalizers": {".": {}, 'v:"x"': {}}}})), []),
        (deployment(entry("operator-7", LABEL_FIELDS), annotations={"team": "x"}), []),
        (deployment(entry("gone", LABEL_FIELDS)), []),
    ],
    ids=["nothing", "value", "last writer", "removed", "whole list item", "whole list", "one annotation", "replicas by hand",
         "replicas by an autoscaler", "status", "controller", "finalizer", "told to ignore", "owned but not there"],
)
def test_findings(live, said):
    assert found(live, ignored=("operator-*",)) == said


def test_replicas_are_nobodys_business_where_an_autoscaler_owns_them():
    assert found(deployment(replicas_by("kubectl"), replicas=5), scaled=True) == []


def test_no_replicas_at_all_are_drift_under_an_autoscaler_too():
    """Red where whatever the replicas are counts as the autoscaler's: at none, it is switched off."""
    live = deployment(replicas=0)
    look = [findings(REF, "app", live, RELEASED, True, least=least) for least in (2, 0)]
    assert [(f.kind, path_text(f.path), f.expected, f.found) for f in look[0]] == [("changed", "spec.replicas", 2, 0)] and look[1] == []
    assert findings(REF, "app", deployment(replicas=1), RELEASED, True, least=2) == []


@pytest.mark.parametrize(("finding", "held", "stripped"), [
    (Finding(REF, "app", "changed", REPLICAS, 2, 0), 2, ()),  # its autoscaler was switched off
    (Finding(REF, "app", "added", REPLICAS, found=3), None, (REPLICAS,)),  # by hand, where nobody released a number
])  # fmt: skip
def test_replicas_are_given_back_or_taken_out(finding, held, stripped):
    """Red where a number that was added counts as one that was expected: it has none."""
    body = {**RELEASED, "spec": {"template": RELEASED["spec"]["template"]}}
    action = Action(UNCHANGED, REF, "app", None, 0, Desired("app", REF, body, body, 0, ""), deployment(replicas=0))
    _only(Plan([action]), [finding])
    assert (action.verb, action.hold_replicas, action.strip) == (UPDATE, held, stripped)


def test_values_of_secrets_are_hidden_wherever_they_are():
    fields = {"f:data": {"f:key": {}}, "f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/last-applied-configuration": {}}, "f:labels": {"f:a": {}}}}
    meta = {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "c2VjcmV0"}, "labels": {"a": "b"}}
    live = {"kind": "Secret", "metadata": {**meta, "managedFields": [entry("kubectl", fields)]}, "data": {"key": "c2VjcmV0"}}
    hits = findings(Ref("", "Secret", "ns", "s"), "app", live, {"metadata": {}}, False)
    assert len(hits) == 3 and "c2VjcmV0" not in str([hit.facts() for hit in hits]) + str([hit.line() for hit in hits])


def test_removals_take_later_list_items_first_and_only_from_this_version():
    paths = [("f:l", 'v:"a"'), ("f:l", 'v:"c"'), ("f:m", "f:x/y"), ("f:gone",)]
    obj = {"l": ["a", "b", "c"], "m": {"x/y": 1}, "metadata": {"resourceVersion": "9"}}
    patch = removals(obj, paths)
    assert patch[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "9"}
    assert sorted(op["path"] for op in patch[1:]) == ["/l/0", "/l/2", "/m/x~1y"]
    assert [op["path"] for op in patch if op["path"].startswith("/l")] == ["/l/2", "/l/0"]
    assert removals(obj, [("f:gone",)]) == []


def test_fieldsets():
    paths = list(leaves(OURS))
    assert fieldset(paths) != OURS and sorted(leaves(fieldset(paths))) == sorted(paths)
    assert subtree(OURS, ("f:spec", "f:replicas", "f:below")) == {} and subtree(OURS, ("f:nothing",)) is None
    assert union({"f:a": {}}, {"f:a": {"f:b": {}}, "f:c": {}}) == {"f:a": {}, "f:c": {}}
    assert steps(copy.deepcopy(RELEASED), ("f:spec", "f:template", "f:spec", "f:containers", API, "f:image"))[-2:] == [0, "image"]


class Overtaken:
    """A cluster where a controller writes to the object just before each of the first `times` patches."""

    def __init__(self, obj, times, refusal=422):
        self.obj, self.times, self.refusal, self.patches = obj, times, refusal, []

    def each(self, function, items):
        return [function(item) for item in items]

    def apply(self, *_args):
        return copy.deepcopy(self.obj)

    def get(self, *_args):
        return copy.deepcopy(self.obj)

    def patch(self, _rtype, _namespace, _name, operations):
        self.patches.append(operations)
        meta = self.obj["metadata"]
        if len(self.patches) <= self.times:
            meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
            self.obj["spec"]["template"]["spec"]["containers"].insert(0, {"name": f"more-{len(self.patches)}"})
        if operations[0]["value"] != meta["resourceVersion"] or self.refusal != 422:
            raise ApiError("the server rejected our request due to an error in our request", self.refusal)
        return "patched"


def strip_of(cluster):
    path = ("f:spec", "f:template", "f:spec", "f:containers", SPY)
    desired = Desired("app", REF, RELEASED, RELEASED, 0, "")
    action = Action(UPDATE, REF, "app", ResourceType("apps", "v1", "Deployment", "deployments", True), 0, desired, cluster.obj, strip=(path,))
    return list(apply_plan(cluster, Plan([action]), "p", True, lambda _line: None, lambda: None, lambda _exc: False)[0].values())


def test_what_was_added_goes_although_controllers_write_meanwhile():
    cluster = Overtaken(deployment(extra=[{"name": "spy"}]), times=3)
    assert strip_of(cluster) == ["patched"]
    removed = [operations[1]["path"] for operations in cluster.patches]
    assert removed == [f"/spec/template/spec/containers/{position}" for position in range(4)]


@pytest.mark.parametrize(("times", "refusal"), [(99, 422), (0, 403)])
def test_a_patch_that_is_refused_for_good_is_an_error(times, refusal):
    cluster = Overtaken(deployment(extra=[{"name": "spy"}]), times, refusal)
    with pytest.raises(ApiError, match="Deployment ns/api"):
        strip_of(cluster)
    assert len(cluster.patches) == (10 if times else 1)


# --- the module, on a cluster where others are at it -----------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_who_may_not_write_is_told_what_is_missing(workers):
    """More objects than threads are refused at once: asking what is missing takes the same threads."""
    cluster = FakeCluster(workers=workers)
    deploy(cluster, {"app": [obj("Namespace", "ns", None), *(config(f"c{n}", a="1") for n in range(9))]})
    for number in range(9):
        cluster.edit(configmap(f"c{number}"), {"data": {"a": "2"}})
    cluster.allowed, apply, said = [], cluster.apply, []

    def refuse(*args, **options):
        if options.get("dry_run"):
            raise ApiError("configmaps is forbidden", 403)
        return apply(*args, **options)

    def look():
        try:
            drift(releaser(cluster), False, None, [])
        except NotPermitted as exc:
            said.append(exc.message)

    cluster.apply = refuse
    run = threading.Thread(target=look, daemon=True)
    run.start()
    run.join(20)
    assert not run.is_alive() and "patch configmaps in namespace ns" in said[0]


def test_what_another_platform_has_by_now_is_drift_and_not_taken_back():
    cluster = FakeCluster()
    deploy(cluster, {"app": [obj("Namespace", "ns", None), config("one", a="1"), config("two")]})
    cluster.objects.pop(configmap("one"))
    cluster.make(config("one", labels={"genai.platform/platform": "other"}, a="x"))
    assert len(drift(releaser(cluster), False, None, [])["drift"]) >= 2
    writes = list(cluster.writes)
    with pytest.raises(InvalidInput, match="ConfigMap ns/one belongs to platform other"):
        drift(releaser(cluster), True, None, [])
    assert cluster.writes == writes


def test_what_is_there_twice_is_named_once():
    """Others may add an item under a name that is taken: our fields are as they were, and the container gets the other value."""
    once = [{"name": "A", "value": "ours"}, {"name": "B", "value": "b"}]
    twice = [*once, {"name": "A", "value": "theirs"}]
    fields = {"f:spec": {"f:env": {f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}, "f:value": {}} for name in "AB"}}}
    others = {"f:spec": {"f:env": {'k:{"name":"A"}': {}}}}

    def body(env, *more):
        entries = [{"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}, *more]
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "ns", "managedFields": entries}, "spec": {"env": env}}

    by = {"manager": "kubectl-patch", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": others}
    found = findings(REF, "app", body(twice, by), body(once), False)
    assert [(f.kind, path_text(f.path), f.by, f.expected, f.found) for f in found] == [
        (CHANGED, "spec.env[name=A]", "kubectl-patch", once[0], [once[0], twice[2]])]
    assert findings(REF, "app", body(twice, by), body(twice), False) == [], "what the description itself has twice is no drift"


@pytest.mark.parametrize("refused", [False, True], ids=["objects are put back", "objects are refused, too"])
def test_nodes_that_cannot_be_written_leave_no_object_as_it_is(monkeypatch, refused):
    cluster = FakeCluster()
    deploy(cluster, {"app": [obj("Namespace", "ns", None), config("one", a="1")]})
    cluster.edit(configmap("one"), {"data": {"a": "by hand"}})

    def put_back(*_args):
        raise NodesFailed("1 of 1 nodes could not be written")

    monkeypatch.setattr(_reconcile, "node_findings", lambda *_args: [Finding(Ref("", "Node", "", "n"), "gpu_nodes", CHANGED, REPLICAS, 1, 2)])
    monkeypatch.setattr(_reconcile, "put_back", put_back)
    for _try in range(2 * refused):
        fail_when(cluster, "apply ConfigMap ns/one", ApiError("frozen", 403))
    with pytest.raises(PlatformError, match="nodes could not be written") as caught:
        drift(releaser(cluster), True, None, [])
    assert ("frozen" in caught.value.message) is refused
    assert cluster.objects[configmap("one")]["data"] == {"a": "by hand" if refused else "1"}
