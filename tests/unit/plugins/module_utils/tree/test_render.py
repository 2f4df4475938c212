# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pure half of rendering: which files there are, and what stands in them."""
from __future__ import annotations

import random
import re

import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import ANNOTATION_SOURCE, Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.tree.render import file_name, is_secret, render, to_yaml, top
from hypothesis import given
from hypothesis import strategies as st


def thing(kind="ConfigMap", name="one", api="v1", **extra):
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "ns"}, **extra}


SECRET = thing("Secret", stringData={"token": "hunter2"})
BUNDLE = {
    "inference_app": [thing(data={"a": "1"}), SECRET],
    "namespaces": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}],
}


def rendered(bundle, platform="genai", **options):
    return render(prepare(bundle, platform).values(), platform, **options)


def files(bundle, **options):
    return {path: text for paths in rendered(bundle, **options).components.values() for path, text in paths.items()}


NAMES = [
    (Ref("apps", "Deployment", "inference", "api"), "deployment_inference_api.yaml"),
    (Ref("", "Namespace", "", "inference"), "namespace_inference.yaml"),
    (Ref("", "Service", "a", "b"), "service_a_b.yaml"),
    (Ref("serving.knative.dev", "Service", "a", "b"), "service.serving.knative.dev_a_b.yaml"),
    (Ref("rbac.authorization.k8s.io", "ClusterRole", "", "system:Node"), "clusterrole_system%3a%4eode.yaml"),
    (Ref("", "../../etc", "a", "b"), "..%2f..%2fetc_a_b.yaml"),
    (Ref("x.io", "A_b~", "", "n"), "a%5fb%7e.x.io_n.yaml"),
]


@pytest.mark.parametrize(("ref", "name"), NAMES, ids=[row[1] for row in NAMES])
def test_names_of_files(ref, name):
    assert file_name(ref) == name


refs = st.builds(
    Ref, st.sampled_from(["apps", "a.io", "b.io"]), st.sampled_from(["Role", "Roles", "RoLe2", "Secret"]),
    st.sampled_from(["", "a", "a-b", "b"]), st.from_regex(r"[a-zA-Z0-9]([-a-zA-Z0-9.:]{0,260}[a-zA-Z0-9])?", fullmatch=True),
)


@given(st.lists(refs, unique=True, max_size=20))
def test_no_two_objects_share_a_file(found):
    names = [file_name(ref) for ref in found]
    # Kinds of one group differ in more than large and small letters, and those of Kubernetes itself in all its groups, or it is refused.
    assert len({name.lower() for name in names}) == len(found)
    assert all(len(name) < 256 and "/" not in name for name in names)


def test_the_files_of_a_bundle():
    assert list(files(BUNDLE)) == [
        "inference_app/configmap_ns_one.yaml", "inference_app/secret_ns_one.yaml", "inference_app/kustomization.yaml",
        "inference_app/.gitignore", "namespaces/namespace_ns.yaml", "namespaces/kustomization.yaml",
    ]


def test_bodies_are_those_of_the_release():
    bundle = {
        **BUNDLE,
        "web": [
            thing("Deployment", api="apps/v1", spec={"replicas": 3, "template": {"x": None}}),
            thing("HorizontalPodAutoscaler", api="autoscaling/v2", spec={
                "scaleTargetRef": {"kind": "Deployment", "name": "one"}, "minReplicas": 1, "maxReplicas": 2}),
            {"apiVersion": "v1", "kind": "List", "items": [thing("Service")]},
        ],
    }
    texts = files(bundle)
    for ref, item in prepare(bundle, "genai").items():
        assert yaml.safe_load(texts[f"{item.component}/{file_name(ref)}"]) == item.sent
    deployment = texts["web/deployment_ns_one.yaml"]
    assert "replicas" not in deployment and "genai.platform/component: web" in deployment
    assert "web/service_ns_one.yaml" in texts and "hunter2" not in "".join(texts.values())


def test_the_source_stands_in_a_comment_only():
    manifest = thing(data={})
    manifest["metadata"]["annotations"] = {ANNOTATION_SOURCE: "roles/x/templates/y.yaml.j2"}
    text = files({"x": [manifest]})["x/configmap_ns_one.yaml"]
    assert text.splitlines()[1] == "# Source: roles/x/templates/y.yaml.j2" and ANNOTATION_SOURCE not in text


def test_kustomizations_list_and_change_nothing():
    texts = {**files(BUNDLE), **top(["b", "a"], "genai")}
    assert yaml.safe_load(texts["inference_app/kustomization.yaml"]) == {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["configmap_ns_one.yaml", "secret_ns_one.yaml"],
    }
    assert yaml.safe_load(texts["kustomization.yaml"])["resources"] == ["a", "b"]


def test_secrets_stay_out_of_git():
    assert files(BUNDLE)["inference_app/.gitignore"].splitlines()[1:] == ["/secret_ns_one.yaml"]
    assert is_secret("inference_app/secret_ns_one.yaml") and not is_secret("secret_app/configmap_ns_secret_one.yaml")


def test_secrets_left_out():
    got = rendered(BUNDLE, secrets=False)
    assert got.left_out == ["Secret ns/one"]
    assert not [path for paths in got.components.values() for path in paths if "secret" in path or "gitignore" in path]
    assert "secret" not in got.components["inference_app"]["inference_app/kustomization.yaml"]


def test_a_component_of_nothing_has_no_files():
    """Kustomize takes no empty kustomization."""
    assert not rendered({"empty": []}).components
    assert not rendered({"only": [SECRET]}, secrets=False).components
    assert top([], "genai") == {}


def test_same_bytes_whatever_the_order():
    def shuffled(value, rnd):
        if isinstance(value, dict):
            return {key: shuffled(value[key], rnd) for key in rnd.sample(sorted(value), len(value))}
        return [shuffled(each, rnd) for each in value] if isinstance(value, list) else value

    def text(bundle):
        got = rendered(bundle)
        return [(name, list(paths.items())) for name, paths in got.components.items()]

    for seed in range(5):
        assert text(shuffled(BUNDLE, random.Random(seed))) == text(BUNDLE)


def annotated(key):
    manifest = thing()
    manifest["metadata"]["annotations"] = {key: "true"}
    return manifest


UNFIT = [
    ("local-config", [annotated("config.kubernetes.io/local-config")], "takes the annotation config.kubernetes.io/local-config for its own"),
    ("internal annotation", [annotated("internal.config.kubernetes.io/index")], "for its own"),
    ("kustomize's id", [annotated("config.k8s.io/id")], "for its own"),
    ("list", [thing("ConfigMapList", items=[])], "for a list"),
    ("merge key", [thing(data={"<<": "x"})], "the key '<<' in data"),
    ("long key", [thing(data={"k" * 1001: "x"})], "in data"),
    ("next line", [thing(data={"a": "x\x85y"})], "data.a: it holds the character '\\x85'"),
    ("delete", [thing(spec={"a": [{"b": "\x7f"}]})], "spec.a[0].b"),
    ("same file", [thing(kind="Thing", api="x.io/v1"), thing(kind="THING", api="x.io/v1")], "the same file as"),
]


@pytest.mark.parametrize(("what", "manifests", "said"), UNFIT, ids=[row[0] for row in UNFIT])
def test_what_kustomize_would_change_is_refused(what, manifests, said):
    with pytest.raises(InvalidInput, match="nothing was written") as caught:
        rendered({"app": manifests})
    assert said in caught.value.message and "app: " in caught.value.message


def test_every_error_is_named_at_once():
    with pytest.raises(InvalidInput) as caught:
        rendered({"a": [thing("Thing", data={"<<": "x", "y": "\x85"})], "b": [annotated("config.k8s.io/id")]})
    assert len(caught.value.facts["errors"]) == 3


@pytest.mark.parametrize("platform", ["a b", "a\n", "", "x" * 64])
def test_a_platform_that_is_no_label(platform):
    with pytest.raises(InvalidInput, match="cannot be the value of a label"):
        rendered({}, platform)


def test_the_value_of_a_secret_is_in_no_error():
    with pytest.raises(InvalidInput) as caught:
        rendered({"a": [thing("Secret", stringData={"hunter2\x85": "hunter3"}), annotated("config.k8s.io/id")]})
    assert "hunter3" not in str(caught.value) and "aHVudGVyMw" not in str(caught.value)


TEXTS = [
    "1e3", "0o14", "0x1f", "1_000", "017", "12:30:45", "2026-01-01", "2026-01-01T00:00:00Z", ".inf", ".NaN", "1.0", "-1", "+1", ".5", "100m", "1Gi",
    "y", "N", "yes", "NO", "on", "Off", "true", "FALSE", "null", "Null", "~", "", "=", "<<", "- a", "a: b", "a #b", "#a", "&a", "*a", "!a", "|", ">",
    "%a", "@a", "`a", "{a", "[a]", "'a'", '"a"', "---", "...", "?", ":", "-", "a\tb", "a ", " a", "a\n", "\na", "a\n\n", "\n", "  a\nb", "a\n  b\n",
    "a \nb", "a\r\nb", "é", "日本語\n😀", "\u2028", "\ufeffa", "x" * 500, "word " * 60, "C:\\x", "\\n", "{{ x }}", "#!/bin/sh\nset -e\n",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_text_stays_text(text):
    """What Go makes of it is tested with kubectl, in tests/render and tests/integration."""
    assert yaml.safe_load(to_yaml({"a": text, "b": [text, {text: text}]})) == {"a": text, "b": [text, {text: text}]}


@pytest.mark.parametrize("text", TEXTS[:31], ids=ascii)
def test_what_could_be_a_number_or_a_truth_is_quoted(text):
    assert to_yaml({"a": text}) == f'a: "{text}"\n'


@pytest.mark.parametrize(("text", "shown"), [
    ("plain words, not", 'a: "plain words, not"\n'), ("plain words", "a: plain words\n"), ("/a/b", "a: /a/b\n"),
    ("two\nlines\n", "a: |\n  two\n  lines\n"), ("two\nlines", "a: |-\n  two\n  lines\n"), ("日本語", 'a: "日本語"\n'),
])  # fmt: skip
def test_text_is_good_to_read(text, shown):
    assert to_yaml({"a": text}) == shown


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("other", ["\x85", "\u2028", "\u2029", "\r"])
@pytest.mark.parametrize("text", ["0\n{}0", "a{}\nb\n", "a\n{}", "{}\na"])
def test_lines_that_end_otherwise_survive(text, other):
    for obj in ({"a": text.format(other)}, {text.format(other): None}):
        assert yaml.safe_load(to_yaml(obj)) == obj


@given(st.dictionaries(st.text(), values, max_size=4))
def test_any_manifest_survives(obj):
    text = to_yaml(obj)
    assert yaml.safe_load(text) == obj
    assert not re.search("[&*]id0", text), "no anchors"
