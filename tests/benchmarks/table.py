# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured to what is printed: medians, goals, Markdown. Pure."""
from __future__ import annotations

import dataclasses
import statistics
import typing as t

from peers import HELM, KUBECTL, LOOP, OURS, SERVER_SIDE, TASK, TITLES, WAITING

KINDS = 9
CASES = {"first": "first apply", "unchanged": "nothing changed", "second": "every object changed", "rollback": "rollback of every object"}
NOTES = """\
- Seconds are of the whole command, start of Python or Go included; *engine* is that less a playbook that runs `ping` (for the programs
  in Go it is the same number). Median of {runs} runs, each with every tool in turn, fastest and slowest in brackets.
- The loop takes too long to be run in full: {sample} objects are measured, and the time above the start of a playbook is scaled to {few}.
- Ours keeps a journal and a ledger. By default it also waits until the cluster has taken up every Deployment, which takes as long as the
  cluster's controllers do; the others do not wait, so the goals compare with `wait: false`.
- Peers are at their best: one task with all objects, JSON in place of YAML, warm discovery caches, no limit on helm's requests,
  `KUBECTL_OPENAPIV3_PATCH=false` for `kubectl apply`. Its PodDisruptionBudgets are patched every time, by helm too.
- Requests are what the API server's audit log has of the tool's own identity.
- The bare loop is a Python program that sends one server-side apply per object, 16 at a time, and nothing else.
- *Bound*: what a playbook would reach here that takes only its own start (`debug`) and the bare loop, or nothing where nothing is written."""


@dataclasses.dataclass
class Samples:
    """What was measured: {key: one number a run}, and the requests of the last run by case and tool."""

    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    requests: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def add(self, key: str, value: float) -> None:
        self.values.setdefault(key, []).append(value)

    def median(self, key: str) -> float:
        return statistics.median(self.values[key])

    def as_json(self) -> dict:
        figures = {
            key: {"min": min(found), "median": statistics.median(found), "max": max(found), "values": found}
            for key, found in self.values.items()
        }
        return {"figures": figures, "requests": self.requests}


@dataclasses.dataclass(frozen=True)
class Goal:
    """One line of the table of goals. `figure` is measured, `limit` what it is held against, `unit` of both.

    `bound`: what a tool would reach that takes no longer than the start of Ansible and the bare loop, measured in the same runs.
    """

    case: str
    about: str
    figure: float
    limit: float
    unit: str = "x"
    at_least: bool = False
    bound: float | None = None

    @property
    def met(self) -> bool:
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def row(self) -> str:
        sign, met = "≥" if self.at_least else "≤", "yes" if self.met else "**no**"
        limit, figure, bound = ("" if value is None else f"{_number(value)} {self.unit}".strip() for value in (self.limit, self.figure, self.bound))
        return f"| {self.case} | {self.about} | {sign} {limit} | {figure} | {met} | {bound} |"


GOALS_HEAD = ("| case | goal | | measured | met | bound |", "|---|---|---|---|---|---|")


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 and value != round(value) else f"{value:,.0f}"


def writes(requests: dict[str, int]) -> int:
    return sum(requests.get(verb, 0) for verb in ("POST", "PUT", "PATCH", "DELETE"))


# --- figures ---------------------------------------------------------------------------------------------------------


def whole(samples: Samples, case: str, peer: str, sizes: dict[str, int]) -> list[float]:
    """Seconds of the whole command, one a run; the loop's scaled from its sample, its start taken off first."""
    found = samples.values[f"{case}.{peer}.seconds"]
    if peer != LOOP:
        return found
    start = samples.median("start.debug.seconds")
    return [start + (seconds - start) * sizes["few"] / sizes["sample"] for seconds in found]


def engine(samples: Samples, case: str, peer: str, sizes: dict[str, int]) -> list[float]:
    """Seconds without the start of Ansible, one a run."""
    seconds = whole(samples, case, peer, sizes)
    if peer not in (OURS, WAITING, TASK, LOOP):
        return seconds
    return [each - samples.median("start.ping.seconds") for each in seconds]


def goals(samples: Samples, sizes: dict[str, int]) -> list[Goal]:
    few, many, most = (f"{sizes[name]:,} objects" for name in ("few", "many", "most"))

    debug, floor = samples.median("start.debug.seconds"), samples.median("floor.seconds")
    bare = {"first": debug + floor, "unchanged": debug, "many": debug + floor * sizes["many"] / sizes["few"], "rollback": debug + floor}

    def faster(case: str, about: str, peer: str, limit: float, title: str = "") -> Goal:
        theirs, mine = (statistics.median(whole(samples, case, tool, sizes)) for tool in (peer, OURS))
        return Goal(title, about, theirs / mine, limit, at_least=True, bound=theirs / bare[case])

    def requests(case: str) -> int:
        return sum(samples.requests[f"{case}.{OURS}"].values())

    mine = statistics.median(engine(samples, "first", OURS, sizes))
    again_alone = [statistics.median(engine(samples, "unchanged", tool, sizes)) for tool in (TASK, OURS)]
    each = {name: samples.median(f"scale.{name}.engine.seconds") / sizes[name] * 1000 for name in ("few", "many", "most")}
    again, one = samples.median("unchanged.engine.seconds"), samples.median("one.engine.seconds")
    site, single = samples.median("site.seconds") / debug, samples.requests["one.writes"]
    per_object = f"{most}, against {few} ({each['few']:.1f}, {each['many']:.1f} at {many}, {each['most']:.1f} ms)"
    memory = {name: max(samples.values[f"scale.{name}.engine.peak_mb"]) for name in ("few", "most")}
    first, back = (statistics.median(whole(samples, case, OURS, sizes)) for case in ("first", "rollback"))
    return [
        faster("first", "faster than a loop of `k8s`", LOOP, 100, f"first apply, {few}"),
        faster("first", "faster than one task of `k8s`", TASK, 2),
        faster("first", "no slower than `kubectl apply --server-side`", SERVER_SIDE, 1),
        Goal("", "engine, against 1.5 bare loops + 0.5 s", mine, 1.5 * floor + 0.5, "s", bound=floor),
        Goal("", "requests per object", requests("first") / sizes["few"], 1.1, ""),
        faster("many", "faster than one task of `k8s`", TASK, 3, f"first apply, {many}"),
        faster("many", "faster than `kubectl apply --server-side`", SERVER_SIDE, 1.3),
        faster("unchanged", "faster than one task of `k8s`", TASK, 3, f"nothing changed, {few}"),
        Goal("", "engine, faster than one task of `k8s`", again_alone[0] / again_alone[1], 8, at_least=True),
        faster("unchanged", "faster than a loop of `k8s`", LOOP, 150),
        faster("unchanged", "faster than `kubectl apply`", KUBECTL, 7),
        Goal("", "writes", writes(samples.requests[f"unchanged.{OURS}"]), 0, ""),
        Goal("", f"requests, against {KINDS} kinds + 5", requests("unchanged"), KINDS + 5, ""),
        Goal(f"one changed of {few}", "engine, more than nothing changed", (one - again) * 1000, 50, "ms"),
        Goal("", f"writes to objects (and {single['ledger']} to the ledger)", single["objects"], 1, ""),
        Goal("`site.yml`, nothing changed", "against a playbook that only says something", site, 8),
        Goal(f"rollback of {few}", "against their first apply", back / first, 1.5),
        faster("rollback", "faster than `helm rollback`", HELM, 2),
        Goal("wait", "returns after the last object is ready", samples.median("wait.ms"), 100, "ms"),
        Goal("memory of the engine", few, memory["few"], 150, "MB"),
        Goal("", most, memory["most"], 400, "MB"),
        Goal("time per object", per_object, each["most"] / each["few"], 1.1),
    ]


# --- Markdown --------------------------------------------------------------------------------------------------------


def spread(found: list[float]) -> str:
    return f"{statistics.median(found):.1f} ({min(found):.1f}-{max(found):.1f})"


def requests_of(samples: Samples, case: str, peer: str) -> str:
    by_verb = samples.requests[f"{case}.{peer}"]
    return f"{sum(by_verb.values()):,}: " + ", ".join(f"{count:,} {verb}" for verb, count in sorted(by_verb.items()))


def case_rows(samples: Samples, case: str, title: str, sizes: dict[str, int]) -> list[str]:
    rows = []
    for peer in (peer for peer in TITLES if f"{case}.{peer}.seconds" in samples.values):
        seconds, alone = (spread(of(samples, case, peer, sizes)) for of in (whole, engine))
        note = f" (of {sizes['sample']} objects)" if peer == LOOP else ""
        name = "`helm rollback`" if (case, peer) == ("rollback", HELM) else TITLES[peer]
        rows.append(f"| {title} | {name} | {seconds} | {alone} | {requests_of(samples, case, peer)}{note} |")
        title = ""
    return rows


def markdown(samples: Samples, sizes: dict[str, int], runs: int) -> str:
    """Everything that was measured, as two tables and notes."""
    titles = {case: f"{title}, {sizes['few']}" for case, title in CASES.items()}
    titles["many"] = f"first apply, {sizes['many']:,}"
    titles["one"] = f"one of {sizes['few']} changed"
    rows = [row for case, title in titles.items() for row in case_rows(samples, case, title, sizes)]
    bare = f"| first apply, {sizes['few']} | bare loop | | {spread(samples.values['floor.seconds'])} | {sizes['few']}: {sizes['few']} PATCH |"
    others = [
        f"| {title} | | {spread(samples.values[key])} | | |"
        for title, key in (
            ("a playbook with `debug`", "start.debug.seconds"),
            ("a playbook with `ping`", "start.ping.seconds"),
            ("`site.yml`, nothing changed", "site.seconds"),
        )
    ]
    return "\n".join([
        *GOALS_HEAD, *(goal.row() for goal in goals(samples, sizes)), "",
        "| case, objects | tool | seconds | engine | requests |", "|---|---|---|---|---|", *rows, bare, *others, "",
        NOTES.format(runs=runs, **sizes), "",
    ])
