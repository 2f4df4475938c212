# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NetworkPolicies that the role namespaces renders let through what the matrix says, and nothing else."""
from __future__ import annotations

import copy
import itertools
import json
import pathlib
import subprocess
import sys
import typing as t

import checks
import netpol
import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.checks.consistency import contradictions
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import prepare
from netpol import End, Matrix

ROOT = pathlib.Path(__file__).resolve().parents[2]
INVENTORY = pathlib.Path(__file__).with_name("matrix.yml")
DISTRIBUTIONS = ("kubernetes", "openshift")
# What the two distributions call the same things, beside the namespaces of the platform: {name: labels}, and what belongs where.
OUTSIDE = {
    "kubernetes": {"kube-system": {}, "ingress-nginx": {}, "default": {}},
    "openshift": {
        "openshift-dns": {}, "openshift-ingress": {"policy-group.network.openshift.io/ingress": ""},
        "openshift-monitoring": {"network.openshift.io/policy-group": "monitoring"}, "default": {},
    },
}
PEERS: dict[str, dict[str, dict]] = {
    "kubernetes": {
        "dns": {"namespace": "kube-system", "ports": {"dns": "53/UDP", "dns-tcp": "53/TCP"}},
        "ingress": {"namespace": "ingress-nginx"}, "monitoring": {"namespace": "monitoring"},
    },
    "openshift": {
        "dns": {"namespace": "openshift-dns", "ports": {"dns": "5353/UDP", "dns-tcp": "5353/TCP"}},
        "ingress": {"namespace_labels": {"policy-group.network.openshift.io/ingress": ""}},
        "monitoring": {"namespace_labels": {"network.openshift.io/policy-group": "monitoring"}},
    },
}
PORTS = [("TCP", 22), ("TCP", 53), ("UDP", 53), ("TCP", 5353), ("UDP", 5353), ("UDP", 443)]


Connection = t.Tuple[End, End, str, int]
ENDS = (netpol.lets_out, netpol.lets_in)


class Flavour(t.NamedTuple):
    """The model catalog on one distribution. `expected`: {namespace: what the matrix says of every pair on every port for its end of it}."""

    matrix: Matrix
    manifests: list[dict]
    policies: list[dict]
    namespaces: dict[str, dict]
    ends: list[End]
    expected: dict[str, list[tuple[int, Connection, bool]]]

    def disagreements(self, policies: list[dict], namespace: str) -> t.Iterator[str]:
        """Connections of which the policies of a namespace and the matrix say different things."""
        own = [policy for policy in policies if policy["metadata"]["namespace"] == namespace]
        for end, (source, target, protocol, port), said in self.expected[namespace]:
            if ENDS[end](own, self.namespaces, source, target, protocol, port) != said:
                yield f"{source.name} -> {target.name} {port}/{protocol}: the matrix says {said} for {('out of', 'into')[end]} {namespace}"


@pytest.fixture(name="catalog", scope="session")
def rendered_catalog() -> dict[str, list[dict]]:
    """{distribution: the role's manifests}."""
    target = ROOT / "build" / "render" / "matrix.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    chosen = {"render_file": str(target), "render_roles": ["genai.platform.namespaces"]}
    playbook = pathlib.Path(sys.executable).parent / "ansible-playbook"
    command = [playbook, ROOT / "tests" / "render" / "render.yml", "--inventory", INVENTORY, "--extra-vars", json.dumps(chosen)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    bundles = json.loads(target.read_text(encoding="utf-8"))["model_catalog"]
    return {distribution: bundle["namespaces"] for distribution, bundle in bundles.items()}


def flavour(variables: dict, manifests: list[dict], distribution: str) -> Flavour:
    matrix = Matrix(variables["namespaces_list"], {**PEERS[distribution], **variables["namespaces_components"]}, variables["namespaces_flows"])
    labels = {m["metadata"]["name"]: m["metadata"].get("labels", {}) for m in manifests if m["kind"] == "Namespace"}
    labels = {name: {**own, "kubernetes.io/metadata.name": name} for name, own in {**labels, **OUTSIDE[distribution]}.items()}
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    all_ends = list(ends(matrix, labels))
    ports = {netpol.number(port) for about in matrix.components.values() for port in about.get("ports", {}).values()} | set(PORTS)
    expected: dict[str, list] = {namespace: [] for namespace in labels}
    for source, target, (protocol, port) in itertools.product(all_ends, all_ends, sorted(ports)):
        said = matrix.says(labels, source, target, protocol, port)
        for end, place in enumerate((source.namespace, target.namespace)):
            if place:
                expected[place].append((end, (source, target, protocol, port), said[end]))
    for rows in expected.values():
        rows.sort(key=lambda row: not row[2])  # what is allowed first: most mistakes show there
    return Flavour(matrix, manifests, policies, labels, all_ends, expected)


def ends(matrix: Matrix, namespaces: dict[str, dict]) -> t.Iterator[End]:
    """A pod of every component, one in every namespace that belongs to none, and machines outside."""
    for number, (name, about) in enumerate(matrix.components.items()):
        if "cidr" not in about:
            wanted = about.get("namespace_labels", {"kubernetes.io/metadata.name": about.get("namespace")})
            namespace = [space for space, labels in namespaces.items() if wanted.items() <= labels.items()][0]
            yield End(name, namespace, {**about.get("pods", {}), "pod-template-hash": "abc"}, f"10.244.0.{number}")
    for number, namespace in enumerate(namespaces):
        yield End(f"stranger in {namespace}", namespace, {"app": "stranger"}, f"10.244.1.{number}")
    yield from (End(name, None, {}, address) for name, address in (("kubernetes_api", "172.18.0.2"), ("internet", "8.8.8.8"), ("the LAN", "192.168.1.1")))


@pytest.fixture(name="case", scope="module", params=DISTRIBUTIONS)
def model_catalog(request: pytest.FixtureRequest, catalog: dict[str, list[dict]]) -> Flavour:
    variables = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))["platforms"]["hosts"]["model_catalog"]
    return flavour(variables, catalog[request.param], request.param)


def test_every_pair_on_every_port(case):
    assert [text for namespace in case.namespaces for text in case.disagreements(case.policies, namespace)] == []


# Reference 004, "Namespace Isolation Strategy" and the arrows of its figure: (from, to, protocol, port, whether it is allowed).
DOCUMENTED = [
    ("ingress", "api", 8000, True),  # model-catalog is entered from the ingress controller ...
    ("api", "postgresql", 5432, True),  # ... and calls data-storage,
    ("api", "timescaledb", 5432, True),
    ("api", "redis", 6379, True),
    ("workflows", "benchmark", 8081, True),  # gpu-workloads is entered from argo-workflows ...
    ("benchmark", "postgresql", 5432, True),  # ... and calls data-storage
    ("benchmark", "engine", 8000, True),
    ("monitoring", "api", 8000, True),  # monitoring goes everywhere, to scrape,
    ("monitoring", "redis", 9121, True),
    ("monitoring", "postgresql", 9187, True),
    ("monitoring", "dcgm_exporter", 9400, True),
    ("monitoring", "gpu_operator", 8080, True),
    ("api", "jaeger", 4317, True),  # and is entered from everywhere, by traces
    ("benchmark", "jaeger", 4317, True),
    ("grafana", "monitoring", 9090, True),
    ("monitoring", "alertmanager", 9093, True),
    ("ingress", "redis", 6379, False),
    ("ingress", "postgresql", 5432, False),  # data-storage denies everybody else
    ("argocd", "postgresql", 5432, False),
    ("workflows", "postgresql", 5432, False),
    ("redis", "postgresql", 5432, False),
    ("grafana", "postgresql", 5432, False),
    ("stranger in data-storage", "postgresql", 5432, False),
    ("stranger in model-catalog", "redis", 6379, False),
    ("benchmark", "redis", 6379, False),  # gpu-workloads does not get into model-catalog
    ("engine", "api", 8000, False),
    ("api", "benchmark", 8081, False),
    ("monitoring", "postgresql", 5432, False),  # scraping is not reading
    ("postgresql", "internet", 443, False),
    ("argocd", "internet", 443, True),
    ("argocd", "the LAN", 443, False),
    ("internet", "api", 8000, False),
]


@pytest.mark.parametrize(("source", "target", "port", "expected"), DOCUMENTED, ids=[f"{row[0]} to {row[1]}" for row in DOCUMENTED])
def test_documented_pairs(case, source, target, port, expected):
    ends_by_name = {end.name: end for end in case.ends}
    connection = (case.policies, case.namespaces, ends_by_name[source], ends_by_name[target], "TCP", port)
    assert (netpol.lets_out(*connection) and netpol.lets_in(*connection)) is expected


def test_documented_levels(case):
    levels = {
        manifest["metadata"]["name"]: manifest["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for manifest in case.manifests if manifest["kind"] == "Namespace"
    }
    assert levels == {
        "model-catalog": "restricted", "data-storage": "restricted", "gpu-workloads": "baseline", "monitoring": "baseline",
        "gpu-operator": "privileged", "argocd": "restricted", "argo-workflows": "baseline",
    }


# --- a wrong policy cannot hide ---------------------------------------------------------------------------------------


def mutants(policy: dict) -> t.Iterator[tuple[str, dict]]:
    """(what is wrong, the policy with that one thing wrong): each value that decides something, changed; each rule and peer left out."""
    for path, value in leaves(policy["spec"], ()):
        changed = copy.deepcopy(policy)
        parent = changed["spec"]
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = wrong(path[-1], value)
        yield ".".join(map(str, path)), changed
    for direction, end in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(policy["spec"].get(direction, [])):
            for field in (end, "ports"):
                for left_out in range(len(rule.get(field, []))):
                    changed = copy.deepcopy(policy)
                    entries = changed["spec"][direction][index][field]
                    del entries[left_out]
                    yield f"{direction}.{index}.{field}.{left_out} left out", changed


def leaves(value: t.Any, path: tuple) -> t.Iterator[tuple[tuple, t.Any]]:
    if isinstance(value, (dict, list)) and value:
        for key, sub in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(sub, (*path, key))
    else:
        yield path, value


def wrong(key: object, value: t.Any) -> t.Any:
    if value == {}:
        return {"matchLabels": {"app": "api"}}
    if key == "cidr":
        return "203.0.113.0/24"
    if value in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        return "203.0.113.0/24"
    return {"Ingress": "Egress", "Egress": "Ingress", "TCP": "UDP", "UDP": "TCP"}.get(value, value + 1 if isinstance(value, int) else f"{value}x")


def test_one_wrong_value_is_noticed(case):
    """Each mutant disagrees with the matrix somewhere, but for one that changes nothing: the component there is the whole namespace."""
    unnoticed, tried = [], 0
    for number, policy in enumerate(case.policies):
        for what, mutant in mutants(policy):
            tried += 1
            others = [*case.policies[:number], mutant, *case.policies[number + 1 :]]
            if not any(case.disagreements(others, mutant["metadata"]["namespace"])):
                unnoticed.append(f"{policy['metadata']['namespace']}/{policy['metadata']['name']}: {what}")
    assert tried > 300
    assert unnoticed == ["gpu-operator/default-deny: policyTypes.0"]


# --- the inventories --------------------------------------------------------------------------------------------------


def test_policies_choose_the_pods_that_there_are(rendered):
    """Components are described apart from the pods they stand for: somebody is let in to every port a pod has, nobody to another."""
    for distribution, bundle in rendered["plain"].items():
        manifests = [manifest for manifests in bundle.values() for manifest in manifests]
        policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
        assert policies and list(checks.pods(manifests))
        for manifest, pod in checks.pods(manifests):
            here = [policy for policy in policies if policy["metadata"]["namespace"] == manifest["metadata"]["namespace"]]
            chosen = [policy["spec"] for policy in here if netpol.selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])]
            entered = {port["port"] for spec in chosen for rule in spec.get("ingress", []) for port in rule["ports"]}
            own = {port["containerPort"] for container in checks.containers(pod["spec"]) for port in container.get("ports", [])}
            assert entered == own, f"{checks.label(manifest)} on {distribution}"


# --- everything else the role says about the model catalog ------------------------------------------------------------


@pytest.mark.parametrize("check", ["schema", "needs", "images"])
def test_the_catalog_is_valid(case, check):
    assert checks.CHECKS[check](case.manifests) == []


def test_accounts_of_the_catalog(case):
    """A token only for who asks the API, rules only where they hold, and none for Secrets, RBAC, nodes or commands in pods."""
    tokens = {m["metadata"]["name"]: m["automountServiceAccountToken"] for m in case.manifests if m["kind"] == "ServiceAccount"}
    assert tokens == {"api": True, "gpu-job": True, "idle": False, "argocd": True, "controller": False, "prometheus": True}
    roles = [m for m in case.manifests if m["kind"] in ("Role", "ClusterRole")]
    assert sorted(checks.label(m) for m in roles) == [
        "ClusterRole /monitoring-prometheus", "Role argo-workflows/argo-workflows-controller", "Role gpu-workloads/argocd-argocd",
        "Role gpu-workloads/gpu-workloads-gpu-job", "Role model-catalog/argocd-argocd", "Role model-catalog/model-catalog-api",
    ]  # fmt: skip
    rules = [rule for role in roles for rule in role["rules"]]
    asked = {resource for rule in rules for resource in rule.get("resources", [])}
    assert asked.isdisjoint({"secrets", "pods/exec", "roles", "rolebindings", "clusterroles", "serviceaccounts", "serviceaccounts/token", "*"})
    assert not any(set(rule["verbs"]) - {"get", "list", "watch"} for rule in rules if {"nodes", "pods"} & set(rule.get("resources", [])))


def test_openshift(case):
    """Texts of the Project and the binding to restricted-v2, and nothing of either elsewhere; no SecurityContextConstraints anywhere."""
    on_openshift = "openshift-dns" in case.namespaces
    project = next(m for m in case.manifests if m["kind"] == "Namespace" and m["metadata"]["name"] == "model-catalog")
    texts = {key: value for key, value in project["metadata"]["annotations"].items() if key != "genai.platform/source"}
    ours = {"genai.platform/cost-center": "catalog", "genai.platform/budget": "20000"}
    theirs = {"openshift.io/display-name": "Model catalog", "openshift.io/description": "The catalog's API and its cache"}
    assert texts == {**ours, **(theirs if on_openshift else {})}
    bindings = [m for m in case.manifests if m["kind"] == "RoleBinding" and ":scc:" in m["roleRef"]["name"]]
    bound = [m["metadata"]["namespace"] for m in bindings if m["roleRef"]["name"] == "system:openshift:scc:restricted-v2"]
    assert len(bound) == len(bindings)
    assert bound == ([each["name"] for each in case.matrix.namespaces] if on_openshift else [])
    assert all("security.openshift.io" not in m["apiVersion"] for m in case.manifests)


def test_the_catalog_does_not_contradict_itself(case):
    assert contradictions(list(prepare({"namespaces": case.manifests}, "genai").values())) == []
