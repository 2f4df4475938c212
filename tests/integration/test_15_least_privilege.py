# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The account of bootstrap_rbac.yml deploys, undoes and looks at a platform; without any one of its permissions nothing is written."""
from __future__ import annotations

import base64
import json
import time

import cluster
import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import Cluster
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.engine.teardown import teardown
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, NotPermitted
from bundles import obj, pod, workload
from live import Api

NAME = "least"
NS, LEDGER, ACCOUNT = NAME, f"{NAME}-ledger", f"{NAME}-deployer"
USER = f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"
VARIABLES = {
    "common_platform": NAME,
    "common_ledger_namespace": LEDGER,
    "deployer_name": ACCOUNT,
    "deployer_namespace": ACCOUNT,
    "namespaces_list": [{
        "name": NS,
        "quota": {"pods": "20"},
        "limits": {"default": {"cpu": "500m", "memory": "512Mi"}},
        "service_accounts": [{"name": profile.replace("_", "-"), "profile": profile} for profile in ("api", "gpu_job", "monitoring", "gitops")],
    }],
    "namespaces_priority_classes": [{"name": f"{NAME}-serving", "value": 100000}],
    "inference_app_namespace": NS,
    "inference_app_service_type": "ClusterIP",
    "inference_app_node_port": 0,
    "inference_app_host": "least.example.com",
    "inference_app_drain_seconds": 0,
}  # fmt: skip
CLUSTER_ROLE = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{ACCOUNT}"
PROFILES = yaml.safe_load((cluster.REPOSITORY / "roles/namespaces/vars/main.yml").read_text(encoding="utf-8"))["__namespaces_profiles"]
RBAC = "rbac.authorization.k8s.io"


def play(playbook: str, *args: str, code: int = 0) -> cluster.Run:
    run = cluster.play(playbook, "-e", json.dumps(VARIABLES), *args)
    assert run.code == code, run.output
    return run


@pytest.fixture(scope="module")
def api():
    return Api()


@pytest.fixture(scope="module", name="account")
def bootstrapped(api, tmp_path_factory):
    """{host, api_key, ca_cert} of the account, which a cluster admin has made."""
    first = play("bootstrap_rbac.yml")
    assert first.changed == 1 and play("bootstrap_rbac.yml").changed == 0, "making it again changes nothing"
    ca = tmp_path_factory.mktemp("account") / "ca.crt"
    server = yaml.safe_load(cluster.KUBECONFIG.read_text(encoding="utf-8"))["clusters"][0]["cluster"]
    ca.write_bytes(base64.b64decode(server["certificate-authority-data"]))
    token = cluster.kubectl("create", "token", ACCOUNT, "--namespace", ACCOUNT, "--duration", "1h").strip()
    yield {"host": server["server"], "api_key": token, "ca_cert": str(ca)}
    for kind in ("clusterrole", "clusterrolebinding", "priorityclass", "validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        cluster.kubectl("delete", kind, "--ignore-not-found", "-l", f"genai.platform/platform in ({NAME},{ACCOUNT},{NAME}-more)")
    cluster.kubectl("delete", "namespace", "--ignore-not-found", NS, f"{NS}-more", LEDGER, ACCOUNT)


def test_the_playbooks_run_as_that_account(account, monkeypatch, tmp_path, figure):
    """Every request is the account's: none is made with the kubeconfig of the inventory."""
    for variable, option in (("HOST", "host"), ("API_KEY", "api_key"), ("SSL_CA_CERT", "ca_cert")):
        monkeypatch.setitem(cluster.PLAIN, f"K8S_AUTH_{variable}", account[option])
    own, report, audit = ("-e", "common_kubeconfig="), tmp_path / "drift.json", cluster.Audit()
    assert "release 1" in play("site.yml", *own).output
    assert "release 2" in play("site.yml", *own, "-e", "inference_app_title=Second", "-e", "inference_app_host=").output
    assert "release 3" in play("rollback.yml", *own).output
    play("verify.yml", *own)
    play("drift.yml", *own, "-e", f"report={report}")
    assert json.loads(report.read_text(encoding="utf-8"))["drift"] == []
    left = play("teardown.yml", *own).output
    requests = audit.requests()
    assert {request["user"]["username"] for request in requests} == {USER}
    refused = [f"{r['verb']} {r['requestURI']}" for r in requests if r["responseStatus"]["code"] == 403]
    assert refused == []
    # It may not list Secrets, and so it cannot tell that nobody else has one there.
    assert f"Namespace {NS}: it holds perhaps secrets (this identity may not list them)" in " ".join(left.split()), left
    assert cluster.kubectl("get", "namespace", NS, "-o", "jsonpath={.status.phase}") == "Active"
    figure("least privilege: site, again, rollback, verify, drift, teardown as the account: refused / requests", f"{len(refused)} / {len(requests)}")


# --- without one of its permissions ----------------------------------------------------------------------------------

MORE = f"{NAME}-more"
APP = {"app": "web"}


def role(kind: str, rules: list[dict], **rest) -> dict:
    return obj(f"{RBAC}/v1", kind, MORE, MORE if kind == "Role" else "", rules=rules, **rest)


def binding(kind: str) -> dict:
    ref = {"apiGroup": RBAC, "kind": kind, "name": MORE}
    return obj(f"{RBAC}/v1", f"{kind}Binding", MORE, MORE if kind == "Role" else "", roleRef=ref, subjects=[
        {"kind": "ServiceAccount", "name": "web", "namespace": MORE},
    ])


def bundle() -> dict[str, list[dict]]:
    """One object of every kind that the roles describe, and all that the profiles of namespaces grant. Nobody is harmed should it get through."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    grants = [rule for profile in PROFILES.values() for rule in profile["rules"]]
    match = {"resourceRules": [{"apiGroups": ["least.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothings"]}]}
    policies = "admissionregistration.k8s.io/v1"
    return {"more": [
        obj("v1", "Namespace", MORE),
        obj("v1", "ConfigMap", "web", MORE, data={"a": "1"}),
        obj("v1", "LimitRange", "web", MORE, spec={"limits": []}),
        obj("v1", "ResourceQuota", "web", MORE, spec={"hard": {"pods": "2"}}),
        obj("v1", "ServiceAccount", "web", MORE),
        obj("v1", "Service", "web", MORE, spec={"selector": APP, "ports": [{"port": 80}]}),
        workload("Deployment", "web", MORE, pod("web")),
        obj("autoscaling/v2", "HorizontalPodAutoscaler", "web", MORE, spec={"scaleTargetRef": target, "maxReplicas": 1}),
        obj("policy/v1", "PodDisruptionBudget", "web", MORE, spec={"maxUnavailable": 1, "selector": {"matchLabels": APP}}),
        obj("networking.k8s.io/v1", "NetworkPolicy", "web", MORE, spec={"podSelector": {}}),
        obj("networking.k8s.io/v1", "Ingress", "web", MORE, spec={"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}),
        obj("scheduling.k8s.io/v1", "PriorityClass", MORE, value=1),
        role("Role", grants), binding("Role"),
        role("ClusterRole", PROFILES["monitoring"]["cluster_rules"]), binding("ClusterRole"),
        obj(policies, "ValidatingAdmissionPolicy", MORE, spec={"matchConstraints": match, "validations": [{"expression": "true"}]}),
        obj(policies, "ValidatingAdmissionPolicyBinding", MORE, spec={"policyName": MORE, "validationActions": ["Audit"]}),
    ]}  # fmt: skip


def releaser(account: dict, platform: str, **options) -> Releaser:
    client = Cluster(account)
    facts = {"by": "tester", "why": "", "commit": "", "profile": ""}
    return Releaser(client, Ledger(client, LEDGER, platform), Options(platform, complete=True, facts=facts, **options), lambda _line: None)


def without(rules: list[dict], index: int, verb: str) -> list[dict]:
    """The rules without one verb of one of them."""
    kept = [each for each in rules[index]["verbs"] if each != verb]
    return [*rules[:index], *([{**rules[index], "verbs": kept}] if kept else []), *rules[index + 1 :]]


def put(api: Api, account: dict, rules: list[dict], question: tuple, answer: bool) -> None:
    """Replaces the ClusterRole's rules, and waits until the API server's authorizer has seen it."""
    current = api.need("GET", CLUSTER_ROLE)
    api.need("PUT", CLUSTER_ROLE, {**current, "rules": rules})
    client, deadline = Cluster(account), time.monotonic() + 30
    while client.may(*question, "", "") != answer:
        assert time.monotonic() < deadline, question
        time.sleep(0.02)


def attempt(account: dict, removing: bool = False, check: bool = False) -> str:
    """What the account is told when it tries to make a release, or to remove one."""
    try:
        if removing:
            return " ".join(teardown(releaser(account, NAME, check=True), data=False, forget=False)["kept"])
        releaser(account, MORE, check=check).deploy(bundle())
    except (NotPermitted, ApiError) as exc:
        return exc.message
    return "nothing was refused"


# Only for a teardown: to see whether a namespace holds workloads of others. Without it the namespace stays.
REMOVING = {(resource, "list") for resource in ("cronjobs", "daemonsets")}
# Kinds that are in no namespace: who may not list them still reads those that the bundle names, one by one.
WIDE = {
    (resource, "list") for resource in
    ("namespaces", "priorityclasses", "clusterroles", "clusterrolebindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings")
}
# What playbooks other than those of a release need; the story of the fleet is where it is tried.
FLEET = {("nodes", "patch")}
# What only verify asks for, which says so and goes without.
LOOKING = {("mutatingwebhookconfigurations", "list")}


def test_without_any_one_permission_nothing_is_written(api, account, figure):
    releaser(account, NAME).deploy({"base": [obj("v1", "Namespace", NS)]})
    rules = api.need("GET", CLUSTER_ROLE)["rules"]
    audit, wrong, tried = cluster.Audit(), [], 0
    for index, rule in enumerate(rules):
        for verb in rule["verbs"]:
            resources = rule.get("resources") or rule["nonResourceURLs"]
            resource = resources[0]
            if (resource, verb) in FLEET | LOOKING:
                continue
            question = (verb, rule.get("apiGroups", [""])[0], resource)
            put(api, account, without(rules, index, verb), question, False)
            told = attempt(account, removing=(resource, verb) in REMOVING, check=not {(each, verb) for each in resources}.isdisjoint(WIDE))
            put(api, account, rules, question, True)
            tried += 1
            if (resource, verb) in REMOVING:
                told += verb  # it names the resource, and says that the identity may not list it
            if not {(each, verb) for each in resources} <= WIDE and (verb not in told or not any(each in told for each in resources)):
                wrong.append(f"{verb} {resource}: {told}")
    assert wrong == []
    assert audit.writes() == []
    figure("least privilege: permissions taken away one by one, named before any write", f"{tried - len(wrong)} of {tried}")


def test_the_permitted_twin_works(account):
    """The same with all permissions, so that it was not something else that was refused."""
    assert releaser(account, MORE, check=True).deploy(bundle())["changed"]


def test_a_token_without_anything_is_told_everything_at_once(api, account):
    rules = api.need("GET", CLUSTER_ROLE)["rules"]
    kept = [rule for rule in rules if "namespaces" in rule.get("resources", [])]
    put(api, account, kept, ("list", "apps", "deployments"), False)
    try:
        told = attempt(account)
    finally:
        put(api, account, rules, ("list", "apps", "deployments"), True)
    said = told.splitlines()
    assert f"- create, delete, get, list, patch networkpolicies.networking.k8s.io in namespace {MORE}" in said
    kinds = {resource for rule in rules if rule not in kept for resource in rule.get("resources", []) if "create" in rule["verbs"]}
    assert [kind for kind in sorted(kinds) if not any(f" {kind}" in line for line in said)] == []
