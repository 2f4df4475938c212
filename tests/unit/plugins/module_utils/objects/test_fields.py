# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The managed-fields functions, against objects as a real API server returned them (shortened)."""
from __future__ import annotations

import json

import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects import fields
from hypothesis import given
from hypothesis import strategies as st

LIVE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "api",
        "namespace": "ns",
        "uid": "1",
        "labels": {"ours": "1", "theirs": "2"},
        "managedFields": [
            {
                "manager": "genai.platform",
                "operation": "Apply",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:ours": {}}},
                    "f:spec": {
                        "f:selector": {},
                        "f:template": {
                            "f:spec": {
                                "f:containers": {
                                    'k:{"name":"api"}': {
                                        ".": {},
                                        "f:image": {},
                                        "f:name": {},
                                        "f:ports": {
                                            'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                                        },
                                    }
                                }
                            }
                        },
                    },
                },
            },
            {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {}}},
        ],
    },
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "api"}},
        "template": {
            "spec": {
                "containers": [
                    {"name": "sidecar", "image": "other"},
                    {
                        "name": "api",
                        "image": "api:1",
                        "imagePullPolicy": "Always",
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    },
                ]
            }
        },
    },
    "status": {"replicas": 3},
}


def test_before_image_is_what_we_own_and_nothing_else():
    assert fields.before_image(LIVE) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "api", "namespace": "ns", "labels": {"ours": "1"}},
        "spec": {
            "selector": {"matchLabels": {"app": "api"}},
            "template": {
                "spec": {"containers": [{"name": "api", "image": "api:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}
            },
        },
    }


def test_an_object_we_own_nothing_of_leaves_only_its_identity():
    foreign = {**LIVE, "metadata": {**LIVE["metadata"], "managedFields": []}}
    assert fields.before_image(foreign) == fields.identity(LIVE)


def _edited(change):
    copy = json.loads(json.dumps(LIVE))
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("what", "change", "drift"),
    [
        ("our image edited", lambda o: o["spec"]["template"]["spec"]["containers"][1].update(image="api:2"), True),
        ("our label removed", lambda o: o["metadata"]["labels"].pop("ours"), True),
        ("our container removed", lambda o: o["spec"]["template"]["spec"]["containers"].pop(1), True),
        ("our field taken over", lambda o: o["metadata"]["managedFields"][0]["fieldsV1"].pop("f:metadata"), True),
        ("replicas set by an autoscaler", lambda o: o["spec"].update(replicas=9), False),
        ("a foreign label", lambda o: o["metadata"]["labels"].update(theirs="3"), False),
        ("status", lambda o: o["status"].update(replicas=1), False),
        ("a defaulted field", lambda o: o["spec"]["template"]["spec"]["containers"][1].update(imagePullPolicy="Never"), False),
    ],
)
def test_fingerprint_changes_with_our_fields_only(what, change, drift):
    assert (fields.applied_fingerprint(_edited(change)) != fields.applied_fingerprint(LIVE)) is drift, what


def test_forced_before_image_also_holds_what_is_taken_from_others():
    desired = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"}, "spec": {"replicas": 5}}
    assert fields.before_image_forced(LIVE, desired)["spec"]["replicas"] == 3
    assert "replicas" not in fields.before_image(LIVE)["spec"]


def test_set_and_position_elements():
    assert fields.project(["a", "b", "c"], {'v:"c"': {}, 'v:"a"': {}, 'v:"gone"': {}}) == ["a", "c"]
    assert fields.project(["a", "b"], {"i:1": {}}) == ["b"]
    owners = [{"uid": "1", "kind": "Job", "name": "a"}, {"uid": "2", "kind": "Job", "name": "b"}]
    assert fields.project(owners, {'k:{"uid":"2"}': {}}) == owners[1:], "an item that is owned as a whole"


def scaled(replicas, *managers):
    entries = [{"manager": name, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for name in managers]
    return {"metadata": {"managedFields": [*entries, {"manager": "x", "fieldsV1": {"f:status": {}}}]}, "spec": {"replicas": replicas}}


OURS, HOLDER, AUTOSCALER = fields.MANAGER, fields.REPLICAS_MANAGER, "kube-controller-manager"


@pytest.mark.parametrize(
    ("what", "live", "wanted", "held"),
    [
        ("left to an autoscaler", scaled(3, OURS), None, 3),
        ("left to an autoscaler, held already", scaled(3, OURS, HOLDER), None, None),
        ("an autoscaler's all along", scaled(4, AUTOSCALER), None, None),
        ("left to an autoscaler that is not ours", scaled(4, AUTOSCALER), 3, None),
        ("taken back from where it was held", scaled(2, HOLDER), 3, 3),
        ("changed while still held", scaled(2, OURS, HOLDER), 5, 5),
        ("taken back as it is", scaled(3, AUTOSCALER), 3, None),
        ("ours all along", scaled(3, OURS), 5, None),
        ("scaled by hand stays a conflict", scaled(7, "kubectl"), 3, None),
        ("nobody's", scaled(1), 3, None),
    ],
)
def test_replicas_change_hands_without_falling_to_one(what, live, wanted, held):
    desired = {"spec": {} if wanted is None else {"replicas": wanted}}
    assert fields.replicas_to_hold(live, desired) == held, what


@pytest.mark.parametrize(
    ("what", "live", "held"),
    [
        ("an autoscaler's that goes", scaled(4, AUTOSCALER), 3),
        ("its number is the wanted one, but until it is gone it may write another", scaled(3, AUTOSCALER), 3),
        ("held on the way to it", scaled(4, HOLDER, AUTOSCALER), 3),
        ("scaled by hand stays a conflict", scaled(4, AUTOSCALER, "kubectl"), None),
        ("nobody's", scaled(4), None),
    ],
)
def test_replicas_are_taken_back_from_an_autoscaler_that_this_run_removes(what, live, held):
    assert fields.replicas_to_hold(live, {"spec": {"replicas": 3}}, freed=True) == held, what


@pytest.mark.parametrize(
    ("what", "entries", "said"),
    [
        ("the cluster's autoscaler", [(AUTOSCALER, "scale")], True),
        ("another one", [("some-autoscaler", "scale")], True),
        ("a person", [("kubectl", "scale")], False),
        ("a person and another name", [("kubectl-scale", "scale")], False),
        ("an edit", [("kubectl-edit", "")], False),
        ("agreed on with us", [(AUTOSCALER, "scale"), (OURS, "")], False),
        ("nobody", [], False),
    ],
)
def test_who_counts_as_an_autoscaler(what, entries, said):
    live = scaled(4, *(name for name, _sub in entries))
    for entry, (_name, sub) in zip(live["metadata"]["managedFields"], entries):
        entry.update({"subresource": sub} if sub else {})
    assert fields.is_scaled(live) is said, what


def test_an_object_that_cannot_be_read_in_its_applied_version_is_taken_whole():
    """What we own has the names of a version that is no longer served: projecting on them would lose what was renamed."""
    fields_of_v1 = {"f:metadata": {"f:labels": {"f:ours": {}}}, "f:spec": {"f:oldName": {}}}
    entry = {"manager": fields.MANAGER, "operation": "Apply", "apiVersion": "example.com/v1", "fieldsV1": fields_of_v1}
    meta = {"name": "it", "namespace": "ns", "uid": "1", "labels": {"ours": "1", "theirs": "2"}, "managedFields": [entry]}
    live = {"apiVersion": "example.com/v2", "kind": "Thing", "metadata": meta, "spec": {"newName": "x"}, "status": {"ready": True}}
    kept = {"name": "it", "namespace": "ns", "labels": {"ours": "1", "theirs": "2"}}
    assert fields.before_image(live) == {"apiVersion": "example.com/v2", "kind": "Thing", "metadata": kept, "spec": {"newName": "x"}}
    read = {**live, "apiVersion": "example.com/v1", "spec": {"oldName": "x"}}
    assert fields.before_image(read)["spec"] == {"oldName": "x"} and "theirs" not in fields.before_image(read)["metadata"]["labels"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda leaf: st.lists(leaf, max_size=4) | st.dictionaries(st.text(max_size=5), leaf, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_no_difference_with_itself(value):
    assert fields.changed_paths(value, value) == []
    assert fields.fingerprint(value) == fields.fingerprint(json.loads(json.dumps(value)))


@given(JSON, JSON)
def test_a_difference_has_a_path(one, other):
    assert bool(fields.changed_paths(one, other)) == (one != other)


def _granular(value):
    """FieldsV1 of a manager that owns every field of `value`; lists are atomic."""
    return {f"f:{key}": _granular(sub) for key, sub in value.items()} if isinstance(value, dict) else {}


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_projecting_on_everything_gives_everything(value):
    assert fields.project(value, _granular(value)) == value


# --- whose it was before we took it ------------------------------------------------------------------------------------
OURS = {"manager": fields.MANAGER, "operation": "Apply", "apiVersion": "v1", "time": "t1", "fieldsV1": {"f:data": {"f:a": {}}}}
THEIRS = {"manager": "kubectl-patch", "operation": "Update", "apiVersion": "v1", "time": "t2", "fieldsV1": {"f:data": {"f:b": {}, "f:c": {}}}}
TAKEN = {**OURS, "time": "t4", "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}}}
STATUS = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "apiVersion": "v1", "time": "t3", "fieldsV1": {"f:status": {}}}


@pytest.mark.parametrize("now, after", [
    ([TAKEN, STATUS], [OURS, STATUS, THEIRS]),  # all of theirs was taken
    ([TAKEN, {**THEIRS, "fieldsV1": {"f:data": {"f:c": {}}}}], [OURS, THEIRS]),  # some of it
    # they have written since: that stays, with its time
    ([TAKEN, {**THEIRS, "time": "t5", "fieldsV1": {"f:data": {"f:d": {}}}}],
     [OURS, {**THEIRS, "time": "t5", "fieldsV1": {"f:data": {"f:b": {}, "f:c": {}, "f:d": {}}}}]),
    ([OURS, THEIRS], [OURS, THEIRS]),  # nothing was taken
], ids=["all", "some", "written since", "nothing"])
def test_what_was_taken_by_force_is_its_owners_again(now, after):
    assert fields.owners_again(now, [OURS, THEIRS]) == after


def test_where_we_had_nothing_before_we_have_nothing_after():
    assert fields.owners_again([TAKEN, STATUS], [THEIRS]) == [STATUS, THEIRS]
