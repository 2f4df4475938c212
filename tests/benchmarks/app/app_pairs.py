# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the inference service of this checkout with that of an earlier commit, by turns of a few seconds.

    app_pairs.py --before COMMIT [--runs 9] [--models digits,...]     prints a table of medians and ratios

Both servers run all the time on the same core and are loaded one after the other, so that the changing speed of a shared machine
meets both. A ratio is that of one turn and its neighbour; the table has their median. Nothing is asserted about times.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import typing as t

from bench_app import BATCH, ROOT, SHARE, USUAL, Bench, Server, cache_results, client, environment, free_port, redis_url, running, spent
from report import OURS
from table import Samples

SIDES = ("before", "after")
SECONDS, WARM_UP = 2.0, 0.3
CONNECTIONS, QUEUE = 3 * BATCH, 2 * BATCH
OVERLOADED, TIMES = "resnet18", 5  # as in overload.py: the model, and what comes, of what can be computed

# {row: (unit, whether more is better)}
ROWS = {
    "throughput": ("requests/s", True),
    "CPU of a request": ("ms", False),
    "one at a time, p50": ("ms", False),
    "at 70 % of the throughput, p95": ("ms", False),
    "no-op": ("requests/s", True),
    "no-op, CPU": ("ms", False),
    "cache hit in the process, p50": ("ms", False),
    "cache hit in Redis, p50": ("ms", False),
    "overloaded, answered": ("requests/s", True),
    "overloaded, p95 of a 429": ("ms", False),
}
Load = t.Callable[["Side"], dict[str, float]]


@dataclasses.dataclass
class Side:
    """One of the two services while it runs: where it listens, its process, and how it is asked."""

    bench: Bench
    server: Server
    port: int
    pid: int

    def asked(self, **spec: t.Any) -> dict:
        """What a client saw; see client.py. Other answers than 200 and 429 end the benchmark."""
        seen = client(self.bench, {**self.server.request(self.port), "warm_up": WARM_UP, "seconds": SECONDS, **spec})
        if not set(seen["statuses"]) <= {"200", "429"}:
            raise SystemExit(f"answers {seen['statuses']}")
        return seen

    def cpu_seconds(self) -> float:
        return sum(spent(self.pid, self.port)[:2])

    def predictions(self) -> float:
        return spent(self.pid, self.port)[2]


def source_of(commit: str, folder: pathlib.Path) -> pathlib.Path:
    """The service's source at `commit`, unpacked into `folder`."""
    with subprocess.Popen(["git", "archive", commit, "app/src"], cwd=ROOT, stdout=subprocess.PIPE) as git:
        with tarfile.open(fileobj=git.stdout, mode="r|") as archive:
            archive.extractall(folder, filter="data")
    if git.returncode:
        raise SystemExit(f"no app/src at {commit}")
    return folder / "app/src"


@contextlib.contextmanager
def both(benches: dict[str, Bench], model: str, **settings: str) -> t.Iterator[dict[str, Side]]:
    """Both services at once, with the same settings."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, bench in benches.items():
            port = free_port()
            server = bench.server(OURS, model, port)
            variables = {**bench.variables(model, port), **settings}
            process = stack.enter_context(running(server, variables, port, bench.folder / f"{name}.log", bench.where.cores))
            sides[name] = Side(bench, server, port, process.pid)
        yield sides


def turns(sides: dict[str, Side], found: dict[str, Samples], runs: int, load: Load) -> None:
    """`load` on each side by turns, `runs` times; who begins changes each time."""
    for run in range(runs):
        for name in sorted(sides, reverse=run % 2 == 1):
            for row, figure in load(sides[name]).items():
                found[name].add(row, figure)


def saturated(side: Side) -> dict[str, float]:
    cpu, done = side.cpu_seconds(), side.predictions()
    seen = side.asked(connections=CONNECTIONS)
    return {"throughput": seen["per_second"], "CPU of a request": 1000 * (side.cpu_seconds() - cpu) / (side.predictions() - done)}


def alone(side: Side) -> dict[str, float]:
    return {"one at a time, p50": side.asked(connections=1)["p50"]}


def at_rate(rate: float) -> Load:
    return lambda side: {"at 70 % of the throughput, p95": side.asked(connections=4 * CONNECTIONS, rate=rate)["p95"]}


def no_op(side: Side) -> dict[str, float]:
    cpu = side.cpu_seconds()
    seen = side.asked(path="/health", content_type="text/plain", bodies=[], connections=BATCH)
    asked = seen["per_second"] * (SECONDS + WARM_UP)
    return {"no-op": seen["per_second"], "no-op, CPU": 1000 * (side.cpu_seconds() - cpu) / asked}


def cached(row: str, rate: float) -> Load:
    """One question again and again; all but the first have to come from the cache."""
    def load(side: Side) -> dict[str, float]:
        seen = side.asked(connections=4 * CONNECTIONS, rate=rate)
        results = cache_results(side.port)
        if results["miss"] > 0.03 * sum(results.values()):
            raise SystemExit(f"one question asked again and again was computed again: {results}")
        return {row: seen["p50"]}
    return load


def overloaded(rate: float) -> Load:
    def load(side: Side) -> dict[str, float]:
        seen = side.asked(connections=8 * QUEUE, rate=rate)
        return {"overloaded, answered": seen["per_second"], "overloaded, p95 of a 429": seen["refused_p95"]}
    return load


def measured(benches: dict[str, Bench], model: str, runs: int) -> dict[str, Samples]:
    found = {name: Samples() for name in benches}
    with both(benches, model) as sides:
        turns(sides, found, runs, saturated)
        capacity = found["before"].median("throughput")
        for load in (alone, at_rate(SHARE * capacity), no_op):
            turns(sides, found, runs, load)
    with both(benches, model, GENAI_CACHE_TTL_SECONDS="600") as sides:
        turns(sides, found, runs, cached("cache hit in the process, p50", SHARE * capacity))
    with redis_url() as url:
        if url:
            with both(benches, model, GENAI_CACHE_TTL_SECONDS="600", GENAI_CACHE_LOCAL_BYTES="0", GENAI_REDIS_URL=url) as sides:
                turns(sides, found, runs, cached("cache hit in Redis, p50", SHARE * capacity))
    if model == OVERLOADED:
        with both(benches, model, GENAI_MAX_QUEUE=str(QUEUE)) as sides:
            turns(sides, found, runs, overloaded(TIMES * capacity))
    return found


def slower(before: list[float], after: list[float], more_is_better: bool) -> float:
    """How many times slower the later service is, over the turns: above 1 it is."""
    pairs = zip(after, before) if not more_is_better else zip(before, after)
    return statistics.median(mine / other for mine, other in pairs)


def table(found: dict[str, dict[str, Samples]]) -> str:
    lines = ["| model | | before | after | | slower |", "|---|---|---|---|---|---|"]
    for model, sides in found.items():
        for row, (unit, more_is_better) in ROWS.items():
            if row in sides["before"].values:
                before, after = (sides[name].values[row] for name in SIDES)
                ratio = slower(before, after, more_is_better)
                lines.append(f"| {model} | {row} | {statistics.median(before):,.2f} | {statistics.median(after):,.2f} | {unit} | {ratio:.2f} x |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--models", default=",".join(USUAL))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives us
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        python = environment("ours")
        sources = {"before": source_of(args.before, here), "after": ROOT / "app/src"}
        benches = {name: Bench(python, None, here, Samples(), source=source) for name, source in sources.items()}
        found = {}
        for model in args.models.split(","):
            print(f">> {model}: some {args.runs * 40 // 60 + 1} min", flush=True)
            found[model] = measured(benches, model, args.runs)
            print(table({model: found[model]}), flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
