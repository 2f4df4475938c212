# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the engine from a module's parameters, and what the ledger says to people."""
from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import typing as t

from ..cluster.api import Cluster
from ..engine.ledger import Ledger, State
from ..errors import Interrupted, InvalidInput
from ..plan.plan import CREATE, DELETE, UPDATE, ref_from_key

STOPPING = (signal.SIGTERM, signal.SIGINT)


def read_bundle(bundle: dict | None, path: str | None) -> dict:
    """The bundle, from the parameter or from the file the action plugin wrote."""
    if path is None:
        return bundle or {}
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"bundle_file {path}: {exc}") from exc


def stop_on_signals() -> None:
    """Makes a cancelled job, or Ctrl-C, an error like any other, so that the state before is restored. What is told to stop
    twice goes on restoring."""

    def stop(number: int, _frame: t.Any) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(f"the run was told to stop ({signal.Signals(number).name})")

    for each in STOPPING:
        signal.signal(each, stop)


def who() -> str:
    """user@host of this controller, for the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def history(state: State) -> list[str]:
    """A line for each kept release, the newest first: number, time, what became of it, who and why, and what it changed. `*` marks the
    one that is deployed."""
    current = state.current["number"] if state.current else None
    return [_release_line(release, "*" if release["number"] == current else " ") for release in reversed(state.releases)]


def _release_line(release: dict, mark: str) -> str:
    back = f", back to {release['rolled_back_to']}" if release.get("rolled_back_to") else ""
    why = f": {release['why']}" if release.get("why") else ""
    changes = " ".join(
        f"{component} +{row.get(CREATE, 0)} ~{row.get(UPDATE, 0)} -{row.get(DELETE, 0)}" for component, row in sorted((release.get("changes") or {}).items())
        if any(row.get(verb) for verb in (CREATE, UPDATE, DELETE))
    )
    error = f"; {release['error']}" if release.get("error") else ""
    return f"{mark} {release['number']:>4}  {release['at']}  {release['status']}{back}  by {release['by']}{why}  {changes}{error}".rstrip()


def described(cluster: Cluster, ledger: Ledger) -> dict:
    """The result of `release_info`."""
    openshift = cluster.is_openshift()
    state, journal = ledger.load()
    objects = {name: sorted(str(ref_from_key(key)) for key in keys) for name, keys in state.record.items()}
    interrupted = {name: journal[name] for name in ("by", "at")} if journal else None
    return {
        "changed": False,
        "releases": state.releases,
        "lines": history(state),
        "current": state.current,
        "objects": objects,
        "interrupted": interrupted,
        "distribution": "openshift" if openshift else "kubernetes",
        "server": cluster.server,
        "server_version": cluster.version(),
        "requests": dict(cluster.requests),
    }
