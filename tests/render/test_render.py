# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles describe for every inventory and both distributions holds as a whole, without a cluster."""
from __future__ import annotations

import typing as t

import checks
import pytest
from ansible_collections.genai.platform.plugins.module_utils._manifest import prepare

DISTRIBUTIONS = ("kubernetes", "openshift")
# Kinds that only one distribution may get.
ONLY_ON = {"Ingress": "kubernetes", "Route": "openshift"}


def each(rendered: dict) -> t.Iterator[tuple[str, str, list[dict]]]:
    for host, by_distribution in rendered.items():
        for distribution, bundle in by_distribution.items():
            yield host, distribution, [manifest for manifests in bundle.values() for manifest in manifests]


def of(rendered: dict, host: str, distribution: str) -> list[dict]:
    return [manifest for manifests in rendered[host][distribution].values() for manifest in manifests]


@pytest.mark.parametrize("check", checks.CHECKS.values(), ids=checks.CHECKS)
def test_manifests(rendered, check):
    assert not [f"{host} on {distribution}: {text}" for host, distribution, found in each(rendered) for text in check(found)]


def test_there_is_something_to_check(rendered):
    for host, distribution, manifests in each(rendered):
        kinds = {manifest["kind"] for manifest in manifests}
        assert {"Namespace", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= kinds, (host, distribution)
    assert all(set(by_distribution) == set(DISTRIBUTIONS) for by_distribution in rendered.values())


def test_the_engine_takes_every_bundle(rendered):
    for by_distribution in rendered.values():
        for bundle in by_distribution.values():
            assert prepare(bundle, "genai")


@pytest.mark.parametrize(("kind", "distribution"), ONLY_ON.items())
def test_what_belongs_to_one_distribution(rendered, kind, distribution):
    got = {where for _host, where, manifests in each(rendered) for manifest in manifests if manifest["kind"] == kind}
    assert got == {distribution}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_changed_setting_replaces_the_pods(rendered, distribution):
    others = [host for host in rendered if host.startswith("other_")]
    assert others
    plain = of(rendered, "plain", distribution)
    for host in others:
        changed = of(rendered, host, distribution)
        assert maps(changed) != maps(plain), f"{host} is meant to change a setting"
        assert checks.settings_without_restart(plain, changed) == []


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_anything_else_leaves_the_pods(rendered, distribution):
    before, after = (of(rendered, host, distribution) for host in ("plain", "exposed"))
    assert [pod for _manifest, pod in checks.pods(before)] == [pod for _manifest, pod in checks.pods(after)]


def test_values_are_not_templates(rendered):
    """Braces in a value reach the cluster as they are, whatever Ansible would make of them."""
    (settings,) = maps(of(rendered, "other_title", "kubernetes"))
    assert settings["GENAI_MODEL_TITLE"] == "Braces {{ stay }} as they are: {% really %}"


def maps(manifests: list[dict]) -> list[dict]:
    return [manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap"]
