# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures gpu_nodes against its peers and its goals on fleets that kwok plays, on the kind cluster of `make up`.

    fleet.py [--runs 5] [--quick]     writes build/bench-fleet.json and build/bench-fleet.md

As bench.py, it says nothing about right or wrong times: only a command that fails, or nodes without their labels, make it fail.
"""
from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import re
import statistics
import sys
import typing as t

import kind
import peers
import table
from bench import BUILD, HERE, ROOT, Bench, Wrong, main, rotated, say, seconds_of
from table import Goal, Samples

sys.path.append(str(ROOT / "tests" / "integration"))
import kwok  # pylint: disable=wrong-import-position
from live import Api  # pylint: disable=wrong-import-position

OURS, ENGINE, KUBECTL, FLOOR, LOOP = "ours", "engine", "kubectl", "floor", "loop"
TOOLS = (OURS, ENGINE, KUBECTL, FLOOR)
TITLES = {
    OURS: "`genai.platform.gpu_nodes`, whole command",
    ENGINE: "`genai.platform.gpu_nodes`, engine",
    KUBECTL: "`kubectl label`, one command for each pool",
    FLOOR: "bare loop",
    LOOP: "`kubernetes.core.k8s`, a loop",
}
RESET_WORKERS = 16
NOTES = """\
- Seconds are of the whole command, but for *engine* (what the module does in its process, the import of the client included) and the
  *bare loop* (a Python program that sends one merge patch per node, 16 at a time, knows them all, and does nothing else).
- Median of {runs} runs, each with every tool in turn, fastest and slowest in brackets. Before each the labels are taken off again.
- Nine of ten nodes have GPUs; these are labelled: gpu-type, workload-type and the pool. The nodes are kept alive by kwok meanwhile.
- The loop takes too long to be run in full: {sample} nodes are measured, and the time above the start of a playbook is scaled to {labelled}.
- *Bound*: what a tool would reach here that takes only the bare loop (the whole command: the start of a playbook, too).
- kubectl runs once for each of the five pools, with a label selector, which patches all nodes of the pool, one after the other."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Numbers of nodes."""

    few: int = 1000
    most: int = 5000
    sample: int = 50  # of the loop


QUICK = Sizes(100, 200, 5)


def labelled(count: int) -> int:
    """How many of `count` nodes are in a pool."""
    return sum(count * product.of_ten // 10 for product in kwok.PRODUCTS if product.resource)


def pools() -> list[dict]:
    """Without taints: those would be a second command for kubectl, and a second patch for each node."""
    return [{**pool, "taints": [], "spot": False} for pool in kwok.pools()]


def labels_of(pool: dict) -> dict[str, str]:
    return {**pool["labels"], "genai.platform/gpu-pool": pool["name"]}


def manifests(nodes: list[dict]) -> list[dict]:
    """For the tools that have to be told every node."""
    by_name = {pool["name"]: labels_of(pool) for pool in pools()}
    found = ((node["metadata"]["name"], node["metadata"]["name"].split("-")[1]) for node in nodes)
    return [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": by_name[pool]}} for name, pool in found if pool in by_name]


class Ground:
    """The fleet that the tools work on, and the way back to nodes without labels."""

    def __init__(self, count: int) -> None:
        self.count, self._api = count, Api()
        self.fleet = kwok.Fleet(self._api)
        self.manifests: list[dict] = []

    def make(self) -> None:
        self.fleet.clear()
        self.fleet.make_many(self.count)
        self.manifests = manifests(self.fleet.list())

    def assert_labelled(self, number: int) -> None:
        found = self._api.need("GET", kwok.NODES, labelSelector=f"{kwok.SELECTOR},genai.platform/gpu-pool,gpu-type,workload-type=inference")["items"]
        if len(found) != number:
            raise Wrong(f"{len(found)} nodes have their labels, not {number}")

    def reset(self) -> None:
        gone = {"metadata": {"labels": dict.fromkeys(labels_of(pools()[0]))}}
        with concurrent.futures.ThreadPoolExecutor(RESET_WORKERS) as executor:
            paths = [f"{kwok.NODES}/{manifest['metadata']['name']}" for manifest in self.manifests]
            list(executor.map(lambda path: self._api.request("PATCH", path, gone, "application/merge-patch+json"), paths))
        self.assert_labelled(0)
        self.fleet.settle()


# --- the tools -------------------------------------------------------------------------------------------------------


def ours(_bench: Bench, _ground: Ground) -> tuple[float, dict]:
    seconds, output = seconds_of(peers.playbook("fleet", kubeconfig=str(kind.KUBECONFIG), pools=pools()))
    return seconds, json.loads(re.findall(r"requests (\{.*\})", output)[0])


def engine(bench: Bench, ground: Ground) -> tuple[float, dict]:
    given = json.dumps({"kubeconfig": str(kind.KUBECONFIG), "pools": pools()})
    found = json.loads(seconds_of([sys.executable, str(HERE / "engine.py"), "--fleet", given])[1])
    bench.samples.add(f"{ground.count}.{ENGINE}.peak_mb", found["peak_mb"])
    return found["seconds"], found["requests"]


def kubectl(_bench: Bench, _ground: Ground) -> tuple[float, dict]:
    seconds = 0.0
    for pool in pools():
        product = next(p for p in kwok.PRODUCTS if p.name == pool["name"])
        selector = ",".join(f"{key}={value}" for key, value in {**kwok.LABEL, **product.labels}.items())
        words = [f"{key}={value}" for key, value in labels_of(pool).items()]
        seconds += seconds_of([kind.KUBECTL, f"--kubeconfig={kind.KUBECONFIG}", "label", "nodes", "-l", selector, *words])[0]
    return seconds, {}


def floor(bench: Bench, ground: Ground) -> tuple[float, dict]:
    file = bench.folder / f"floor-{ground.count}.json"
    file.write_text(json.dumps(ground.manifests), encoding="utf-8")
    found = json.loads(seconds_of([sys.executable, str(HERE / "floor.py"), str(bench.identity(FLOOR)), str(file), "--merge"])[1])
    return found["seconds"], {"PATCH": found["requests"]}


RUN: dict[str, t.Callable[[Bench, Ground], tuple[float, dict]]] = {OURS: ours, ENGINE: engine, KUBECTL: kubectl, FLOOR: floor}


# --- all of it -------------------------------------------------------------------------------------------------------


def measure(bench: Bench, ground: Ground, tool: str, case: str) -> None:
    seconds, requests = RUN[tool](bench, ground)
    ground.assert_labelled(labelled(ground.count))
    key = f"{ground.count}.{case}.{tool}"
    bench.samples.add(f"{key}.seconds", seconds)
    bench.samples.requests[key] = requests
    say(f"{ground.count:>6} {case:<6} {tool:<8} {seconds:7.2f} s  {requests or ''}")


def one_run(bench: Bench, ground: Ground, run: int) -> None:
    for tool in rotated(TOOLS, run):
        measure(bench, ground, tool, "first")
        if tool in (OURS, ENGINE):
            measure(bench, ground, tool, "again")
            if table.writes(bench.samples.requests[f"{ground.count}.again.{tool}"]):
                raise Wrong("nothing was to be done, and yet there were writes")
        ground.reset()


def loop(bench: Bench, ground: Ground, sample: int) -> None:
    bench.samples.add("start.debug.seconds", seconds_of(peers.playbook("debug"))[0])
    file = bench.folder / "loop.json"
    file.write_text(json.dumps(ground.manifests[:sample]), encoding="utf-8")
    seconds = seconds_of(peers.playbook("loop", kubeconfig=str(kind.KUBECONFIG), file=str(file)))[0]
    ground.assert_labelled(sample)
    bench.samples.add("loop.seconds", seconds)
    say(f"{sample:>6} first  {LOOP:<8} {seconds:7.2f} s")
    ground.reset()


def run_all(bench: Bench, runs: int) -> None:
    kind.make_home()
    sizes: Sizes = bench.sizes
    for count in (sizes.few, sizes.most):
        print(f">> {count} nodes", flush=True)
        ground = Ground(count)
        try:
            ground.make()
            for run in range(runs):
                one_run(bench, ground, run)
                if count == sizes.few:
                    loop(bench, ground, sizes.sample)
                text = report(bench.samples, sizes, run + 1)  # each time, so that a benchmark that is cut short has not been for nothing
        finally:
            ground.fleet.close()
    print(text)


# --- what is said ----------------------------------------------------------------------------------------------------


def whole_loop(samples: Samples, sizes: Sizes) -> list[float]:
    start = samples.median("start.debug.seconds")
    return [start + (seconds - start) * labelled(sizes.few) / sizes.sample for seconds in samples.values["loop.seconds"]]


def goals(samples: Samples, sizes: Sizes) -> list[Goal]:
    def seconds(tool: str, count: int = sizes.few) -> float:
        return samples.median(f"{count}.first.{tool}.seconds")

    def against_others(count: int) -> list[Goal]:
        return [
            Goal("", "engine, faster than `kubectl label`", seconds(KUBECTL, count) / seconds(ENGINE, count), 2.5, at_least=True,
                 bound=seconds(KUBECTL, count) / seconds(FLOOR, count)),
            Goal("", "engine, against the bare loop", seconds(ENGINE, count) / seconds(FLOOR, count), 1.5),
        ]

    few, most = (f"{count:,} nodes" for count in (sizes.few, sizes.most))
    again = samples.requests[f"{sizes.few}.again.{OURS}"]
    loop_seconds, start = statistics.median(whole_loop(samples, sizes)), samples.median("start.debug.seconds")
    found = [
        Goal(f"first run, {few}", "whole command, faster than a loop of `k8s`", loop_seconds / seconds(OURS), 400, at_least=True,
             bound=loop_seconds / (start + seconds(FLOOR))),
        *against_others(sizes.few),
        Goal(f"nothing changed, {few}", "writes", table.writes(again), 0, ""),
        Goal("", "lists, of 500 nodes each", again["GET"], sizes.few // 500 + 1, ""),
    ]
    if f"{sizes.most}.first.{FLOOR}.seconds" in samples.values:  # the last to be measured in a first run
        each = {count: seconds(ENGINE, count) / labelled(count) * 1000 for count in (sizes.few, sizes.most)}
        per_node = f"engine, time per node, against {few} ({each[sizes.few]:.1f}, {each[sizes.most]:.1f} ms)"
        found += [Goal(f"first run, {most}", per_node, each[sizes.most] / each[sizes.few], 1.1), *against_others(sizes.most)]
    return found


def rows(samples: Samples, sizes: Sizes) -> t.Iterator[str]:
    for count in (sizes.few, sizes.most):
        for case, title in (("first", "first run"), ("again", "nothing changed")):
            for tool in (tool for tool in TOOLS if f"{count}.{case}.{tool}.seconds" in samples.values):
                requests = ", ".join(f"{number:,} {verb}" for verb, number in sorted(samples.requests[f"{count}.{case}.{tool}"].items()))
                yield f"| {title}, {count:,} | {TITLES[tool]} | {table.spread(samples.values[f'{count}.{case}.{tool}.seconds'])} | {requests} |"
    yield f"| first run, {sizes.few:,} | {TITLES[LOOP]} | {table.spread(whole_loop(samples, sizes))} | (of {sizes.sample} nodes) |"


def report(samples: Samples, sizes: Sizes, runs: int) -> str:
    """Writes what was measured to build/bench-fleet.{json,md}; returns the tables."""
    text = "\n".join([
        *table.GOALS_HEAD, *(goal.row() for goal in goals(samples, sizes)), "",
        "| case, nodes | tool | seconds | requests |", "|---|---|---|---|", *rows(samples, sizes), "",
        NOTES.format(runs=runs, labelled=labelled(sizes.few), **dataclasses.asdict(sizes)), "",
    ])
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-fleet.json").write_text(json.dumps({"runs": runs, **dataclasses.asdict(sizes), **samples.as_json()}, indent=1), encoding="utf-8")
    (BUILD / "bench-fleet.md").write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.exit(main(__doc__, Sizes(), QUICK, run_all))
