# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine against input that nobody would think of: it refuses with an error of its own family or does as it says, and
what it says of itself (a plan carried out leaves nothing to do, a rollback brings the contents back) holds for any bundle."""
from __future__ import annotations

import base64
import contextlib
import copy
import itertools
import json
import typing as t

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.preview import change, object_diff
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import PlatformError
from ansible_collections.genai.platform.plugins.module_utils.objects import fields
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.masks import masked_pair
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType, group_kind
from ansible_collections.genai.platform.plugins.module_utils.plan.drift import findings
from ansible_collections.genai.platform.plugins.module_utils.plan.plan import CREATE, UNCHANGED, Plan, make_plan, resolve
from fake import TYPES, FakeCluster
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

Bundle = t.Dict[str, t.List[dict]]


def examples(number: int) -> settings:
    """Half as many examples as is thorough, so that `make check` stays quick; however slow the machine is."""
    return settings(max_examples=number // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


# --- what comes in ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "data", "name", "spec"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
LABELS = {"labels": {"app": "x"}, "annotations": {"genai.platform/wave": "2", "genai.platform/one-way": "adds a column"}}


def manifest(api: str, kind: str, namespaced: bool = True, **rest: t.Any) -> dict:
    meta = {"name": "one", **({"namespace": "ns"} if namespaced else {}), **LABELS}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 80}]}]}}
VALID = [
    manifest("v1", "Namespace", False),
    manifest("v1", "ConfigMap", data={"a": "b"}),
    manifest("v1", "Secret", data={"a": "YQ=="}, stringData={"b": "c"}),
    manifest("v1", "Service", spec={"ports": [{"port": 80}]}),
    manifest("apps/v1", "Deployment", spec={"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": TEMPLATE}),
    manifest("autoscaling/v2", "HorizontalPodAutoscaler", spec={
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "one"}, "minReplicas": 1, "maxReplicas": 2,
    }),
    manifest("batch/v1", "Job", spec={"ttlSecondsAfterFinished": 5, "template": TEMPLATE}),
    manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", False, spec={
        "group": "example.com", "scope": "Namespaced", "names": {"kind": "Lamp", "plural": "lamps"}, "versions": [{"name": "v1"}],
    }),
    manifest("example.com/v1", "Lamp", spec={"colour": "red"}),
]
ALL_TYPES = [
    *TYPES,
    ResourceType("apps", "v1", "Deployment", "deployments", True),
    ResourceType("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
    ResourceType("batch", "v1", "Job", "jobs", True),
    ResourceType("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False),
    ResourceType("example.com", "v1", "Lamp", "lamps", True),
]
SERVED = {(rtype.api_version, rtype.kind): rtype for rtype in ALL_TYPES}


def places(value: t.Any, path: tuple = ()) -> t.Iterator[tuple]:
    """The way to every value inside."""
    for key, sub in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(sub, (*path, key))


def at(value: t.Any, path: tuple) -> t.Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def semi_valid(draw: t.Callable) -> dict:
    """A manifest in which a few values are something else or gone."""
    found = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _round in range(draw(st.integers(0, 2))):
        *around, key = draw(st.sampled_from(sorted(places(found), key=str)))
        if draw(st.booleans()):
            at(found, tuple(around))[key] = draw(JSON)
        else:
            del at(found, tuple(around))[key]
        if not found:
            break
    return found


BROKEN_BUNDLES = st.dictionaries(st.sampled_from(["app", "base"]), st.lists(semi_valid() | JSON, max_size=4) | JSON, max_size=2)


# --- FieldsV1 --------------------------------------------------------------------------------------------------------

ELEMENTS = st.sampled_from(["f:a", "f:b", "f:spec", "f:items", 'k:{"name":"a"}', 'k:{"name":"b"}', 'v:"a"', 'v:"b"', "i:0", "i:1"])
TREES = st.recursive(st.just({}), lambda inner: st.dictionaries(ELEMENTS, inner, max_size=3), max_leaves=8)
DOTTED_TREES = st.recursive(st.just({}), lambda inner: st.dictionaries(ELEMENTS | st.just("."), inner, max_size=3), max_leaves=8)


def owned(value: t.Any) -> dict:
    """FieldsV1 of a manager that owns all of a value; lists of objects with names and of texts are taken by item."""
    if isinstance(value, dict) and value:
        return {".": {}, **{f"f:{key}": owned(sub) for key, sub in value.items()}}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return {"k:" + json.dumps({"name": item["name"]}): owned(item) for item in value}
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return {"v:" + json.dumps(item): {} for item in value}
    return {}


def live_of(body: dict, *entries: dict) -> dict:
    """What a server would have after `body` was applied, and others wrote what `entries` say."""
    live = copy.deepcopy(body)
    meta = {key: sub for key, sub in body["metadata"].items() if key in ("labels", "annotations")}
    mine = {key: sub for key, sub in {**body, "metadata": meta}.items() if key not in ("apiVersion", "kind") and (key != "metadata" or meta)}
    tree = {f"f:{key}": owned(sub) for key, sub in mine.items()}
    applied = {"manager": fields.MANAGER, "operation": "Apply", "fieldsV1": tree}
    live["metadata"].update(uid="1", resourceVersion="7", creationTimestamp="2026-01-01T00:00:00Z", managedFields=[applied, *entries])
    return live


LEAF = st.booleans() | st.integers(-9, 9) | st.text("xyz", max_size=3)
VALUES = st.recursive(
    LEAF | st.lists(st.text("xyz/~", min_size=1, max_size=3), min_size=1, max_size=3, unique=True),
    lambda inner: st.dictionaries(st.sampled_from(["p", "q", "r/s", "t~u"]), inner, max_size=3) | st.lists(
        st.builds(lambda name, sub: {"name": name, "p": sub}, st.sampled_from(["x", "y", "z"]), inner), max_size=3, unique_by=lambda item: item["name"],
    ),
    max_leaves=10,
)
BODIES = st.builds(
    lambda spec, labels: {"apiVersion": "example.com/v1", "kind": "Lamp", "metadata": {"name": "one", "namespace": "ns", **labels}, "spec": spec},
    st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3),
    st.sampled_from([{}, {"labels": {"app": "x"}}, {"annotations": {"note": "x", "a/b~c": "y"}}]),
)
ENTRIES = st.builds(
    lambda manager, tree, operation, rest: {"manager": manager, "operation": operation, "fieldsV1": tree, **rest},
    st.sampled_from(["kubectl", "kube-controller-manager", fields.MANAGER, fields.REPLICAS_MANAGER]),
    st.builds(lambda spec: {"f:spec": spec}, DOTTED_TREES) | DOTTED_TREES,
    st.sampled_from(["Apply", "Update"]),
    st.sampled_from([{}, {"time": "2026-01-01T00:00:00Z"}, {"subresource": "scale"}, {"subresource": "status"}]),
)


def with_additions(value: t.Any) -> t.Any:
    """What others add around a value: a field in every object, an item in front of every list with keys."""
    if isinstance(value, dict) and value:
        return {"theirs": 1, **{key: with_additions(sub) for key, sub in value.items()}}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [{"name": "theirs"}, *map(with_additions, value)]
    if isinstance(value, list) and value:
        return ["theirs", *value]
    return value


@examples(200)
@given(DOTTED_TREES, DOTTED_TREES)
def test_union_is_a_union(left, right):
    both = fields.union(left, right)
    assert both == fields.union(right, left) == fields.union(both, left) == fields.union(both, both)
    assert fields.union(left, left) == left
    for path in fields.leaves(left):
        assert fields.subtree(both, path) is not None, "what either names, both name"


@examples(200)
@given(TREES)
def test_leaves_and_fieldset_are_inverse(tree):
    paths = list(fields.leaves(tree))
    assert list(fields.leaves(fields.fieldset(paths))) == paths and fields.fieldset(paths) == tree
    assert not any(one == other[: len(one)] for one, other in itertools.permutations(paths, 2)), "none is inside another"
    for path in paths:
        assert fields.subtree(tree, path) == {} and fields.subtree(tree, (*path, "f:deeper")) == {}
        assert fields.subtree(tree, (*path[:-1], "f:not there")) is None


@examples(150)
@given(JSON, DOTTED_TREES)
def test_any_tree_on_any_value(value, tree):
    """A tree may name what is no longer there, or what is of another shape by now."""
    part = fields.project(value, tree)
    assert fields.fingerprint(part) == fields.fingerprint(fields.project(value, tree))
    assert fields.fingerprint(value) == fields.fingerprint(json.loads(json.dumps(value)))
    assert all(isinstance(path, str) for path in fields.changed_paths(value, part))
    for path in fields.leaves(tree):
        fields.path_text(path)
        found = fields.steps(value, path)
        assert (fields.value_at(value, path) is fields.ABSENT) is (found is None)


@examples(150)
@given(BODIES)
def test_what_is_ours_is_found_among_what_others_added(body):
    live = live_of(body)
    assert fields.before_image(live) == body, "all of it was ours"
    live["spec"] = with_additions(body["spec"]) if body["spec"] else {}
    image = fields.before_image(live)
    assert image == body and fields.before_image(live_of(image)) == image
    assert fields.applied_fingerprint(live) == fields.fingerprint(body)


@examples(100)
@given(BODIES, BODIES, st.lists(ENTRIES, max_size=3), DOTTED_TREES)
def test_images_take_only_what_is_there(body, desired, entries, also):
    live = live_of(body, *entries)
    before = copy.deepcopy(live)
    forced = fields.before_image_forced(live, desired, also)
    for image in (fields.before_image(live), fields.before_image(live, also), forced, *(image for _by, image in fields.images_of_others(live))):
        assert fields.identity(image) == fields.identity(live) and "managedFields" not in json.dumps(sorted(image))
    for key in {*desired["spec"]} & {*live["spec"]}:
        assert key in forced["spec"]
    assert live == before, "nothing is changed by looking"


def patched(obj: dict, operations: list[dict]) -> dict:
    """JSON Patch as far as we send it."""
    found = copy.deepcopy(obj)
    for operation in operations:
        *around, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        target: t.Any = found
        for step in around:
            target = target[int(step) if isinstance(target, list) else step]
        if operation["op"] == "test":
            assert target[last] == operation["value"]
        else:
            del target[int(last) if isinstance(target, list) else last]
    return found


@examples(150)
@given(BODIES, st.data())
def test_a_patch_removes_what_it_names_and_nothing_else(body, data):
    live = live_of(body)
    paths = [path for path in fields.leaves(fields.owned_fields(live)) if path[-1] not in ("f:name", "f:metadata")]
    gone = data.draw(st.lists(st.sampled_from(paths), unique=True, max_size=5)) if paths else []
    after = patched(live, fields.removals(live, gone))
    for path in paths:
        expected = fields.ABSENT if path in gone else fields.value_at(live, path)
        assert fields.value_at(after, path) == expected, fields.path_text(path)


# --- drift -----------------------------------------------------------------------------------------------------------

REF = Ref("example.com", "Lamp", "ns", "one")


@examples(100)
@given(BODIES, st.data())
def test_an_edit_is_found_where_it_was_made(body, data):
    expected = live_of(body)
    assert findings(REF, "app", expected, expected, False) == []
    paths = [path for path in fields.leaves(fields.owned_fields(expected)) if path[-1][:2] == "f:" and path[-1] != "f:name"]
    assume(paths)
    path = data.draw(st.sampled_from(paths))
    live = copy.deepcopy(expected)
    *around, last = fields.steps(live, path) or []
    at(live, tuple(around))[last] = "edited"
    assert [(found.kind, found.path) for found in findings(REF, "app", live, expected, False)] == [("changed", path)]


@examples(100)
@given(BODIES, BODIES, st.lists(ENTRIES, max_size=3), st.booleans())
def test_findings_can_be_said_and_hide_secrets(body, live_body, entries, scaled):
    ref = Ref("", "Secret", "ns", "one")
    live = live_of({**live_body, "spec": {**live_body["spec"], "a": "hush-live"}}, *entries)
    expected = live_of({**body, "spec": {**body["spec"], "a": "hush-expected"}})
    for found in findings(ref, "app", live, expected, scaled, ["kubectl*"]):
        assert "hush" not in found.line() + json.dumps(found.facts())


# --- Secrets ---------------------------------------------------------------------------------------------------------

PASSWORDS = st.builds(lambda number: base64.b64encode(f"hush-{number:06}".encode()).decode(), st.integers(0, 9))
SECRET_DATA = st.dictionaries(NAMES, PASSWORDS, max_size=4)
HUSH = base64.b64encode(b"hush").decode()[:5]


def secret(data: dict) -> dict:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one", "namespace": "ns"}, "data": data}


@examples(150)
@given(SECRET_DATA, SECRET_DATA, st.sampled_from(["both", "created", "deleted"]))
def test_a_secret_shows_which_keys_differ_and_no_value(was, now, case):
    old, new = ({} if case == "created" else secret(was)), ({} if case == "deleted" else secret(now))
    shown_old, shown_new = masked_pair(old, new)
    assert HUSH not in json.dumps([shown_old, shown_new])
    assert {*(shown_old.get("data") or {})} == {*(old.get("data") or {})} and {*(shown_new.get("data") or {})} == {*(new.get("data") or {})}
    if case == "both":
        assert (shown_old == shown_new) is (was == now)


# --- bad bundles -----------------------------------------------------------------------------------------------------


@examples(400)
@given(semi_valid(), BROKEN_BUNDLES, st.booleans())
def test_a_bundle_is_refused_or_planned_and_shown(one, rest, forced):
    """Whatever passes the checks can be planned, and explained to people, before the server is asked."""
    bundle = {**rest, "extra": [one]}
    before = copy.deepcopy(bundle)
    with contextlib.suppress(PlatformError):
        desired = prepare(bundle, "genai")
        resolved = resolve(desired, SERVED)
        plans = [
            make_plan(desired, resolved, live, {}, {"app", "base", "extra"}, group_kind(ALL_TYPES))
            for live in ({}, {ref: live_of(item.body) for ref, item in desired.items()})
        ]
        assert {action.verb for action in plans[0].actions} <= {CREATE}
        for plan in plans:
            show(plan, forced)
        recorded(plans[1])
    assert repr(bundle) == repr(before), "what came in is left alone"


def show(plan: Plan, forced: bool) -> None:
    """Everything that is said about a plan."""
    for action in plan.actions:
        action.forced = forced
        json.dumps([change(action, None), object_diff(action, None), action.before])
        assert action.ref.kind != "Secret" or not leaks(action.desired.body if action.desired else {}, object_diff(action, None)["after"])
    assert plan.waves() and plan.summary() or not plan.actions


def leaks(body: dict, text: str) -> bool:
    return any(len(value) > 7 and value in text for value in (body.get("data") or {}).values())


def recorded(plan: Plan) -> None:
    """Planning once more with the record of what was applied finds nothing to do."""
    record = plan.record({action: action.live for action in plan.actions if action.live}, {}, {"app", "base", "extra"})
    desired = {action.ref: action.desired for action in plan.actions if action.desired}
    resolved = {action.ref: (action.rtype, "") for action in plan.actions}
    live = {action.ref: action.live for action in plan.actions if action.live}
    again = make_plan(desired, resolved, live, record, set(), {})
    assert {action.verb for action in again.actions} <= {UNCHANGED}


# --- whole releases --------------------------------------------------------------------------------------------------

COMPONENTS = ["app", "base", "data", "more"]
CONTENTS = st.dictionaries(NAMES, LEAF | st.none() | st.dictionaries(NAMES, LEAF, max_size=2), max_size=3)


def content(kind: str, found: dict, password: str) -> dict:
    """Contents that the kind may have."""
    if kind == "Secret":
        return {"data": {"key": password}} if found else {"stringData": {"key": "plain"}}
    return {"data": {key: json.dumps(value) for key, value in found.items()}} if kind == "ConfigMap" else {"spec": found}


@st.composite
def bundles(draw: t.Callable) -> Bundle:
    """A valid bundle: objects in one or two namespaces that it creates itself, dealt out to components."""
    kinds = [rtype.kind for rtype in TYPES if rtype.namespaced and rtype.api_version == "v1"]
    keys = draw(st.lists(st.tuples(st.sampled_from(kinds), st.sampled_from(["n1", "n2"]), st.sampled_from(["x", "y", "z"])), unique=True, max_size=7))
    objects = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": ns}, **content(kind, draw(CONTENTS), draw(PASSWORDS))}
        for kind, ns, name in keys
    ]
    spaces = {ns for _kind, ns, _name in keys} | {"n1"}
    labels = st.sampled_from([{}, {"a": "b"}])
    objects += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns, "labels": draw(labels)}} for ns in sorted(spaces)]
    found: Bundle = {}
    for item in objects:
        found.setdefault(draw(st.sampled_from(COMPONENTS)), []).append(item)
    return found


def releaser(cluster: FakeCluster, **options: t.Any) -> Releaser:
    facts = {"by": "tester", "why": "", "commit": "", "profile": ""}
    chosen = Options("genai", **{"complete": True, "max_deleted": "100%", "prune_protected": True, "diff": True, "wait": False, **options}, facts=facts)
    return Releaser(cluster, Ledger(cluster, "genai-ledger", "genai"), chosen, lambda _line: None)


def deploy(cluster: FakeCluster, bundle: Bundle, **options: t.Any) -> dict:
    return releaser(cluster, **options).deploy(copy.deepcopy(bundle))


@examples(60)
@given(bundles(), bundles())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(one, other):
    cluster = FakeCluster()
    for bundle in (one, other):
        before = cluster.contents()
        preview = deploy(cluster, bundle, check=True)
        assert cluster.contents() == before
        done = deploy(cluster, bundle)
        assert [(c["action"], c["kind"], c["name"]) for c in preview["changes"]] == [(c["action"], c["kind"], c["name"]) for c in done["changes"]]
        again = deploy(cluster, bundle)
        assert (again["changed"], again["changes"], again["release"]) == (False, [], done["release"])
        assert {*cluster.contents()} == {str(ref) for ref in prepare(bundle, "genai")}
        assert HUSH not in json.dumps([preview, done, again])


@examples(60)
@given(bundles(), bundles(), st.booleans())
def test_a_rollback_brings_the_contents_back(one, other, by_number):
    cluster = FakeCluster()
    first = deploy(cluster, one)["release"]
    contents = cluster.contents()
    changed = deploy(cluster, other)["changed"]
    elsewhere = cluster.contents()
    assume(changed)
    assert releaser(cluster).roll_back(str(first) if by_number else "previous", None)["changed"]
    assert cluster.contents() == contents and deploy(cluster, one)["changed"] is False
    releaser(cluster).roll_back(str(first + 1), None)
    assert cluster.contents() == elsewhere


@examples(60)
@given(bundles(), bundles(), st.integers(0, 30))
def test_a_failure_at_any_write_restores_the_contents(one, other, k):
    cluster = FakeCluster()
    deploy(cluster, one, prune_protected=False)
    contents = cluster.contents()
    assume(not any(item["kind"] in ("PersistentVolumeClaim", "Namespace") for item in itertools.chain(*other.values()) if unknown(item, contents)))
    cluster.fail_at = len(cluster.writes) + k
    with contextlib.suppress(PlatformError):
        deploy(cluster, other, prune_protected=False)
    # The last write closes the journal of a release that is recorded by then; every other failure undoes it.
    if releaser(cluster).ledger.load()[0].deployed["number"] == 1:
        assert cluster.contents() == contents and deploy(cluster, one, prune_protected=False)["changed"] is False


def unknown(item: dict, contents: dict) -> bool:
    """Whether this would be a new object; new data is kept by design, and its namespace with it."""
    return str(Ref.of(item)) not in contents


def in_components(cluster: FakeCluster, component: str) -> dict:
    return {name: found for name, found in cluster.contents().items() if found["labels"]["genai.platform/component"] == component}


@examples(60)
@given(bundles(), st.permutations(COMPONENTS))
def test_components_can_be_deployed_one_by_one(bundle, order):
    """In any order that makes namespaces first, the end is that of one deployment of all of them."""
    whole, parts = FakeCluster(), FakeCluster()
    deploy(whole, bundle)
    namespaces = [item for item in itertools.chain(*bundle.values()) if item["kind"] == "Namespace"]
    rest = {name: [item for item in items if item["kind"] != "Namespace"] for name, items in bundle.items()}
    deploy(parts, {"first": namespaces})
    for name in order:
        others = {other: in_components(parts, other) for other in order if other != name}
        deploy(parts, {name: rest.get(name, [])}, complete=False)
        assert others == {other: in_components(parts, other) for other in others}
    plain = {name: found for name, found in whole.contents().items() if not name.startswith("Namespace")}
    assert {name: found for name, found in parts.contents().items() if not name.startswith("Namespace")} == plain


@pytest.mark.parametrize("order", [("app", "more"), ("more", "app")])
def test_an_object_moves_between_components(order):
    """Each side of the move can be deployed first."""
    cluster = FakeCluster()
    base = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}]
    moved, stays = ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {}} for name in ("moved", "stays"))
    deploy(cluster, {"base": base, "app": [moved, stays], "more": []})
    after = {"app": [stays], "more": [moved]}
    for name in order:
        deploy(cluster, {name: after[name]}, complete=False)
    assert {"ConfigMap ns/moved", "ConfigMap ns/stays"} < {*cluster.contents()}
