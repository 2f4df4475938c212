# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the matrix to policies: what is said about a wrong one, and that the policies of any right one mean what it says."""
from __future__ import annotations

import random

import netpol
import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import ANNOTATION_FINDING
from ansible_collections.genai.platform.plugins.plugin_utils.network import WELL_KNOWN, network_policies
from hypothesis import given, settings
from hypothesis import strategies as st
from netpol import End, Matrix

SHOP = [{"name": "shop"}]
WEB = {"web": {"namespace": "shop", "pods": {"app": "web"}, "ports": {"http": 8080, "dns": "53/UDP"}}}


def policies(components=None, flows=(), namespaces=None, distribution="kubernetes"):
    return network_policies(SHOP if namespaces is None else namespaces, WEB if components is None else components, list(flows), distribution)


def noted(*args, **kwargs):
    return [line for policy in policies(*args, **kwargs) for line in policy["metadata"].get("annotations", {}).get(ANNOTATION_FINDING, "").splitlines()]


@pytest.mark.parametrize(("distribution", "namespace", "port"), [("kubernetes", "kube-system", 53), ("openshift", "openshift-dns", 5353)])
def test_nothing_but_names(distribution, namespace, port):
    (deny,) = policies(distribution=distribution)
    assert deny["metadata"] == {"name": "default-deny", "namespace": "shop"}
    assert deny["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{
            "ports": [{"protocol": "TCP", "port": port}, {"protocol": "UDP", "port": port}],
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}],
        }],
    }


def test_a_policy_per_component_with_both_directions():
    components = {**WEB, "my_db": {"namespace": "shop", "pods": {"app": "db"}, "ports": {"sql": 5432}}}
    flows = [{"from": "anyone", "to": "web", "ports": "http"}, {"from": "web", "to": "my_db"}]
    _deny, web, database = policies(components, flows)
    place = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    sql = [{"protocol": "TCP", "port": 5432}]
    assert web["spec"] == {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": 8080}]}],
        "egress": [{"ports": sql, "to": [{**place, "podSelector": {"matchLabels": {"app": "db"}}}]}],
    }
    assert database["metadata"]["name"] == "my-db"
    assert database["spec"]["ingress"] == [{"ports": sql, "from": [{**place, "podSelector": {"matchLabels": {"app": "web"}}}]}]
    assert database["spec"]["policyTypes"] == ["Ingress"]


def test_names_of_a_distribution_can_be_taken_over():
    router = {"ingress": {"namespace": "traefik", "pods": {"app": "traefik"}}}
    _deny, web = policies({**WEB, **router}, [{"from": "ingress", "to": "web", "ports": "http"}])
    assert web["spec"]["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}, "podSelector": {"matchLabels": {"app": "traefik"}}}
    ]


@pytest.mark.parametrize("namespaces", [[{"name": "shop", "default_deny": False}], [], [{"name": "other", "default_deny": False}]])
def test_no_policies_where_nothing_is_denied(namespaces):
    assert policies(namespaces=namespaces, flows=[{"from": "ingress", "to": "web", "ports": "http"}]) == []


FLOW = {"from": "ingress", "to": "web", "ports": "http"}
WRONG = [
    (WEB, {**FLOW, "from": "ingres"}, "namespaces_flows[0].from names 'ingres', which is no component; did you mean ingress?"),
    (WEB, {**FLOW, "to": ["web", "database"]}, "namespaces_flows[0].to names 'database', which is no component; known: anyone, dns, ingress, mon"),
    (WEB, {**FLOW, "ports": ["http", "htp"]}, "namespaces_flows[0].ports names 'htp', which web has not; did you mean http?"),
    (WEB, {**FLOW, "ports": 70000}, "namespaces_flows[0].ports names '70000', which web has not; known: dns, http"),
    (WEB, {"from": "web", "to": "anyone"}, "namespaces_flows[0].ports has to say which, anyone has none by name"),
    (WEB, {"from": "web"}, "namespaces_flows[0]: a flow has from, to and"),
    (WEB, {**FLOW, "port": 80}, "namespaces_flows[0]: a flow has from, to and"),
    (WEB, {**FLOW, "from": {"name": "ingress"}}, "namespaces_flows[0].from names \"{'name': 'ingress'}\", which is no component"),
    (WEB, "ingress -> web", "namespaces_flows[0]: a flow has from, to and"),
    ({"a": {"namespace": "shop", "selector": {}}}, None, "namespaces_components.a: describe it by cidr, except, namespace, namespace_labels, pods, ports"),
    ({"a": {"pods": {"app": "a"}}}, None, "namespaces_components.a: it needs exactly one of namespace, namespace_labels and cidr"),
    ({"a": {"namespace": "shop", "cidr": "10.0.0.0/8"}}, None, "namespaces_components.a: it needs exactly one of"),
    ({"a": {"cidr": "10.0.0.0/8", "pods": {"app": "a"}}}, None, "namespaces_components.a: pods cannot be chosen in a cidr"),
    ({"a": {"cidr": "10.0.0.0/33"}}, None, "namespaces_components.a: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
    ({"a": {"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}}, None, "namespaces_components.a: except is a list of networks"),
    ({"a": {"namespace": "shop", "ports": [80]}}, None, "namespaces_components.a: ports, pods and namespace_labels are mappings"),
    ({"a": {"namespace": "shop", "ports": {"http": "80/HTTP"}}}, None, "namespaces_components.a: ports.http is no port number"),
    ({"anyone": {"namespace": "shop"}}, None, "namespaces_components.anyone: this name stands for everybody"),
    ({"a": None}, None, "namespaces_components.a: describe it by"),
]


@pytest.mark.parametrize(("components", "flow", "said"), WRONG, ids=[row[2][:60] for row in WRONG])
def test_what_is_wrong_is_noted(components, flow, said):
    (line,) = noted(components, [flow] if flow else [])
    assert line.startswith(said)


def test_everything_wrong_is_noted_once():
    lines = noted({"a": {"namespace": "shop", "ports": {"http": 0}}}, [{"from": "a", "to": "a"}, {"from": "b", "to": "a"}])
    assert [line.split(":")[0].split(" ")[0] for line in lines] == ["namespaces_components.a", "namespaces_flows[1].from"]


# --- any matrix ------------------------------------------------------------------------------------------------------
SPACES = ["one", "two", "three", "open", "kube-system", "ingress-nginx", "monitoring"]
NAMESPACES = [{"name": "one"}, {"name": "two"}, {"name": "three", "default_deny": True}, {"name": "open", "default_deny": False}]
LABELS = {name: {"kubernetes.io/metadata.name": name, "team": "red" if name in ("two", "open") else "blue"} for name in SPACES}
PORTS = st.dictionaries(st.sampled_from(["http", "metrics"]), st.sampled_from([80, 8080, "53/UDP", "80/UDP"]), min_size=1)
PODS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)
PLACE = st.one_of(
    st.builds(lambda name, pods: {"namespace": name, "pods": pods}, st.sampled_from(SPACES), PODS),
    st.builds(lambda team, pods: {"namespace_labels": {"team": team}, "pods": pods}, st.sampled_from(["red", "blue"]), PODS),
    st.just({"cidr": "198.51.100.0/24", "except": ["198.51.100.128/25"]}),
)
COMPONENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "monitoring"]), st.builds(lambda place, ports: {**place, "ports": ports}, PLACE, PORTS), min_size=2
)
ENDS = [
    End(f"{space} {labels}", space, labels, f"10.0.{number}.{index}")
    for number, space in enumerate(SPACES)
    for index, labels in enumerate([{}, {"app": "a"}, {"app": "b"}, {"app": "a", "tier": "a"}, {"app": "a", "tier": "b"}])
] + [End(address, None, {}, address) for address in ("198.51.100.1", "198.51.100.200", "203.0.113.9")]


@st.composite
def matrices(draw):
    components = draw(COMPONENTS)
    names = st.sampled_from([*components, "ingress", "anyone"])
    one_or_more = st.one_of(names, st.lists(names, min_size=1, max_size=3, unique=True))
    flow = st.fixed_dictionaries({"from": one_or_more, "to": one_or_more, "ports": st.sampled_from([80, [8080, "53/UDP"], "80/UDP"])})
    return components, draw(st.lists(flow, max_size=5))


@given(matrices(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_policies_mean_what_the_matrix_says(drawn, seed):
    components, flows = drawn
    chance = random.Random(seed)
    made = network_policies(NAMESPACES, components, flows, "kubernetes")
    assert not any("annotations" in policy["metadata"] for policy in made)
    matrix = Matrix(NAMESPACES, {**WELL_KNOWN["kubernetes"], **components}, flows)
    for _attempt in range(250):
        source, target = chance.choice(ENDS), chance.choice(ENDS)
        protocol, port = chance.choice([("TCP", 80), ("TCP", 8080), ("UDP", 53), ("TCP", 53), ("UDP", 80), ("TCP", 22)])
        seen = tuple(end(made, LABELS, source, target, protocol, port) for end in (netpol.lets_out, netpol.lets_in))
        assert seen == matrix.says(LABELS, source, target, protocol, port), (source.name, target.name, protocol, port)


@given(matrices(), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_order_of_flows_does_not_matter(drawn, seed):
    components, flows = drawn
    shuffled = random.Random(seed).sample(flows, len(flows))
    assert network_policies(NAMESPACES, components, shuffled, "kubernetes") == network_policies(NAMESPACES, components, flows, "kubernetes")


# --- the evaluator itself ---------------------------------------------------------------------------------------------
POD, OTHER = End("pod", "one", {"app": "a"}, "10.0.0.1", {"http": ("TCP", 8080)}), End("other", "two", {"app": "b"}, "10.0.0.2")
RULES = [
    ({}, True), ({"from": []}, True), ({"ports": []}, True),
    ({"ports": [{"port": "http"}]}, True), ({"ports": [{"port": "metrics"}]}, False), ({"ports": [{"port": 8000, "endPort": 8100}]}, True),
    ({"ports": [{"port": 8000}]}, False), ({"ports": [{"protocol": "UDP"}]}, False), ({"ports": [{"protocol": "TCP"}]}, True),
    ({"from": [{"podSelector": {}}]}, False), ({"from": [{"namespaceSelector": {}}]}, True),
    ({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "a"}}}]}, False),
    ({"from": [{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["red"]}]}}]}, True),
    ({"from": [{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}]}, False),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, True), ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.2/32"]}}]}, False),
    ({"from": [{"podSelector": {}}, {"namespaceSelector": {}}]}, True), ({"from": [{"namespaceSelector": {}}], "ports": [{"port": 1}]}, False),
]


@pytest.mark.parametrize(("rule", "expected"), RULES, ids=[str(row[0]) for row in RULES])
def test_the_evaluator(rule, expected):
    policy = {"metadata": {"namespace": "one"}, "spec": {"podSelector": {}, "ingress": [rule]}}
    assert netpol.lets_in([policy], LABELS, OTHER, POD, "TCP", 8080) is expected
    assert netpol.lets_out([policy], LABELS, POD, OTHER, "TCP", 8080) is True, "without egress and policyTypes it is about ingress alone"
    policy["spec"]["policyTypes"] = ["Egress"]
    assert netpol.lets_in([policy], LABELS, OTHER, POD, "TCP", 8080) is True
    assert netpol.lets_out([policy], LABELS, POD, OTHER, "TCP", 8080) is False
