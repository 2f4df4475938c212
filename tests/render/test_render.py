# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles describe for every inventory and both distributions holds as a whole, without a cluster."""
from __future__ import annotations

import typing as t

import checks
import pytest
from ansible_collections.genai.platform.plugins.module_utils.checks.consistency import contradictions
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import prepare

DISTRIBUTIONS = ("kubernetes", "openshift")
CANARIES = ("split_by_gateway", "split_by_istio", "split_by_route")
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


def test_nothing_contradicts_itself(rendered):
    """But a Route, which cannot split requests where there is none."""
    for host, by_distribution in rendered.items():
        for distribution, bundle in by_distribution.items():
            said = contradictions(list(prepare(bundle, "genai").values()))
            assert [line for line in said if "inference_app_canary.by: the Route" not in line] == [], (host, distribution)
            assert bool(said) == ((host, distribution) == ("split_by_route", "kubernetes"))


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


def test_every_pod_has_the_labels_that_the_policy_asks_for(rendered):
    for host, distribution, manifests in each(rendered):
        bare = [checks.label(manifest) for manifest, pod in checks.pods(manifests) if "data-classification" not in pod["metadata"]["labels"]]
        assert bare == [], (host, distribution)


def test_no_workload_takes_the_pods_of_another(rendered):
    for host, _distribution, manifests in each(rendered):
        for manifest in manifests:
            if manifest["kind"] in ("Deployment", "PodDisruptionBudget"):
                selector = manifest["spec"]["selector"]
                taken = [checks.label(owner) for owner, pod in checks.pods(manifests) if checks.selects(selector, pod["metadata"]["labels"])]
                assert len(taken) == 1, (host, checks.label(manifest), taken)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_canary_changes_nothing_of_the_api(rendered, distribution):
    """Its selector cannot change, and its pods need not."""
    plain = named(of(rendered, "plain", distribution), "Deployment", "inference")
    for host in ("split_by_istio", "split_by_route"):
        assert named(of(rendered, host, distribution), "Deployment", "inference") == plain
    for host in CANARIES:
        stable, canary = (named(of(rendered, host, distribution), "Service", name)["spec"]["selector"] for name in ("inference", "inference-canary"))
        assert stable == plain["spec"]["selector"]["matchLabels"] and stable != canary


def test_everything_is_described(rendered):
    """Each kind that only some description brings is rendered somewhere, and by its names."""
    kinds = {host: {(m["kind"], m["metadata"]["name"]) for m in of(rendered, host, "kubernetes")} for host in ("everything", *CANARIES)}
    workers = {("Deployment", f"inference-worker-{name}") for name in ("standard", "blueprint", "burst")}
    assert kinds["everything"] >= workers | {
        ("CronJob", "inference-benchmark"), ("ScaledObject", "inference-worker-blueprint"), ("TriggerAuthentication", "inference-redis"),
        ("HorizontalPodAutoscaler", "inference-worker-burst"), ("NetworkPolicy", "inference-app-workers"), ("NetworkPolicy", "inference-app-benchmark"),
    }  # fmt: skip
    assert kinds["split_by_gateway"] >= {("HTTPRoute", "inference"), ("Service", "inference-canary"), ("PodDisruptionBudget", "inference-canary")}
    assert kinds["split_by_istio"] >= {("VirtualService", "inference"), ("DestinationRule", "inference"), ("DestinationRule", "inference-canary")}
    assert not {kind for kind, _name in kinds["split_by_istio"]} & {"HTTPRoute"}


def test_no_secret_is_in_a_config_map(rendered):
    for _host, _distribution, manifests in each(rendered):
        for data in maps(manifests):
            assert not {"GENAI_REDIS_URL", "GENAI_DATABASE_URL", "AWS_SECRET_ACCESS_KEY"} & set(data)


def test_shares_of_the_requests(rendered):
    route = named(of(rendered, "split_by_gateway", "kubernetes"), "HTTPRoute", "inference")["spec"]
    assert route["parentRefs"] == [{"namespace": "infra", "name": "public"}] and route["hostnames"] == ["inference.example.com"]
    assert [(each["name"], each["weight"]) for each in route["rules"][0]["backendRefs"]] == [("inference", 90), ("inference-canary", 10)]
    mesh = named(of(rendered, "split_by_istio", "kubernetes"), "VirtualService", "inference")["spec"]
    assert mesh["gateways"] == ["mesh", "istio-system/public"]
    assert mesh["hosts"] == ["inference.inference.svc.cluster.local", "inference.example.com"]
    assert [each["weight"] for each in mesh["http"][0]["route"]] == [75, 25]
    openshift = named(of(rendered, "split_by_route", "openshift"), "Route", "inference")["spec"]
    assert (openshift["to"]["weight"], [each["weight"] for each in openshift["alternateBackends"]]) == (95, [5])
    assert named(of(rendered, "split_by_istio", "openshift"), "Route", "inference")["spec"].get("alternateBackends") is None


def named(manifests: list[dict], kind: str, name: str) -> dict:
    (found,) = [manifest for manifest in manifests if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name)]
    return found


def test_values_are_not_templates(rendered):
    """Braces in a value reach the cluster as they are, whatever Ansible would make of them."""
    (settings,) = maps(of(rendered, "other_title", "kubernetes"))
    assert settings["GENAI_MODEL_TITLE"] == "Braces {{ stay }} as they are: {% really %}"


def maps(manifests: list[dict]) -> list[dict]:
    return [manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap"]
