# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rendered tree: `kubectl apply -k` makes of it what site.yml makes of the same inventory."""
from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import time

import cluster
import pytest
import yaml

KUBECTL = cluster.CACHE / "bin" / "kubectl"
# A second platform beside the first, in a namespace of its own: it comes and goes while the first serves.
OWN = cluster.own("rendered")
OWN_LEDGER = f"{OWN}-ledger"
GROUP = f"{OWN}.example.com"
LABEL = "genai.platform/platform"
POLICIES = "validatingadmissionpolicies,validatingadmissionpolicybindings"
OWN_VARIABLES = {
    "common_platform": OWN,
    "common_ledger_namespace": OWN_LEDGER,
    "namespaces_list": [{"name": OWN, "labels": {"team": "1e3"}, "quota": {"pods": "20"}, "limits": {"default": {"cpu": "500m"}}}],
    "namespaces_priority_classes": [],  # they have no namespace: the first platform's are here
    "inference_app_namespace": OWN,
    "inference_app_service_type": "ClusterIP",
    "inference_app_node_port": 0,
    "inference_app_host": GROUP,
    "inference_app_title": "0o17",
    "inference_app_drain_seconds": 0,  # nobody calls it; it goes faster
}
OWN_OBJECTS = 12


def kubectl(*args: str, fails: bool = False) -> str:
    """The host's kubectl, because the one of the node does not see the tree."""
    done = subprocess.run(
        [KUBECTL, "--kubeconfig", cluster.KUBECONFIG, *args], capture_output=True, text=True, check=False, timeout=330, stdin=subprocess.DEVNULL
    )
    assert fails or done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
    return done.stdout


def render(dest: pathlib.Path, *args: str) -> cluster.Run:
    run = cluster.play("render.yml", "-e", f"dest={dest}", *args)
    assert run.code == 0, run.output
    return run


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def spec(obj: dict) -> dict:
    """An object without what the server notes about each request."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("managedFields", "resourceVersion", "generation")}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": meta}


# --- for real, on nothing -----------------------------------------------------------------------------------------------
@pytest.fixture(name="own")
def own_platform(monkeypatch):
    """Variables of the second platform, for the command line; whatever was made of it goes."""
    monkeypatch.setattr(cluster, "NAMESPACE", OWN)
    remove()
    yield ("-e", json.dumps(OWN_VARIABLES))
    remove()


def remove() -> None:
    kubectl("delete", POLICIES, "--selector", f"{LABEL}={OWN}")
    kubectl("delete", "namespace", OWN, OWN_LEDGER, "--ignore-not-found", "--timeout=300s")


def settled() -> dict[str, dict]:
    """The platform's objects once the autoscaler has set its minimum, without what differs from one life to the next."""
    for _attempt in range(60):
        found = cluster.specs()
        if found.get(f"Deployment {OWN}/inference", {}).get("spec", {}).get("replicas") == 2 and f"ConfigMap {OWN}/kube-root-ca.crt" in found:
            break
        time.sleep(1)
    for obj in found.values():
        if obj["kind"] == "Service":
            obj["spec"] = {key: value for key, value in obj["spec"].items() if not key.startswith("clusterIP")}
        # Where client-side apply keeps its own notes.
        obj["metadata"].get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
        if not obj["metadata"].get("annotations", {1: 1}):
            del obj["metadata"]["annotations"]
    return found


def test_on_nothing_it_makes_what_the_site_makes(own, tmp_path, figure):
    render(tmp_path, *own)
    kubectl("apply", "-k", str(tmp_path), "--server-side")
    server_side = settled()
    remove()
    kubectl("apply", "-k", str(tmp_path))
    client_side = settled()
    remove()
    run = cluster.play("site.yml", *own)
    assert run.code == 0, run.output
    from_site = settled()
    assert server_side == from_site
    assert client_side == from_site
    ours = {name for name in from_site if LABEL in from_site[name]["metadata"].get("labels", {})}
    assert len(ours) == OWN_OBJECTS
    equal = sum(server_side[name] == client_side[name] == from_site[name] for name in ours)
    figure("render.yml, kubectl apply -k on nothing: objects equal to site.yml", f"{equal} of {len(ours)}")


# --- beside what is deployed --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", name="tree")
def rendered(tmp_path_factory) -> pathlib.Path:
    dest = tmp_path_factory.mktemp("render") / "tree"
    assert render(dest, "-e", "common_kubeconfig=/nowhere").changed == 1, "nobody is asked"
    return dest


def test_the_deployed_platform_and_the_tree_are_the_same(tree, figure):
    """Applied by somebody else, with force, the tree would change no field of any object."""
    deployed = cluster.play("site.yml")
    assert deployed.code == 0, deployed.output
    answer = kubectl("apply", "-k", str(tree), "--server-side", "--dry-run=server", "--field-manager=render-test", "--force-conflicts", "-o", "json")
    would_be = {cluster.name_of(obj): spec(obj) for obj in json.loads(answer)["items"]}
    # And none is missing: all that site.yml has labelled is in the tree.
    live = {cluster.name_of(obj): spec(obj) for obj in cluster.objects() if obj["metadata"].get("labels", {}).get(LABEL) == "genai"}
    assert would_be == live
    figure("render.yml beside what is deployed: objects equal", f"{len(live)} of {len(would_be)}")


def test_again_changes_nothing(tree):
    before = content(tree)
    assert render(tree).changed == 0
    assert content(tree) == before


def test_check_mode_shows_and_writes_nothing(tree, tmp_path):
    before = content(tree)
    run = render(tree, "--check", "--diff", "-e", "inference_app_title=Second")
    assert run.changed == 1 and "+  GENAI_MODEL_TITLE: Second" in run.output, run.output
    assert content(tree) == before
    assert render(tmp_path / "new", "--check").changed == 1
    assert not (tmp_path / "new").exists()


def test_a_tag_limits_it_to_its_component(tree, tmp_path):
    whole = content(tree)
    render(tmp_path, "--tags", "namespaces")
    assert set(content(tmp_path)) == {path for path in whole if not path.startswith(("inference_app", "policy"))}
    render(tmp_path, "--tags", "inference_app,policy")
    assert content(tmp_path) == whole
    assert kubectl("kustomize", str(tmp_path)) == kubectl("kustomize", str(tree))


# --- what is hard to write ----------------------------------------------------------------------------------------------
TEXTS = {
    "number": "1e3", "octal": "0o14", "hex": "0x1f", "grouped": "1_000", "sexagesimal": "12:30:45", "date": "2026-01-01", "yes": "yes", "no": "n",
    "null": "null", "tilde": "~", "empty": "", "equals": "=", "merge": "<<", "infinity": ".inf", "spaces": "  a  ", "tab": "\ta\tb", "newlines": "\n\n",
    "block": "#!/bin/sh\nset -e\n\necho \"$X\"  # x\n", "indented": "  a\n b\n", "trailing": "a \nb", "document": "a\n---\nb\n", "windows": "a\r\nb",
    "unicode": "é 日本語 😀", "separator": "a\u2028b", "escape": "\x1b[0m", "braces": "{{ x }} $(X)", "long": "word " * 2000, "json": '{"a": [1, "2", null]}',
}  # fmt: skip
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"things.{GROUP}"},
    "spec": {
        "group": GROUP, "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}}],
    },
}  # fmt: skip
THING = {"texts": list(TEXTS.values()), "numbers": [0, -1, 1.5, 2**53, 2**63 - 1, 1e20, 1e-9], "true": True, "empty": {"a": {}, "b": []}, "yes": "on"}


def named(kind: str, name: str, version: str = "v1", **extra: object) -> dict:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": OWN}, **extra}


HARD = {
    "definitions": [DEFINITION, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OWN}}],
    "hard": [
        {"apiVersion": "v1", "kind": "List", "items": [named("ConfigMap", "texts", data=TEXTS), named("ConfigMap", "a.b", data={})]},
        named("Secret", "token", stringData={"token": "hunter2", "text": "two\nlines é"}),
        named("Thing", "hard", f"{GROUP}/v1", spec=THING),
    ],
}
PLAYBOOK = """
- hosts: platforms
  gather_facts: false
  tasks:
    - genai.platform.render:
        bundle: "{{ lookup('ansible.builtin.file', file) | from_json }}"
        dest: "{{ dest }}"
        secrets: "{{ secrets | default(true) }}"
        complete: true
        kubeconfig: /nowhere
      register: result
    - ansible.builtin.debug:
        var: result.left_out
"""


@pytest.fixture(name="hard")
def hard_to_write(tmp_path):
    """Renders HARD, in a playbook of somebody's own. Returns the run and the tree."""
    playbook, bundle, dest = tmp_path / "play.yml", tmp_path / "bundle.json", tmp_path / "tree"
    playbook.write_text(PLAYBOOK, encoding="utf-8")
    bundle.write_text(json.dumps(HARD), encoding="utf-8")

    def call(*args: str) -> tuple[cluster.Run, pathlib.Path]:
        run = cluster.play(str(playbook), "-e", f"file={bundle}", "-e", f"dest={dest}", *args)
        assert run.code == 0, run.output
        return run, dest

    yield call
    kubectl("delete", "customresourcedefinition", DEFINITION["metadata"]["name"], "--ignore-not-found")
    remove()


def test_what_is_hard_to_write_arrives(hard, figure):
    _run, dest = hard()
    remove()
    kubectl("apply", "-k", str(dest), "--server-side", fails=True)  # the definition is too new for the object that needs it
    kubectl("wait", "--for=condition=Established", f"customresourcedefinition/{DEFINITION['metadata']['name']}", "--timeout=60s")
    kubectl("apply", "-k", str(dest), "--server-side")

    def live(kind: str, name: str) -> dict:
        return json.loads(kubectl("get", kind, name, "-n", OWN, "-o", "json"))

    assert live("configmap", "texts")["data"] == TEXTS
    assert live("thing", "hard")["spec"] == THING
    assert live("secret", "token")["data"] == {"token": "aHVudGVyMg==", "text": "dHdvCmxpbmVzIMOp"}
    assert "data" not in live("configmap", "a.b")
    figure("render: texts that are hard to write, unchanged in the cluster", f"{len(TEXTS)} of {len(TEXTS)}")


def test_secrets_stay_on_this_machine(hard):
    run, dest = hard("-vvv", "--diff")
    assert "hunter2" not in run.output and "aHVudGVyMg" not in run.output
    secret = dest / "hard" / f"secret_{OWN}_token.yaml"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    git = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": str(dest.parent)}
    subprocess.run(["git", "init", "--quiet", dest], check=True, env=git)
    seen = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=dest, check=True, capture_output=True, text=True, env=git).stdout
    assert f"hard/configmap_{OWN}_texts.yaml" in seen and "secret" not in seen
    run, dest = hard("-e", "secrets=false", "--diff")
    assert f"Secret {OWN}/token" in run.output and "hunter2" not in run.output and "aHVudGVyMg" not in run.output
    assert not secret.exists() and "secret" not in str(yaml.safe_load((dest / "hard" / "kustomization.yaml").read_text(encoding="utf-8")))
    assert "kind: Secret" not in kubectl("kustomize", str(dest))
