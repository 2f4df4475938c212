# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Custom resources may have any shape, and be called like built-in kinds: nothing of ours takes them for those."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.upkeep import verify as _verify
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from fake import FakeCluster
from story import deploy, fail_when, obj, releaser, roll_back, tear_down

SPACE = obj("Namespace", "ns", None)
KINDS = ["Service", "Job", "StatefulSet", "HorizontalPodAutoscaler", "ScaledObject", "CustomResourceDefinition", "Secret", "ConfigMap", "Ingress"]
SHAPES = ["text", [], [1], None, {"replicas": "many"}, {"template": "x"}, {"scaleTargetRef": "x"}, {"selector": 1}, {"versions": 3}]
LOOKED_AT = [
    ResourceType("admissionregistration.k8s.io", "v1", f"{kind}WebhookConfiguration", f"{kind.lower()}webhookconfigurations", False)
    for kind in ("Mutating", "Validating")
] + [ResourceType("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_verify, "ENDPOINT_SECONDS", 0)


@pytest.mark.parametrize("field", ["spec", "data", "status"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_shape_of_anothers_kind_ends_in_a_traceback(kind, field):
    for shape in SHAPES:
        cluster = FakeCluster()
        cluster.served += [ResourceType("example.com", "v1", kind, f"{kind.lower()}s", True), *LOOKED_AT]
        one = {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "x", "namespace": "ns"}, field: shape}
        two, ref = {**one, "more": 1}, Ref("example.com", kind, "ns", "x")
        deploy(cluster, {"app": [SPACE, one]})
        assert deploy(cluster, {"app": [SPACE, one]})["changes"] == [] and drift(releaser(cluster), False, None, [])["drift"] == []
        assert _verify.verify(cluster, Ledger(cluster, "genai-ledger", "genai"), None, 0, lambda _line: None)["verdict"] == "healthy", shape
        deploy(cluster, {"app": [SPACE, two]}, diff=True)
        roll_back(cluster, diff=True)
        cluster.edit(ref, {"metadata": {"labels": {"genai.platform/component": "zzz"}}})
        assert drift(releaser(cluster, diff=True), True, None, [])["fixed"] == 1
        fail_when(cluster, f"apply {kind} ns/x", ApiError("refused, whatever it is", 422))
        with pytest.raises(ReleaseFailed, match="refused, whatever it is"):
            deploy(cluster, {"app": [SPACE, two]})
        tear_down(cluster)


def test_repairs_that_are_refused_push_out_no_release():
    """As a job of every night would make them: what there is to return to stays."""
    cluster = FakeCluster()
    for value in "12":
        deploy(cluster, {"app": [SPACE, obj("ConfigMap", "one", data={"a": value}), obj("ConfigMap", "two", data={"a": "1"})]}, keep=3)
    cluster.edit(Ref("", "ConfigMap", "ns", "two"), {"data": {"a": "by hand"}})
    for _night in range(5):
        cluster.edit(Ref("", "ConfigMap", "ns", "one"), {"data": {"a": "by hand"}})
        refused = "apply ConfigMap ns/two"
        for _try in range(2):
            fail_when(cluster, refused, ApiError("frozen", 403))
        with pytest.raises(ReleaseFailed, match="put back 1 objects, and 1 stay as they were") as caught:
            drift(releaser(cluster, keep=3), True, None, [])
        assert "frozen" in caught.value.message and cluster.objects[Ref("", "ConfigMap", "ns", "one")]["data"] == {"a": "2"}
        cluster._write = type(cluster)._write.__get__(cluster)  # what was left to fail
    assert roll_back(cluster, keep=3, force=True)["returns_to"] == 1
