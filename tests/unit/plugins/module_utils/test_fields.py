# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The managed-fields functions, against objects as a real API server returned them (shortened)."""
from __future__ import annotations

import json

import pytest
from ansible_collections.genai.platform.plugins.module_utils import _fields as fields
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
