# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Manifests that nobody should hand in: each is refused by one error that names the template and the object, before any write."""
from __future__ import annotations

import json
import pathlib
import typing as t

import cluster
import pytest

NS = "hostile"
# What a role needs to be one; its templates are the case.
TASKS = "---\n- ansible.builtin.import_role: {name: genai.platform.common, tasks_from: component}\n"
PLAYBOOK: list[dict[str, t.Any]] = [
    {
        "hosts": "platforms", "gather_facts": False,
        "module_defaults": {"group/genai.platform.platform": {"kubeconfig": "{{ common_kubeconfig }}"}},
        "vars": {"common_collect": True, "common_platform": NS, "common_ledger_namespace": f"{NS}-ledger", "common_wait_timeout": 30},
        "tasks": [{"ansible.builtin.import_role": {"name": "genai.platform.common", "tasks_from": "release"}}],
    }
]


class Case(t.NamedTuple):
    what: str
    templates: dict[str, str]  # {role/template: text}
    said: tuple[str, ...]


def manifest(kind: str, name: str, rest: str = "", api: str = "v1", meta: str = f", namespace: {NS}") -> str:
    return f"---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}{meta}}}\n{rest}\n"


def owned(name: str, owner: str) -> str:
    reference = f"{{apiVersion: v1, kind: ConfigMap, name: {owner}, uid: 00000000-0000-0000-0000-000000000000}}"
    return manifest("ConfigMap", name, meta=f", namespace: {NS}, ownerReferences: [{reference}]")


POD = """spec:
  containers: [{name: main, image: "example.com/none:1"}]
  volumes: [{name: key, secret: {secretName: nowhere}}]"""
CASES = [
    Case(
        "duplicate in a component", {"one/a": manifest("ConfigMap", "twin"), "one/b": manifest("ConfigMap", "twin")},
        ("one, manifest 2 (roles/one/templates/b.yaml.j2): ConfigMap hostile/twin is in the bundle twice", "first in one (roles/one/templates/a.yaml.j2)"),
    ),
    Case(
        "duplicate across components", {"one/a": manifest("ConfigMap", "twin"), "two/b": manifest("ConfigMap", "twin")},
        ("two, manifest 1 (roles/two/templates/b.yaml.j2): ConfigMap hostile/twin is in the bundle twice", "first in one (roles/one/templates/a.yaml.j2)"),
    ),
    Case(
        "missing reference", {"one/pod": manifest("Pod", "lost", POD)},
        ("one (roles/one/templates/pod.yaml.j2): Pod hostile/lost: spec.volumes[0].secret.secretName names Secret hostile/nowhere",
         "neither in the bundle nor in the cluster"),
    ),
    Case(
        "circle of owners", {"one/a": owned("hen", "egg"), "one/b": owned("egg", "hen")},
        ("one (roles/one/templates/", "ownerReferences go round in a circle", "ConfigMap hostile/hen", "ConfigMap hostile/egg"),
    ),
    Case(
        "a ConfigMap of 5 MB", {"one/big": manifest("ConfigMap", "big", "data: {x: {{ 'y' * 5000000 }}}")},
        ("one, manifest 1 (roles/one/templates/big.yaml.j2): ConfigMap hostile/big: is 5,000", "split it"),
    ),
    Case(
        "a label that is a number", {"one/label": manifest("ConfigMap", "typed", meta=f", namespace: {NS}, labels: {{version: 1.10}}")},
        ("one, manifest 1 (roles/one/templates/label.yaml.j2): ConfigMap hostile/typed: metadata.labels.version is 1.1, where a text is needed: quote it",),
    ),
    Case(
        "not a number", {"one/nan": manifest("ConfigMap", "nan", "data: {x: .nan}")},
        ("one, manifest 1 (roles/one/templates/nan.yaml.j2): ConfigMap hostile/nan: data.x is nan",),
    ),
    Case(
        "tabs in YAML", {"one/tab": manifest("ConfigMap", "tabbed", "data:\n\tx: y")},
        # What is no YAML has no name yet: the line must do.
        ("roles/one/templates/tab.yaml.j2: not valid YAML once rendered: line 6, column 1", "cannot start any token"),
    ),
    Case(
        "no CustomResourceDefinition", {"one/custom": manifest("Llama", "dolly", api="zoo.example.com/v1")},
        ("one (roles/one/templates/custom.yaml.j2): Llama hostile/dolly: the cluster knows no Llama in zoo.example.com/v1",),
    ),
    Case(
        "cluster-scoped with a namespace", {"one/role": manifest("ClusterRole", "wide", "rules: []", "rbac.authorization.k8s.io/v1")},
        ("one (roles/one/templates/role.yaml.j2): ClusterRole hostile/wide: metadata.namespace must go",),
    ),
    Case(
        "namespaced without a namespace", {"one/config": manifest("ConfigMap", "homeless", meta="")},
        ("one (roles/one/templates/config.yaml.j2): ConfigMap homeless: metadata.namespace is missing",),
    ),
]


def platform(folder: pathlib.Path, templates: dict[str, str]) -> pathlib.Path:
    """A playbook and its roles, as somebody who adds components to a platform writes them."""
    for path, text in templates.items():
        role, name = path.split("/")
        for kind, content in ((f"templates/{name}.yaml.j2", text), ("tasks/main.yml", TASKS)):
            target = folder / "roles" / role / kind
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
    roles = sorted({path.split("/")[0] for path in templates})
    playbook = folder / "playbook.yml"
    variables = {**PLAYBOOK[0]["vars"], "common_components": roles}
    playbook.write_text(json.dumps([{**PLAYBOOK[0], "vars": variables, "roles": ["genai.platform.common", *roles]}]), encoding="utf-8")
    return playbook


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_refused(case, tmp_path, figure):
    playbook = platform(tmp_path, case.templates)
    audit = cluster.Audit()
    run = cluster.play(str(playbook))
    assert run.code != 0, run.output[:5000]
    # People read the message once wrapped by YAML and once as it is; only what it says matters.
    said = " ".join(run.output.split())
    for text in case.said:
        assert text in said, run.output[:5000]
    assert "Traceback" not in said and "MODULE FAILURE" not in said, run.output[:5000]
    assert len(run.output) < 20_000, "the error is for people"
    assert audit.writes() == []
    figure(f"hostile input, {case.what}: refused with file and object", "nothing written")
