# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three tools, each at its best: what a user would type, and what came of it."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time
import typing as t

import kind
import peers

ROOT = pathlib.Path(__file__).resolve().parents[3]
HELM = str(kind.CACHE / "bin" / "helm4")
KEEP_ALL = "--history-max=0"
DIVIDER = "\n---\n"
HANGS_SECONDS = 900  # a tool that has not ended by then never will
UNDO, PREVIEW, RECORDS = "way back", "preview", "record of releases"
# What is read is compared and printed: no colours.
ENVIRONMENT = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one command. `changed`: what the tool itself says about it; None where it says nothing."""

    ok: bool
    said: str
    seconds: float
    changed: bool | None = None

    def says(self, *words: str) -> bool:
        return any(word.lower() in self.said.lower() for word in words)


@dataclasses.dataclass(frozen=True)
class Order:
    """What a tool is told to do. `text`: YAML documents as a person wrote them; `records`: the namespace for what the tool keeps of it."""

    namespace: str
    records: str
    kubeconfig: pathlib.Path
    text: str = ""
    definition: str = ""  # of a kind that `text` has objects of
    space: bool = True  # the tool makes the namespace
    wait: bool = True
    check: bool = False
    force: bool = False  # fields that somebody else has written are taken over
    timeout: int = 120  # seconds


class Lacks(Exception):
    """The tool has no such command."""


class Tool(t.Protocol):
    name: str
    title: str
    has: frozenset[str]

    def records(self, namespace: str) -> str: ...
    def release(self, order: Order) -> Run: ...
    def put_back(self, order: Order) -> Run: ...
    def roll_back(self, order: Order, to: int | None) -> Run: ...
    def remove(self, order: Order) -> Run: ...


def timed(command: list[str]) -> tuple[subprocess.CompletedProcess[str], float]:
    """What came of a command, and its seconds. One that does not end is ended."""
    start = time.monotonic()
    limited = ["timeout", str(HANGS_SECONDS), *command]
    done = subprocess.run(limited, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done, time.monotonic() - start


def documents(order: Order) -> str:
    """All in one file, the Namespace first."""
    space = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": order.namespace}}) if order.space else ""
    return DIVIDER.join(filter(None, [space, order.definition, order.text]))


def play(playbook: str, order: Order, **variables: t.Any) -> Run:
    """One of the playbooks case_*.yml, whose module answers into a file."""
    with tempfile.TemporaryDirectory() as folder:
        file, answer = pathlib.Path(folder, "manifests.yaml"), pathlib.Path(folder, "answer.json")
        file.write_text(documents(order), encoding="utf-8")
        given = {"kubeconfig": str(order.kubeconfig), "file": str(file), "answer": str(answer), "wait": order.wait, "timeout": order.timeout, **variables}
        done, seconds = timed([*peers.playbook(playbook, **given), *(["--check"] if order.check else [])])
        if not answer.exists():
            return Run(False, done.stdout[-2000:], seconds)
        found = json.loads(answer.read_text(encoding="utf-8"))
        return Run(found["ok"], found["said"], seconds, found["changed"])


class Ours:
    name, title = "ours", "`genai.platform`"
    has = frozenset({UNDO, PREVIEW, RECORDS})

    def records(self, namespace: str) -> str:
        return f"{namespace}-ledger"

    def _play(self, order: Order, state: str, to: str = "previous") -> Run:
        return play("case_ours", order, platform=order.namespace, records=order.records, state=state, to=to)

    def release(self, order: Order) -> Run:
        return self._play(order, "present")

    def put_back(self, order: Order) -> Run:
        return play("case_drift", order, platform=order.namespace, records=order.records)

    def roll_back(self, order: Order, to: int | None) -> Run:
        return self._play(order, "rolled_back", str(to or "previous"))

    def remove(self, order: Order) -> Run:
        return self._play(order, "absent")


class Helm:
    """The release is kept where its objects are, as Helm's users do, unless a case needs it elsewhere."""

    name, title = "helm", "Helm 4"
    has = frozenset({UNDO, PREVIEW, RECORDS})

    def records(self, namespace: str) -> str:
        return namespace

    def _run(self, order: Order, *words: str) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder, "chart")
            files = {"Chart.yaml": "apiVersion: v2\nname: case\nversion: 1.0.0\n", "crds/all.yaml": order.definition, "templates/all.yaml": order.text}
            for name, text in ((name, text) for name, text in files.items() if text):
                (chart / name).parent.mkdir(parents=True, exist_ok=True)
                (chart / name).write_text(text, encoding="utf-8")
            homes = [f"HELM_{each}_HOME={folder}/{each.lower()}" for each in ("CACHE", "CONFIG", "DATA")]
            common = [f"--kubeconfig={order.kubeconfig}", f"--namespace={order.records}"]
            command = [word.replace("CHART", str(chart)) for word in words]
            done, seconds = timed(["env", *homes, HELM, *command, *common])
        return Run(done.returncode == 0, errors(done.stdout), seconds)

    def release(self, order: Order) -> Run:
        waiting = ["--wait", "--rollback-on-failure", f"--timeout={order.timeout}s"] if order.wait else []
        chosen = {"--create-namespace": order.space, "--dry-run=server": order.check, "--force-conflicts": order.force}
        options = [option for option, is_chosen in chosen.items() if is_chosen]
        return self._run(order, "upgrade", "--install", "case", "CHART", KEEP_ALL, *waiting, *options)

    def put_back(self, order: Order) -> Run:
        return self.release(dataclasses.replace(order, force=True))

    def roll_back(self, order: Order, to: int | None) -> Run:
        return self._run(order, "rollback", "case", *([str(to)] if to else []), KEEP_ALL, "--wait", f"--timeout={order.timeout}s")

    def remove(self, order: Order) -> Run:
        return self._run(order, "uninstall", "case", "--wait", f"--timeout={order.timeout}s")


def errors(output: str) -> str:
    """What Helm says from its word `Error` on; all of it where there is none."""
    _before, mark, after = output.partition("Error: ")
    return after if mark else output


class Core:
    name, title = "core", "`kubernetes.core`"
    has = frozenset({PREVIEW})

    def records(self, namespace: str) -> str:
        return ""

    def release(self, order: Order) -> Run:
        return play("case_core", order, state="present", force=order.force)

    def put_back(self, order: Order) -> Run:
        return self.release(dataclasses.replace(order, force=True))

    def roll_back(self, order: Order, to: int | None) -> Run:
        raise Lacks

    def remove(self, order: Order) -> Run:
        return play("case_core", order, state="absent", force=False)


TOOLS: tuple[Tool, ...] = (Ours(), Helm(), Core())
