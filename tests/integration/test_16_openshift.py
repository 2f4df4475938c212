# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The OpenShift flavour on a cluster with OpenShift's own schemas: found out by asking, admitted, changed and undone.

The scenario `openshift` runs this. No part of OpenShift acts here: its README says what that leaves unproven.
"""
from __future__ import annotations

import json
import pathlib

import cluster
import pytest
from live import Api
from test_15_least_privilege import CLUSTER_ROLE, VARIABLES, bootstrapped  # pylint: disable=unused-import  # a fixture
from test_8_render import kubectl, spec

INVENTORY = ("-i", "molecule/openshift/inventory/hosts.yml")
HOST = "inference.apps.example.com"
ROUTE = "Route inference/inference"


def play(playbook: str, *args: str, code: int = 0) -> cluster.Run:
    run = cluster.play(playbook, *INVENTORY, *args)
    assert run.code == code, run.output
    return run


def route() -> dict:
    return json.loads(cluster.kubectl("get", "route", "inference", "-n", cluster.NAMESPACE, "-o", "json"))["spec"]


def drift(*args: str, code: int, folder: pathlib.Path) -> dict:
    report = folder / "drift.json"
    play("drift.yml", "-e", f"report={report}", *args, code=code)
    return json.loads(report.read_text(encoding="utf-8"))


def test_the_route_is_what_the_inventory_says():
    """All of it: what the schema adds by default, too."""
    assert route() == {
        "host": HOST,
        "port": {"targetPort": "http"},
        "tls": {"insecureEdgeTerminationPolicy": "Redirect", "termination": "edge"},
        "to": {"kind": "Service", "name": "inference", "weight": 100},
        "wildcardPolicy": "None",
    }
    assert "ingress/" not in cluster.kubectl("get", "ingress", "-n", cluster.NAMESPACE, "-o", "name"), "an Ingress is for Kubernetes"


def test_every_object_is_the_one_that_is_rendered(tmp_path, figure):
    """render.yml cannot ask; told that it is OpenShift, it writes what site.yml found out to apply. No default SCC is ours."""
    play("render.yml", "-e", "common_distribution=openshift", "-e", f"dest={tmp_path}/tree")
    answer = kubectl("apply", "-k", f"{tmp_path}/tree", "--server-side", "--dry-run=server", "--field-manager=test", "--force-conflicts", "-o", "json")
    would_be = {cluster.name_of(obj): spec(obj) for obj in json.loads(answer)["items"]}
    live = {cluster.name_of(obj): spec(obj) for obj in cluster.objects() if cluster.name_of(obj) in would_be}
    assert would_be == live
    ours = cluster.ours()
    assert ROUTE in ours and set(would_be) <= ours
    assert not [name for name in ours if name.startswith("SecurityContextConstraints")]
    figure("OpenShift flavour: objects admitted by the schemas, equal to the rendered", f"{len(live)} of {len(would_be)}")


def test_a_second_run_changes_nothing_and_writes_nothing():
    audit = cluster.Audit()
    assert play("site.yml").changed == 0
    assert audit.writes() == []


def test_the_schema_refuses_before_the_first_write():
    before, audit = cluster.specs(), cluster.Audit()
    run = play("site.yml", "--check", "-e", "inference_app_host=no_host.example.com", code=2)
    assert "roles/inference_app/templates/openshift/route.yaml.j2" in run.output and "spec.host" in run.output, run.output
    assert audit.writes() == [] and cluster.specs() == before


def test_what_the_schema_refuses_in_mid_release_leaves_nothing_behind():
    before = cluster.specs()
    run = play("site.yml", "-e", "inference_app_host=no_host.example.com", "-e", "inference_app_title=Other", code=2)
    assert ROUTE in run.output and "The state before is restored" in run.output, run.output
    assert cluster.specs() == before


def test_another_host_and_back():
    before = cluster.specs()
    play("site.yml", "-e", "inference_app_host=other.apps.example.com")
    assert route()["host"] == "other.apps.example.com"
    assert {name for name, obj in cluster.specs().items() if obj != before[name]} == {ROUTE}
    play("rollback.yml")
    assert cluster.specs() == before


def test_a_route_edited_by_hand_is_drift(tmp_path):
    assert drift(code=0, folder=tmp_path)["drift"] == []
    edit = json.dumps({"spec": {"tls": {"insecureEdgeTerminationPolicy": "Allow"}}})
    cluster.kubectl("patch", "route", "inference", "-n", cluster.NAMESPACE, "--type=merge", "-p", edit)
    found = drift(code=2, folder=tmp_path)["drift"]
    assert [(each["object"], each["field"]) for each in found] == [(ROUTE, "spec.tls.insecureEdgeTerminationPolicy")]
    assert drift("-e", "fix=true", code=0, folder=tmp_path)["fixed"] == 1
    assert route()["tls"]["insecureEdgeTerminationPolicy"] == "Redirect"


def test_it_is_healthy():
    assert "healthy" in play("verify.yml").output


@pytest.fixture(scope="module")
def api():
    return Api()


def test_routes_and_the_scc_are_permissions_of_their_own(api, account, monkeypatch):
    """As the account of bootstrap_rbac.yml, which found out what it is on by itself; only looked at, for another platform."""
    for variable, option in (("HOST", "host"), ("API_KEY", "api_key"), ("SSL_CA_CERT", "ca_cert")):
        monkeypatch.setitem(cluster.PLAIN, f"K8S_AUTH_{variable}", account[option])
    preview = ("--check", "-e", "common_kubeconfig=", "-e", json.dumps(VARIABLES))
    audit = cluster.Audit()
    play("site.yml", *preview)
    role = api.need("GET", CLUSTER_ROLE)
    api.need("PUT", CLUSTER_ROLE, {**role, "rules": [rule for rule in role["rules"] if not _of_openshift(rule)]})
    told = play("site.yml", *preview, code=2).output
    # Or to bind to the role that allows just this, which is what the account holds.
    assert "use securitycontextconstraints.security.openshift.io restricted-v2 in namespace least" in told, told
    assert "list, patch routes.route.openshift.io in namespace least" in told and "routes/custom-host.route.openshift.io in namespace least" in told, told
    assert audit.writes() == []


def _of_openshift(rule: dict) -> bool:
    return "route.openshift.io" in rule.get("apiGroups", []) or "bind" in rule["verbs"]
