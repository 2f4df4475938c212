# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where kinds live in the API, and reading that out of the server's discovery documents. Pure."""
from __future__ import annotations

import dataclasses
import typing as t
import urllib.parse

from .manifest import Ref


@dataclasses.dataclass(frozen=True)
class ResourceType:
    """Where a kind lives in the API."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    listable: bool = dataclasses.field(default=True, compare=False)

    @property
    def api_version(self) -> str:
        """As a manifest has it: `apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of an object in the API; of all objects of the type where there is no name."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(urllib.parse.quote(name, safe=""))
        return "/".join(parts)


def aggregated_types(answer: dict) -> t.Iterator[ResourceType]:
    """Types of an APIGroupDiscoveryList (aggregated discovery, v2 and v2beta1)."""
    for group in answer.get("items", []):
        for version in group.get("versions", []):
            for entry in version.get("resources", []):
                kind = (entry.get("responseKind") or {}).get("kind")
                if kind:
                    yield ResourceType(
                        group.get("metadata", {}).get("name", ""), version["version"], kind, entry["resource"],
                        entry.get("scope") == "Namespaced", "list" in entry.get("verbs", ["list"]),
                    )


def listed_types(answer: dict) -> t.Iterator[ResourceType]:
    """Types of an APIResourceList, which servers before Kubernetes 1.27 answer with, one per group version."""
    group, _slash, version = answer["groupVersion"].rpartition("/")
    for entry in answer.get("resources", []):
        if "/" not in entry["name"]:
            yield ResourceType(group, version, entry["kind"], entry["name"], entry["namespaced"], "list" in entry.get("verbs", ["list"]))


def group_kind(rtypes: t.Iterable[ResourceType]) -> dict[tuple[str, str], ResourceType]:
    """{(group, kind): type}, the first version listed (the server's preferred one) wins."""
    found: dict[tuple[str, str], ResourceType] = {}
    for rtype in rtypes:
        found.setdefault((rtype.group, rtype.kind), rtype)
    return found


def ref_of(rtype: ResourceType, obj: dict) -> Ref:
    """The object that an entry of a list is, which has no apiVersion and kind of its own."""
    return Ref(rtype.group, rtype.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


# Types that are asked for by name, whatever the server's discovery says.
SECRETS = ResourceType("", "v1", "Secret", "secrets", True)
NAMESPACES = ResourceType("", "v1", "Namespace", "namespaces", False)
PODS = ResourceType("", "v1", "Pod", "pods", True)
REPLICASETS = ResourceType("apps", "v1", "ReplicaSet", "replicasets", True)
CLASSES = ResourceType("storage.k8s.io", "v1", "StorageClass", "storageclasses", False)
CLAIMS = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)
NODES = ResourceType("", "v1", "Node", "nodes", False)
