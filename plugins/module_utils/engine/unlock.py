# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens a platform whose last run could not be undone: shows what is not as it was before that run, and goes on without it."""
from __future__ import annotations

import typing as t

from ..cluster.api import Cluster
from ..errors import ApiError
from ..objects.fields import before_image, changed_paths, owned_fields
from ..plan.plan import CREATE
from .ledger import FAILED, State, busy
from .lock import alive
from .release import Releaser
from .undo import Entry, restore

AS_BEFORE, PUT_BACK, REMOVED, STUCK = "as before", "is put back", "is removed", "stays as it is"


def unlock(releaser: Releaser) -> dict:
    """Restores what can be restored, names what cannot, and removes the journal. Raises Busy while its run is alive.

    Returns the module's result; `left`: [{object, outcome, message}] of everything that is not as it was before that run.
    """
    cluster, ledger, check = releaser.cluster, releaser.ledger, releaser.options.check
    cluster.types()
    state, journal = ledger.load()
    result: dict[str, t.Any] = {"changed": False, "interrupted": None, "left": [], "server": cluster.server, "platform": ledger.platform}
    if journal is None:
        return {**result, "requests": dict(cluster.requests)}
    if alive(journal, journal["renewed"], cluster.server_time):
        raise busy(journal)
    recorded = bool(state.releases) and state.releases[-1].get("run") == journal["run"]
    entries = [] if recorded else [Entry.read(line) for line in journal["entries"]]
    outlook = [_outlook(cluster, entry) for entry in entries]
    result.update(changed=True, interrupted={name: journal[name] for name in ("by", "at")}, left=[item for item in outlook if item["outcome"] != AS_BEFORE])
    if not check:
        result["left"] = _unlocked(releaser, state, journal, entries, recorded)
    return {**result, "requests": dict(cluster.requests)}


def _outlook(cluster: Cluster, entry: Entry) -> dict:
    """What restoring one object would do, asked of the server by a dry run."""
    live = cluster.get(entry.rtype, entry.namespace, entry.name)
    outcome, message = AS_BEFORE, ""
    if entry.verb == CREATE:
        if live is not None and owned_fields(live):
            outcome, message = REMOVED, "the run that did not end has made it"
    else:
        outcome, message = _compared(cluster, entry, live)
    return {"object": str(entry.ref), "outcome": outcome, "message": message}


def _compared(cluster: Cluster, entry: Entry, live: dict | None) -> tuple[str, str]:
    before = t.cast(dict, entry.before)
    try:
        after = cluster.apply(entry.rtype, before, force=True, dry_run=True)
    except ApiError as exc:
        return STUCK, exc.message
    if live is None:
        return PUT_BACK, "it is not there"
    changed = changed_paths(before_image(live), before_image(after))
    return (PUT_BACK, ", ".join(changed)) if changed else (AS_BEFORE, "")


def _unlocked(releaser: Releaser, state: State, journal: dict, entries: list[Entry], recorded: bool) -> list[dict]:
    """Restores, records what could not be, and removes the journal."""
    if recorded:
        releaser.ledger.close_journal(journal["uid"])
        return []
    releaser.lock.take_over(journal)
    report = restore(releaser.cluster, entries, releaser.options.platform, releaser.lock.check)
    left = [dict(zip(("object", "message"), line.split(": ", 1)), outcome=STUCK) for line in (*report.errors, *report.kept)]
    if left:
        why = f"unlocked by {releaser.options.facts['by']}; not as before: " + ", ".join(item["object"] for item in left)
        run = {name: journal[name] for name in ("at", "run", "by")}
        failure = {**run, "number": state.next_number, "status": FAILED, "error": why, "components": {}}
        state.releases = [*state.releases, failure]
        releaser.ledger.save(state, releaser.options.keep)
    releaser.lock.release()
    return left


def unlock_lines(result: dict, check: bool) -> list[str]:
    """The result of `unlock` for people: what was done, or would be (`check`), and a line for each object that is not as it was before."""
    if not result["interrupted"]:
        return [f"not locked: platform {result['platform']} on {result['server']}"]
    who = f"the run of {result['interrupted']['by']} at {result['interrupted']['at']}"
    head = f"{'would be unlocked' if check else 'unlocked'}: {who} did not end; {len(result['left'])} objects are not as they were before it"
    return [head, *(f"{item['object']}: {item['outcome']}{': ' + item['message'] if item['message'] else ''}" for item in result["left"])]
