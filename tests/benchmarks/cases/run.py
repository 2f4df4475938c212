# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries the same situations with Helm, kubernetes.core and ours, on the kind cluster of `make up`.

    run.py [--only 01,08] [--tools ours,helm] [--at-once 3] [--write]     prints a page; --write keeps it as docs/cases.md if it is whole

Ends with 1 where ours is not right. Whatever a case made goes again.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import itertools
import json
import pathlib
import re
import sys
import typing as t

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[1:1] = [str(path) for path in (HERE.parent, ROOT / "tests" / "integration", ROOT / ".collections")]

import kind  # noqa: E402
import others  # noqa: E402, F401 - adds its cases, as the next ones do
import page  # noqa: E402
import rollouts  # noqa: E402, F401
import undoing  # noqa: E402, F401
import values  # noqa: E402, F401
from case import CASES, RIGHT, Attempt, Case, Verdict, judge  # noqa: E402
from living import API, let_go  # noqa: E402
from tools import HELM, TOOLS, Tool, timed  # noqa: E402

PREFIX = "cases"
CLUSTER_WIDE = "validatingwebhookconfigurations,customresourcedefinitions"


def tried(case: Case, tool: Tool) -> Verdict:
    namespace = f"{PREFIX}-{case.number.lower().replace(', ', '-')}-{tool.name}"
    try:
        verdict = judge(case, Attempt(tool, namespace))
    finally:
        clean(namespace)
    print(f"  {case.number:<14} {tool.name:<5} {verdict.word:<10} {verdict.seconds:6.1f} s  {verdict.seen}", flush=True)
    return verdict


def named(prefix: str, name: str) -> bool:
    return re.search(rf"(^|\.){prefix}([.-]|$)", name) is not None


def clean(prefix: str) -> None:
    """Removes what `prefix` names, whoever holds it; the namespaces go in their own time."""
    names = [name for name in kind.kubectl("get", CLUSTER_WIDE, "-o", "name").split() if named(prefix, name.rpartition("/")[2])]
    if names:
        kind.kubectl("delete", "--ignore-not-found", "--wait=false", *names)
    spaces = [name for name in kind.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split() if named(prefix, name)]
    if spaces:
        kind.kubectl("delete", "namespace", "--ignore-not-found", "--wait=false", *spaces)
    for space in spaces:
        held = API.need("GET", f"/api/v1/namespaces/{space}/configmaps")["items"]
        let_go(*({"kind": "ConfigMap", "apiVersion": "v1", **each} for each in held if each["metadata"].get("finalizers")))


def all_tried(cases: t.Sequence[Case], tools: t.Sequence[Tool], at_once: int) -> dict[tuple[str, str], Verdict]:
    """{(number, tool): verdict}."""
    pairs = list(itertools.product(cases, tools))
    with concurrent.futures.ThreadPoolExecutor(at_once) as executor:
        return {(case.number, tool.name): verdict for (case, tool), verdict in zip(pairs, executor.map(lambda pair: tried(*pair), pairs))}


def versions() -> dict[str, str]:
    manifest = json.loads((ROOT / ".collections/ansible_collections/kubernetes/core/MANIFEST.json").read_text(encoding="utf-8"))
    server = json.loads(kind.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    helm = timed([HELM, "version", "--template={{.Version}}"])[0].stdout
    return {"kubernetes": server.lstrip("v"), "helm": helm.lstrip("v"), "core": manifest["collection_info"]["version"]}


def chosen(options: argparse.Namespace) -> tuple[list[Case], list[Tool]]:
    cases = [each for each in CASES if not options.only or each.number in options.only or each.number.split(",")[0] in options.only]
    return sorted(cases, key=lambda each: each.number), [tool for tool in TOOLS if not options.tools or tool.name in options.tools]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--tools", type=lambda text: text.split(","), default=[])
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cases, tools = chosen(options)
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / "cases.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        clean(PREFIX)
        try:
            kind.remove_namespaces(PREFIX)
            verdicts = all_tried(cases, tools, options.at_once)
        finally:
            clean(PREFIX)
            kind.remove_namespaces(PREFIX)
    text = page.markdown(cases, tools, verdicts, versions())
    print(text)
    if options.write and not (options.only or options.tools):
        (ROOT / "docs" / "cases.md").write_text(text, encoding="utf-8")
    return int(any(verdict.word != RIGHT for (_number, tool), verdict in verdicts.items() if tool == "ours"))


if __name__ == "__main__":
    sys.exit(main())
