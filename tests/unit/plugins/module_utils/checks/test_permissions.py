# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a plan needs to be allowed, what covers it, and how few questions that costs."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.checks import permissions as _permissions
from ansible_collections.genai.platform.plugins.module_utils.checks.permissions import (
    NOWHERE, Permission, covered, missing_permissions, of_actions, of_ledger, of_reading, permission_lines, require,
)  # fmt: skip
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, NotPermitted
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.plan.plan import CREATE, DELETE, KEEP, ORPHAN, UNCHANGED, UPDATE, Action
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from fake import FakeCluster

RBAC = "rbac.authorization.k8s.io"
ALL = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
PLURALS = {"PersistentVolumeClaim": "persistentvolumeclaims", "NetworkPolicy": "networkpolicies"}


def rule(verbs, resources, group="", **rest):
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **rest}


def action(verb, kind, api="v1", name="one", namespace="ns", **rest):
    body = {"apiVersion": api, "kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}, **rest}
    item = [*prepare({"app": [body]}, "genai").values()][0]
    group, _slash, version = api.rpartition("/")
    rtype = ResourceType(group, version, kind, PLURALS.get(kind, kind.lower() + "s"), bool(namespace))
    return Action(verb, item.ref, "app", rtype, 0, item, {} if verb in (DELETE, UPDATE) else None)


def needs(*actions, roles=None, waiting=True):
    return of_actions(actions, roles or {}, waiting)


def verbs(found, resource):
    return {need.verb for need in found if need.resource == resource}


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        (CREATE, {"create", "delete", "get", "patch"}), (DELETE, {"create", "delete", "get", "patch"}),
        (UPDATE, {"get", "patch"}), (ORPHAN, {"get", "patch"}), (UNCHANGED, set()), (KEEP, set()),
    ],
)
def test_an_action_needs_its_verbs_and_those_that_undo_it(verb, wanted):
    found = needs(action(verb, "ConfigMap"))
    assert verbs(found, "configmaps") == wanted and {need.namespace for need in found} <= {"ns"}


def test_a_workload_that_is_waited_for_is_watched_with_its_pods():
    found = needs(action(UPDATE, "Deployment", "apps/v1"))
    written = {Permission(verb, "apps", "deployments", "ns", "one") for verb in ("get", "patch")}
    assert found == written | {
        Permission("watch", "apps", "deployments", "ns"), Permission("get", "apps", "replicasets", "ns"),
        Permission("list", "", "pods", "ns"), Permission("watch", "", "pods", "ns"), Permission("get", "", "pods/log", "ns"),
        Permission("list", "", "events", "ns"),
    }
    assert needs(action(UPDATE, "Deployment", "apps/v1"), waiting=False) == written
    found = needs(action(UPDATE, "StatefulSet", "apps/v1"))
    assert Permission("create", "", "pods/eviction", "ns") in found and verbs(found, "pods") == {"list", "watch"}, "no pod is deleted"
    spec = {"crd": {"spec": {"names": {"kind": "GenaiOwner"}}}}
    template = action(CREATE, "ConstraintTemplate", "templates.gatekeeper.sh/v1", namespace="", spec=spec)
    assert Permission("watch", "templates.gatekeeper.sh", "constrainttemplates") in needs(template, waiting=False), "a definition is waited for always"


NAMESPACED = [("Secret", "v1"), ("PersistentVolumeClaim", "v1"), ("Deployment", "apps/v1"), ("StatefulSet", "apps/v1"), ("Job", "batch/v1")]


def test_nothing_that_is_in_a_namespace_is_asked_for_in_all():
    """StorageClasses, which are in none, are a help only: a claim's events tell as well."""
    kinds = [*NAMESPACED, ("ConfigMap", "v1")]
    found = needs(*(action(verb, *kind) for kind in kinds for verb in (CREATE, UPDATE, DELETE)))
    assert {need.namespace for need in found} == {"ns"}
    assert Permission("list", "", "events", "ns") in needs(action(CREATE, "PersistentVolumeClaim"))


def test_a_namespace_is_looked_into_before_it_is_removed_again():
    found = needs(action(CREATE, "Namespace", name="web", namespace=""))
    assert Permission("list", "", "persistentvolumeclaims", "web") in found
    assert Permission("create", "", "namespaces", "web", "web") in found, "whoever may in that namespace may"


def test_the_host_of_a_route_is_a_right_of_its_own():
    assert verbs(needs(action(CREATE, "Route", "route.openshift.io/v1", spec={})), "routes/custom-host") == {"create", "update"}


@pytest.mark.parametrize(
    "rest",
    [{}, {"rules": None}, {"rules": "all"}, {"rules": [1, {}, {"verbs": 1}, {"verbs": ["get"], "resources": ["pods"]}, {"verbs": [1], "apiGroups": [""]}]}],
)
def test_a_role_of_a_wrong_shape_is_the_servers_to_refuse(rest):
    assert {need.unless for need in needs(action(CREATE, "Role", f"{RBAC}/v1", **rest))} == {None}


@pytest.mark.parametrize("ref", [None, 1, {}, {"kind": "Group", "name": "x"}])
def test_a_binding_to_nothing_is_the_servers_to_refuse(ref):
    assert {need.verb for need in needs(action(UPDATE, "RoleBinding", f"{RBAC}/v1", roleRef=ref))} == {"get", "patch"}


GRANTED = [rule("get list", "pods pods/log"), rule("get", "secrets", resourceNames=["a", "b"]), {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]


def test_who_makes_a_role_holds_what_it_grants_or_may_escalate_it():
    found = needs(action(CREATE, "Role", f"{RBAC}/v1", name="reader", rules=GRANTED)) - needs(action(CREATE, "Role", f"{RBAC}/v1", name="reader", rules=[]))
    unless = Permission("escalate", RBAC, "roles", "ns", "reader")
    assert found == {
        *(Permission(verb, "", resource, "ns", "", unless) for verb in ("get", "list") for resource in ("pods", "pods/log")),
        *(Permission("get", "", "secrets", "ns", name, unless) for name in "ab"), Permission("get", "", "/metrics", "", "", unless),
    }
    assert all(covered(need, GRANTED) for need in found)
    escalate = [rule("escalate", "roles", RBAC, resourceNames=["reader"])]
    assert all(covered(need, escalate) for need in found)
    assert not any(covered(need, [rule("escalate", "roles", RBAC, resourceNames=["other"])]) for need in found)
    # What may be done to some by name is not what may be done to all.
    assert not covered(Permission("get", "", "secrets", "ns"), GRANTED)


@pytest.mark.parametrize("kind", ["Role", "ClusterRole"])
def test_who_binds_to_a_role_holds_what_it_grants_or_may_bind(kind):
    ref = {"apiGroup": RBAC, "kind": kind, "name": "reader"}
    role = Ref(RBAC, kind, "ns" if kind == "Role" else "", "reader")
    bind = Permission("bind", RBAC, f"{kind.lower()}s", "ns", "reader")
    binding = action(UPDATE, "RoleBinding", f"{RBAC}/v1", roleRef=ref)
    written = {Permission(verb, RBAC, "rolebindings", "ns", "one") for verb in ("get", "patch")}
    assert needs(binding, roles={role: [rule("get", "pods")]}) == written | {Permission("get", "", "pods", "ns", "", bind)}
    assert needs(binding) == written | {bind}, "a role that nobody knows"


@pytest.mark.parametrize(
    ("need", "found"),
    [
        (Permission("get", "", "pods"), rule("get", "pods")),
        (Permission("get", "", "pods"), rule("*", "*", "*")),
        (Permission("get", "", "pods/log"), rule("get", "*/log")),
        (Permission("get", "", "pods/log"), rule("get", "*")),
        (Permission("get", "", "/metrics/cadvisor"), {"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]}),
        (Permission("get", "", "pods", "ns", "one"), rule("get", "pods", resourceNames=["one"])),
    ],
)  # fmt: skip
def test_covered(need, found):
    assert covered(need, [found])


@pytest.mark.parametrize(
    ("need", "found"),
    [
        (Permission("get", "", "pods"), rule("list", "pods")),
        (Permission("get", "", "pods"), rule("get", "pods", "apps")),
        (Permission("get", "", "pods"), rule("get", "pods/log")),
        (Permission("get", "", "pods/log"), rule("get", "pods")),
        (Permission("get", "", "pods", "ns", "one"), rule("get", "pods", resourceNames=["two"])),
        (Permission("*", "", "pods"), rule("get", "pods")),
        (Permission("get", "", "/metrics"), {"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
        (Permission("get", "", "/metrics"), rule("*", "*", "*")),
        (Permission("get", "", "pods"), {"verbs": ["*"], "nonResourceURLs": ["*"]}),
    ],
)  # fmt: skip
def test_not_covered(need, found):
    assert not covered(need, [found])


# --- asking ----------------------------------------------------------------------------------------------------------


class Asked(FakeCluster):
    """`held`: {namespace: rules}, those of NOWHERE hold in all; `may_rules`: what the server knows and does not list."""

    def __init__(self, held, unlisted=()):
        super().__init__()
        self.held, self.unlisted, self.questions = held, list(unlisted), []

    def rules(self, namespace):
        self.questions.append(namespace)
        return self.held.get(NOWHERE, []) + (self.held.get(namespace, []) if namespace != NOWHERE else [])

    def may(self, verb, group, resource, namespace, name):
        self.questions.append((verb, resource, namespace))
        return covered(Permission(verb, group, resource, namespace, name), self.unlisted)


WANTED = [Permission(verb, "", "configmaps", f"ns{number}", f"c{number}") for verb in ("create", "patch") for number in range(12)]


def test_an_admin_costs_one_question():
    cluster = Asked({NOWHERE: ALL})
    assert missing_permissions(cluster, WANTED) == [] and cluster.questions == [NOWHERE]


def test_the_deployer_costs_two():
    cluster = Asked({NOWHERE: [rule("create patch", "configmaps")], "ledger": [rule("create delete get list patch", "secrets"), rule("get", "namespaces")]})
    assert missing_permissions(cluster, [*WANTED, *of_ledger("ledger")]) == [] and cluster.questions == [NOWHERE, "ledger"]


def test_rights_in_one_namespace_are_none_in_another():
    cluster = Asked({f"ns{number}": [rule("create patch", "configmaps")] for number in range(11)})
    assert missing_permissions(cluster, WANTED) == [need for need in WANTED if need.namespace == "ns11"]


def test_what_is_not_listed_may_be_allowed_all_the_same():
    cluster = Asked({}, [rule("create", "configmaps")])
    assert missing_permissions(cluster, WANTED) == [need for need in WANTED if need.verb == "patch"]


def test_many_objects_of_a_namespace_are_one_question():
    cluster = Asked({})
    assert len(missing_permissions(cluster, [Permission("patch", "", "configmaps", "ns", f"c{number}") for number in range(300)])) == 300
    assert cluster.questions == [NOWHERE, "ns", ("patch", "configmaps", "ns")]


def test_another_permission_instead_is_asked_for_too():
    need = Permission("get", "", "pods", "ns", "", Permission("escalate", RBAC, "roles", "ns", "reader"))
    assert missing_permissions(Asked({}, [rule("escalate", "roles", RBAC)]), [need]) == []


def test_one_error_names_everything():
    lacking = [*WANTED[:2], Permission("list", "", "pods"), Permission("bind", RBAC, "clusterroles", "web", "scc")]
    with pytest.raises(NotPermitted) as caught:
        require(Asked({}), lacking)
    said = [
        f"bind clusterroles.{RBAC} scc in namespace web", "create configmaps in namespace ns0", "create configmaps in namespace ns1",
        "list pods in all namespaces",
    ]
    assert caught.value.facts["missing"] == said and all(line in caught.value.message for line in said)
    assert "bootstrap_rbac.yml" in caught.value.message


def test_lines_join_verbs():
    assert permission_lines([Permission("patch", "apps", "deployments", "a", "x"), Permission("create", "apps", "deployments", "a", "y")]) == [
        "create, patch deployments.apps in namespace a"
    ]


def test_who_may_not_even_ask_is_not_refused(monkeypatch):
    def refuse(_cluster, _needs):
        raise ApiError("no", 403)

    monkeypatch.setattr(_permissions, "missing_permissions", refuse)
    require(Asked({}), WANTED)


# --- in the order of work --------------------------------------------------------------------------------------------

BUNDLE = {"app": [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "ns"}, "data": {"a": "1"}},
]}  # fmt: skip
OTHER = {"app": [BUNDLE["app"][0], {**BUNDLE["app"][1], "data": {"a": "2"}}]}


def releaser(cluster, **options):
    facts = {"by": "tester", "why": "", "commit": "", "profile": ""}
    return Releaser(cluster, Ledger(cluster, "genai-ledger", "genai"), Options("genai", complete=True, facts=facts, **options), lambda _line: None)


@pytest.mark.parametrize("check", [True, False])
def test_nothing_is_written_without_a_permission(check):
    cluster = Asked({NOWHERE: [rule("create delete get list patch", "secrets namespaces persistentvolumeclaims"), rule("get list patch", "configmaps")]})
    with pytest.raises(NotPermitted, match="create, delete configmaps in namespace ns"):
        releaser(cluster, check=check).deploy(BUNDLE)
    assert cluster.objects == {}


def test_nothing_is_asked_when_nothing_is_to_do():
    cluster = Asked({NOWHERE: ALL})
    releaser(cluster).deploy(BUNDLE)
    cluster.questions.clear()
    releaser(cluster).deploy(BUNDLE)
    assert cluster.questions == []
    releaser(cluster).deploy(OTHER)
    assert cluster.questions == [NOWHERE]


class Blind(Asked):
    """May not list ConfigMaps."""

    def list(self, rtype, selector="", namespace=""):
        if rtype.kind == "ConfigMap":
            raise ApiError("configmaps is forbidden", 403)
        return super().list(rtype, selector, namespace)


def test_a_refusal_to_list_names_the_rest_as_well():
    cluster = Blind({NOWHERE: [rule("create delete get list patch", "secrets namespaces persistentvolumeclaims")]})
    with pytest.raises(NotPermitted) as caught:
        releaser(cluster).deploy(BUNDLE)
    assert caught.value.facts["missing"] == ["create, delete, get, list, patch configmaps in namespace ns"]


def test_a_refusal_for_another_reason_stays_what_it_is():
    with pytest.raises(ApiError, match="configmaps is forbidden"):
        releaser(Blind({NOWHERE: ALL})).deploy(BUNDLE)


def test_to_put_drift_back_is_asked_for_before_it_is_done():
    cluster = Asked({NOWHERE: ALL})
    releaser(cluster).deploy(BUNDLE)
    cluster.objects[Ref("", "ConfigMap", "ns", "one")]["data"]["a"] = "changed"
    cluster.objects[Ref("", "ConfigMap", "ns", "one")]["metadata"]["managedFields"] = []
    writes = len(cluster.writes)
    cluster.held = {NOWHERE: [rule("get list", "secrets namespaces configmaps")]}
    with pytest.raises(NotPermitted, match="patch configmaps in namespace ns"):
        drift(releaser(cluster), True, None, ())
    assert len(cluster.writes) == writes


def test_reading_is_listing():
    deployments, namespaces = ResourceType("apps", "v1", "Deployment", "deployments", True), ResourceType("", "v1", "Namespace", "namespaces", False)
    assert of_reading([(deployments, "web"), (deployments, ""), (namespaces, "")]) == {
        Permission("list", "apps", "deployments", "web"), Permission("list", "apps", "deployments"), Permission("list", "", "namespaces"),
    }


# What the ClusterRole `admin` of Kubernetes allows, as far as a release can ask for it.
ADMIN = [
    rule("create delete get list patch watch", "configmaps persistentvolumeclaims secrets serviceaccounts services"),
    rule("create delete get list patch watch", "deployments statefulsets", "apps"), rule("create delete get list patch watch", "jobs", "batch"),
    rule("get list watch", "events namespaces pods/log"), rule("create delete get list patch watch", "pods"), rule("create", "pods/eviction"),
    rule("get list watch", "replicasets", "apps"),
]  # fmt: skip


def test_who_is_admin_of_the_namespaces_may_release_into_them():
    actions = [action(verb, *kind) for kind in NAMESPACED for verb in (CREATE, UPDATE, DELETE)]
    wanted = needs(*actions) | of_ledger("ledger") | of_reading((each.rtype, each.ref.namespace) for each in actions)
    assert missing_permissions(Asked({"ns": ADMIN, "ledger": ADMIN}), wanted) == []
    assert {need.namespace for need in missing_permissions(Asked({"ns": ADMIN}), wanted)} == {"ledger"}
