# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one matrix of allowed flows to the NetworkPolicies of the namespaces. Pure.

Every namespace denies everything both ways but name resolution. Each component in such a namespace gets one policy, with what flows
to it (ingress) and from it (egress). A flow between components of two such namespaces has to be allowed at both ends, and is. What is
not in one namespace by name (anyone, a network, namespaces by label) has no policy here: a flow is then allowed at its other end only.
"""
from __future__ import annotations

import difflib
import ipaddress
import json
import re
import typing as t

from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import ANNOTATION_FINDING

# Whoever it is, inside or outside of the cluster: a rule without peers.
ANYONE = "anyone"
# What every cluster of a distribution has, under one name each. An inventory says it differently by a component of the same name.
# OpenShift: the DNS pods listen on 5353, and the labels choose the router and the monitoring wherever (host network included) they run.
WELL_KNOWN: dict[str, dict[str, dict]] = {
    "kubernetes": {
        "dns": {"namespace": "kube-system", "ports": {"dns": "53/UDP", "dns-tcp": "53/TCP"}},
        "ingress": {"namespace": "ingress-nginx"},
        "monitoring": {"namespace": "monitoring"},
    },
    "openshift": {
        "dns": {"namespace": "openshift-dns", "ports": {"dns": "5353/UDP", "dns-tcp": "5353/TCP"}},
        "ingress": {"namespace_labels": {"policy-group.network.openshift.io/ingress": ""}},
        "monitoring": {"namespace_labels": {"network.openshift.io/policy-group": "monitoring"}},
    },
}
_PORT = re.compile(r"(\d{1,5})(?:/(TCP|UDP|SCTP))?")
_KEYS = {"namespace", "namespace_labels", "pods", "cidr", "except", "ports"}


class Port(t.NamedTuple):
    protocol: str
    port: int


class Component(t.NamedTuple):
    """`peer`: how a policy names it, None for anyone. `namespace`: '' when it is not in one namespace. `ports`: {name: Port}."""

    name: str
    peer: dict | None
    namespace: str
    pods: dict[str, str]
    ports: dict[str, Port]


Known = t.Dict[str, t.Optional[Component]]  # None: described wrongly, which is said once


class Flow(t.NamedTuple):
    source: Component
    target: Component
    ports: tuple[Port, ...]


def network_policies(namespaces: list[dict], components: dict[str, dict], flows: list[dict], distribution: str = "kubernetes") -> list[dict]:
    """The policies of the namespaces that deny by default; the role's documentation has the shape of each argument.

    What is wrong with the matrix is noted on the first policy, for the check that refuses a release with everything that is wrong.
    """
    known, findings = _components({**WELL_KNOWN[distribution], **components})
    allowed, more = _flows(flows, known)
    guarded = [namespace["name"] for namespace in namespaces if namespace.get("default_deny", True)]
    policies = [_default_deny(name, known.get("dns")) for name in guarded]
    inside = (component for component in known.values() if component and component.namespace in guarded)
    policies += [policy for policy in (_of_component(component, allowed) for component in inside) if policy]
    if policies and (findings or more):
        policies[0]["metadata"]["annotations"] = {ANNOTATION_FINDING: "\n".join([*findings, *more])}
    return policies


# --- the matrix ------------------------------------------------------------------------------------------------------


def _components(described: dict[str, dict]) -> tuple[Known, list[str]]:
    """({name: component}, what is wrong with them)."""
    known: Known = {ANYONE: Component(ANYONE, None, "", {}, {})}
    findings = []
    for name, about in described.items():
        problem = _unusable(name, about)
        findings += [f"namespaces_components.{name}: {problem}"] if problem else []
        known[str(name)] = None if problem else _component(str(name), about)
    return known, findings


def _component(name: str, about: dict) -> Component:
    ports = ((str(port), _port(number)) for port, number in (about.get("ports") or {}).items())
    return Component(name, _peer(about), about.get("namespace") or "", about.get("pods") or {}, {port: number for port, number in ports if number})


def _unusable(name: str, about: t.Any) -> str:
    if name == ANYONE:
        return "this name stands for everybody, give it another"
    if not isinstance(about, dict) or set(about) - _KEYS:
        return f"describe it by {', '.join(sorted(_KEYS))} and nothing else"
    if sum(bool(about.get(key)) for key in ("namespace", "namespace_labels", "cidr")) != 1:
        return "it needs exactly one of namespace, namespace_labels and cidr"
    return "pods cannot be chosen in a cidr" if about.get("cidr") and about.get("pods") else _misshapen(about)


def _misshapen(about: dict) -> str:
    if not all(isinstance(about.get(key) or {}, dict) for key in ("ports", "pods", "namespace_labels")):
        return "ports, pods and namespace_labels are mappings"
    if not isinstance(about.get("except") or [], (list, tuple)):
        return "except is a list of networks"
    try:
        for network in (about.get("cidr"), *(about.get("except") or ())):
            ipaddress.ip_network(network or "0.0.0.0/0", strict=False)
    except ValueError as exc:
        return str(exc)
    bad = next((port for port, number in (about.get("ports") or {}).items() if not _port(number)), None)
    return f"ports.{bad} is no port number, write 8080 or 53/UDP" if bad else ""


def _peer(about: dict) -> dict:
    if about.get("cidr"):
        return {"ipBlock": {"cidr": about["cidr"], **({"except": list(about["except"])} if about.get("except") else {})}}
    labels = about.get("namespace_labels") or {"kubernetes.io/metadata.name": about.get("namespace", "")}
    chosen = {"namespaceSelector": {"matchLabels": dict(labels)}}
    return {**chosen, "podSelector": {"matchLabels": dict(about["pods"])}} if about.get("pods") else chosen


def _port(number: t.Any) -> Port | None:
    """`8080` and `53/UDP`; None for what is no port."""
    match = _PORT.fullmatch(str(number))
    return Port(match[2] or "TCP", int(match[1])) if match and 0 < int(match[1]) < 65536 else None


def _flows(described: list[dict], known: Known) -> tuple[list[Flow], list[str]]:
    """(what is allowed, what is wrong with it)."""
    allowed, findings = [], []
    for index, about in enumerate(described):
        where = f"namespaces_flows[{index}]"
        if not isinstance(about, dict) or not about.get("from") or not about.get("to") or set(about) - {"from", "to", "ports"}:
            findings.append(f"{where}: a flow has from, to and, where it is not for all of them, ports")
            continue
        sources, targets = _listed(about["from"]), _listed(about["to"])
        for end, names in (("from", sources), ("to", targets)):
            findings += [f"{where}.{end} names {name!r}, which is no component; {_hint(name, known)}" for name in names if name not in known]
        for target in filter(None, map(known.get, targets)):
            ports, problem = _ports(about.get("ports"), target)
            findings += [f"{where}.ports {problem}"] if problem else []
            allowed += [Flow(source, target, ports) for source in filter(None, map(known.get, sources)) if ports]
    return allowed, findings


def _ports(described: t.Any, target: Component) -> tuple[tuple[Port, ...], str]:
    """(the ports of a flow to `target`, what is wrong with them). Named ones are the target's; all of them when none are given."""
    if not described:
        problem = "" if target.ports else f"has to say which, {target.name} has none by name"
        return tuple(sorted(target.ports.values())), problem
    found = {name: target.ports.get(name) or _port(name) for name in _listed(described)}
    bad = next((name for name, port in found.items() if port is None), "")
    problem = f"names {bad!r}, which {target.name} has not; {_hint(bad, target.ports)}" if bad else ""
    return tuple(sorted({port for port in found.values() if port})), problem


def _listed(value: t.Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]


def _hint(name: str, known: t.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"


# --- policies --------------------------------------------------------------------------------------------------------


def _default_deny(namespace: str, dns: Component | None) -> dict:
    """Without name resolution nothing that another policy allows would work."""
    names = [_rule("to", tuple(sorted(dns.ports.values())), [dns])] if dns and dns.ports else []
    return _policy("default-deny", namespace, {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": names})


def _of_component(component: Component, flows: list[Flow]) -> dict | None:
    """None for a component that nothing flows to or from."""
    rules = {
        "ingress": _rules("from", [(flow.ports, flow.source) for flow in flows if flow.target.name == component.name]),
        "egress": _rules("to", [(flow.ports, flow.target) for flow in flows if flow.source.name == component.name]),
    }
    given = {direction: found for direction, found in rules.items() if found}
    selector = {"matchLabels": dict(component.pods)} if component.pods else {}
    spec = {"podSelector": selector, "policyTypes": [direction.capitalize() for direction in given], **given}
    return _policy(component.name.replace("_", "-"), component.namespace, spec) if given else None


def _rules(end: str, flows: list[tuple[tuple[Port, ...], Component]]) -> list[dict]:
    """One rule per set of ports, with everybody it is for; in an order that does not depend on that of the flows."""
    peers: dict[tuple[Port, ...], list[Component]] = {}
    for ports, component in flows:
        peers.setdefault(ports, []).append(component)
    return [_rule(end, ports, found) for ports, found in sorted(peers.items(), key=lambda item: item[0])]


def _rule(end: str, ports: tuple[Port, ...], peers: list[Component]) -> dict:
    rule: dict = {"ports": [port._asdict() for port in ports]}
    if all(component.peer for component in peers):
        rule[end] = [json.loads(text) for text in sorted({json.dumps(component.peer, sort_keys=True) for component in peers})]
    return rule


def _policy(name: str, namespace: str, spec: dict) -> dict:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
