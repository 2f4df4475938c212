# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ClusterRole of bootstrap_rbac.yml is enough for every inventory, and no more than the roles can use."""
from __future__ import annotations

import collections
import itertools
import pathlib
import re

import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.checks.permissions import Permission, covered, of_actions, of_reading, permission_lines
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.plan.plan import CREATE, Action

ROOT = pathlib.Path(__file__).resolve().parents[2]
WRITES = ["create", "delete", "get", "list", "patch"]
TABLE = yaml.safe_load((ROOT / "roles/deployer/vars/main.yml").read_text(encoding="utf-8"))
USED = ("gatekeeper", "keda", "gateway", "istio")  # what only some inventories use; all the variants together do
SECTIONS = ("objects", "reads", "nodes", "grants", "openshift", *USED)
SCC = Ref("rbac.authorization.k8s.io", "ClusterRole", "", "system:openshift:scc:restricted-v2")


def verbs(rule: dict) -> list[str]:
    """The two sets of verbs that the table names by a variable."""
    named = {"{{ __deployer_writes }}": WRITES, "{{ __deployer_writes + ['watch'] }}": [*WRITES, "watch"]}
    return named[rule["verbs"]] if isinstance(rule["verbs"], str) else rule["verbs"]


def rules(*sections: str) -> list[dict]:
    return [{**rule, "verbs": verbs(rule)} for section in sections for rule in TABLE[f"__deployer_{section}"]]


def plural(kind: str) -> str:
    name = kind.lower()
    return re.sub("y$", "ies", name) if name.endswith("y") else f"{name}es" if name.endswith("s") else f"{name}s"


def rtype(ref: Ref) -> ResourceType:
    name = ref.kind.lower() if ref.group == "constraints.gatekeeper.sh" else plural(ref.kind)
    return ResourceType(ref.group, "v1", ref.kind, name, bool(ref.namespace))


def needed(bundle: dict[str, list[dict]]) -> set[Permission]:
    """Of the first release of a bundle, the largest there is."""
    desired = prepare(bundle, "genai")
    actions = [Action(CREATE, ref, item.component, rtype(ref), item.wave, item) for ref, item in desired.items()]
    roles = {ref: item.body.get("rules") or [] for ref, item in desired.items() if ref.kind in ("Role", "ClusterRole")}
    return of_actions(actions, roles, True) | of_reading((rtype(ref), ref.namespace) for ref in desired)


@pytest.mark.parametrize("distribution", ["kubernetes", "openshift"])
def test_enough_for_every_inventory(rendered, distribution):
    held = rules("objects", "reads", "nodes", "grants", *USED, *(["openshift"] if distribution == "openshift" else []))
    for host, by_distribution in rendered.items():
        assert permission_lines(need for need in needed(by_distribution[distribution]) if not covered(need, held)) == [], host


def test_a_kind_that_is_not_in_the_table_is_found_out():
    claim = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one", "namespace": "ns"}}
    assert permission_lines(need for need in needed({"app": [claim]}) if not covered(need, rules(*SECTIONS))) == [
        "create, delete, get, list, patch secrets in namespace ns",
    ]


def test_a_stateful_set_needs_the_rule_that_the_readme_names():
    readme = (ROOT / "roles/deployer/README.md").read_text(encoding="utf-8")
    (example,) = [yaml.safe_load(block)["deployer_rules"] for block in re.findall("```yaml\n(.*?)```", readme, re.DOTALL)]
    store = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "one", "namespace": "ns"}}
    lacking = [need for need in needed({"app": [store]}) if not covered(need, rules(*SECTIONS))]
    assert permission_lines(lacking) == ["create pods/eviction in namespace ns"] and all(covered(need, example) for need in lacking)


def test_every_profile_can_be_granted():
    profiles = yaml.safe_load((ROOT / "roles/namespaces/vars/main.yml").read_text(encoding="utf-8"))["__namespaces_profiles"]
    granted = [rule for profile in profiles.values() for rule in profile["rules"] + profile["cluster_rules"]]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "all"}, "rules": granted}
    assert permission_lines(need for need in needed({"app": [role]}) if not covered(need, rules(*SECTIONS))) == []


def test_no_kind_that_no_role_describes(rendered):
    """Neither in a template nor, where Python makes the manifests, in anything rendered."""
    manifests = [each for by_distribution in rendered.values() for bundle in by_distribution.values() for found in bundle.values() for each in found]
    described = {(each["apiVersion"].rpartition("/")[0], plural(each["kind"])) for each in manifests if "constraints" not in each["apiVersion"]}
    for template in ROOT.glob("roles/*/templates/**/*.j2"):
        if "deployer" not in template.parts:
            found = re.findall(r"^apiVersion: (\S+)\nkind: (\w+)", template.read_text(encoding="utf-8"), re.MULTILINE)
            described |= {(api.rpartition("/")[0], plural(kind)) for api, kind in found}
    table = {
        (group, resource) for rule in rules("objects", "openshift", *USED) if "create" in rule["verbs"]
        for group, resource in itertools.product(rule["apiGroups"], rule["resources"])
        if group != "constraints.gatekeeper.sh" and "/" not in resource
    }  # fmt: skip
    assert table == described - {("constraints.gatekeeper.sh", "genais")}


def test_enumerated_and_nothing_twice():
    each = collections.Counter(
        (verb, group, resource, *rule.get("resourceNames", []))
        for rule in rules(*SECTIONS)
        for verb, group, resource in itertools.product(rule["verbs"], rule.get("apiGroups", [""]), rule.get("resources") or rule["nonResourceURLs"])
    )
    assert [key for key, count in each.items() if count > 1] == []
    words = {word for key in each for word in key}
    assert not words & {"*", "escalate", "impersonate", "secrets", "pods/exec", "serviceaccounts/token"}
    assert [key for key in each if "bind" in key] == [("bind", SCC.group, "clusterroles", SCC.name)]
