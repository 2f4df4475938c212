# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured to what is printed: medians, goals, Markdown. Pure."""
from __future__ import annotations

import statistics

from table import GOALS_HEAD, Goal, Samples

OURS, LITSERVE, BENTOML, RAY, PLAIN = "ours", "litserve", "bentoml", "ray", "fastapi"
TITLES = {OURS: "this service", LITSERVE: "LitServe", BENTOML: "BentoML", RAY: "Ray Serve", PLAIN: "FastAPI, `def` endpoint"}
CASES = {"full": "throughput", "even": "at the same load", "alone": "one at a time"}
NOTES = """\
- Median of {runs} runs, each with every server in turn. Server and bare loop have {where} and one thread of torch, the client has another
  core and was busy for {busy:.0%} of the time at most (of a core). Batches of {batch} at most, for all.
- *Throughput*: {connections} connections, each with its next request as soon as it has its answer. *At the same load*: requests are due at fixed
  times, {share:.0%} of what LitServe can do, and a latency counts from the time a request was due. *One at a time*: one connection.
- T_raw is the bare loop's throughput at its best batch size, measured right before and after this service's throughput; the share of what is
  possible is compared within each run. c is what a no-op route (`GET /health`) of this service costs, t = 1 / T_raw; {possible}.
- The same network, package and function compute in all of them. Requests of the ResNets are uint8 `.npy` bodies (LitServe and BentoML take
  JSON only, and get base64 in it), those of the digits JSON. Peers check nothing of what they are sent; this service does. None writes an access log.
- Peers: {peers}."""

POSSIBLE = {
    False: "one core, which does both, allows T_raw * t / (t + c)",
    True: "a GPU and a core, which work at the same time, allow what the slower one does, T_raw or 1 / c",
}


def allowed(raw: float, no_op: float, device: str = "cpu") -> float:
    """Requests a second that are possible: `raw` of the bare loop, `no_op` seconds of HTTP for each. One core has to do both, one after the other."""
    return raw / (1 + raw * no_op) if device == "cpu" else min(raw, 1 / no_op)


def best(samples: Samples, model: str, sizes: list[int]) -> tuple[int, float]:
    """(batch size, instances a second) of the bare loop at its best."""
    return max(((size, size / samples.median(f"{model}.bare.{size}")) for size in sizes), key=lambda found: found[1])


def goals(samples: Samples, model: str, sizes: list[int], device: str = "cpu") -> list[Goal]:
    def figure(server: str, case: str, what: str) -> float:
        return samples.median(f"{model}.{server}.{case}.{what}")

    size, raw = best(samples, model, sizes)
    no_op = 1 / figure(OURS, "no_op", "per_second")
    mine, limit = figure(OURS, "full", "per_second"), allowed(raw, no_op, device)
    batch = samples.median(f"{model}.bare.{max(sizes)}") * 1000
    about = f"throughput, of what is possible ({limit:,.0f}/s; T_raw {raw:,.0f}/s in batches of {size}, {1000 / raw:.2f} ms each; c {no_op * 1000:.2f} ms)"
    found = [
        Goal(model, about, 100 * samples.median(f"{model}.{OURS}.of_allowed"), 95, "%", at_least=True),
        Goal("", "p95 at 70 % of its own throughput, against 2 forwards of the largest batch + 5 ms", figure(OURS, "steady", "p95"), 2 * batch + 5, "ms"),
    ]
    found += [
        Goal("", f"cache hit, {title}, p95 at 70 % of its uncached throughput", figure(OURS, f"cached_{layer}", "p95"), 3, "ms")
        for layer, title in (("local", "in the process"), ("redis", "in Redis"))
        if f"{model}.{OURS}.cached_{layer}.p95" in samples.values
    ]
    if f"{model}.{LITSERVE}.full.per_second" in samples.values:
        found.append(Goal("", "throughput, times LitServe's", mine / figure(LITSERVE, "full", "per_second"), 1.2, at_least=True))
        found.append(Goal("", "p95 at the same load, times LitServe's", figure(OURS, "even", "p95") / figure(LITSERVE, "even", "p95"), 0.8))
    if f"{model}.{PLAIN}.alone.p50" in samples.values:
        found.append(Goal("", "a lone request, more than unbatched (FastAPI)", figure(OURS, "alone", "p50") - figure(PLAIN, "alone", "p50"), 1, "ms"))
    return found


def row(samples: Samples, model: str, server: str, raw: float, title: str) -> str:
    def cell(case: str, what: str, digits: int) -> str:
        values = samples.values.get(f"{model}.{server}.{case}.{what}")
        return f"{statistics.median(values):,.{digits}f}" if values else "-"

    share = samples.median(f"{model}.{server}.full.per_second") / raw
    latencies = [cell(case, what, 1) for case in CASES for what in ("p50", "p95", "p99")]
    cells = [title, TITLES[server], cell("full", "per_second", 0), f"{share:.0%}", *latencies]
    return "| " + " | ".join(cells) + " |"


def profile(samples: Samples, models: list[str], sizes: list[int]) -> list[str]:
    """Where the time of one request goes, under full load: a table. A model of an earlier version of the benchmark has no row."""
    rows = []
    for model in models:
        key = f"{model}.{OURS}"
        if f"{key}.cpu.event_loop" in samples.values:
            event_loop, others = (samples.median(f"{key}.cpu.{part}") for part in ("event_loop", "others"))
            rows.append(f"| {model} | {event_loop:.2f} | {1000 / samples.median(f'{key}.no_op.per_second'):.2f} | {others:.2f} | {1000 / best(samples, model, sizes)[1]:.2f} |")
    head = ["| CPU ms of a request | event loop | as much for a no-op, c | inference thread | as much in the bare loop, t |", "|---|---|---|---|---|"]
    return [*head, *rows, ""] if rows else []


def markdown(samples: Samples, models: list[str], sizes: list[int], facts: dict) -> str:
    """Everything that was measured, as two tables and notes. `facts` fills the notes."""
    goal_rows, rows = [], []
    for model in models:
        goal_rows += [goal.row() for goal in goals(samples, model, sizes, facts["device"])]
        _, raw = best(samples, model, sizes)
        title = model
        for server in TITLES:
            if f"{model}.{server}.full.per_second" in samples.values:
                rows.append(row(samples, model, server, raw, title))
            else:
                rows.append(f"| {title} | {TITLES[server]} | {facts['missing'].get(server, 'not measured')} |" + " |" * 10)
            title = ""
    gpu = facts["device"] != "cpu"
    notes = NOTES.format(**facts, possible=POSSIBLE[gpu], where=f"{facts['device']}, the cores {facts['cores']}" if gpu else "one core")
    latencies = " | ".join(f"{title}: {what}" for title in CASES.values() for what in ("p50, ms", "p95", "p99"))
    return "\n".join([
        GOALS_HEAD[0].replace("case", "model"), GOALS_HEAD[1], *goal_rows, "",
        f"| model | server | requests/s | of T_raw | {latencies} |", "|---|---|---|---|" + "---|" * 9, *rows, "",
        *profile(samples, models, sizes), notes, "",
    ])
