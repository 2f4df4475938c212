# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kube-score, checkov and Gatekeeper's gator say of everything that the roles describe. `make manifests` runs this file.

The API schemas are checked by test_render.py. Every finding we live with stands in exceptions.yml.
"""
from __future__ import annotations

import fnmatch
import json
import os
import pathlib
import subprocess
import typing as t

import checks
import pytest
import yaml
from conftest import INVENTORIES, render

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "roles" / "policy" / "examples"
BREAKS = "genai.platform/breaks"  # what the rule says of a bad example
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genai-platform"
EXCEPTIONS: list[dict[str, str]] = yaml.safe_load((ROOT / "tests" / "render" / "exceptions.yml").read_text(encoding="utf-8"))
GATEKEEPER = ("ConstraintTemplate", *(f"Genai{name.replace('_', ' ').title().replace(' ', '')}" for name in os.listdir(EXAMPLES)))


class Finding(t.NamedTuple):
    tool: str
    check: str
    object: str  # inventory/distribution/Kind namespace/name
    text: str


def call(*command: object, codes: tuple[int, ...] = (0, 1)) -> t.Any:
    """The JSON that a program prints; 1 is how each of them says that it has found something."""
    done = subprocess.run([str(CACHE / "bin" / str(command[0])), *map(str, command[1:])], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in codes, f"{command[0]}: {done.stderr or done.stdout}"
    return json.loads(done.stdout or "null")


def write(path: pathlib.Path, manifests: t.Iterable[dict]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, list[dict]]:
    """{`inventory/distribution/host`: manifests} of every inventory and the variants that join it."""
    folder = tmp_path_factory.mktemp("rendered")
    return {
        f"{inventory}/{distribution}/{host}": [manifest for component in bundle.values() for manifest in component]
        for inventory in INVENTORIES
        for host, by_distribution in render(inventory, folder / f"{inventory}.json").items()
        for distribution, bundle in by_distribution.items()
    }


def kube_score(path: pathlib.Path, where: str) -> list[Finding]:
    return [
        Finding("kube-score", check["check"]["id"], f"{where}/{_named(entry)}", "; ".join(c["summary"] for c in check["comments"] or []))
        for entry in call("kube-score", "score", "--kubernetes-version", f"v{checks.KUBERNETES}", "--output-format", "json", path)
        for check in entry["checks"] if not check["skipped"] and check["grade"] < 10
    ]  # fmt: skip


def _named(entry: dict) -> str:
    return f"{entry['type_meta']['kind']} {entry['object_meta'].get('namespace', '')}/{entry['object_meta']['name']}"


def checkov(folder: pathlib.Path) -> list[Finding]:
    report = call("checkov", "--directory", folder, "--framework", "kubernetes", "--output", "json", "--quiet", "--compact", "--skip-download")
    assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 100, report["summary"]
    return [
        Finding("checkov", each["check_id"], "{1}/{2}/{kind} {space}/{name}".format(*each["file_path"].split("/"), **_split(each)), each["check_name"])
        for each in report["results"]["failed_checks"]
    ]


def _split(failed: dict) -> dict[str, str]:
    """A resource is named `Deployment.namespace.name`."""
    return dict(zip(("kind", "space", "name"), failed["resource"].split(".", 2)))


def explains(exception: dict[str, str], finding: Finding) -> bool:
    return (exception["tool"], exception["check"]) == (finding.tool, finding.check) and fnmatch.fnmatchcase(finding.object, exception["object"])


def test_nothing_is_found_that_is_not_explained(bundles, figure, tmp_path):
    files = {write(tmp_path / f"{name}.yaml", manifests): name.rpartition("/")[0] for name, manifests in bundles.items()}
    findings = {*checkov(tmp_path), *(finding for path, where in files.items() for finding in kube_score(path, where))}
    assert all(exception["reason"] for exception in EXCEPTIONS)
    assert not [finding for finding in sorted(findings) if not any(explains(exception, finding) for exception in EXCEPTIONS)]
    assert not [exception for exception in EXCEPTIONS if not any(explains(exception, finding) for finding in findings)], "these explain nothing"
    objects = sum(map(len, bundles.values()))
    figure("rendered objects / renderings / findings explained, others", f"{objects} / {len(bundles)} / {len(findings)}, 0")


# --- the same rules for Gatekeeper --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gatekeeper(bundles) -> list[dict]:
    """Constraints and their templates, of the host that has both engines."""
    return [manifest for manifest in bundles["kind/kubernetes/both_engines"] if manifest["kind"] in GATEKEEPER]


def namespace(name: str, **labels: str) -> dict:
    labels = {"genai.platform/platform": "genai", "kubernetes.io/metadata.name": name, **labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def gator(folder: pathlib.Path, policies: list[dict], objects: list[dict]) -> dict[str, list[str]]:
    """{`Constraint Kind namespace/name`: what it says of that object}."""
    found: dict[str, list[str]] = {}
    files = write(folder / "policies.yaml", policies), write(folder / "objects.yaml", objects)
    for each in call("gator", "test", "--filename", files[0], "--filename", files[1], "--output", "json") or []:
        found.setdefault(f"{each['constraint']['kind']} {checks.label(each['violatingObject'])}", []).append(each["msg"])
    return found


def test_every_example(gatekeeper, tmp_path, figure):
    """One run each: examples of several rules share names."""
    accepted = refused = 0
    for folder in sorted(EXAMPLES.iterdir()):
        rule = f"Genai{folder.name.replace('_', ' ').title().replace(' ', '')}"
        for name in ("good", "bad"):
            examples = list(yaml.safe_load_all((folder / f"{name}.yaml").read_text(encoding="utf-8")))
            for each in examples:
                each["metadata"]["namespace"] = "tenant"
            said = gator(tmp_path / folder.name / name, gatekeeper, [namespace("tenant"), *examples])
            expected = {
                f"{rule} {checks.label(each)}": sorted(each["metadata"]["annotations"][BREAKS].split("; ")) for each in examples if name == "bad"
            }
            assert {key: sorted(line.partition(": ")[2].partition(". Fix: ")[0] for line in lines) for key, lines in said.items()} == expected
            accepted, refused = accepted + len(examples) - len(expected), refused + len(expected)
    figure("policy in Gatekeeper: good examples in, bad ones out", f"{accepted} and {refused}")


def test_containers_that_come_later(gatekeeper, tmp_path):
    (pod,) = [each for each in yaml.safe_load_all((EXAMPLES / "required_labels" / "good.yaml").read_text(encoding="utf-8")) if each["kind"] == "Pod"]
    pod["metadata"]["namespace"] = "tenant"
    pod["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "registry.example.com/tools", "securityContext": {"privileged": True}}]
    said = gator(tmp_path, gatekeeper, [namespace("tenant"), pod])
    assert {key.split()[0] for key in said} == {"GenaiNoLatestTag", "GenaiAllowedRegistries", "GenaiNoPrivileged"}
    assert all("container debug: " in line for lines in said.values() for line in lines)


@pytest.mark.parametrize("space", [namespace("kube-system"), namespace("genai-ledger"), namespace("other", **{"genai.platform/platform": "other"})])
def test_where_no_rule_applies(gatekeeper, tmp_path, space):
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": space["metadata"]["name"]}}
    bare["spec"] = {"containers": [{"name": "main", "image": "busybox"}]}
    assert gator(tmp_path, gatekeeper, [space, bare]) == {}


def test_the_platforms_own_objects_keep_the_rules(gatekeeper, bundles, tmp_path):
    """All renderings in one run, each in a namespace of its own."""
    objects = []
    for number, manifests in enumerate(bundles.values()):
        workloads = [each for each in manifests if checks.pod_of(each)]
        assert workloads
        objects += [namespace(f"n{number}"), *({**each, "metadata": {**each["metadata"], "namespace": f"n{number}"}} for each in workloads)]
    assert gator(tmp_path, gatekeeper, objects) == {}
