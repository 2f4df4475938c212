# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to agree between files, and stay small, without running any of them."""
from __future__ import annotations

import ast
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
TASKS = sorted([*(ROOT / "roles").glob("*/tasks/**/*.yml"), *(ROOT / "playbooks").glob("*.yml")])
TEMPLATES = sorted((ROOT / "roles").glob("*/templates/**/*.j2"))

MOST_TASK_LINES = 80
MOST_TEMPLATE_LINES = 100
MOST_CONTROL_LINES = 10


def relative(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def load(path: pathlib.Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def options_of(role: pathlib.Path) -> dict[str, dict]:
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options") or {}


def disagreements(options: dict[str, dict], values: dict[str, object], path: str = "") -> list[str]:
    """Where documented defaults and real ones differ, into the suboptions of dictionaries."""
    found = []
    for name in sorted(options.keys() | values.keys()):
        here = f"{path}{name}"
        if name not in options:
            found.append(f"{here} is not documented")
        elif name not in values:
            if "default" in options[name] or not path:
                found.append(f"{here} has no default" if not path else f"{here} is documented with a default and has none")
        elif not options[name].get("required") and options[name].get("default") != values[name]:
            found.append(f"{here}: documented default {options[name].get('default')!r}, real one {values[name]!r}")
        elif isinstance(values[name], dict) and "options" in options[name]:
            found += disagreements(options[name]["options"], values[name], f"{here}.")
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_the_documented_ones(role):
    required = {name for name, option in options_of(role).items() if option.get("required")}
    options = {name: option for name, option in options_of(role).items() if name not in required}
    assert disagreements(options, load(role / "defaults" / "main.yml")) == []


@pytest.mark.parametrize(
    ("options", "values", "said"),
    [
        ({"a": {"default": 1}}, {"a": 1}, []),
        ({}, {"a": 1}, ["a is not documented"]),
        ({"a": {"default": 1}}, {}, ["a has no default"]),
        ({"a": {"default": 1}}, {"a": 2}, ["a: documented default 1, real one 2"]),
        ({"a": {"default": {"b": 1}, "options": {"b": {"default": 1}}}}, {"a": {"b": 1}}, []),
        ({"a": {"default": {"b": 1}, "options": {"b": {"default": 2}}}}, {"a": {"b": 1}}, ["a.b: documented default 2, real one 1"]),
        ({"a": {"default": {"b": 1}, "options": {}}}, {"a": {"b": 1}}, ["a.b is not documented"]),
        ({"a": {"default": {"b": 1}, "options": {"b": {"required": True}}}}, {"a": {"b": 1}}, []),
    ],
)
def test_disagreements(options, values, said):
    assert disagreements(options, values) == said


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_names_of_variables(role):
    """Inputs carry the role's name, internals two underscores before it."""
    wrong = [name for name in load(role / "defaults" / "main.yml") if not name.startswith(f"{role.name}_")]
    internals = role / "vars" / "main.yml"
    wrong += [name for name in (load(internals) if internals.exists() else {}) if not name.startswith(f"__{role.name}_")]
    assert wrong == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_roles_have_a_readme(role):
    assert (role / "README.md").exists()


@pytest.mark.parametrize("path", TASKS, ids=relative)
def test_task_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_TASK_LINES


@pytest.mark.parametrize("path", TEMPLATES, ids=relative)
def test_templates_are_manifests_to_read(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_TEMPLATE_LINES
    assert len(re.findall(r"^.*\{%.*$", text, re.MULTILINE)) <= MOST_CONTROL_LINES


def test_every_module_is_in_the_action_group():
    modules = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
    assert sorted(load(ROOT / "meta" / "runtime.yml")["action_groups"]["platform"]) == modules


def test_actions_belong_to_modules():
    """An action plugin without the module of its name would have no documentation."""
    modules = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
    assert {path.stem for path in (ROOT / "plugins" / "action").glob("*.py")} <= modules


@pytest.mark.parametrize("path", PLUGINS, ids=relative)
def test_plugins_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    head = "\n".join(text.splitlines()[:5])
    assert "GNU General Public License v3.0+" in head and "SPDX-License-Identifier: GPL-3.0-or-later" in head
    assert ast.get_docstring(ast.parse(text)), "a docstring at the top says what the file is for"


def test_only_one_file_talks_to_kubernetes():
    """`cluster/api.py` is the one door to the API, `client.py` how it is opened, `login.py` who holds the key."""
    pattern = re.compile(r"^\s*(?:from|import)\s+(?:kubernetes|openshift|ansible_collections\.kubernetes)\b", re.MULTILINE)
    assert [relative(path) for path in PLUGINS if pattern.search(path.read_text(encoding="utf-8"))] == [
        "plugins/module_utils/cluster/client.py", "plugins/module_utils/cluster/login.py",
    ]


def test_every_role_is_in_the_site():
    """But the one that comes before: it makes the account that the site may be deployed with."""
    plays = [load(ROOT / "playbooks" / name)[0] for name in ("site.yml", "bootstrap_rbac.yml")]
    assert {entry["role"] for play in plays for entry in play["roles"]} == {f"genai.platform.{role.name}" for role in ROLES}


def test_the_list_of_components_is_that_of_the_site():
    """In its order; each under its own name as tag, with what the role common knows as aliases beside it, and only where it is listed."""
    roles = [entry for entry in load(ROOT / "playbooks" / "site.yml")[0]["roles"] if entry["role"] != "genai.platform.common"]
    common = ROOT / "roles" / "common"
    names, aliases = load(common / "defaults" / "main.yml")["common_components"], load(common / "vars" / "main.yml")["__common_aliases"]
    assert [(entry["role"], entry["tags"], entry["when"]) for entry in roles] == [
        (f"genai.platform.{name}", [name, *(alias for alias, meant in aliases.items() if meant == name)], f"'{name}' in common_components")
        for name in names
    ]  # fmt: skip
