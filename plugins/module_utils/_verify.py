# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is everything that was released there and ready? Waits for all of it at once, and not for what cannot get better."""
from __future__ import annotations

import time
import typing as t

from ._cluster import Cluster
from ._errors import Hopeless, InvalidInput, TimedOut
from ._health import not_ready
from ._ledger import Ledger, State
from ._manifest import Ref
from ._observe import observe, recorded_types
from ._plan import Record, ref_from_key
from ._wait import Waiter, details

HEALTHY, FAILED, TIMED_OUT = "healthy", "failed", "timed_out"


def verify(cluster: Cluster, ledger: Ledger, components: list[str] | None, timeout: float, progress: t.Callable[[str], None]) -> dict:
    """The verdict: {verdict, release, checked, ready, problems, seconds, ...}; `problems` is empty when healthy."""
    started = time.monotonic()
    cluster.types()
    state, journal = ledger.load()
    release = state.deployed["number"]
    record = _chosen(state, components)
    refs = recorded_types(cluster, record)
    live = observe(cluster, ledger.platform, record)
    problems = [_missing(ref, ref not in refs) for ref in _recorded(record) if ref not in live and not _cleans_up(ref)]
    problems += [_going(ref) for ref in refs if live.get(ref, {}).get("metadata", {}).get("deletionTimestamp")]
    unready = {ref: rtype for ref, rtype in refs.items() if ref in live and not_ready(live[ref])}
    verdict = FAILED if problems else HEALTHY
    if unready and not problems:
        waiter = Waiter(cluster, unready, ledger.platform, progress)
        try:
            waiter.run(timeout)
        except (Hopeless, TimedOut) as exc:
            verdict = FAILED if isinstance(exc, Hopeless) else TIMED_OUT
            problems = t.cast(list, exc.facts["problems"])
        unready = {ref: rtype for ref, rtype in unready.items() if ref in waiter.waiting}
    checked = len(_recorded(record))
    return {
        "changed": False,
        "verdict": verdict,
        "platform": ledger.platform,
        "server": cluster.server,
        "release": release,
        "interrupted": {name: journal[name] for name in ("by", "at")} if journal else None,
        "checked": checked,
        "ready": checked - len({str(ref) for ref in unready} | {problem["object"] for problem in problems}),
        "problems": problems,
        "seconds": round(time.monotonic() - started, 1),
        "requests": dict(cluster.requests),
    }


def _chosen(state: State, components: list[str] | None) -> Record:
    unknown = set(components or ()) - set(state.record)
    if unknown:
        raise InvalidInput(f"no such component: {', '.join(sorted(unknown))}; deployed: {', '.join(sorted(state.record))}")
    return {name: objects for name, objects in state.record.items() if not components or name in components}


def _recorded(record: Record) -> list[Ref]:
    return [ref_from_key(key) for objects in record.values() for key in objects]


def _cleans_up(ref: Ref) -> bool:
    return ref.kind == "Job"  # one with ttlSecondsAfterFinished is gone once it is done


def _missing(ref: Ref, type_gone: bool) -> dict:
    if type_gone:
        hint = "its CustomResourceDefinition was deleted: install it again, then run site.yml"
        return _problem(ref, "TypeMissing", f"the cluster serves no {ref.kind} of {ref.group} any more", hint)
    return _problem(ref, "Missing", "it was released and is not there", "ansible-playbook drift.yml -e fix=true puts it back")


def _going(ref: Ref) -> dict:
    return _problem(ref, "Terminating", "somebody deleted it, and it is on its way out", "look at its finalizers; then run site.yml")


def _problem(ref: Ref, reason: str, message: str, hint: str) -> dict:
    return {"object": str(ref), "pod": "", "container": "", "reason": reason, "message": message, "event": "", "log": [], "hint": hint}


def lines(verdict: dict) -> list[str]:
    """The verdict for people."""
    head = f"{verdict['verdict']}: {verdict['ready']} of {verdict['checked']} objects ready, release {verdict['release']} on {verdict['server']}"
    found = [head]
    for problem in verdict["problems"]:
        pod = f" (pod {problem['pod']})" if problem.get("pod") else ""
        found.append(f"{problem['object']}{pod}: {problem['reason']}: {problem['message']}")
        found += details(problem)
    return found
