# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's history, for people and for `release_info`."""
from __future__ import annotations

from ..cluster.api import Cluster
from ..engine.ledger import Ledger, State
from ..plan.plan import CREATE, DELETE, UPDATE
from ..plan.record import ref_from_key


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


def release_info(cluster: Cluster, ledger: Ledger) -> dict:
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
