# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner of `make check`: a failure is never lost."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "steps.py"


def steps(*pairs, options=()):
    words = [word for name, command in pairs for word in ("--step", f"test of steps {name}", command)]
    quiet = {key: value for key, value in os.environ.items() if key != "V"}
    return subprocess.run([sys.executable, SCRIPT, *words, *options], env=quiet, capture_output=True, text=True, check=False, timeout=60)


def test_all_pass_and_stay_quiet():
    done = steps(("one", "echo chatter"), ("two", "true"))
    assert done.returncode == 0 and done.stdout.endswith("\n2 passed, 0 failed\n")
    assert "chatter" not in done.stdout


def test_the_first_failure_is_shown_and_ends_the_run():
    done = steps(("one", "true"), ("two", "echo what; echo why >&2; exit 3"), ("three", "echo never"))
    assert done.returncode == 1 and done.stdout.endswith("\n1 passed, 1 failed\n")
    assert "what\nwhy" in done.stdout and "exit status 3" in done.stdout
    assert "never" not in done.stdout and "not run" in done.stdout


ERROR = ["[ERROR]: Task failed", "on what", "event", "hint"]


@pytest.mark.parametrize("output, said, unsaid", [
    (["chatter", *ERROR, "much else"], ERROR, ["chatter", "much else"]),
    # A story's output as Ansible shows it: what pytest says is enough, and an item that goes on is whole.
    (["    - 'E   assert 1 == 2", "      and more'", "    - chatter", *ERROR], ["- 'E   assert 1 == 2 and more'"], ["chatter", *ERROR]),
    (["E   assert 1 == 2", "FAILED tests/test_one.py::test_two"], ["E   assert 1 == 2", "FAILED tests/test_one.py::test_two"], []),
], ids=["ansible", "story", "pytest"])
def test_why_stands_at_the_end_too(output, said, unsaid):
    done = steps(("one", "printf '%s\\n' " + " ".join(f'"{line}"' for line in output) + "; exit 1"))
    last = done.stdout.split("exit status 1")[1]
    assert all(f"test of steps one: {line}" in last for line in said) and not any(line in last for line in unsaid)
    assert done.stdout.endswith("\n0 passed, 1 failed\n")


@pytest.mark.parametrize("command", ["false; true", "false | cat", "echo $UNSET_VARIABLE_OF_A_TEST", "kill -9 $$"])
def test_no_failure_hides_in_a_line(command):
    assert steps(("one", command)).returncode == 1


def test_output_as_it_comes():
    assert "chatter" in steps(("one", "echo chatter"), options=["--stream"]).stdout


def test_steps_beside_each_other_run_at_once_and_all_of_them_count(tmp_path):
    waits = f"for i in $(seq 100); do test -e {tmp_path}/b && exit 0; sleep 0.1; done; exit 1"
    beside = ["--beside", "test of steps b", f"touch {tmp_path}/b; exit 4", "--step", "test of steps c", "echo never"]
    done = steps(("a", waits), options=beside)
    assert done.stdout.endswith("\n1 passed, 1 failed\n") and "not run" in done.stdout
    assert "exit status 4" in done.stdout and "never" not in done.stdout
