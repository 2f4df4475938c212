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

from ._cluster import Cluster
from ._errors import Interrupted, InvalidInput
from ._ledger import Ledger
from ._plan import ref_from_key

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


def described(cluster: Cluster, ledger: Ledger) -> dict:
    """The result of `release_info`."""
    openshift = cluster.is_openshift()
    state, journal = ledger.load()
    objects = {name: sorted(str(ref_from_key(key)) for key in keys) for name, keys in state.record.items()}
    interrupted = {name: journal[name] for name in ("by", "at")} if journal else None
    return {
        "changed": False,
        "releases": state.releases,
        "current": state.current,
        "objects": objects,
        "interrupted": interrupted,
        "distribution": "openshift" if openshift else "kubernetes",
        "server": cluster.server,
        "server_version": cluster.version(),
        "requests": dict(cluster.requests),
    }
