# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is read of the cluster before anything is decided: how, with how few rights, and in which version."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import observe as _observe
from ansible_collections.genai.platform.plugins.module_utils.engine.observe import observe, recorded_types
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_PLATFORM, Ref
from fake import TYPES, FakeCluster
from story import config, configmap, obj

KIND = {(rtype.api_version, rtype.kind): rtype for rtype in TYPES}
OURS = {LABEL_PLATFORM: "genai"}
HPA = Ref("autoscaling", "HorizontalPodAutoscaler", "ns", "web")


@pytest.fixture
def cluster():
    made = FakeCluster()
    for space in ("ns", "more"):
        made.make(obj("Namespace", space, None))
    return made


def record(*refs):
    return {"app": {"/".join(ref): ["x", "y"] for ref in refs}}


SPACE = Ref("", "Namespace", "", "ns")
SECRET = Ref("", "Secret", "ns", "key")


def secret(namespace):
    body = obj("Secret", "key", namespace, data={"p": "MQ=="})
    body["metadata"]["labels"] = OURS
    return body


def test_everything_recorded_or_wanted_is_found_whoever_made_it(cluster):
    cluster.make(config("ours", labels=OURS))
    cluster.make(config("bare"))
    cluster.make(config("theirs", labels={LABEL_PLATFORM: "other"}))
    cluster.make(config("nobody-asked"))
    names = ("ours", "bare", "gone")
    found = observe(cluster, "genai", record(*map(configmap, names)), {configmap("theirs"): KIND["v1", "ConfigMap"]})
    assert set(found) == {configmap("ours"), configmap("bare"), configmap("theirs")}


def test_a_kind_that_is_no_longer_served_is_left_out(cluster):
    cluster.served = [rtype for rtype in cluster.served if rtype.kind != "ConfigMap"]
    assert recorded_types(cluster, record(configmap("one"), SPACE)) == {SPACE: KIND["v1", "Namespace"]}
    assert set(observe(cluster, "genai", record(configmap("one"), SPACE))) == {SPACE}


@pytest.mark.parametrize("many", [3, _observe.MANY + 5])
def test_many_without_a_label_are_looked_for_by_a_list_of_names(cluster, many):
    refs = [configmap(f"c{number}") for number in range(many)]
    for ref in refs[::2]:
        cluster.make(config(ref.name))
    cluster.requests.clear()
    assert set(observe(cluster, "genai", record(*refs))) == set(refs[::2])
    assert cluster.requests["GET"] <= 2 + len(refs[::2]) + (many if many <= _observe.MANY else 0)


@pytest.mark.parametrize("may_list", [True, False])
def test_many_namespaces_are_looked_for_by_a_list_of_names(cluster, may_list):
    """Red where each is asked for: a first release of many namespaces is slower than it was."""
    names = [f"space-{number}" for number in range(_observe.ONE_BY_ONE + 3)]
    cluster.make(obj("Namespace", names[0], None))
    if not may_list:
        cluster.hidden.add("namespaces")
    wanted = {Ref("", "Namespace", "", name): KIND["v1", "Namespace"] for name in names}
    cluster.requests.clear()
    assert set(observe(cluster, "genai", {}, wanted)) == {Ref("", "Namespace", "", names[0])}
    assert cluster.requests["GET"] == 2 + (1 if may_list else len(names)), "two lists, and what is there or all"


def test_nothing_is_looked_for_in_a_namespace_that_is_not_there(cluster):
    space, inside = Ref("", "Namespace", "", "new"), configmap("one", "new")
    cluster.requests.clear()
    assert observe(cluster, "genai", {}, {space: KIND["v1", "Namespace"], inside: KIND["v1", "ConfigMap"]}) == {}
    assert cluster.requests["GET"] == 3, "two lists and the namespace"


@pytest.mark.parametrize("plural", ["configmaps", "namespaces"])
def test_who_may_not_list_everywhere_is_answered_all_the_same(cluster, plural):
    for space in ("ns", "more"):
        cluster.make(config("one", labels=OURS, namespace=space))
    cluster.hidden.add(plural)
    wanted = {configmap("one"), configmap("one", "more"), SPACE}
    assert set(observe(cluster, "genai", record(*wanted))) >= wanted


def test_secrets_of_other_namespaces_are_never_asked_for(cluster):
    asked, serve = [], cluster._serve
    cluster._serve = lambda method, path, *rest: asked.append(path) or serve(method, path, *rest)
    for space in ("ns", "more"):
        cluster.make(secret(space))
    assert len(observe(cluster, "genai", record(SECRET, SECRET._replace(namespace="more")))) >= 2
    assert "/api/v1/secrets" not in asked


def test_who_may_not_list_in_a_namespace_is_told_so(cluster):
    cluster.forbidden.add("configmaps")
    with pytest.raises(ApiError, match="configmaps is forbidden"):
        observe(cluster, "genai", record(configmap("one")))


def hpa(version):
    return {**obj("HorizontalPodAutoscaler", "web"), "apiVersion": f"autoscaling/{version}", "spec": {"maxReplicas": 3}}


@pytest.mark.parametrize("labels", [OURS, {}], ids=["found by its label", "found by its name"])
@pytest.mark.parametrize("applied", ["v1", "v2"])
@pytest.mark.parametrize("wanted", ["v1", "v2", None])
def test_an_object_is_read_in_the_version_that_we_applied_it_in(cluster, labels, applied, wanted):
    body = hpa(applied)
    body["metadata"]["labels"] = labels
    cluster.apply(KIND[body["apiVersion"], body["kind"]], body)
    asked = {HPA: KIND[f"autoscaling/{wanted}", HPA.kind]} if wanted else {}
    assert observe(cluster, "genai", record(HPA), asked)[HPA]["apiVersion"] == f"autoscaling/{applied}"


def test_what_was_applied_in_a_version_that_is_gone_is_read_in_another(cluster):
    body = hpa("v1")
    cluster.apply(KIND["autoscaling/v1", HPA.kind], body)
    cluster.served = [rtype for rtype in cluster.served if rtype.api_version != "autoscaling/v1"]
    assert observe(cluster, "genai", record(HPA))[HPA]["apiVersion"] == "autoscaling/v2"
