# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""On call: a platform is broken by kubectl in many ways. verify names the cause, one command mends it, and it stays mended."""
from __future__ import annotations

import dataclasses
import http.client
import json
import subprocess
import time
import typing as t

import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.engine.patience import patience
from ansible_collections.genai.platform.plugins.module_utils.fleet.fleet import Fleet
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import Pool
from ansible_collections.genai.platform.plugins.module_utils.objects.request import ANNOTATION_REQUEST
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from ansible_collections.genai.platform.plugins.module_utils.upkeep.verify import verdict_lines, verify
from bundles import Platform, obj, pod, workload
from cluster import NAME, PLAIN, REPOSITORY, kubectl
from live import until
from living import API, autoscaler, by_hand, delete, edit, path, secret, settings, space, there
from operators import certificate, gauges, operator

LOOK_SECONDS = 20
SERVE = """
import http.server, os, sys
if os.environ["RATE"] != "1" or "BAD" in os.environ: sys.exit("rate is " + os.environ["RATE"] + ", bad is " + os.environ.get("BAD", "not set"))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if "HURT" in os.environ and self.path != "/ready" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""


# --- the platform ----------------------------------------------------------------------------------------------------


def web(namespace: str) -> dict:
    names = [{"name": "RATE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}}]
    template = pod("web", f"exec python3 -c '{SERVE}'", env=names, envFrom=[{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "key"}}])
    template["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1}
    template["spec"]["serviceAccountName"] = "web"
    body = workload("Deployment", "web", namespace, template)
    del body["spec"]["replicas"]  # they are the autoscaler's
    return body


def service(namespace: str) -> dict:
    body = obj("v1", "Service", "web", namespace, spec={"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]})
    body["metadata"]["annotations"] = {ANNOTATION_REQUEST: "80:/"}
    return body


def account(namespace: str) -> dict:
    return obj("v1", "ServiceAccount", "web", namespace)


def rule(namespace: str, name: str, **spec: t.Any) -> dict:
    return obj("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec={"podSelector": {}, "policyTypes": ["Ingress"], **spec})


def quota(namespace: str, pods: str = "20") -> dict:
    return obj("v1", "ResourceQuota", "all", namespace, spec={"hard": {"pods": pods}})


def bundle(namespace: str) -> dict[str, list[dict]]:
    room = [space(namespace), quota(namespace), rule(namespace, "web", ingress=[{}]), account(namespace)]
    return {"base": room, "app": [settings(namespace), secret(namespace, "key"), web(namespace), service(namespace), autoscaler(namespace, "web", least=2)]}


def answers(namespace: str) -> bool:
    """Whether a client gets an answer through the Service, from outside of the cluster."""
    if not there(service(namespace)):
        return False
    node = API.need("GET", f"/api/v1/nodes/{NAME}-worker")["status"]["addresses"]
    port = API.need("GET", path(service(namespace)))["spec"]["ports"][0]["nodePort"]
    client = http.client.HTTPConnection(next(each["address"] for each in node if each["type"] == "InternalIP"), port, timeout=2)
    try:
        client.request("GET", "/")
        return client.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


# --- ways to break it ------------------------------------------------------------------------------------------------


def pods_restart(namespace: str) -> None:
    kubectl("delete", "pods", "-n", namespace, "-l", "app=web", "--wait=false")


def image(namespace: str) -> None:
    """For good: pods that are only restarted would be the old template's again, which a rolling update keeps."""
    kubectl("set", "image", "-n", namespace, "deployment/web", "main=genai-platform/nowhere:1")
    until("it is seen", lambda: (live := API.need("GET", path(web(namespace))))["status"]["observedGeneration"] == live["metadata"]["generation"])
    kubectl("delete", "replicasets", "-n", namespace, "-l", "app=web", "--wait=false")


def setting(namespace: str) -> None:
    edit(settings(namespace), {"data": {"rate": "7"}})
    pods_restart(namespace)


def added_key(namespace: str) -> None:
    edit(settings(namespace), {"data": {"BAD": "yes"}})
    pods_restart(namespace)


def no_rule(namespace: str) -> None:
    kubectl("delete", "networkpolicy", "-n", namespace, "web")


def no_room(namespace: str) -> None:
    edit(quota(namespace), {"spec": {"hard": {"pods": "0"}}})
    pods_restart(namespace)


def frozen(namespace: str) -> None:
    edit(quota(namespace), {"spec": {"hard": {"pods": "0"}}})


def no_account(namespace: str) -> None:
    delete(account(namespace))
    pods_restart(namespace)


def no_secret(namespace: str) -> None:
    delete(secret(namespace, "key"))
    pods_restart(namespace)


def selector(namespace: str) -> None:
    edit(service(namespace), {"spec": {"selector": {"app": "wbe"}}})


def another_port(namespace: str) -> None:
    edit(service(namespace), {"spec": {"ports": [{"port": 80, "targetPort": 8081}]}})


def hurt(namespace: str) -> None:
    kubectl("set", "env", "-n", namespace, "deployment/web", "HURT=yes")


def no_autoscaler(namespace: str) -> None:
    delete(autoscaler(namespace, "web"))
    kubectl("scale", "-n", namespace, "deployment/web", "--replicas=0")


def switched_off(namespace: str) -> None:
    kubectl("scale", "-n", namespace, "deployment/web", "--replicas=0")


def no_service(namespace: str) -> None:
    delete(service(namespace))


@dataclasses.dataclass(frozen=True)
class Way:
    """`cause`: what verify has to say. `down`: whether clients notice."""

    make: t.Callable[[str], None]
    cause: tuple[str, ...]
    down: bool = True


WAYS = {
    "a wrong image": Way(image, ("Deployment {0}/web", "genai-platform/nowhere:1", "changed by others since it was released: Deployment {0}/web")),
    "a setting edited": Way(setting, ("rate is 7", "changed by others since it was released: ConfigMap {0}/settings (kubectl-edit")),
    "a key added": Way(added_key, ("bad is yes", "changed by others since it was released: ConfigMap {0}/settings (kubectl-edit")),
    "a NetworkPolicy deleted": Way(no_rule, ("NetworkPolicy {0}/web: Missing",), down=False),
    "a quota of nothing": Way(no_room, ("exceeded quota", "changed by others since it was released: ResourceQuota {0}/all")),
    "a quota of nothing while all runs": Way(frozen, ("ResourceQuota {0}/all: NoRoom: it allows pods: 0, so that no pod can start again",), down=False),
    "the account deleted": Way(no_account, ("ServiceAccount {0}/web: Missing", 'serviceaccount "web" not found')),
    "a Secret deleted": Way(no_secret, ("Secret {0}/key: Missing", 'secret "key" not found')),
    "another selector": Way(selector, ("Service {0}/web: NoEndpoints", "app=wbe", "changed by others since it was released: Service {0}/web")),
    "another port": Way(another_port, ("Service {0}/web: NoAnswer: 2 of 2 pods do not answer GET /", "port 8081: dial", "connection refused")),
    "an error for every request": Way(hurt, ("Service {0}/web: NoAnswer: 2 of 2 pods do not answer GET /", "port 8080: 500")),
    "no autoscaler, no replicas": Way(no_autoscaler, ("HorizontalPodAutoscaler {0}/web: Missing", "Service {0}/web: NoEndpoints")),
    "no replicas": Way(switched_off, ("HorizontalPodAutoscaler {0}/web: ScalingDisabled", "Service {0}/web: NoEndpoints")),
    "the Service deleted": Way(no_service, ("Service {0}/web: Missing",)),
}


def look(platform: Platform, timeout: float = LOOK_SECONDS) -> tuple[str, str]:
    """(verdict, its lines)."""
    run = platform.releaser()
    verdict = verify(run.cluster, run.ledger, None, timeout, lambda _line: None, asking=True)
    return verdict["verdict"], "\n".join(verdict_lines(verdict))


def test_a_slow_start_of_three_minutes_is_waited_for(living, figure):
    """Engine, 2.9. Red where a container that loads for minutes, as large models and standbys do, has three times what its probe allows."""
    platform = living("slow")
    where = platform.name
    starts = "sleep 185; touch /tmp/up; exec sleep infinity"
    probe = {"exec": {"command": ["test", "-e", "/tmp/up"]}}
    plain = workload("Deployment", "plain", where, pod("plain", starts, readinessProbe={**probe, "periodSeconds": 5}))
    guarded = pod("guarded", starts, readinessProbe={**probe, "periodSeconds": 1}, startupProbe={**probe, "periodSeconds": 1, "failureThreshold": 600})
    defaults = yaml.safe_load((REPOSITORY / "roles" / "common" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    given = {"patience": patience(defaults["common_patience"]), "wait_timeout": defaults["common_wait_timeout"]}
    started = time.monotonic()
    result = platform.deploy({"app": [space(where), plain, workload("Deployment", "guarded", where, guarded)]}, **given)
    assert result["not_ready"] == [] and time.monotonic() - started > 180
    figure("engine 2.9, a start of three minutes, without and with a startup probe: waited for with the roles' defaults", "yes / yes")


@pytest.mark.parametrize("name", WAYS)
def test_what_kubectl_breaks_is_named_and_mended(living, figure, name):
    """Red where verify says "healthy" to who gets no answer, or where the repair is undone."""
    way, platform = WAYS[name], living(f"call{[*WAYS].index(name)}")
    where = platform.name
    platform.deploy(bundle(where))
    until("clients are answered", lambda: answers(where))
    assert look(platform)[0] == "healthy"
    way.make(where)
    if way.down:
        until("clients notice", lambda: not answers(where))
    verdict, said = look(platform)
    lacking = [each.format(where) for each in way.cause if each.format(where) not in said]
    assert verdict != "healthy" and not lacking, f"{lacking} is not in:\n{said}"
    started = time.monotonic()
    result = drift(platform.releaser(), True, None, [])
    until("clients are answered again", lambda: answers(where))
    seconds = time.monotonic() - started
    assert result["fixed"] and result["not_ready"] == [], result["not_ready"]
    assert platform.drift() == []
    verdict, said = look(platform, 60)
    assert verdict == "healthy", said
    figure(f"on call, {name}: cause named / mended by drift.yml, answered after, s", f"yes / {seconds:.0f}")


def test_a_pod_that_the_api_server_does_not_reach_is_no_pod_that_is_silent(living, figure):
    """Red where a policy that lets nothing in from the API server makes an alarm, or where nobody says that a Service was not asked."""
    platform = living("unreached")
    where = platform.name
    platform.deploy(bundle(where))
    assert "2 of 2 pods of Service" in look(platform)[1]
    pods = API.need("GET", f"/api/v1/namespaces/{where}/pods", labelSelector="app=web")["items"]
    drop = ("FORWARD", "-d", pods[0]["status"]["podIP"], "-j", "DROP")  # as an enforced policy does
    node = ("docker", "exec", pods[0]["spec"]["nodeName"], "iptables")
    subprocess.run([*node, "-I", *drop], check=True, timeout=30)
    try:
        verdict, said = look(platform)
    finally:
        subprocess.run([*node, "-D", *drop], check=True, timeout=30)
    assert verdict == "healthy" and f"not looked at: Service {where}/web: the API server does not reach its pods" in said, said
    figure("on call, pods that the API server does not reach: no alarm, and said to be not asked", "yes")


def test_what_a_pool_gave_to_its_nodes_is_put_back(living, figure):
    """Users, 13. Red where nobody looks at nodes, and what a person has put in the place of ours stays for ever."""
    platform, node = living("pools"), f"{NAME}-worker2"
    where = platform.name
    labels, taint = {f"{where}/type": "l4", f"{where}/tier": "hot"}, {"key": f"{where}/gpu", "value": "yes", "effect": "PreferNoSchedule"}
    pools = [{"name": "l4", "match": {"nodes": [node]}, "labels": labels, "taints": [taint]}]
    described = obj("v1", "ConfigMap", "gpu-pools", where, data={"pools.json": json.dumps(pools)})
    cluster = platform.releaser().cluster
    fleet = Fleet(cluster, list(map(Pool.of, pools)), platform=where)
    try:
        fleet.apply()
        platform.deploy({"gpu_nodes": [space(where), described]})
        assert look(platform)[0] == "healthy" and platform.drift() == []
        kubectl("label", "node", node, f"{where}/type=mi300", "--overwrite")
        kubectl("label", "node", node, f"{where}/tier-")
        kubectl("taint", "node", node, f"{where}/gpu=no:PreferNoSchedule", "--overwrite")
        verdict, said = look(platform)
        assert verdict == "failed" and f"Node {node}: NotOfItsPool: metadata.labels[{where}/type]: l4 became mi300, by kubectl-label at " in said, said
        assert len(platform.drift()) == 3
        started = time.monotonic()
        assert drift(platform.releaser(), True, None, [])["fixed"] == 3
        seconds = time.monotonic() - started
        live = API.need("GET", f"/api/v1/nodes/{node}")
        assert live["metadata"]["labels"].items() >= labels.items() and taint in live["spec"]["taints"]
        assert look(platform)[0] == "healthy" and platform.drift() == []
        assert fleet.apply()["changed"] is False, "and what was put back is ours, as before"
    finally:
        Fleet(cluster, [], platform=where, emptied_pools="allow").apply()
    assert not [key for key in API.need("GET", f"/api/v1/nodes/{node}")["metadata"]["labels"] if where in key]
    figure("on call, labels and a taint of a node changed: cause named / mended by drift.yml after, s", f"yes / {seconds:.0f}")


def test_a_webhook_without_a_server_is_named_and_mended(living, figure):
    """Red where all objects are there and ready, and everything that the webhook judges is refused."""
    platform = living("hook")
    where, shown = platform.name, certificate(f"hook.{platform.name}.svc")
    platform.deploy({"operator": operator(where, shown), "app": gauges(where, 1)}, wait_timeout=120)
    assert look(platform)[0] == "healthy"
    tried = {"metadata": {"labels": {"tried": "yes"}}}
    gauge = f"/apis/{where}.example.com/v1/namespaces/{where}/gauges/gauge-0"

    def works() -> bool:
        return API.request("PATCH", gauge, tried, "application/merge-patch+json", dryRun="All")[0] == 200

    seconds = []
    for command in ("delete", "deployment/hook"), ("scale", "deployment/hook", "--replicas=0"), ("delete", "service/hook"):
        kubectl(*command, "-n", where)
        until("it is refused", lambda: not works())
        verdict, said = look(platform)
        assert verdict != "healthy" and f"ValidatingWebhookConfiguration {where}-hook: NoWebhookServer: webhook hook.{where}.example.com" in said, said
        started = time.monotonic()
        drift(platform.releaser(), True, None, [])
        until("it works", works)
        seconds.append(time.monotonic() - started)
        assert platform.drift() == [] and look(platform, 60)[0] == "healthy"
    figure("on call, a webhook without a server, three ways: cause named / mended by drift.yml, answering after, s", f"3 of 3 / {max(seconds):.0f}")


def test_a_strangers_webhook_without_a_server_is_named(living, figure):
    """It stops every new pod here, and no command of ours may take it away."""
    platform = living("stop")
    where = platform.name
    platform.deploy({"app": [space(where), workload("Deployment", "web", where, pod("web"))]})
    stop = {
        "name": f"stop.{where}.example.com", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        "clientConfig": {"service": {"name": "nobody", "namespace": where}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": where}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    }
    configuration = obj("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", f"{where}-stop", webhooks=[stop])
    by_hand(configuration)
    try:
        verdict, said = look(platform)
        assert verdict == "failed" and f"ValidatingWebhookConfiguration {where}-stop: NoWebhookServer" in said and "every new pod here is refused" in said, said
        assert f"kubectl delete validatingwebhookconfiguration {where}-stop" in said
    finally:
        delete(configuration)
    assert look(platform)[0] == "healthy"
    figure("on call, a stranger's webhook without a server, while all runs: named", "yes")


def test_what_strangers_put_beside_the_platform_is_named(living, figure):
    """Users, 15. Red where a policy, or a quota, that somebody else makes in the platform's namespace is reported by nobody."""
    platform = living("strangers")
    where = platform.name
    platform.deploy(bundle(where))
    kubectl("create", "quota", "-n", where, "theirs", "--hard=pods=1")
    API.need("POST", f"/apis/networking.k8s.io/v1/namespaces/{where}/networkpolicies", rule(where, "emergency-lockdown"), fieldManager="kubectl-create")
    verdict, said = look(platform)
    assert f"NetworkPolicy {where}/emergency-lockdown (kubectl-create" in said and f"ResourceQuota {where}/theirs (kubectl-create" in said, said
    assert verdict == "healthy", "they stop nothing that runs"
    pods_restart(where)
    until("pods are refused", lambda: (there(web(where)) or {}).get("status", {}).get("readyReplicas", 0) < 2)
    verdict, said = look(platform)
    assert verdict != "healthy" and "exceeded quota: theirs" in said, said
    figure("on call, a quota and a NetworkPolicy of strangers: named, and told when pods are refused", "yes")


def test_a_report_lands_where_the_user_is_also_of_a_run_that_failed(living, tmp_path, figure):
    """Users, 9. Red where a relative path begins in the playbook's folder, or where a run that fails leaves no report."""
    platform = living("report")
    platform.deploy({"app": [space(platform.name), settings(platform.name)]})
    ours = ("-e", f"common_platform={platform.name}", "-e", f"common_ledger_namespace={platform.ledger_namespace}", "-e", "report=report.json")
    env = {**PLAIN, "PWD": str(tmp_path), "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}

    def run(playbook: str, *args: str) -> tuple[int, dict]:
        command = ["ansible-playbook", "-i", str(REPOSITORY / "inventories" / "kind"), str(REPOSITORY / playbook), *args, *ours]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False, timeout=300, stdin=subprocess.DEVNULL)
        return done.returncode, json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))

    (failed, why), (ended, history) = run("rollback.yml", "-e", "to=9999"), run("history.yml")
    assert (failed, ended) == (2, 0) and why["reason"] == "invalid_input" and "9999" in why["msg"] and len(history["releases"]) == 1
    figure("users 9, reports by a relative path, of a run that failed and of one that did not: where the user is", "2 of 2")
