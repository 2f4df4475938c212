# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs releases in processes that can be killed: a program that forks one for each line of JSON it reads, so that the engine
is imported only once. Answers with two lines: the process's id, and its exit status once it has ended."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t

import cluster


class Victims:
    """The other side of the program below."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(cluster.REPOSITORY / ".collections")}
        self._program = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, **order: t.Any) -> int:
        """The process id of a new run, which waits for `go`."""
        assert self._program.stdin and self._program.stdout
        self._program.stdin.write(json.dumps(order) + "\n")
        return int(self._program.stdout.readline())

    def go(self) -> None:
        assert self._program.stdin
        self._program.stdin.write("\n")

    def wait(self) -> int:
        """The exit status of the last run, negative for a signal; it has been reaped, so no trace of its id is left."""
        assert self._program.stdout
        return int(self._program.stdout.readline())

    def close(self) -> None:
        assert self._program.stdin
        self._program.stdin.close()
        self._program.wait(30)


def quick_backoff(_attempt: int, retry_after: str | None = None) -> float:
    """For retries as many as ever, but with short pauses: they would be most of the time a test of faults takes.

    Where the API server itself asks for a pause (a definition has just changed), it means it.
    """
    return 0.2 if retry_after else 0.01


def main() -> None:
    import bundles  # and with it the engine
    from ansible_collections.genai.platform.plugins.module_utils.cluster import api as _cluster

    _cluster._backoff, _cluster.OUTAGE_SECONDS = quick_backoff, 0.0
    for line in sys.stdin:
        order = json.loads(line)
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)  # ends when the parent closes its side: it was told to go
            os._exit(_run(bundles.Platform(order["platform"], order["url"]), order))
        os.close(ready)
        print(pid, flush=True)
        sys.stdin.readline()
        os.close(go)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(platform: t.Any, order: dict) -> int:
    from ansible_collections.genai.platform.plugins.module_utils.errors import PlatformError

    try:
        with open(order["bundle"], encoding="utf-8") as handle:
            platform.deploy(json.load(handle), by=order["by"])
    except PlatformError as exc:
        print(exc.message, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
