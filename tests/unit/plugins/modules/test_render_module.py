# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module as a program: arguments in, JSON out. It needs neither the Kubernetes client nor a cluster."""
from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[4]
BUNDLE = {
    "app": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "ns"}, "data": {"a": "1"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "two", "namespace": "ns"}, "stringData": {"token": "hunter2"}},
    ]
}


@pytest.fixture(name="run")
def module(tmp_path):
    """Runs the module with these arguments. Returns its result; whatever it prints besides is an error."""

    def call(**args):
        options = {"dest": str(tmp_path / "tree"), "bundle": BUNDLE, "complete": True, **args}
        asked = {"ANSIBLE_MODULE_ARGS": {name: value for name, value in options.items() if value is not None}}
        done = subprocess.run(
            [sys.executable, "-c", f"{NO_CLIENT}\nfrom ansible_collections.genai.platform.plugins.modules.render import main\nmain()"],
            input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=60, cwd=ROOT / ".collections",
        )
        assert done.stderr == ""
        return {**json.loads(done.stdout), "rc": done.returncode, "tree": tmp_path / "tree"}

    return call


# An import of the client fails here, as on a machine that has none.
NO_CLIENT = "import sys\nsys.modules.update(kubernetes=None)"


def test_first_second_and_check(run):
    told = run(_ansible_check_mode=True)
    assert told["changed"] and not told["tree"].exists()
    first = run()
    assert (first["rc"], first["changed"], first["objects"], first["left_out"]) == (0, True, 2, [])
    assert first["created"] == told["created"] == [
        "app/.gitignore", "app/configmap_ns_one.yaml", "app/kustomization.yaml", "app/secret_ns_two.yaml", "kustomization.yaml",
    ]
    assert first["dest"] == str(first["tree"]) and "diff" not in first
    second = run()
    assert not second["changed"] and second["created"] == second["updated"] == second["removed"] == []


def test_diff_without_secrets_values(run):
    result = run(_ansible_diff=True)
    assert len(result["diff"]) == 5
    assert "hunter2" not in str({**result, "invocation": None}) and "aHVudGVyMg" not in str(result)


def test_secrets_false_names_them(run):
    run()
    result = run(secrets=False)
    assert result["left_out"] == ["Secret ns/two"] and result["removed"] == ["app/.gitignore", "app/secret_ns_two.yaml"]


def test_bundle_file(run, tmp_path):
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(BUNDLE), encoding="utf-8")
    assert run(bundle=None, bundle_file=str(path))["objects"] == 2


def test_a_part(run):
    run()
    result = run(bundle={"web": BUNDLE["app"][:1], "gone": []}, complete=False)
    assert result["created"] == ["web/configmap_ns_one.yaml", "web/kustomization.yaml"]
    assert result["updated"] == ["kustomization.yaml"] and result["removed"] == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"bundle": None}, "one of the following is required: bundle, bundle_file"),
        ({"dest": None}, "missing required arguments: dest"),
        ({"bundle_file": "/nowhere"}, "mutually exclusive"),
        ({"bundle": None, "bundle_file": "/nowhere"}, "/nowhere"),
        ({"bundle": {"app": [{"kind": "X"}]}}, "app, manifest 1: apiVersion is missing"),
        ({"bundle": {"app": []}}, "the bundle is empty"),
        ({"platform": "a b"}, "cannot be the value of a label"),
        ({"dest": "/proc/nowhere"}, "the tree is as it was before"),
        ({"dest": "/dev/null"}, "is not a folder"),
    ],
)
def test_errors_are_one_message(run, args, said):
    result = run(**args)
    assert result["rc"] == 1 and said in result["msg"], result
    assert not result["tree"].exists()


def test_what_was_not_described_is_not_removed(run):
    first = run()
    refused = run(bundle={"other": BUNDLE["app"][:1]}, components=["app", "other"])
    assert refused["rc"] == 1 and "not described in this run: app." in refused["msg"] and refused["reason"] == "invalid_input"
    assert sorted(str(path.relative_to(first["tree"])) for path in first["tree"].rglob("*") if path.is_file()) == first["created"]
    assert not run(components=["app"])["changed"]
