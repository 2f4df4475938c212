# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine knows of kinds: one table, and the questions that are asked of it. Data, and pure.

A kind that is not in it is applied last, counts as ready once it exists, and may be deleted and made anew.
"""
from __future__ import annotations

import typing as t

RBAC, SCHEDULING, GATEKEEPER, CONSTRAINTS = "rbac.authorization.k8s.io", "scheduling.k8s.io", "templates.gatekeeper.sh", "constraints.gatekeeper.sh"
ADMISSION = "admissionregistration.k8s.io"
LAST_WAVE = 5  # HorizontalPodAutoscaler, Ingress, Route and every custom resource

# What may be true of a kind.
TRAITS = {
    "workload": "it makes pods, and a release waits until they are ready",
    "claim": "it is waited for too, and a quota counts the storage that it asks for",
    "scaled": "spec.replicas says how many pods it has",
    "passing": "its pods end by themselves",
    "finishes": "it may be gone because it did its work",
    "data": "it holds data",
    "container": "whatever is inside it, or of its kind, goes with it",
    "defines": "it brings a kind of its own",
    "policy": "other objects may be refused because of it",
    "webhook": "other objects may be refused because of it, or because who serves it does not answer",
    "limits": "it says what the pods of its namespace may be, and how many",
    "settings": "it holds keys for pods to read",
    "replaceable": "a way back may delete it and make it anew: nothing goes with it but itself",
    "fixed": "it has fields that cannot be changed: a release asks the server about them before its first write",
    "must_see": "who may delete a namespace has to be able to see that there is none in it",
    "routes": "it leads requests to Services, and who goes by it hears of a change only a moment later",
    "derived": "a cluster makes it by itself, out of other objects",
}


class Kind(t.NamedTuple):
    """One kind. `wave`: those of lower waves are applied before it. `traits`: of TRAITS. `ready`: its rule in `health`; '' for one that is
    ready once it exists. `pod`: where the specification of its pods stands. `quota`: what a quota calls it. `roles`: of a role of RBAC, what
    the API calls it. `made`: names that clusters give to objects of their own, in every namespace or once. `anew`: what to do about a field
    that cannot be changed. `changeable`: the only fields of its spec that can. `keeps`: fields of its spec that cannot, for a kind that is
    not "fixed" as a whole."""

    group: str
    name: str
    wave: int = LAST_WAVE
    traits: str = ""
    ready: str = ""
    pod: tuple[str, ...] = ()
    quota: str = ""
    roles: str = ""
    made: tuple[str, ...] = ()
    anew: str = ""
    changeable: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


_TEMPLATE = ("spec", "template", "spec")
KINDS = (
    # What others need to be there at all.
    Kind("", "Namespace", 0, "container"),
    Kind("apiextensions.k8s.io", "CustomResourceDefinition", 0, "container defines fixed", "established"),
    Kind(SCHEDULING, "PriorityClass", 0, "fixed", made=("system-node-critical", "system-cluster-critical")),
    Kind("storage.k8s.io", "StorageClass", 0, "fixed"),
    # What pods need, and what judges them. Before the workloads: what a rule forbids shall fail the release that brings both.
    Kind("", "ServiceAccount", 1, made=("default", "builder", "deployer")),  # the last two on OpenShift
    Kind(RBAC, "Role", 1, roles="roles"),
    Kind(RBAC, "ClusterRole", 1, roles="clusterroles"),
    Kind("", "ConfigMap", 1, "settings replaceable must_see", made=("kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert")),
    Kind("", "Secret", 1, "settings replaceable must_see"),
    Kind("", "PersistentVolume", 1, "data"),
    Kind("", "PersistentVolumeClaim", 1, "claim data fixed must_see", "bound", quota="persistentvolumeclaims"),
    Kind("", "ResourceQuota", 1, "limits"),
    Kind("", "LimitRange", 1, "limits"),
    Kind("networking.k8s.io", "NetworkPolicy", 1),
    Kind("policy", "PodDisruptionBudget", 1),
    Kind("security.openshift.io", "SecurityContextConstraints", 1),
    Kind(ADMISSION, "ValidatingAdmissionPolicy", 1, "policy"),
    Kind(ADMISSION, "ValidatingAdmissionPolicyBinding", 1, "policy"),
    Kind(GATEKEEPER, "ConstraintTemplate", 1, "defines", "taken up"),
    # Who may not do everything can bind only to a role that is there: what it grants is looked up.
    Kind(RBAC, "RoleBinding", 2, "fixed", made=("system:deployers", "system:image-builders", "system:image-pullers")),  # on OpenShift
    Kind(RBAC, "ClusterRoleBinding", 2, "fixed"),
    Kind("", "Service", 2, quota="services", keeps=("clusterIP", "clusterIPs")),
    # What runs.
    Kind("apps", "Deployment", 3, "workload scaled must_see", "deployment", _TEMPLATE, keeps=("selector",)),
    Kind(
        "apps", "StatefulSet", 3, "workload scaled fixed must_see", "statefulset", _TEMPLATE,
        anew="delete the StatefulSet with --cascade=orphan, which leaves its pods and claims, and run again; a claim is made larger by itself",
        # kubernetes.io, StatefulSets. A refusal lists these, and not what was changed.
        changeable=(
            "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
        ),
    ),
    Kind("apps", "DaemonSet", 3, "workload must_see", "daemonset", _TEMPLATE, keeps=("selector",)),
    Kind("apps", "ReplicaSet", 3, "scaled", pod=_TEMPLATE, keeps=("selector",)),
    Kind(
        "batch", "Job", 3, "workload passing finishes fixed must_see", "job", _TEMPLATE,
        anew="give the Job another name, with a version in it, or delete it first, and run again",
    ),
    Kind("batch", "CronJob", 3, "passing must_see", pod=("spec", "jobTemplate", "spec", "template", "spec")),
    Kind("", "Pod", 3, "must_see", pod=("spec",)),
    # After who serves them, and before what they judge and complete.
    Kind(ADMISSION, "MutatingWebhookConfiguration", 4, "webhook"),
    Kind(ADMISSION, "ValidatingWebhookConfiguration", 4, "webhook"),
    # What leads to Services, last.
    Kind("networking.k8s.io", "Ingress", traits="routes"),
    Kind("route.openshift.io", "Route", traits="routes"),
    Kind("gateway.networking.k8s.io", "HTTPRoute", traits="routes"),
    Kind("networking.istio.io", "VirtualService", traits="routes"),
    Kind("networking.istio.io", "DestinationRule", traits="routes"),
    # What a namespace holds without anybody having put it there.
    Kind("", "Event", traits="derived"),
    Kind("events.k8s.io", "Event", traits="derived"),
    Kind("", "Endpoints", traits="derived"),
    Kind("discovery.k8s.io", "EndpointSlice", traits="derived"),
    Kind("coordination.k8s.io", "Lease", traits="derived"),
    Kind("apps", "ControllerRevision", traits="derived"),
)
# Groups of which a cluster shows objects in every namespace, by itself.
DERIVED_GROUPS = (
    "metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io", "authorization.k8s.io",
    "packages.operators.coreos.com",  # the catalogue of OpenShift's operators, which every namespace lists
)
# Groups whose kinds are known by their names alone; no kind is in two of them.
PLAIN_GROUPS = {
    "", ADMISSION, "apiextensions.k8s.io", "apiregistration.k8s.io", "apps", "autoscaling", "batch",
    "networking.k8s.io", "policy", RBAC, "route.openshift.io", SCHEDULING, "storage.k8s.io",
}


# --- questions -------------------------------------------------------------------------------------------------------
# By name, for the kind of an object of Kubernetes' own (see `is_builtin`).


def having(*traits: str) -> frozenset[str]:
    """The names of the kinds that have one of these traits."""
    return frozenset(kind.name for kind in KINDS if not {*traits}.isdisjoint(kind.traits.split()))


WORKLOADS = having("workload")
WAITED = having("workload", "claim")
SCALED = having("scaled")
PASSING = having("passing")
FINISHING = having("finishes")
DATA = having("data")
PROTECTED = having("data", "container")  # removed only when told to
REPLACEABLE = having("replaceable")  # by a way back, where the server takes no change back
DEFINITIONS = having("defines")
POLICIES = having("policy")
WEBHOOKS = tuple(sorted(having("webhook")))
NAMESPACE_LIMITS = having("limits")
SETTINGS = having("settings")
UNCHANGEABLE = having("fixed")
MUST_SEE = having("must_see")
WITH_PODS = frozenset(kind.name for kind in KINDS if kind.pod)
DERIVED_KINDS = frozenset((kind.group, kind.name) for kind in KINDS if "derived" in kind.traits.split())
ROUTES = frozenset((kind.group, kind.name) for kind in KINDS if "routes" in kind.traits.split())
POD_SPECS = {(kind.group, kind.name): kind.pod for kind in KINDS if kind.pod}
READY_RULES = {kind.name: kind.ready for kind in KINDS if kind.ready}
READY_GROUPS = frozenset(kind.group or "v1" for kind in KINDS if kind.ready)  # as an apiVersion begins
COUNTED = {kind.name: kind.quota for kind in KINDS if kind.quota}
ROLES = {kind.name: kind.roles for kind in KINDS if kind.roles}
MADE_BY_CLUSTER = frozenset((kind.name, name) for kind in KINDS for name in kind.made)
CHANGEABLE = {kind.name: kind.changeable for kind in KINDS if kind.changeable}
KEEPS = {kind.name: kind.keeps for kind in KINDS if kind.keeps}
ANEW = {kind.name: kind.anew for kind in KINDS if kind.anew}
_WAVES = {kind.name: kind.wave for kind in KINDS}


def is_builtin(group: str, kind: str) -> bool:
    """Whether a kind is Kubernetes' own, by its API group: those of others have a domain of theirs. Or Gatekeeper's that brings others."""
    return "." not in group or group.endswith(".k8s.io") or (group, kind) == (GATEKEEPER, "ConstraintTemplate")


def wave_of(kind: str) -> int:
    """In which wave objects of a kind are applied; removal goes the other way."""
    return _WAVES.get(kind, LAST_WAVE)
