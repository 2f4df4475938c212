# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a namespace that is about to go holds anything that is not ours: whatever it is, it would go with it."""
from __future__ import annotations

import typing as t

from ._cluster import Cluster
from ._errors import ApiError
from ._fields import owned_fields
from ._manifest import LABEL_PLATFORM, Ref
from ._permissions import Need, covered
from ._references import BUILT_IN
from ._types import ResourceType, ref_of

CLAIMS = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)
SHOWN = 3
# What a cluster derives, or shows in every namespace by itself: (group, kind), and whole groups.
DERIVED_KINDS = {
    ("", "Event"), ("events.k8s.io", "Event"), ("", "Endpoints"), ("discovery.k8s.io", "EndpointSlice"), ("coordination.k8s.io", "Lease"),
    ("apps", "ControllerRevision"),
}
DERIVED_GROUPS = (
    "metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io", "authorization.k8s.io",
    "packages.operators.coreos.com",  # the catalogue of OpenShift's operators, which every namespace lists
)
COPIED = "olm.copiedFrom"  # labels what that catalogue copies into every namespace
# Annotate the token, or the pull secret, of a ServiceAccount, which goes with it.
TOKEN_OF = ("kubernetes.io/service-account.name", "openshift.io/internal-registry-auth-token.service-account")
# What an identity that may not look has to be able to rule out; of other kinds it is believed that there is nothing.
MUST_SEE = ("Secret", "ConfigMap", "PersistentVolumeClaim", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")


def occupied(cluster: Cluster, namespace: str, platform: str, ours: t.Container[Ref] = (), claims: bool = True) -> str:
    """Why a namespace has to stay; '' when everything in it is the platform's own or derived from that.

    `ours`: objects that are ours whatever their labels say. `claims`: whether claims keep it whoever made them, for the data in them.
    Asks for the names of every kind that the cluster serves, one after the other: it may run in a thread of the pool.
    """
    look = _Look(cluster, namespace)
    held = [obj for obj in look.at(CLAIMS) if not _leaving(obj)] if claims else []
    if held:
        return f"it holds {len(held)} claims with data"
    kinds = {(rtype.group, rtype.kind): rtype for rtype in cluster.types().values() if _matters(rtype)}
    found = [(rtype, obj) for rtype in kinds.values() for obj in look.at(rtype) if not _made_by(platform, obj)]
    names = [str(ref_of(rtype, obj)) for rtype, obj in found if ref_of(rtype, obj) not in ours and not _derived(rtype, obj["metadata"], look.seen)]
    strangers = list(dict.fromkeys([*names, *look.unseen]))
    if not strangers:
        return ""
    more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
    return f"it holds {', '.join(strangers[:SHOWN])}{more}, which {'is' if len(strangers) == 1 else 'are'} not ours"


def _made_by(platform: str, obj: dict) -> bool:
    """Whether a platform has applied an object. Its label alone says nothing: a copy by hand has that, too."""
    return (obj["metadata"].get("labels") or {}).get(LABEL_PLATFORM) == platform and bool(owned_fields(obj))


def _matters(rtype: ResourceType) -> bool:
    return rtype.namespaced and rtype.listable and (rtype.group, rtype.kind) not in DERIVED_KINDS and rtype.group not in DERIVED_GROUPS


class _Look:
    """Lists what is in a namespace. `seen`: kinds that were listed; `unseen`: what may be there for all we know."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.seen: set[tuple[str, str]] = set()
        self.unseen: list[str] = []
        self._rules = self._allowed()

    def _allowed(self) -> list[dict] | None:
        """What the identity may do here, so that nothing is asked that would be refused; None where it may not even ask that."""
        try:
            return self.cluster.rules(self.namespace)
        except ApiError:
            return None

    def at(self, rtype: ResourceType) -> list[dict]:
        if not self._may_list(rtype):
            if rtype.kind in MUST_SEE:
                self.unseen.append(f"perhaps {rtype.plural} (this identity may not list them)")
            return []
        try:
            found = self.cluster.list(rtype, "", self.namespace, metadata=True)
            self.seen.add((rtype.group, rtype.kind))
            return found
        except ApiError as exc:
            if exc.status == 401:
                raise
            if rtype.kind in MUST_SEE or exc.status not in (403, 404, 405):
                why = "this identity may not list them" if exc.status == 403 else exc.message
                self.unseen.append(f"perhaps {rtype.plural} ({why})")
            return []

    def _may_list(self, rtype: ResourceType) -> bool:
        """A list of rules may be incomplete, so that for what has to be seen the server is asked by itself."""
        need = Need("list", rtype.group, rtype.plural, self.namespace)
        if self._rules is None or covered(need, self._rules):
            return True
        return rtype.kind in MUST_SEE and self.cluster.may("list", rtype.group, rtype.plural, self.namespace, "")


def _leaving(obj: dict) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _derived(rtype: ResourceType, meta: dict, seen: t.Container[tuple[str, str]]) -> bool:
    """Whether it leaves by itself, or with what it belongs to. Owners of a kind that was listed here were judged themselves; one that
    is in no namespace, or cannot be seen, may be anybody's."""
    if meta.get("deletionTimestamp") or (rtype.kind, meta["name"]) in BUILT_IN or COPIED in (meta.get("labels") or {}):
        return True
    owners = [(owner.get("apiVersion", "").rpartition("/")[0], owner.get("kind", "")) for owner in meta.get("ownerReferences") or []]
    if owners:
        return all(owner in seen or owner == ("", "Node") for owner in owners)  # a Node has the pods that its kubelet makes by itself
    return any(name in (meta.get("annotations") or {}) for name in TOKEN_OF)


def foreign_resources(cluster: Cluster, definition: dict, ours: t.Container[Ref]) -> str:
    """Why a CustomResourceDefinition has to stay: there are resources of its kind that are not ours; '' when there are none."""
    spec = definition["spec"]
    served = [version["name"] for version in spec.get("versions", []) if version.get("served")]
    if not served:
        return ""
    # Not out of the server's list of kinds, which may be from before the definition was made.
    rtype = ResourceType(spec["group"], served[0], spec["names"]["kind"], spec["names"]["plural"], spec.get("scope") == "Namespaced")
    try:
        found = cluster.list(rtype, metadata=True)
    except ApiError as exc:
        if exc.status != 404:
            raise
        return ""  # it is not served (yet), so that there is nothing of it
    return "" if all(ref_of(rtype, obj) in ours for obj in found) else "there are resources of its kind that are not ours"
