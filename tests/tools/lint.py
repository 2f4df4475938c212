# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-lint with its own options, in less time: its syntax checks need not load Ansible each for itself.

It starts `ansible-playbook --syntax-check` more than 70 times, and imports take half of each start. Here each is a fork of
a process that has imported Ansible under the same environment; arguments, output and exit status are what they would be.
"""
from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import typing as t

_SERVE = "--serve"
_start = subprocess.run


class Loaded:
    """A process that has imported Ansible, and forks for each command line it is given."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, _SERVE]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        atexit.register(self._process.communicate)  # the end of its input is its own

    def run(self, words: list[str]) -> subprocess.CompletedProcess:
        print(json.dumps(words), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, code, out, err)


class Starter(threading.local):
    """Stands in for subprocess.run. Each thread has processes of its own, one for each environment: Ansible reads it on import."""

    def __init__(self) -> None:
        self._loaded: dict[tuple, Loaded] = {}

    def __call__(self, words: t.Any, check: bool = False, env: dict[str, str] | None = None, cwd: str | None = None, **options: t.Any) -> t.Any:
        if not isinstance(words, list) or words[:2] != ["ansible-playbook", "--syntax-check"] or cwd or check:
            return _start(words, check=check, env=env, cwd=cwd, **options)
        environment = dict(os.environ if env is None else env)
        key = tuple(sorted(environment.items()))
        if key not in self._loaded:
            self._loaded[key] = Loaded(environment)
        return self._loaded[key].run(words)


def serve() -> None:
    """A command line from each line of standard input; exit status, output and errors of each as a line of standard output."""
    from ansible.cli.playbook import main as ansible_playbook

    for line in sys.stdin:
        print(json.dumps(forked(ansible_playbook, json.loads(line))), flush=True)


def forked(program: t.Callable[[], None], words: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            become(program, words, out.fileno(), err.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, *(file.seek(0) or file.read() for file in (out, err))


def become(program: t.Callable[[], None], words: list[str], out: int, err: int) -> t.NoReturn:
    """As a process of its own would run: whatever becomes of it, it ends here."""
    code: t.Any = 250
    try:
        for mine, theirs in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(theirs, mine)
        sys.argv = words
        program()
        code = 0
    except SystemExit as exc:
        code = exc.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else bool(code))


def lint() -> None:
    from ansiblelint.__main__ import _run_cli_entrypoint

    subprocess.run = Starter()
    _run_cli_entrypoint()


if __name__ == "__main__":
    serve() if sys.argv[1:] == [_SERVE] else lint()
