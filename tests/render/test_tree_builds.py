# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What render.yml writes for every inventory builds, and kustomize hands every object on as it is."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.tree.render import render
from ansible_collections.genai.platform.plugins.module_utils.tree.tree import Tree
from ansible_collections.genai.platform.plugins.plugin_utils.yaml_loader import Loader

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genai-platform"
KUBECTL = shutil.which("kubectl", path=f"{CACHE / 'bin'}{os.pathsep}{os.environ['PATH']}")


def play_of(name: str) -> dict:
    return yaml.safe_load((ROOT / "playbooks" / f"{name}.yml").read_text(encoding="utf-8"))[0]


def test_render_has_the_roles_of_the_site():
    """All but the preflight, which would ask the cluster; in the same order, under the same tags."""
    site, rendering = play_of("site"), play_of("render")
    assert rendering["roles"] == [entry for entry in site["roles"] if entry["role"] != "genai.platform.common"]
    assert rendering["vars"]["common_collect"] is True is site["vars"]["common_collect"]
    assert [task["tags"] for task in rendering["tasks"]] == [["always"]]


def built(bundle: dict, folder: pathlib.Path) -> tuple[dict[Ref, dict], dict[Ref, dict]]:
    """What the release would apply, and what kubectl makes of the tree."""
    if not KUBECTL:
        pytest.skip("there is no kubectl; `make up` brings one")
    wanted = prepare(bundle, "genai")
    Tree(str(folder), "genai").update(render(wanted.values(), "genai"), None, False)
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    got = list(yaml.load_all(done.stdout, Loader=Loader))  # a safe loader
    assert len(got) == len(wanted)
    return {ref: item.sent for ref, item in wanted.items()}, {Ref.of(body): body for body in got}


def test_every_inventory_builds(rendered, tmp_path):
    for host, by_distribution in rendered.items():
        for distribution, bundle in by_distribution.items():
            wanted, got = built(bundle, tmp_path / host / distribution)
            assert got == wanted
            namespaces = [ref.kind for ref in got][: sum(ref.kind == "Namespace" for ref in got)]
            assert set(namespaces) == {"Namespace"}, "namespaces come first, whatever their component is called"


TEXTS = [
    "1e3", "1E3", "0o14", "0x1f", "0b11", "1_000", "017", "0", "-0", "1.", ".5", "1.0", "+1", "12:30:45", "190:20:30", "2026-01-01",
    "2026-01-01T00:00:00Z", ".inf", "-.INF", ".nan", "inf", "y", "N", "yes", "NO", "on", "Off", "true", "FALSE", "null", "Null", "~", "", "=", "<<",
    "- a", "a: b", "a:", "a #b", "#a", "&a", "*a", "!a", "!!int 3", "|", ">-", "%a", "@a", "`a", "{a", "[a]", "'a'", '"a"', "---", "---\na", "...\n",
    "?", "? a", ":", "-", "a\tb", "\ta", "a ", " a", "a\n", "\na", "a\n\n", "\n", "  a\nb", "a\n  b\n", "a \nb", "a\r\nb", "a\rb", "a\n---\nb\n",
    "#!/bin/sh\nset -e\n\n\necho \"$X\"  # x\n", "é", "日本語\n😀 done\n", "\u2028", "\ufeffa", "\u200b", "\x01\x1b[0m", "C:\\x", "\\n", "\\u0041",
    "{{ x }}", "$(X)", "x" * 5000, "word " * 300, "key: |\n  text\n", '{"json": [1, "2", null]}',
]  # fmt: skip


def thing(name: str, **extra: object) -> dict:
    meta = {"name": name, "namespace": "ns", "annotations": {"note": "1e3", "text": "two\nlines\n"}}
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": meta, **extra}


def test_kustomize_hands_on_what_is_hard_to_write(tmp_path):
    numbers = [0, 1, -1, 1.5, 1e20, 1e-9, 2**31, 2**53, 2**63 - 1, -(2**63), 100000000.0, 123456789.123]
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "pattern": "^[a-z]+$", "default": {}, "enum": TEXTS[:40]}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}],
        },
    }  # fmt: skip
    bundle = {
        "texts": [
            thing("values", spec={"list": TEXTS, "nested": [{"a": text, "b": [[text]]} for text in TEXTS]}),
            # An annotation or a key of a map may be long; kustomize gives up at 1024 characters.
            thing("keys", spec={text: number for number, text in enumerate(TEXTS) if text != "<<" and len(text) < 1000}),
        ],
        "numbers": [thing("numbers", spec={"numbers": numbers, "truth": [True, False], "empty": {"a": {}, "b": [], "c": [[], {}]}})],
        "definitions": [definition],
        # A kind that is called a list and is none, a list, and objects that share a name.
        "lists": [
            {**thing("allowed"), "kind": "AllowList", "spec": {"items": ["a"]}},
            {"apiVersion": "v1", "kind": "List", "items": [thing("first"), {**thing("first"), "apiVersion": "other.example.com/v1"}]},
        ],
        "flux": [{**thing("kustomization"), "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "spec": {"path": "./x"}}],
        "secrets": [{**thing("token"), "apiVersion": "v1", "kind": "Secret", "stringData": {"a": "two\nlines", "b": "é", "c.d": ""}}],
    }
    wanted, got = built(bundle, tmp_path)
    assert got == wanted
