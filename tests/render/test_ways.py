# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's ordinary ways to run render.yml, other than whole: what is left out is not removed from the tree, and a slip of the pen is an error."""
from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = [pathlib.Path(sys.executable).parent / "ansible-playbook", "-i", ROOT / "inventories" / "kind", "playbooks/render.yml"]
LACKING = "not described in this run: "


def play(dest: pathlib.Path, *words: str, answers: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    command = [*COMMAND, "-e", f"dest={dest}", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, input=answers, capture_output=True, text=True, timeout=120, check=False)


def files(dest: pathlib.Path) -> dict[str, str]:
    return {str(path.relative_to(dest)): hashlib.sha256(path.read_bytes()).hexdigest() for path in dest.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", name="tree")
def whole_tree(tmp_path_factory) -> pathlib.Path:
    dest = tmp_path_factory.mktemp("ways") / "tree"
    done = play(dest)
    assert done.returncode == 0, done.stdout
    return dest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start-at-task", "Render"], LACKING + "namespaces, policy, gpu_nodes, inference_app"),
        (["--start-at-task", "Make what depends on the description"], LACKING + "namespaces, policy, gpu_nodes"),
        (["--tags", "inference"], "unknown tag inference in --tags: did you mean inference_app?"),
        (["--skip-tags", "inference_ap"], "unknown tag inference_ap in --skip-tags: did you mean inference_app?"),
        (["--tags", "untagged"], "no component is left to release with --tags untagged"),
        (["-e", "common_platfrom=acme"], "unknown variable common_platfrom: the role common has no such option; did you mean common_platform?"),
        (["-e", "namespace_list=[]"], "unknown variable namespace_list: did you mean namespaces_list?"),
        (["-e", "force_conflicts=true"], "unknown variable force_conflicts: did you mean common_force_conflicts?"),
        (["-e", '{"common_components": ["namespaces", "gateway"]}'], LACKING + "gateway"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_refused(tree, words, said):
    before = files(tree)
    done = play(tree, "-e", "inference_app_title=Other", *words)
    assert done.returncode and said in " ".join((done.stdout + done.stderr).split()), done.stdout + done.stderr
    assert files(tree) == before


def test_stepped_past_the_roles(tree):
    before = files(tree)
    done = play(tree, "--step", answers="n\n" * 200)
    assert files(tree) == before
    done = play(tree, "--step", "--start-at-task", "Each cluster has a tree of its own", answers="y\n" * 20)
    assert done.returncode and LACKING in done.stdout, done.stdout + done.stderr
    assert files(tree) == before


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--tags", "app"], True), (["--tags", "policy"], False), (["--skip-tags", "app"], False), (["--tags", "all,policy"], True),
        (["-e", "common_packages=[]", "-e", '{"common_other_variables": ["common_pack*"]}'], True),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)  # fmt: skip
def test_a_part(tree, words, changed, tmp_path):
    """What is left out stays, and so does what it is listed in."""
    before = files(tree)
    done = play(tree, "-e", f"inference_app_title={tmp_path.name}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    after = files(tree)
    assert set(after) == set(before)
    assert {path for path in after if after[path] != before[path]} == (
        {"inference_app/configmap_inference_inference.yaml", "inference_app/deployment_inference_inference.yaml"} if changed else set()
    )


def test_a_run_of_other_plays(tree):
    before = files(tree)
    done = play(tree, "--tags", "elsewhere", "-e", '{"common_other_tags": ["elsewhere"]}', "-e", "inference_app_title=Other")
    assert done.returncode == 0 and files(tree) == before


def test_a_component_that_leaves_the_list(tree, tmp_path):
    done = play(tmp_path / "tree", "-e", '{"common_components": ["namespaces", "inference_app"]}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.partition("/")[0] for path in files(tmp_path / "tree")} == {"namespaces", "inference_app", "kustomization.yaml"}
