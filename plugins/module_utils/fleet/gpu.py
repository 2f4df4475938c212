# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools of GPU nodes: what they are, which node is in which, and how many GPUs there are. Pure.

What a node says of its GPUs, and who says it:

- `nvidia.com/gpu.product`, `nvidia.com/gpu.present`: NVIDIA's GPU feature discovery (GFD)
- `amd.com/gpu.product-name`, before `beta.amd.com/...`: AMD's node labeller; `feature.node.kubernetes.io/amd-gpu`: its operator's rule for NFD
- `feature.node.kubernetes.io/pci-<ids>.present`: node feature discovery (NFD), `<ids>` being class_vendor, vendor or vendor_device
- `status.capacity`: the device plugins
"""
from __future__ import annotations

import collections
import dataclasses
import fnmatch
import re
import typing as t

LABEL_POOL = "genai.platform/gpu-pool"
LABEL_SPOT = "genai.platform/spot"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
PRODUCTS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "beta.amd.com/gpu.product-name")
PRESENT = {"nvidia.com/gpu.present": "nvidia", "feature.node.kubernetes.io/amd-gpu": "amd"}
PCI_VENDORS = {"10de": "nvidia", "1002": "amd"}
PCI = re.compile(r"feature\.node\.kubernetes\.io/pci-([0-9a-f_]+)\.present")
# Whole GPUs, shared ones, and parts of one: NVIDIA's MIG, AMD's partitions.
RESOURCE = re.compile(r"(nvidia|amd)\.com/(?:gpu(?:\.shared)?|mig-.+|[sdtqc]px_nps\d)")

LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


class Taint(t.NamedTuple):
    """A taint is what it is by its key and its effect."""

    key: str
    value: str
    effect: str

    @property
    def id(self) -> str:
        return f"{self.key}:{self.effect}"

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else self.id

    @staticmethod
    def of(item: dict) -> Taint:
        return Taint(item["key"], label_text(item.get("value")), item["effect"])


@dataclasses.dataclass(frozen=True)
class Pool:
    """`labels` and `taints` are all that its nodes get; the rest, where given, is what a node has to match."""

    name: str
    vendor: str
    products: tuple[str, ...]
    pci: tuple[str, ...]
    instance_types: tuple[str, ...]
    resources: tuple[str, ...]
    nodes: tuple[str, ...]
    match_labels: dict[str, str]
    labels: dict[str, str]
    taints: tuple[Taint, ...]

    @staticmethod
    def of(given: dict) -> Pool:
        """From a module's parameter, or from what a release has kept of one."""
        match, labels = given.get("match") or {}, label_texts(given.get("labels"))
        spot = {LABEL_SPOT: "true"} if given.get("spot") else {}
        lists = {name: tuple(match.get(name) or ()) for name in ("products", "pci", "instance_types", "resources", "nodes")}
        taints = tuple(map(Taint.of, given.get("taints") or ()))
        return Pool(
            given["name"], given.get("vendor") or "", **lists, match_labels=label_texts(match.get("labels")),
            labels={**labels, **spot, LABEL_POOL: given["name"]}, taints=taints,
        )

    def errors(self) -> list[str]:
        """What cannot be right in it."""
        found = [f"{key!r} is no label key" for key in self.labels if not LABEL_KEY.fullmatch(key)]
        found += [f"{value!r} is no label value, of {key}" for key, value in self.labels.items() if not LABEL_VALUE.fullmatch(value)]
        found += [f"{taint} is no taint" for taint in self.taints if not (LABEL_KEY.fullmatch(taint.key) and LABEL_VALUE.fullmatch(taint.value))]
        found += [f"the taint {id_} is there twice" for id_, times in collections.Counter(taint.id for taint in self.taints).items() if times > 1]
        if not any((self.vendor, self.products, self.pci, self.instance_types, self.resources, self.nodes, self.match_labels)):
            found.append("it names neither a vendor nor anything to match, so every node would be in it")
        return [f"pool {self.name}: {error}" for error in found]


def errors_of(pools: t.Sequence[Pool]) -> list[str]:
    """What cannot be right in a description of pools."""
    twice = [name for name, times in collections.Counter(pool.name for pool in pools).items() if times > 1]
    return [error for pool in pools for error in pool.errors()] + [f"pool {name}: there are two of that name" for name in twice]


def label_text(value: t.Any) -> str:
    """A label's value as Kubernetes has it: YAML's `true` is "true" there."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def label_texts(values: dict | None) -> dict[str, str]:
    return {str(key): label_text(value) for key, value in (values or {}).items()}


# --- nodes -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What a node says of itself. `capacity`: {extended resource: number}."""

    name: str
    labels: dict[str, str]
    vendors: frozenset[str]
    product: str
    pci: frozenset[str]
    capacity: dict[str, int]


def hardware(node: dict) -> Hardware:
    labels = node["metadata"].get("labels") or {}
    found = (PCI.fullmatch(key) for key, value in labels.items() if value == "true")
    pci = frozenset(part for hit in found if hit for part in (hit[1], *hit[1].split("_")))
    capacity = {name: number(value) for name, value in (node.get("status", {}).get("capacity") or {}).items() if "/" in name}
    product = next((labels[key] for key in PRODUCTS if key in labels), "")
    vendors = {vendor for ids, vendor in PCI_VENDORS.items() if ids in pci}
    vendors |= {vendor for key, vendor in PRESENT.items() if labels.get(key) == "true"}
    vendors |= {"nvidia" if key == PRODUCTS[0] else "amd" for key in PRODUCTS if key in labels}
    vendors |= {hit[1] for hit in map(RESOURCE.fullmatch, (name for name, count in capacity.items() if count)) if hit}
    return Hardware(node["metadata"]["name"], labels, frozenset(vendors), product, pci, capacity)


def number(quantity: str) -> int:
    """A count of devices; from 1,000 on, a quantity has a suffix."""
    digits, suffix = re.fullmatch(r"(\d*)(.*)", str(quantity)).groups()  # type: ignore[union-attr]
    return int(digits or 0) * {"k": 1000}.get(suffix, 1)


def matches(pool: Pool, node: Hardware) -> bool:
    """Whether everything that the pool gives holds for the node."""
    return (
        pool.vendor in ("", *node.vendors)
        and _like(node.product, pool.products)
        and (not pool.pci or not node.pci.isdisjoint(pool.pci))
        and _like(node.labels.get(INSTANCE_TYPE, ""), pool.instance_types)
        and (not pool.resources or any(node.capacity.get(name) for name in pool.resources))
        and _like(node.name, pool.nodes)
        and all(node.labels.get(key) == value for key, value in pool.match_labels.items())
    )


def _like(value: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def pools_of(pools: t.Sequence[Pool], node: dict) -> list[Pool]:
    """The pools that a node is in. More than one is somebody's error."""
    found = hardware(node)
    return [pool for pool in pools if matches(pool, found)]


# --- how many --------------------------------------------------------------------------------------------------------


def requested(pod: dict) -> dict[str, int]:
    """{GPU resource: number} that the scheduler holds for a pod."""
    spec = pod.get("spec") or {}
    running: collections.Counter[str] = collections.Counter()
    most: collections.Counter[str] = collections.Counter()
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":  # it goes on running beside all that come after it
            running += _asked(container)
            most |= running
        else:
            most |= running + _asked(container)
    return dict(most | sum(map(_asked, spec.get("containers") or []), running))


def _asked(container: dict) -> collections.Counter[str]:
    asked = (container.get("resources") or {}).get("requests") or {}
    return collections.Counter({name: number(value) for name, value in asked.items() if RESOURCE.fullmatch(name)})


def inventory(nodes: t.Iterable[dict], requests: t.Iterable[tuple[str, dict[str, int]]]) -> list[dict]:
    """GPUs by vendor, product, pool and resource. `requests`: (node name, `requested` of a pod on it)."""
    held: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for name, asked in requests:
        held[name].update(asked)
    rows: dict[tuple[str, ...], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for node in nodes:
        found, status = hardware(node), node.get("status") or {}
        for resource, hit in ((name, RESOURCE.fullmatch(name)) for name in found.capacity):
            if hit:
                count = number((status.get("allocatable") or {}).get(resource, "0"))
                used = held[found.name][resource]
                row = rows[hit[1], found.product, found.labels.get(LABEL_POOL, ""), resource]
                row.update(nodes=1, capacity=found.capacity[resource], allocatable=count, requested=used, free=max(count - used, 0) * _open(node))
    columns = ("vendor", "product", "pool", "resource")
    return [{**dict(zip(columns, key)), **row} for key, row in sorted(rows.items())]


def _open(node: dict) -> bool:
    """Whether a node takes pods: it is ready and not cordoned."""
    conditions = node.get("status", {}).get("conditions") or []
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and not node.get("spec", {}).get("unschedulable")
