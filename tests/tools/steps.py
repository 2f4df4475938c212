# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs named shell commands one after another and says at the end how each went.

    steps.py --step lint 'ansible-lint' --beside unit 'python -m pytest tests/unit' --step site 'molecule test'

`--beside` starts a command together with the ones before it, back to the last `--step`; the next `--step` waits for them.

Each step's output goes to build/logs/<name>.log; the first that fails is shown in full and ends the run. Meanwhile a line
every half minute says what a long step is at; `--stream` (or V=1) shows everything as it comes. The last line always reads
"N passed, M failed"; the exit status is 0 when nothing failed and every step ran.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "logs"
HEARTBEAT_SECONDS = 30
# What pytest says of a failure, and where it says nothing, Ansible: a line of the log, or an item of a list in it.
_PYTEST, _ANSIBLE = re.compile(r"^(- ['\"]?)?(E {3}|(FAILED|ERROR) \S+::)"), re.compile(r"\[ERROR\]|^fatal: ")
REASONS, REASON_WIDTH, CAUSE_LINES = 6, 300, 3
_COLOUR = re.compile(r"\x1b(\[[0-9;]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\))")


@dataclasses.dataclass
class Step:
    """One command. `result` is passed, failed or not run; `seconds` wall time."""

    name: str
    command: str
    result: str = "not run"
    seconds: float = 0.0

    @property
    def log(self) -> pathlib.Path:
        return LOGS / (re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") + ".log")


class _Append(argparse.Action):
    """Collects the steps in groups: `--step` opens one, `--beside` joins the last."""

    def __call__(self, parser, namespace, values, option_string=None):
        groups = getattr(namespace, self.dest) or []
        step = Step(*values)
        groups = [*groups[:-1], [*groups[-1], step]] if groups and option_string == "--beside" else [*groups, [step]]
        setattr(namespace, self.dest, groups)


def run(step: Step, stream: bool) -> None:
    """Runs one step to its end and notes result and time in it."""
    print(f">> {step.name}", flush=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open(step.log, "w", encoding="utf-8") as log:
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", step.command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=None if stream else log,
            stderr=None if stream else subprocess.STDOUT,
        ) as process:
            code = _wait(process, step, started, quiet=stream)
    step.seconds = time.monotonic() - started
    step.result = "failed" if code else "passed"
    if code and not stream:
        print(step.log.read_text(encoding="utf-8", errors="replace"), flush=True)
    print(f"   {step.name} {step.result} after {step.seconds:.1f} s" + (f", exit status {code}" if code else ""), flush=True)


def _wait(process: subprocess.Popen, step: Step, started: float, quiet: bool) -> int:
    while True:
        try:
            return process.wait(timeout=HEARTBEAT_SECONDS)
        except subprocess.TimeoutExpired:
            if not quiet:
                print(f"   {step.name}, {time.monotonic() - started:.0f} s: {last_line(step.log)}", flush=True)


def last_line(log: pathlib.Path) -> str:
    """The last line with something on it, without colours, at most 110 characters."""
    lines = [line.strip() for line in _text(log)[-4000:].splitlines() if line.strip()]
    return lines[-1][:110] if lines else "no output yet"


def table(steps: list[Step], total: float) -> str:
    """Step, result and seconds, a line each, `total` seconds by the clock, why steps failed, and the closing line."""
    width = max(len(step.name) for step in steps)
    rows = [f"{step.name:<{width}}  {step.result:<7} {step.seconds:7.1f} s" for step in steps]
    passed, failed = (sum(step.result == result for step in steps) for result in ("passed", "failed"))
    why = [f"{step.name}: {reason}" for step in steps if step.result == "failed" for reason in reasons(_text(step.log).splitlines())]
    return "\n".join([*rows, f"{'all':<{width}}  {'':<7} {total:7.1f} s", *why, f"{passed} passed, {failed} failed"])


def reasons(lines: list[str]) -> list[str]:
    """The few lines of a log that say why it failed, for whoever gets only the end of the output; of pytest's the first and the last.

    Ansible shows a story's output as a list whose items go on in the next line: they are whole again here.
    """
    whole: list[str] = []
    for line in lines:
        if whole and whole[-1].startswith("- ") and line.startswith(" ") and not line.lstrip().startswith("- "):
            whole[-1] += f" {line.strip()}"
        else:
            whole.append(line.strip())
    telling = [line for line in whole if _PYTEST.search(line)]
    telling = telling if len(telling) <= REASONS else [*telling[: REASONS // 2], *telling[-(REASONS // 2) :]]  # what it was, and what decided
    if not telling:
        errors = [index for index, line in enumerate(whole) if _ANSIBLE.search(line)]
        near = {index + more for index in errors for more in range(1 + CAUSE_LINES)}
        telling = [whole[index] for index in sorted(near) if index < len(whole) and whole[index]][-REASONS:]
    return list(dict.fromkeys(line[:REASON_WIDTH] for line in telling))


def _text(log: pathlib.Path) -> str:
    return _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")) if log.exists() else ""


def figures(path: pathlib.Path | None) -> str:
    """A line for each figure that was measured; '' when there are none."""
    if path is None or not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    width = max(map(len, found))
    return "".join(f"{name:<{width}}  {value}\n" for name, value in found.items()) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs named shell commands in order, from the repository's root.")
    pair = {"nargs": 2, "action": _Append, "dest": "groups", "metavar": ("NAME", "COMMAND")}
    parser.add_argument("--step", required=True, help="a command that waits for all before it", **pair)
    parser.add_argument("--beside", help="a command that runs beside the one before it", **pair)
    parser.add_argument("--figures", type=pathlib.Path, help="JSON file {name: value} that the steps write, shown before the table")
    parser.add_argument("--stream", action="store_true", default=os.environ.get("V") == "1", help="show output as it comes")
    arguments = parser.parse_args()
    started = time.monotonic()
    steps = [step for group in arguments.groups for step in group]
    if arguments.figures:
        arguments.figures.unlink(missing_ok=True)  # of an earlier run
    try:
        for group in arguments.groups:
            with concurrent.futures.ThreadPoolExecutor(len(group)) as executor:
                list(executor.map(lambda step: run(step, arguments.stream), group))
            if any(step.result == "failed" for step in group):
                break
    finally:
        print("\n" + figures(arguments.figures) + table(steps, time.monotonic() - started), flush=True)
    return 0 if all(step.result == "passed" for step in steps) else 1


if __name__ == "__main__":
    sys.exit(main())
