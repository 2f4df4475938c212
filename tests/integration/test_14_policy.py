# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of the role `policy` on the API server: what each lets in and refuses, and how releases live with them."""
from __future__ import annotations

import copy
import json
import random
import re
import subprocess
import typing as t

import cluster
import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.errors import ReleaseFailed
from bundles import IMAGE, Platform, obj, workload
from live import Api, Looker, until

PLATFORM = Platform("policy")
NS = "policy"
EXAMPLES = cluster.REPOSITORY / "roles" / "policy" / "examples"
BREAKS = "genai.platform/breaks"  # what the rule says of a bad example
PLAYBOOK: list[dict[str, t.Any]] = [
    {
        "hosts": "platforms", "gather_facts": False, "roles": ["genai.platform.policy"],
        "vars": {"common_collect": True, "common_distribution": "kubernetes", "policy_engine": "both", "common_platform": PLATFORM.name},
        "tasks": [{"ansible.builtin.copy": {"content": "{{ __common_bundle.policy | to_json }}", "dest": "{{ folder }}/policy.json", "mode": "0600"}}],
    }
]
API = Api()


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> list[dict]:
    """What the role describes for the kind inventory and both engines, for a platform of this test's own."""
    folder = tmp_path_factory.mktemp("policy")
    (folder / "playbook.yml").write_text(json.dumps(PLAYBOOK), encoding="utf-8")
    run = cluster.play(str(folder / "playbook.yml"), "--extra-vars", f"folder={folder}")
    assert run.code == 0, run.output
    return json.loads((folder / "policy.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def policies(described) -> list[dict]:
    return [each for each in described if "AdmissionPolicy" in each["kind"]]


@pytest.fixture(scope="module")
def both(described, policies) -> list[dict]:
    """Gatekeeper's half."""
    return [each for each in described if each not in policies]


def remove() -> None:
    PLATFORM.remove()
    label = f"genai.platform/platform={PLATFORM.name}"
    cluster.kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "--selector", label)


@pytest.fixture(autouse=True, scope="module")
def clean():
    remove()
    yield
    remove()


@pytest.fixture
def looker() -> Looker:
    return Looker(API, [NS], "policy")


def namespace() -> dict:
    return obj("v1", "Namespace", NS)


def examples(rule: str, name: str) -> list[dict]:
    return list(yaml.safe_load_all((EXAMPLES / rule / f"{name}.yaml").read_text(encoding="utf-8")))  # a safe loader


def path(body: dict, space: str = NS) -> str:
    base = f"/apis/{body['apiVersion']}" if "/" in body["apiVersion"] else "/api/v1"
    return f"{base}/namespaces/{space}/{body['kind'].lower()}s"


def create(body: dict, space: str = NS, dry: bool = True) -> tuple[int, str]:
    """(HTTP status, what the API server says)."""
    status, answer = API.request("POST", path(body, space), body, **({"dryRun": "All"} if dry else {}))
    return status, answer.get("message", "")


def app(name: str = "app", image: str = IMAGE, **labels: str) -> dict:
    """A Deployment that keeps every rule, but for what is asked for."""
    main = {
        "name": "main", "image": image, "command": ["sleep", "infinity"], "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
    }  # fmt: skip
    wanted = {"app": name, "app.kubernetes.io/name": name, "data-classification": "public", **labels}
    kept = {key: value for key, value in wanted.items() if value}
    template = {"metadata": {"labels": kept}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [main]}}
    return workload("Deployment", name, NS, template)


def without(policies: list[dict], rule: str) -> list[dict]:
    return [each for each in policies if not each["metadata"]["name"].endswith(rule)]


def acting(policies: list[dict], action: str) -> list[dict]:
    changed = copy.deepcopy(policies)
    for each in changed:
        if each["kind"] == "ValidatingAdmissionPolicyBinding":
            each["spec"]["validationActions"] = [action]
    return changed


def available(name: str) -> bool:
    return API.need("GET", f"/apis/apps/v1/namespaces/{NS}/deployments/{name}")["status"].get("availableReplicas") == 1


# --- one after the other: each starts with what the one before left -----------------------------------------------------


def test_a_release_with_a_forbidden_object_is_undone(policies, looker):
    """The rules come with the same release, and are in force before its workloads are written."""
    before = looker.look()
    with pytest.raises(ReleaseFailed) as caught:
        PLATFORM.deploy({"base": [namespace()], "policy": policies, "app": [app(image="genai-platform/inference:latest")]})
    said = caught.value.message
    assert f"Deployment {NS}/app" in said and "ValidatingAdmissionPolicy 'policy-no-latest-tag'" in said
    assert 'image "genai-platform/inference:latest" has no version' in said and "Fix: name a version or a digest" in said
    assert [name for name in looker.look().differences(before) if PLATFORM.ledger_namespace not in name] == []


def test_every_example(policies, figure):
    PLATFORM.deploy({"base": [namespace()], "policy": policies})
    rules = sorted(folder.name for folder in EXAMPLES.iterdir())
    assert rules == sorted(each["metadata"]["name"].removeprefix("policy-").replace("-", "_") for each in policies if "Binding" in each["kind"])
    accepted = refused = 0
    for rule in rules:
        for number, good in enumerate(examples(rule, "good")):
            for dry in (True, False) if number == 0 else (True,):
                status, said = create(good, dry=dry)
                assert status == 201, f"{rule}: {good['kind']} {good['metadata']['name']}: {said}"
                accepted += 1
        for number, bad in enumerate(examples(rule, "bad")):
            for dry in (True, False) if number == 0 else (True,):
                status, said = create(bad, dry=dry)
                assert status == 422 and f"'policy-{rule.replace('_', '-')}'" in said, f"{rule}: {bad['kind']} {bad['metadata']['name']}: {status} {said}"
                assert f"{bad['kind']} {NS}/{bad['metadata']['name']}: {bad['metadata']['annotations'][BREAKS]}. Fix: " in said, said
                refused += 1
    figure("policy on the API server: good examples in, bad ones out", f"{accepted} and {refused}, {len(rules)} rules")
    until("the permitted twins run", lambda: available("labelled") and available("versioned"), 120)


def test_a_container_that_comes_later(policies):
    """`kubectl debug` adds containers to a pod that runs."""
    (pod,) = [p for p in API.need("GET", f"/api/v1/namespaces/{NS}/pods")["items"] if p["metadata"]["name"].startswith("versioned-")]
    where = f"/api/v1/namespaces/{NS}/pods/{pod['metadata']['name']}/ephemeralcontainers"

    def debug(image: str, **extra: t.Any) -> tuple[int, str]:
        patch = {"spec": {"ephemeralContainers": [{"name": "debug", "image": image, **extra}]}}
        status, answer = API.request("PATCH", where, patch, "application/strategic-merge-patch+json", dryRun="All")
        return status, answer.get("message", "")

    assert debug(IMAGE)[0] == 200
    for rule, answer in {
        "no-latest-tag": debug("genai-platform/inference"),
        "allowed-registries": debug("registry.example.com/tools:1"),
        "no-privileged": debug(IMAGE, securityContext={"privileged": True}),
    }.items():
        assert answer[0] == 422 and f"'policy-{rule}'" in answer[1] and "container debug: " in answer[1], answer


def test_where_no_rule_applies(policies):
    """The cluster's own namespaces, the ledger and those of nobody's platform."""
    bare = {"name": "main", "image": "busybox", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = obj("v1", "Pod", "bare", spec={"containers": [bare], "securityContext": context})
    assert create(pod)[0] == 422
    for space in ("kube-system", PLATFORM.ledger_namespace, cluster.LEDGER, "default"):
        assert create(pod, space)[0] == 201, space


def test_what_is_older_than_a_rule(policies):
    """It may be scaled, annotated and finalized; what changes its pods has to be right."""
    mild, older = without(policies, "required-labels"), app(**{"data-classification": ""})
    PLATFORM.deploy({"base": [namespace()], "policy": mild})
    PLATFORM.deploy({"base": [namespace()], "policy": mild, "app": [older]})
    PLATFORM.deploy({"base": [namespace()], "policy": policies, "app": [older]})
    where = f"/apis/apps/v1/namespaces/{NS}/deployments/app"
    patch = "application/merge-patch+json"
    assert API.request("PATCH", where, {"spec": {"replicas": 2}, "metadata": {"annotations": {"note": "seen"}}}, patch, dryRun="All")[0] == 200
    pod = API.need("GET", f"/api/v1/namespaces/{NS}/pods", labelSelector="app=app")["items"][0]["metadata"]["name"]
    assert API.request("PATCH", f"/api/v1/namespaces/{NS}/pods/{pod}", {"metadata": {"finalizers": ["example.com/x"]}}, patch, dryRun="All")[0] == 200
    status, answer = API.request("PATCH", where, {"spec": {"template": {"spec": {"priority": 1}}}}, patch, dryRun="All")
    assert status == 422 and "metadata.labels.data-classification is missing" in answer["message"]


def test_back_to_before_a_rule(policies, looker):
    """What is put back was allowed then: the rule goes first, and the workload follows when it is gone everywhere."""
    loose = without(policies, "no-privileged")
    open_door = app()
    open_door["spec"]["template"]["spec"]["hostPID"] = True
    PLATFORM.deploy({"base": [namespace()], "policy": loose})
    PLATFORM.deploy({"base": [namespace()], "policy": loose, "app": [open_door]})
    before = looker.look()
    with pytest.raises(ReleaseFailed) as caught:
        PLATFORM.deploy({"base": [namespace()], "policy": policies, "app": [app(image="genai-platform/nowhere:1")]})
    assert "genai-platform/nowhere:1" in caught.value.message and "The state before is restored" in caught.value.message, caught.value.message
    assert looker.look().differences(before) == []


def test_a_rule_is_loosened_with_what_it_would_refuse(policies):
    strict, mild = policies, acting(policies, "Warn")
    PLATFORM.deploy({"base": [namespace()], "policy": strict, "app": [app()]})
    bundle = {"base": [namespace()], "policy": mild, "app": [app(**{"data-classification": ""})]}
    shown = PLATFORM.deploy(bundle, check=True)
    assert [c["pending"] for c in shown["changes"] if c["kind"] == "Deployment"] == ["a policy that refuses it today changes in the same run"]
    assert PLATFORM.deploy(bundle)["changed"]
    status, said = create(app("other", **{"data-classification": ""}))
    assert status == 201, said
    headers = API.pool.request(
        "POST", path(app()) + "?dryRun=All", json=app("other", **{"data-classification": ""}), retries=False
    ).headers
    assert re.search(r"policy-required-labels.*metadata\.labels\.data-classification is missing", headers["warning"])


# --- both engines ------------------------------------------------------------------------------------------------------

IMAGES = (
    IMAGE, "genai-platform/inference", "genai-platform/inference:latest", "genai-platform/x:latest@sha256:" + 64 * "a", "genai-platform:5000/x:1",
    "genai-platform.example.com/x:1", "genai-platform", "genai-platform:1", "registry.example.com:5000/genai-platform/x", "busybox",
)  # fmt: skip
LIMITS = ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1"}, {}, {"cpu": "0", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi", "amd.com/gpu": "9"})
LABELS = ({"app.kubernetes.io/name": "x", "data-classification": "internal"}, {"app.kubernetes.io/name": "x"}, {"data-classification": "publicity"})
POD_EXTRAS = ({}, {"hostPID": True}, {"hostNetwork": False}, {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {"volumes": []})
EXTRAS = (
    {}, {"securityContext": {"privileged": True}}, {"securityContext": {"privileged": False}},
    {"ports": [{"containerPort": 1, "hostPort": 1}]}, {"ports": [{"containerPort": 1}]},
)  # fmt: skip


def generated(seed: int) -> dict:
    """A pod, or a Job of it, that the API itself has nothing against."""
    chance = random.Random(seed)

    def one_of(values: t.Sequence[t.Any]) -> t.Any:
        """Mostly the first, which no rule has anything against: else nearly every pod would break one."""
        return values[0] if chance.random() < 0.8 else chance.choice(values)

    def container(name: str) -> dict:
        return {"name": name, "image": one_of(IMAGES), "resources": {"limits": one_of(LIMITS)}, **one_of(EXTRAS)}

    spec = {"restartPolicy": "Never", "containers": [container("one")], **one_of(POD_EXTRAS)}
    if chance.random() < 0.5:
        spec["initContainers"] = [container("first")]
    labels = one_of(LABELS)
    if chance.random() < 0.5:
        return obj("v1", "Pod", f"p{seed}", NS, metadata={"labels": labels}, spec=spec)
    return obj("batch/v1", "Job", f"p{seed}", NS, spec={"template": {"metadata": {"labels": labels}, "spec": spec}})


def test_both_engines_say_the_same(both, policies, tmp_path, figure):
    """The API server names one rule of those that an object breaks; Gatekeeper names all of them."""
    PLATFORM.deploy({"base": [namespace()], "policy": policies})
    pods = [generated(seed) for seed in range(200)]
    space = obj("v1", "Namespace", NS, metadata={"labels": {"genai.platform/platform": NS, "kubernetes.io/metadata.name": NS}})
    for name, content in {"rules": both, "pods": [space, *pods]}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(content), encoding="utf-8")
    command = [cluster.CACHE / "bin" / "gator", "test", "--filename", tmp_path, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    broken: dict[str, set[str]] = {}
    for each in json.loads(done.stdout):
        broken.setdefault(each["violatingObject"]["metadata"]["name"], set()).add(each["constraint"]["kind"].lower())
    assert 20 < len(broken) < 180, "there have to be some of both"
    for pod in pods:
        status, said = create(pod)
        rules = broken.get(pod["metadata"]["name"], set())
        named = re.search(r"ValidatingAdmissionPolicy 'policy-([a-z-]+)'", said)
        if status == 201:
            assert rules == set(), pod
        else:
            assert named and f"genai{named[1].replace('-', '')}" in rules, f"{said}; Gatekeeper: {rules}; {pod}"
    figure("policy: generated pods that both engines judge the same / refused", f"{len(pods)} / {len(broken)}")
