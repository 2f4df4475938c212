# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a network that enforces NetworkPolicies lets through, and what a matrix of flows says it should.

Both are written from the API's documentation and know nothing of the code under test:
https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""
from __future__ import annotations

import dataclasses
import ipaddress
import typing as t


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """A pod, or with `namespace=None` a machine outside. `named`: {port name: (protocol, number)} of its containers."""

    name: str
    namespace: str | None
    labels: dict
    address: str
    named: dict = dataclasses.field(default_factory=dict)


# --- policies --------------------------------------------------------------------------------------------------------


def lets_out(policies: list[dict], namespaces: dict[str, dict], source: End, target: End, protocol: str, port: int) -> bool:
    """Whether the source's policies allow a connection. `namespaces`: {name: labels}."""
    return _passes("Egress", policies, namespaces, source, target, protocol, port)


def lets_in(policies: list[dict], namespaces: dict[str, dict], source: End, target: End, protocol: str, port: int) -> bool:
    """Whether the target's policies allow a connection. It takes both ends to make one."""
    return _passes("Ingress", policies, namespaces, target, source, protocol, port)


def _passes(direction: str, policies: list[dict], namespaces: dict, own: End, other: End, protocol: str, port: int) -> bool:
    isolating = [policy["spec"] for policy in policies if _isolates(policy, direction, own)]
    destination = other if direction == "Egress" else own
    rules = [rule for spec in isolating for rule in spec.get(direction.lower()) or []]
    return not isolating or any(
        _any(rule.get("to" if direction == "Egress" else "from"), lambda peer: _peer(peer, namespaces, own, other))
        and _any(rule.get("ports"), lambda entry: _port(entry, destination, protocol, port))
        for rule in rules
    )


def _isolates(policy: dict, direction: str, end: End) -> bool:
    if policy["metadata"]["namespace"] != end.namespace:
        return False
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return direction in types and selects(spec["podSelector"], end.labels)


def _any(entries: list | None, matches: t.Callable[[dict], bool]) -> bool:
    """No list, or an empty one, means everything."""
    return not entries or any(matches(entry) for entry in entries)


def _peer(peer: dict, namespaces: dict, own: End, other: End) -> bool:
    if "ipBlock" in peer:
        block, address = peer["ipBlock"], ipaddress.ip_address(other.address)
        return address in ipaddress.ip_network(block["cidr"]) and not any(address in ipaddress.ip_network(n) for n in block.get("except") or [])
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        here = selects(peer["namespaceSelector"], namespaces[other.namespace])
    else:
        here = other.namespace == own.namespace
    return here and selects(peer.get("podSelector") or {}, other.labels)


def _port(entry: dict, destination: End, protocol: str, port: int) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    wanted = entry.get("port")
    if isinstance(wanted, str):
        return destination.named.get(wanted) == (protocol, port)
    return wanted is None or wanted <= port <= entry.get("endPort", wanted)


def selects(selector: dict, labels: dict) -> bool:
    tests = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _values: key in labels,
        "DoesNotExist": lambda key, _values: key not in labels,
    }
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        tests[rule["operator"]](rule["key"], rule.get("values") or []) for rule in selector.get("matchExpressions") or []
    )


# --- the matrix ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Matrix:
    """The role's variables as they stand in an inventory. `components` with those of the distribution."""

    namespaces: list[dict]
    components: dict[str, dict]
    flows: list[dict]

    def guards(self, end: End) -> bool:
        return any(each["name"] == end.namespace and each.get("default_deny", True) for each in self.namespaces)

    def says(self, namespaces: dict[str, dict], source: End, target: End, protocol: str, port: int) -> tuple[bool, bool]:
        """(whether it is let out, whether it is let in). Where nothing is denied by default, everything is.

        A flow opens the ends that are in a namespace by name; anyone, a network and namespaces by label have none of ours.
        """
        flows = [
            (self.components.get(start, {}), self.components.get(end, {}))
            for row in self.flows for start in _list(row["from"]) for end in _list(row["to"])
            if self.has(namespaces, start, source) and self.has(namespaces, end, target) and (protocol, port) in self.ports(row, end)
        ]
        named = self.has(namespaces, "dns", target) and (protocol, port) in self.ports({}, "dns")
        out = named or any("namespace" in start for start, _end in flows) or not self.guards(source)
        return out, any("namespace" in end for _start, end in flows) or not self.guards(target)

    def has(self, namespaces: dict[str, dict], name: str, end: End) -> bool:
        """Whether an end belongs to a component."""
        if name == "anyone":
            return True
        about = self.components[name]
        if "cidr" in about:
            inside = ipaddress.ip_address(end.address) in ipaddress.ip_network(about["cidr"])
            return inside and not any(ipaddress.ip_address(end.address) in ipaddress.ip_network(each) for each in about.get("except", []))
        if end.namespace is None or not about.get("pods", {}).items() <= end.labels.items():
            return False
        return about.get("namespace") == end.namespace or (
            "namespace_labels" in about and about["namespace_labels"].items() <= namespaces[end.namespace].items()
        )

    def ports(self, row: dict, name: str) -> set[tuple[str, int]]:
        known = self.components.get(name, {}).get("ports", {})
        return {number(known.get(each, each)) for each in _list(row.get("ports") or list(known))}


def number(port: t.Any) -> tuple[str, int]:
    digits, _slash, protocol = str(port).partition("/")
    return protocol or "TCP", int(digits)


def _list(value: t.Any) -> list:
    return value if isinstance(value, list) else [value]
