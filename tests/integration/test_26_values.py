# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written is what was meant: manifests in the words of a person's playbook, as Ansible's own loader reads them, and what kubectl
makes of the same words."""
from __future__ import annotations

import pathlib
import subprocess
import textwrap

import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from ansible_collections.genai.platform.plugins.plugin_utils.yaml_loader import Loader
from bundles import Platform, obj, pod, workload
from cluster import CONTROL_PLANE, Run, play
from living import API, path, space, there

BOOK = """
- name: Manifests as they stand there
  hosts: platforms
  gather_facts: false
  tasks:
    - name: Release them
      genai.platform.release:
        kubeconfig: "{{{{ common_kubeconfig }}}}"
        expected_server: "{{{{ common_expected_server }}}}"
        platform: {platform}
        ledger_namespace: {ledger}
        bundle:
          app:
"""


def released(platform: Platform, folder: pathlib.Path, *documents: str) -> Run:
    """A playbook that releases these manifests."""
    items = [textwrap.indent(f"- {textwrap.indent(textwrap.dedent(text).strip(), '  ')[2:]}", " " * 12) for text in documents]
    book = folder / "book.yml"
    book.write_text("---" + BOOK.format(platform=platform.name, ledger=platform.ledger_namespace) + "\n".join(items) + "\n", encoding="utf-8")
    return play(str(book))


def applied(*documents: str) -> None:
    """The same by kubectl."""
    command = ["docker", "exec", "-i", CONTROL_PLANE, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "--server-side", "-f", "-"]
    done = subprocess.run(command, input="\n---\n".join(map(textwrap.dedent, documents)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def defined(group: str, schema: str = "{type: object, x-kubernetes-preserve-unknown-fields: true}") -> str:
    """A definition of Calls, which takes whatever a resource says unless the schema says otherwise."""
    return f"""
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {{name: calls.{group}}}
        spec:
          group: {group}
          scope: Namespaced
          names: {{kind: Call, listKind: CallList, plural: calls, singular: call}}
          versions:
            - name: v1
              served: true
              storage: true
              schema: {{openAPIV3Schema: {schema}}}
    """


def namespace(platform: Platform) -> str:
    return f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {platform.name}}}}}"


UNQUOTED = {
    # Case 16. What YAML makes of these is no text, and what stood there cannot be told from it any more.
    "Secret": ("stringData", {"enabled": "yes", "window": "1234567:33", "pin": "0123456701", "hosts": "[alpha-one, beta-two]"}),
    # Case 18. Ansible makes a time of it; kubectl takes it for the text that it is.
    "ConfigMap": ("data", {"since": "2031-03-25T13:37:11Z", "day": "2031-03-25", "rate": "1.10", "blob": "!!binary aGVsbG8="}),
}


SHOWN = ("True", "1234567", "74074053", "123456701", "21913025", "alpha-one")  # long enough to be in no path of a temporary file by chance


@pytest.mark.parametrize("kind", UNQUOTED)
def test_what_is_no_text_is_refused_where_a_text_is_needed(living, tmp_path, kind, figure):
    platform = living(f"values-{kind.lower()}")
    field, values = UNQUOTED[kind]
    for key, value in values.items():
        document = f"""
            apiVersion: v1
            kind: {kind}
            metadata: {{name: odd, namespace: {platform.name}}}
            {field}: {{good: text, {key}: {value}}}
        """
        run = released(platform, tmp_path, namespace(platform), document)
        assert run.code != 0 and f"app, manifest 2: {kind} {platform.name}/odd: {field}.{key} is " in run.output, run.output
        assert "quote it" in run.output and "nothing was written" in run.output and "Traceback" not in run.output
        assert kind != "Secret" or not any(text in run.output for text in SHOWN), "nothing of a Secret is shown"
    assert there(space(platform.name)) is None
    case = {"Secret": "case 16, stringData", "ConfigMap": "case 18, times, days and bytes"}[kind]
    figure(f"{case} that YAML takes for no text: refused, told to quote / tried", f"{len(values)} / {len(values)}")


def test_a_null_is_handed_on(living, tmp_path, figure):
    """Case 20. Red where a null is left out: a default comes in its place, or a key is missing."""
    platform = living("values-null")
    name = platform.name
    retries = "{spec: {type: object, properties: {retries: {type: integer, nullable: true, default: 5}}}}"
    definition = defined(f"{name}.example.com", f"{{type: object, properties: {retries}}}")
    documents = [
        f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: NAME, namespace: {name}, labels: {{team: null}}}}, data: {{TOKEN: null, MODE: fast}}}}",
        f"{{apiVersion: v1, kind: Secret, metadata: {{name: NAME, namespace: {name}}}, stringData: {{TOKEN: null, MODE: fast}}}}",
        f"{{apiVersion: {name}.example.com/v1, kind: Call, metadata: {{name: NAME, namespace: {name}}}, spec: {{retries: null}}}}",
        f"""
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: NAME, namespace: {name}, annotations: null}}
            spec:
              paused: true
              selector: {{matchLabels: {{app: x}}}}
              template:
                metadata: {{labels: {{app: x}}}}
                spec:
                  nodeSelector: {{disk: null}}
                  securityContext: null
                  containers: [{{name: main, image: x, env: [{{name: A, value: null}}], args: null}}]
        """,
    ]
    ours, theirs = ([text.replace("NAME", by) for text in documents] for by in ("ours", "theirs"))
    run = released(platform, tmp_path, definition, namespace(platform), *ours)
    assert run.code == 0, run.output
    again = released(platform, tmp_path, definition, namespace(platform), *ours)
    assert again.code == 0 and "changed=0" in again.output, again.output
    applied(*theirs)
    for api, kind, plural in (("v1", "ConfigMap", ""), ("v1", "Secret", ""), (f"{name}.example.com/v1", "Call", "calls"), ("apps/v1", "Deployment", "")):
        group = "/api/v1" if api == "v1" else f"/apis/{api}"
        where = f"{group}/namespaces/{name}/{plural or kind.lower() + 's'}"
        one, other = (API.need("GET", f"{where}/{by}") for by in ("ours", "theirs"))
        for field in ("spec", "data"):
            assert one.get(field) == other.get(field), kind
    assert API.need("GET", f"/apis/{name}.example.com/v1/namespaces/{name}/calls/ours")["spec"] == {"retries": None}
    assert drift(platform.releaser(), False, None, [])["drift"] == []
    figure("case 20, nulls in a ConfigMap, a Secret, a custom resource, a Deployment: as kubectl stores them", "yes, yes, yes, yes")


WORDS = (
    "1e3 0o17 017 08 09 0b101 0x1F 0X1f 12:30 1:30.5 y n Y N yes No on Off TRUE False 1_000 1__0 _1 +5 -5 .5 5. +.5 1.10 0.1e10 -.5e-3 80.0 0.0 -0 = <<"
    " 2031-03-25 2031-03-25T13:37:11Z 18446744073709551615 9223372036854775808 0o8 0x 1e 12e03 ~ null Null NULL nUll yEs 1.2.3 0777 00 -017 1e-2"
).split()


def test_a_template_is_read_as_kubectl_reads_it(living, figure):
    """Red where a role's YAML is read by Python's rules: 12:30 is 750, and 1e3 a text."""
    platform = living("values-words")
    name = platform.name
    text = f"{{apiVersion: {name}.example.com/v1, kind: Call, metadata: {{name: NAME, namespace: {name}}}, status: {{phase: mine}}, other: null,"
    text += " spec: [" + ", ".join(f"{{word: {word}}}" for word in WORDS) + ", 😀]}"
    ours = [yaml.load(textwrap.dedent(each), Loader=Loader) for each in (defined(f"{name}.example.com"), text.replace("NAME", "ours"))]
    platform.deploy({"app": [space(name), *ours]})
    applied(text.replace("NAME", "theirs"))
    where = f"/apis/{name}.example.com/v1/namespaces/{name}/calls"
    one, other = (API.need("GET", f"{where}/{by}") for by in ("ours", "theirs"))
    wrong = [(word, mine, kubectls) for word, mine, kubectls in zip(WORDS, one["spec"], other["spec"]) if repr(mine) != repr(kubectls)]
    assert wrong == []
    for each in (one, other):
        del each["metadata"]
    assert one == other, "a list as spec, a status of its own, a null at the top, and characters beyond 16 bits"
    assert platform.deploy({"app": [space(name), *ours]})["changes"] == [] and platform.drift() == []
    figure("YAML of a role's template: words read as kubectl reads them", f"{len(WORDS)} of {len(WORDS)}")


def test_a_name_that_is_there_twice_is_drift(living, figure):
    """Case 21. Red where the first item of a name is taken for the only one."""
    platform = living("values-twice")
    name = platform.name
    web = workload("Deployment", "web", name, pod("web", env=[{"name": "TARGET", "value": "production"}, {"name": "MODE", "value": "fast"}]))
    platform.deploy({"app": [space(name), web]})
    for place in ("-", "0"):
        patch = [{"op": "add", "path": f"/spec/template/spec/containers/0/env/{place}", "value": {"name": "TARGET", "value": "elsewhere"}}]
        status, answer = API.request("PATCH", path(web), patch, "application/json-patch+json", fieldManager="kubectl-patch")
        assert status == 200, answer
        found = drift(platform.releaser(), False, None, [])["drift"]
        assert ("spec.template.spec.containers[name=main].env[name=TARGET]", "kubectl-patch") in {(each["field"], each["by"]) for each in found}, found
        drift(platform.releaser(), True, None, [])
        env = (there(web) or {})["spec"]["template"]["spec"]["containers"][0]["env"]
        assert env == web["spec"]["template"]["spec"]["containers"][0]["env"]
        assert drift(platform.releaser(), False, None, [])["drift"] == []
    figure("case 21, a variable added a second time, behind and in front: named / put back", "2 / 2 of 2")


def test_documents_that_hold_nothing(living, tmp_path, figure):
    """Case 26. As they come from a chart whose parts are switched off, and as the API itself writes a list."""
    platform = living("values-empty")
    name = platform.name
    listed = {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "two", "namespace": name}}]}
    mixed = {"apiVersion": "v1", "kind": "List", "items": [obj("v1", "ConfigMap", "one", name)]}
    file = tmp_path / "chart.yaml"
    file.write_text(f"---\n# switched off\n---\n{namespace(platform)}\n---\n---\n{mixed}\n---\n{listed}\n---\n", encoding="utf-8")
    book = tmp_path / "book.yml"
    head = "---" + BOOK.format(platform=name, ledger=platform.ledger_namespace)
    book.write_text(head.rstrip() + f""" "{{{{ lookup('ansible.builtin.file', '{file}') | from_yaml_all | list }}}}"\n""", encoding="utf-8")
    run = play(str(book))
    assert run.code == 0, run.output
    assert there(obj("v1", "ConfigMap", "one", name)) and there(obj("v1", "ConfigMap", "two", name))
    figure("case 26, a chart's empty documents, a list and a list of one kind: released", "yes")
