# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that look like an option and are none."""
from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible_collections.genai.platform.plugins.plugin_utils.spelling import near_misses, options_of, unknown_options

ROLES = pathlib.Path(__file__).resolve().parents[4] / "roles"
COMMON = ROLES / "common"
OPTIONS = {name for role in ROLES.iterdir() for name in options_of(role)}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("common_platfrom", "common_platform"),
        ("common_force_conflict", "common_force_conflicts"),
        ("common_max_delete", "common_max_deleted"),
        ("common_xyzzyxyzzyxyzzy", "known: allow_one_way, common_"),
    ],
)
def test_with_the_prefix_of_the_role(name, meant):
    (said,) = unknown_options(COMMON, [name, "common_platform", "other", "commonly"])
    assert f"unknown variable {name}: the role common has no such option; " in said and meant in said


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("namespace_list", "namespaces_list"),
        ("gpu_node_pools", "gpu_nodes_pools"),
        ("inference_ap_image", "inference_app_image"),
        ("comon_platform", "common_platform"),
        ("policys_rules", "policy_rules"),
        ("force_conflicts", "common_force_conflicts"),
        ("ledger_namespace", "common_ledger_namespace"),
        ("max_deleted", "common_max_deleted"),
    ],
)
def test_near_an_option(name, meant):
    assert near_misses(COMMON, [name]) == [f"unknown variable {name}: did you mean {meant}?"]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(OPTIONS), "to", "fix", "components", "timeout", "report", "dest", "allow_one_way", "teardown_data", "teardown_forget",
        "wait", "platform", "image", "replicas", "namespace", "app_image", "kind_cluster", "inventory_hostname", "ansible_user", "awx_user_name",
        "__common_platfrom", "group_names", "playbook_dir", "role_path", "omit", "model_catalog_image", "redis_password", "inference_app",
    ],
)
def test_what_is_no_mistake(name):
    assert near_misses(COMMON, [name]) == []


def test_what_belongs_to_others():
    assert unknown_options(COMMON, ["common_packages", "common_users"], ["common_[pu]*"]) == []
    assert near_misses(COMMON, ["namespace_list"], ["namespace_list"]) == []


def test_a_role_called_like_the_beginning_of_another(tmp_path):
    for name, option in (("gpu", "gpu_size"), ("gpu_nodes", "gpu_nodes_list"), ("bare", None)):
        (tmp_path / name / "meta").mkdir(parents=True)
        spec = {"argument_specs": {"main": {"options": {option: {}}} if option else {}}}
        (tmp_path / name / "meta" / "argument_specs.yml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    assert unknown_options(tmp_path / "gpu", ["gpu_nodes_list", "gpu_nodes_lst"]) == []
    assert unknown_options(tmp_path / "bare", ["bare_anything"]) == [], "what documents nothing has no misspelt options"
