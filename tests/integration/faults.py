# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The platform of forty objects on the cluster, and what is done to it: foreign hands, an admission policy, a failing release."""
from __future__ import annotations

import contextlib
import itertools
import typing as t

import cluster
import forty
from bundles import Platform
from live import Api, Looker, Snapshot, remove, until
from proxy import Proxy, Request

VERSION = forty.VERSION
C, D = f"{forty.NAME}-c", f"{forty.NAME}-d"  # namespaces that only a failing release makes
LEDGER = Platform(forty.NAME).ledger_namespace
POLICY, MARK = f"{forty.NAME}-refuse", f"{forty.GROUP}/refuse"
POLICIES = [f"/apis/admissionregistration.k8s.io/v1/{plural}/{POLICY}" for plural in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")]
REFUSAL = "the policy of the day refuses this object"
STORAGE_PATH = f"/apis/storage.k8s.io/v1/storageclasses/{forty.STORAGE['metadata']['name']}"
OURS = (
    *(f"/api/v1/namespaces/{name}" for name in (*forty.NAMESPACES, C, D, LEDGER)),
    f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{forty.GROUP}",
    STORAGE_PATH,
    f"/apis/scheduling.k8s.io/v1/priorityclasses/{forty.NAME}-high",
    f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{forty.NAME}-reader",
    *POLICIES,
)


class Write(t.NamedTuple):
    """One write of the plan from version 1 to version 2."""

    action: str
    kind: str
    namespace: str
    name: str
    path: str
    identity: dict

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"

    def is_it(self, request: Request) -> bool:
        """Whether a request is this write; putting the state before back never is."""
        if request.path != self.path or not request.is_write:
            return False
        if self.action == "delete":
            return request.method == "DELETE"
        if request.method != "PATCH" or not isinstance(request.body, dict):
            return False
        return request.body["metadata"].get("labels", {}).get(VERSION) == "2"


class World:
    """Version 1 on the cluster, as other hands have left it."""

    def __init__(self) -> None:
        self.api = Api()
        self.proxy = Proxy(self.api)
        self.platform = Platform(forty.NAME, self.proxy.url)
        self.looker = Looker(self.api, {*forty.NAMESPACES, C, D}, forty.NAME)

    def arrange(self) -> None:
        self.clean()
        self.api.need("PATCH", STORAGE_PATH, forty.STORAGE)
        self.deploy(forty.bundle(1, hpa_minimum=1))
        self.foreign_hands()
        self.deploy(forty.bundle(1))
        until("the autoscaler has set the replicas", lambda: self._replicas() == forty.HPA_MINIMUM, 90)
        until("the scaled Deployment is ready", lambda: self.scaled()["status"].get("availableReplicas") == forty.HPA_MINIMUM, 90)
        owners = [e["manager"] for e in self.scaled()["metadata"]["managedFields"] if "f:replicas" in e["fieldsV1"].get("f:spec", {})]
        assert owners == ["kube-controller-manager"], "the replicas are the autoscaler's own"
        self.writes = self._writes()

    def clean(self, wait: bool = True) -> None:
        remove(self.api, OURS, wait)
        self.looker.forget_kinds()

    def deploy(self, bundle: forty.Bundle, **options: t.Any) -> dict:
        return self.platform.deploy(bundle, **options)

    def look(self, everywhere: bool = True) -> Snapshot:
        return self.looker.look(everywhere)

    def scaled(self) -> dict:
        return self.api.need("GET", f"/apis/apps/v1/namespaces/{forty.B}/deployments/scaled")

    def journal(self) -> bool:
        """Whether somebody holds the lock."""
        return self.api.request("GET", f"/api/v1/namespaces/{LEDGER}/secrets/{forty.NAME}.journal")[0] == 200

    def releases(self) -> list[dict]:
        return self.platform.releaser().ledger.load()[0].releases

    def _replicas(self) -> int:
        return self.scaled()["spec"]["replicas"]

    def foreign_hands(self) -> None:
        """People and their tools, on objects that stay, that change and that are pruned. These are kubectl's requests."""
        label, note = {"metadata": {"labels": {"team": "blue"}}}, {"metadata": {"annotations": {"note": "by hand"}}}
        a, b = (f"/namespaces/{name}" for name in forty.NAMESPACES)
        for path, command, body in (
            (f"/api/v1{a}/configmaps/app", "label", label),
            (f"/api/v1{a}/configmaps/old", "label", label),
            (f"/apis/{forty.GROUP}/v1{a}/widgets/app", "label", label),
            (f"/api/v1{a}", "label", label),
            (f"/apis/apps/v1{a}/deployments/app", "annotate", note),
            (f"/api/v1{a}/services/old", "annotate", note),
            (f"/api/v1{a}/configmaps/app", "patch", {"data": {"by-hand": "a person's"}}),
            (f"/api/v1{b}/secrets/old", "patch", {"data": {"by-hand": "eA=="}}),
        ):
            status, answer = self.api.request("PATCH", path, body, "application/merge-patch+json", fieldManager=f"kubectl-{command}")
            assert status == 200, answer

    def _writes(self) -> list[Write]:
        changes = self.deploy(forty.bundle(2), check=True)["changes"]
        types = self.platform.releaser().cluster.types()
        bodies = {cluster.name_of(m): m for version in (1, 2) for manifests in forty.bundle(version).values() for m in manifests}
        return [_write(change, bodies, types) for change in changes]


def _write(change: dict, bodies: dict[str, dict], types: dict) -> Write:
    kind, namespace, name = change["kind"], change["namespace"], change["name"]
    body = bodies[f"{kind} {namespace + '/' if namespace else ''}{name}"]
    return Write(change["action"], kind, namespace, name, types[body["apiVersion"], kind].path(namespace, name), identity(body))


# --- an admission policy -----------------------------------------------------------------------------------------------


class Policy:
    """A real ValidatingAdmissionPolicy that refuses what is marked: version 2 to be written, or version 1 to be deleted.

    What restores the state before does the opposite, and is let through. The mark is on the objects, and not their name in a
    parameter of the policy, because a policy or parameter that changes takes effect some time later, forty times.
    """

    def __init__(self, api: Api, probe: Write) -> None:
        self._api = api
        for path, kind, spec in zip(POLICIES, ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"), (_policy_spec(), BINDING)):
            body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": POLICY}, "spec": spec}
            api.need("PATCH", path, body)
        until("the policy is in force", lambda: self._refuses(probe))

    def close(self) -> None:
        remove(self._api, POLICIES)

    @contextlib.contextmanager
    def refusing(self, write: Write) -> t.Iterator[forty.Bundle]:
        """Version 2, of which one write will be refused while the block runs."""
        bundle = forty.bundle(2)
        if write.action == "delete":
            self._api.need("PATCH", write.path, _marked(write.identity))
        for manifest in itertools.chain(*bundle.values()):
            if identity(manifest) == write.identity:
                manifest["metadata"].update(_marked(manifest)["metadata"])
        try:
            yield bundle
        finally:
            if write.action == "delete":
                self._api.need("PATCH", write.path, write.identity)

    def _refuses(self, write: Write) -> bool:
        marked = _marked(write.identity)
        marked["metadata"]["labels"] = {VERSION: "2", "genai.platform/platform": forty.NAME}
        status, answer = self._api.apply(write.path, marked, dryRun="All")
        return status >= 400 and REFUSAL in answer.get("message", "")


def identity(manifest: dict) -> dict:
    meta = {key: manifest["metadata"][key] for key in ("name", "namespace") if key in manifest["metadata"]}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": meta}


def _marked(manifest: dict) -> dict:
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {MARK: "yes"}}}


def _policy_spec() -> dict:
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["*"]}
    version = "variables.meta.labels[?'" + VERSION + "'].orValue('') == (request.operation == 'DELETE' ? '1' : '2')"
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], "objectSelector": {"matchLabels": {"genai.platform/platform": forty.NAME}}},
        "variables": [{"name": "meta", "expression": "request.operation == 'DELETE' ? oldObject.metadata : object.metadata"}],
        "validations": [{"expression": f"!('{MARK}' in variables.meta.?annotations.orValue({{}}) && {version})", "message": REFUSAL}],
    }


BINDING = {"policyName": POLICY, "validationActions": ["Deny"]}
