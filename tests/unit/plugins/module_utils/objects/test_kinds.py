# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The table of kinds agrees with itself, and with the rules that it names."""
from __future__ import annotations

import collections

import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects import health, kinds
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref


def test_no_kind_is_in_the_table_twice():
    assert len({(kind.group, kind.name) for kind in kinds.KINDS}) == len(kinds.KINDS)


def test_what_is_asked_by_name_alone_is_the_same_for_all_kinds_of_that_name():
    by_name = collections.defaultdict(set)
    for kind in kinds.KINDS:
        by_name[kind.name].add(kind._replace(group=""))
    assert [name for name, found in by_name.items() if len(found) > 1] == []


def test_every_trait_is_explained_and_some_kind_has_it():
    assert {trait for kind in kinds.KINDS for trait in kind.traits.split()} == set(kinds.TRAITS)


def test_every_rule_of_readiness_exists_and_some_kind_has_it():
    assert {kind.ready for kind in kinds.KINDS if kind.ready} == set(health._RULES)


def test_what_is_waited_for_has_a_rule_and_what_makes_pods_says_where_they_are():
    assert {kind.name for kind in kinds.KINDS if kind.name in kinds.WAITED | kinds.DEFINITIONS} == set(kinds.READY_RULES)
    assert kinds.WORKLOADS < kinds.WITH_PODS


def test_only_kubernetes_own_kinds_are_asked_about_by_name():
    others = {(kind.group, kind.name) for kind in kinds.KINDS if not Ref(kind.group, kind.name, "", "x").builtin}
    assert others - kinds.ROUTES == {("security.openshift.io", "SecurityContextConstraints")}
    assert all(kinds.wave_of(name) == kinds.LAST_WAVE for _group, name in kinds.ROUTES)


@pytest.mark.parametrize("earlier, later", [
    ("Namespace", "ConfigMap"), ("CustomResourceDefinition", "Widget"), ("Secret", "Deployment"), ("Role", "RoleBinding"), ("ValidatingAdmissionPolicy", "Pod"),
    ("Service", "StatefulSet"), ("Deployment", "ValidatingWebhookConfiguration"), ("ValidatingWebhookConfiguration", "HorizontalPodAutoscaler"),
])
def test_waves(earlier, later):
    assert kinds.wave_of(earlier) < kinds.wave_of(later)


def test_a_kind_that_is_not_in_the_table_comes_last():
    assert kinds.wave_of("Widget") == kinds.LAST_WAVE == max(kind.wave for kind in kinds.KINDS)
