# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users of the inference service see while five times as many requests come as it can compute.

    overload.py [--runs 3] [--seconds 60] [--model resnet18] [--times 5]     writes build/bench-app-overload.json and .md

One core for the server and one for the client. A run: at its capacity, at half of it, overloaded, and at half again at once.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import pathlib
import signal
import statistics
import sys
import tempfile
import threading
import typing as t

from bench_app import BATCH, BUILD, Bench, Wrong, client, environment, free_port, running
from report import OURS
from table import GOALS_HEAD, Goal, Samples

HALF = 0.5
RECOVERY_SECONDS = 2.0
QUEUE = 2 * BATCH  # while a batch computes, two wait: what is accepted is answered within about three forwards
CASES = {"capacity": "at capacity", "half": "at half", "overload": "overloaded", "recovery": "at half, after it"}
NOTES = """\
- Median of {runs} runs. {model}, batches of {batch} at most, {queue} instances may wait (`GENAI_MAX_QUEUE`). Server and client have one core each; the client was busy
  for {busy:.0%} of the time at most. *Overloaded*: {times:g} times the capacity for {seconds:.0f} s, in all {sent:,} requests, of which {refused:,} were answered 429.
- *At capacity*: as many connections as instances may wait or be computed, each with its next request as soon as it has its answer.
- *After it*: at half its capacity again, at once; measured from {recovery:g} s after the end of the overload on.
- A refusal costs what HTTP costs in Python: of the one core the server has, {times:g} times its capacity takes {share:.0%} away from the model.
  So what is accepted waits that much longer; where the server has a second core, it does not."""


class Memory(threading.Thread):
    """A process's resident bytes, twice a second until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        self._pid, self._done = pid, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.5):
            self.seen.append(resident(self._pid))

    def stop(self) -> None:
        self._done.set()
        self.join()


def resident(pid: int) -> int:
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def growth(seen: list[int]) -> float:
    """Last fifth of the samples against the second one, as a share: what the first seconds allocate is no leak."""
    fifth = max(1, len(seen) // 5)
    early, late = seen[fifth : 2 * fifth] or seen, seen[-fifth:]
    return max(late) / max(early) - 1


def goals(runs: list[dict[str, dict]]) -> list[Goal]:
    """Each figure is the median of those of the runs: what is compared was measured within the same minute."""

    def ratio(case: str, what: str, other: str, base: str) -> float:
        return statistics.median(run[case][what] / run[other][base] for run in runs)

    memory = statistics.median(run["overload"]["memory_growth"] for run in runs)
    return [
        Goal("overload", "p95 of what is accepted, against the one at capacity", ratio("overload", "p95", "capacity", "p95"), 1.25),
        Goal("", "accepted a second, of the capacity", 100 * ratio("overload", "per_second", "capacity", "per_second"), 80, "%", at_least=True),
        Goal("", "429 within, p95, against a forward of the largest batch", ratio("overload", "refused_p95", "capacity", "forward"), 1),
        Goal("", "memory, growth from the second to the last fifth", 100 * memory, 5, "%"),
        Goal("", f"p95 from {RECOVERY_SECONDS:g} s after it on, against the one before", ratio("recovery", "p95", "half", "p95"), 1.5),
    ]


def markdown(runs: list[dict[str, dict]], facts: dict) -> str:
    def cell(case: str, what: str, digits: int = 1) -> str:
        found = statistics.median(run[case][what] for run in runs)
        return "" if math.isnan(found) else f"{found:,.{digits}f}"

    rows = [
        f"| {title} | {cell(case, 'per_second', 0)} | {cell(case, 'p50')} | {cell(case, 'p95')} | {cell(case, 'p99')} |"
        f" {cell(case, 'refused', 0)} | {cell(case, 'refused_p95')} |"
        for case, title in CASES.items()
    ]
    head = ["| | answered/s | p50, ms | p95 | p99 | 429 | p95 of a 429, ms |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*GOALS_HEAD, *(goal.row() for goal in goals(runs)), "", *head, *rows, "", NOTES.format(**facts), ""])


def load(bench: Bench, spec: dict) -> dict:
    """What the client saw. Raises Wrong when anything was answered but 200 and 429."""
    seen = client(bench, spec)
    if not set(seen["statuses"]) <= {"200", "429"}:
        raise Wrong(f"answers {seen['statuses']}")
    return {**seen, "refused": seen["statuses"].get("429", 0)}


def measure(bench: Bench, model: str, seconds: float, times: float) -> dict[str, dict]:
    port = free_port()
    server = bench.server(OURS, model, port)
    variables = {**bench.variables(model, port), "GENAI_MAX_QUEUE": str(QUEUE)}
    request = server.request(port)
    with running(server, variables, port, bench.folder / "ours.log") as process:
        found = {"capacity": load(bench, {**request, "connections": QUEUE + BATCH, "seconds": 8.0})}
        rate = found["capacity"]["per_second"]
        found["capacity"]["forward"] = 1000 * BATCH / rate
        found["half"] = load(bench, {**request, "connections": 4 * QUEUE, "rate": HALF * rate, "seconds": 8.0})
        memory = Memory(process.pid)
        memory.start()
        found["overload"] = load(bench, {**request, "connections": 8 * QUEUE, "rate": times * rate, "seconds": seconds})
        found["recovery"] = load(bench, {**request, "connections": 4 * QUEUE, "rate": HALF * rate, "seconds": 8.0, "warm_up": RECOVERY_SECONDS})
        memory.stop()
    found["overload"]["memory_growth"] = growth(memory.seen)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--times", type=float, default=5.0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(environment("ours"), None, pathlib.Path(folder), Samples())
        runs = [measure(bench, arguments.model, arguments.seconds, arguments.times) for _ in range(arguments.runs)]
    refused, accepted = (sum(run["overload"]["statuses"].get(status, 0) for run in runs) for status in ("429", "200"))
    facts: dict[str, t.Any] = {
        "model": arguments.model, "batch": BATCH, "queue": QUEUE, "times": arguments.times, "seconds": arguments.seconds,
        "busy": max(each["client_busy"] for run in runs for each in run.values()), "sent": refused + accepted, "refused": refused,
        "recovery": RECOVERY_SECONDS, "runs": len(runs),
        "share": 1 - statistics.median(run["overload"]["per_second"] / run["capacity"]["per_second"] for run in runs),
    }
    text = markdown(runs, facts)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-app-overload.json").write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    (BUILD / "bench-app-overload.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
