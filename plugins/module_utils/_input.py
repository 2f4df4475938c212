# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the engine from a module's parameters, and what the ledger says to people."""
from __future__ import annotations

import json
import typing as t

from ._cluster import Cluster
from ._errors import InvalidInput
from ._ledger import Ledger
from ._plan import ref_from_key


def read_bundle(bundle: dict | None, path: str | None) -> dict:
    """The bundle, from the parameter or from the file the action plugin wrote."""
    if path is None:
        return bundle or {}
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"bundle_file {path}: {exc}") from exc


def progress_to(path: str | None) -> t.Callable[[str], None]:
    """A function that appends a line to `path`; one that does nothing without a path."""
    if path is None:
        return lambda _line: None

    def write(line: str) -> None:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")

    return write


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
