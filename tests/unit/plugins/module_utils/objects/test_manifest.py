# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import contextlib
import datetime

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import (
    ANNOTATION_SOURCE,
    ANNOTATION_WAVE,
    LABEL_COMPONENT,
    Ref,
    prepare,
)
from hypothesis import given
from hypothesis import strategies as st


def configmap(name="one", **extra):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, **extra}


def workload(kind="Deployment", **spec):
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "one", "namespace": "ns"}, "spec": spec}


def with_meta(**meta):
    manifest = configmap()
    manifest["metadata"].update(meta)
    return manifest


BAD = [
    ("not a mapping", "text", "a manifest is a mapping"),
    ("no kind", {"apiVersion": "v1", "metadata": {"name": "x"}}, "kind is missing"),
    ("no apiVersion", {"kind": "ConfigMap", "metadata": {"name": "x"}}, "apiVersion is missing"),
    ("no metadata", {"apiVersion": "v1", "kind": "ConfigMap"}, "without metadata.name"),
    ("no name", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}, "without metadata.name"),
    ("name no string", with_meta(name=7), "not a valid Kubernetes name"),
    ("name with space", with_meta(name="a b"), "not a valid Kubernetes name"),
    ("label no string", with_meta(labels={"a": 1}), "metadata.labels.a is 1, where a text is needed: quote it"),
    ("annotation bool", with_meta(annotations={"a": True}), "metadata.annotations.a is True, where a text is needed: quote it"),
    ("labels a list", with_meta(labels=["a"]), "metadata.labels must be a mapping"),
    *((f"an autoscaler of {text}", workload("HorizontalPodAutoscaler", maxReplicas=2, **target), "spec.scaleTargetRef must be a mapping of strings")
      for text, target in {"nothing": {}, "null": {"scaleTargetRef": None}, "a list": {"scaleTargetRef": []},
                           "a number": {"scaleTargetRef": {"name": 1}}}.items()),
    ("NaN", configmap(data={"x": float("nan")}), "data.x is nan"),
    ("infinity", configmap(data={"x": [float("inf")]}), "data.x[0] is inf"),
    ("date", configmap(data={"x": datetime.date(2026, 1, 1)}), "data.x is a date"),
    ("key no string", configmap(data={1: "x"}), "has the key 1"),
    ("negative replicas", workload(replicas=-1), "spec.replicas is -1"),
    ("replicas as text", workload(replicas="3"), "spec.replicas is '3'"),
    ("replicas as bool", workload(replicas=True), "spec.replicas is True"),
    ("HPA min > max", workload("HorizontalPodAutoscaler", minReplicas=5, maxReplicas=2, scaleTargetRef={}), "1 <= min <= max"),
    # What YAML makes of yes, 22:30, 0123, a time and bytes that nobody has quoted.
    ("truth value in a ConfigMap", configmap(data={"on": True}), "data.on is True, where a text is needed: quote it"),
    ("truth value in an environment", workload(template={"spec": {"containers": [{"env": [{"name": "A", "value": True}]}]}}),
     "spec.template.spec.containers[0].env[0].value is True, where a text is needed: quote it"),
    ("number among arguments", workload(template={"spec": {"containers": [{"args": ["--port", 8080]}]}}), "args[1] is 8080, where a text"),
    ("number as a label of pods", workload(selector={"matchLabels": {"version": 1.1}}), "matchLabels.version is 1.1, where a text"),
    ("number in a Service's selector", workload("Service", selector={"version": 2}), "spec.selector.version is 2, where a text"),
    ("time", with_meta(annotations={"at": datetime.datetime(2031, 3, 25, 13, 37)}), "annotations.at is a time (2031-03-25 13:37:00), quote it"),
    ("bytes", configmap(data={"x": b"abc"}), "data.x is of type bytes (b'abc'), quote it"),
    ("secret as a number", {**configmap(data={"pin": 12345}), "kind": "Secret"}, "data.pin is a number, where a text is needed"),
    ("bad wave", with_meta(annotations={ANNOTATION_WAVE: "soon"}), "must be a whole number"),
    ("too large", configmap(data={"x": "y" * 2_000_000}), "split it"),
]


@pytest.mark.parametrize(("what", "manifest", "said"), BAD, ids=[row[0] for row in BAD])
def test_bad_manifest_is_named_with_its_component(what, manifest, said):
    with pytest.raises(InvalidInput) as caught:
        prepare({"app": [configmap("good"), manifest]}, "genai")
    assert said in caught.value.message
    assert "app, manifest 2" in caught.value.message


def test_all_errors_are_listed_at_once():
    with pytest.raises(InvalidInput) as caught:
        prepare({"app": [row[1] for row in BAD]}, "genai")
    # Bad name and bad wave of the same object also stand in each other's way as duplicates.
    assert len(caught.value.facts["errors"]) >= len(BAD)


def test_duplicates_are_named_with_both_components():
    with pytest.raises(InvalidInput, match="ConfigMap ns/one is in the bundle twice, first in a"):
        prepare({"a": [configmap()], "b": [configmap()]}, "genai")


@pytest.mark.parametrize("name", ["", "Upper", "1st", "with-dash", "x" * 60])
def test_component_names(name):
    with pytest.raises(InvalidInput, match="use a role name"):
        prepare({name: []}, "genai")


def test_the_template_is_named_in_errors_and_not_sent():
    manifest = with_meta(annotations={ANNOTATION_SOURCE: "roles/app/templates/x.yaml.j2"})
    item = next(iter(prepare({"app": [manifest]}, "genai").values()))
    assert item.source == "roles/app/templates/x.yaml.j2"
    assert "annotations" not in item.body["metadata"]
    with pytest.raises(InvalidInput, match="roles/app/templates/x.yaml.j2"):
        prepare({"app": [{**manifest, "apiVersion": ""}]}, "genai")


def test_preparing_labels_and_leaves_the_input_alone():
    manifest = configmap(data={"a": "b", "gone": None}, status={"x": 1})
    item = next(iter(prepare({"app": [manifest]}, "genai").values()))
    assert item.body["data"] == {"a": "b"} and "status" not in item.body
    assert item.body["metadata"]["labels"][LABEL_COMPONENT] == "app"
    assert "labels" not in manifest["metadata"]
    again = prepare({"app": [item.body]}, "genai")
    assert again[item.ref].body == item.body, "preparing twice is preparing once: the ledger stores prepared manifests"


def test_a_secrets_texts_are_refused_without_their_values():
    plain = {"enabled": True, "window": 1350, "hosts": ["very", "private"], "at": datetime.date(2031, 3, 25), "empty": None, "good": "text"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "stringData": plain}
    with pytest.raises(InvalidInput, match="stringData.at is a date, quote it"):
        prepare({"app": [secret]}, "genai")
    with pytest.raises(InvalidInput) as caught:
        prepare({"app": [{**secret, "stringData": {**plain, "at": "2031"}}]}, "genai")
    assert all(f"stringData.{key} is a {kind}" in caught.value.message for key, kind in (("enabled", "truth value"), ("window", "number"), ("hosts", "list")))
    assert not any(value in caught.value.message for value in ("True", "1350", "private", "stringData.empty", "stringData.good"))


def test_values_of_a_secret_of_another_group_are_not_shown_either():
    secret = {"apiVersion": "example.com/v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "data": {"at": b"private"}}
    with pytest.raises(InvalidInput, match="data.at is of type bytes, quote it"):
        prepare({"app": [secret]}, "genai")


def test_nulls_are_handed_on_but_not_where_we_read_them():
    made = {
        **workload(replicas=None, template={"spec": {"nodeSelector": {"disk": None}}}), "status": None,
    }
    made["metadata"] |= {"labels": {"team": None}, "annotations": None, "uid": "x"}
    item = next(iter(prepare({"app": [made]}, "genai").values()))
    assert item.sent["spec"] == {"template": {"spec": {"nodeSelector": {"disk": None}}}}, "a null for replicas would be a claim to them"
    assert item.body["spec"] == {"template": {"spec": {"nodeSelector": {}}}}
    assert item.sent["metadata"]["labels"]["team"] is None and {"annotations", "uid"}.isdisjoint(item.sent["metadata"])
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "stringData": {"a": None}, "data": {"b": None}}
    assert next(iter(prepare({"app": [secret]}, "genai").values())).sent["data"] == {"a": "", "b": None}


def test_documents_that_hold_nothing_and_lists_of_one_kind():
    listed = {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [
        {"metadata": {"name": "two", "namespace": "ns"}, "data": {"a": "2"}}, {**configmap("three"), "kind": "ConfigMap"}]}
    found = prepare({"app": [None, configmap("one"), listed, None, {"apiVersion": "v1", "kind": "List", "items": [configmap("four")]}]}, "genai")
    assert {str(ref) for ref in found} == {f"ConfigMap ns/{name}" for name in ("one", "two", "three", "four")}
    assert prepare({"app": [None], "other": []}, "genai") == {}


@pytest.mark.parametrize("name, right", [("system:node Bar_baz", True), ("a/b", False), ("..", False), ("50%", False)])
def test_names_in_rbac_are_what_the_api_server_takes(name, right):
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    with contextlib.nullcontext() if right else pytest.raises(InvalidInput, match="is not a valid Kubernetes name"):
        assert prepare({"app": [role]}, "genai")


def test_base64_may_have_line_breaks():
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "data": {"a": "aGVs\nbG8=\n"}}
    item = next(iter(prepare({"app": [secret]}, "genai").values()))
    assert item.sent["data"] == {"a": "aGVsbG8="}, "as whoever refuses it would quote it, so that it is known there"


def test_secret_strings_become_data():
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    item = next(iter(prepare({"app": [secret]}, "genai").values()))
    assert item.body["data"] == {"a": base64.b64encode(b"b").decode(), "c": "ZA=="} and "stringData" not in item.body


def test_replicas_belong_to_the_autoscaler_where_there_is_one():
    hpa = workload("HorizontalPodAutoscaler", minReplicas=2, maxReplicas=4, scaleTargetRef={"kind": "Deployment", "name": "one"})
    objects = prepare({"app": [workload(replicas=3), {**hpa, "apiVersion": "autoscaling/v2"}]}, "genai")
    assert "replicas" not in objects[Ref("apps", "Deployment", "ns", "one")].body["spec"]


def test_waves():
    objects = prepare({"app": [with_meta(annotations={ANNOTATION_WAVE: "-3"}), workload(replicas=1)]}, "genai")
    assert [item.wave for item in objects.values()] == [-3, 3]


MANIFESTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda leaf: st.lists(leaf, max_size=3)
    | st.dictionaries(
        st.sampled_from(["apiVersion", "kind", "metadata", "name", "namespace", "labels", "annotations", "spec", "data", "items"])
        | st.text(max_size=3)
        | st.integers(),
        leaf,
        max_size=5,
    ),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(["app", "other", "Bad"]), st.lists(MANIFESTS, max_size=3), max_size=3))
def test_whatever_comes_in_is_prepared_or_refused(bundle):
    try:
        for item in prepare(bundle, "genai").values():
            assert item.body["metadata"]["labels"][LABEL_COMPONENT] == item.component
    except InvalidInput as exc:
        assert exc.facts["errors"]


def test_a_refused_secret_does_not_show_its_value():
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "data": {"pin": "not base64: 12345"}}
    with pytest.raises(InvalidInput) as caught:
        prepare({"app": [secret]}, "genai")
    assert "data.pin" in caught.value.message and "12345" not in str(caught.value.facts) + caught.value.message


def test_a_webhook_comes_after_who_serves_it_and_before_what_it_judges():
    group = "admissionregistration.k8s.io/v1"
    bodies = [
        {"apiVersion": "example.com/v1", "kind": "Gauge", "metadata": {"name": "gauge", "namespace": "ns"}},
        {"apiVersion": group, "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "validates"}},
        {"apiVersion": group, "kind": "MutatingWebhookConfiguration", "metadata": {"name": "completes"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "server", "namespace": "ns"}, "spec": {}},
    ]
    waves = {ref.kind: item.wave for ref, item in prepare({"app": bodies}, "genai").items()}
    assert waves["Deployment"] < waves["MutatingWebhookConfiguration"] == waves["ValidatingWebhookConfiguration"] < waves["Gauge"]
