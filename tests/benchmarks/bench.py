# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the release engine against its peers and its goals, on the kind cluster of `make up`.

    bench.py [--runs 5] [--quick]     writes build/bench.json and build/bench.md

It says nothing about right or wrong times: only a command that fails, a wrong number of objects or a wrong number of
requests makes it fail. Whatever it made goes again, when it is interrupted, too.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

import kind
import objects
import peers
import table
from table import Samples

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build"
COMMAND_SECONDS = 900
READY_SECONDS = 180
PAIRS = 3  # a run; a difference of some ms takes more than one look
# A log is what is compared, not a terminal; Molecule would force colours on.
ENVIRONMENT = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "PYTHONPATH": str(ROOT / ".collections")}
LARGE_PEERS = (peers.OURS, peers.SERVER_SIDE, peers.TASK)
KIND_NAMES = "ns,cm,secret,role,netpol,svc,deploy,hpa,pdb"


class Wrong(Exception):
    """Something other than a time is not what it has to be."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Numbers of objects."""

    few: int = 300
    many: int = 1000
    most: int = 5000
    sample: int = 10  # of the loop


QUICK = Sizes(60, 120, 240, 9)


@dataclasses.dataclass
class Bench:
    """What one benchmark knows: where it writes, who it is to the cluster, what it has measured."""

    sizes: t.Any  # numbers of what is measured, as this benchmark has them
    folder: pathlib.Path
    samples: Samples = dataclasses.field(default_factory=Samples)
    identities: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)

    def identity(self, name: str) -> pathlib.Path:
        if name not in self.identities:
            self.identities[name] = kind.make_identity(name, self.folder)
        return self.identities[name]

    def set_of(self, count: int, prefix: str, version: int = 1, changed: int = 0) -> list[dict]:
        return objects.objects(count, prefix, version, changed)


def seconds_of(command: list[str]) -> tuple[float, str]:
    """(seconds of the whole command, its output). Raises Wrong when it fails."""
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=COMMAND_SECONDS,
    )
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise Wrong(f"{' '.join(command)[:300]} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return seconds, done.stdout


def rotated(items: t.Sequence[str], run: int) -> list[str]:
    """Each run begins with another one, so that nobody always comes first."""
    start = run % len(items)
    return [*items[start:], *items[:start]]


def assert_objects(prefix: str, count: int, version: int = 1) -> None:
    """The cluster has exactly these objects, all of this version."""
    columns = r"custom-columns=N:.metadata.name,S:.metadata.namespace,V:.metadata.annotations.example\.com/version"
    lines = kind.kubectl("get", KIND_NAMES, "-A", "-l", "app.kubernetes.io/part-of=benchmark", "--no-headers", "-o", columns).splitlines()
    found = [version for name, space, version in map(str.split, lines) if (space if space != "<none>" else name).startswith(f"{prefix}-")]
    if found != [str(version)] * count:
        raise Wrong(f"{prefix}: expected {count} objects of version {version}, found {len(found)}, {found.count(str(version))} of that version")


# --- measuring one command -------------------------------------------------------------------------------------------


def measure(bench: Bench, case: str, peer: str, command: list[str]) -> list[dict]:
    """Runs the command of a peer and keeps seconds and requests; its entries in the audit log."""
    audit = kind.Audit(peer)
    seconds, output = seconds_of(command)
    entries = audit.entries()
    requests = kind.by_verb(entries)
    if peer in (peers.OURS, peers.WAITING):
        assert_requests(json.loads(re.findall(r"requests (\{.*\})", output)[0]), collections.Counter(map(kind.method, entries)))
    bench.samples.add(f"{case}.{peer}.seconds", seconds)
    bench.samples.requests[f"{case}.{peer}"] = requests
    say(f"{case:<12} {peer:<12} {seconds:7.2f} s  {requests}")
    return entries


def assert_requests(told: dict, seen: dict) -> None:
    if told != seen:
        raise Wrong(f"the module says it made the requests {told}, the API server saw {seen}")


def engine(bench: Bench, case: str, count: int, **given: t.Any) -> dict:
    """Our engine without Ansible; keeps its seconds and its peak memory."""
    kubeconfig = str(bench.identity(peers.OURS))
    _seconds, output = seconds_of([sys.executable, str(HERE / "engine.py"), json.dumps({"kubeconfig": kubeconfig, **given})])
    found = json.loads(output.splitlines()[-1])
    bench.samples.add(f"{case}.engine.seconds", found["seconds"])
    bench.samples.add(f"{case}.engine.peak_mb", found["peak_mb"])
    say(f"{case:<12} {'engine':<12} {found['seconds']:7.2f} s  {found['peak_mb']:.0f} MB, {count} objects, {found['requests']}")
    return found


def say(line: str) -> None:
    print(f"  {line}", flush=True)


# --- the cases -------------------------------------------------------------------------------------------------------


def start_up(bench: Bench) -> None:
    for name in ("debug", "ping"):
        bench.samples.add(f"start.{name}.seconds", seconds_of(peers.playbook(name))[0])
        say(f"{'start':<12} {name:<12} {bench.samples.values[f'start.{name}.seconds'][-1]:7.2f} s")


def floor(bench: Bench, prefix: str) -> None:
    file = bench.folder / "floor.json"
    file.write_text(json.dumps(bench.set_of(bench.sizes.few, prefix)), encoding="utf-8")
    found = json.loads(seconds_of([sys.executable, str(HERE / "floor.py"), str(bench.identity("floor")), str(file)])[1])
    assert_objects(prefix, bench.sizes.few)
    bench.samples.add("floor.seconds", found["seconds"])
    say(f"{'floor':<12} {'bare loop':<12} {found['seconds']:7.2f} s")


def first_and_again(bench: Bench, run: int, prefix: str) -> None:
    """Every peer once on nothing, then every peer again on what it made."""
    for case in ("first", "unchanged"):
        for peer in rotated(peers.PEERS, run):
            mine, count = f"{prefix}-{peer}", bench.sizes.sample if peer == peers.LOOP else bench.sizes.few
            command = peers.command(peer, mine, bench.identity(peer), bench.folder, bench.set_of(count, mine))
            measure(bench, case, peer, command)
            assert_objects(mine, count)
    writes = table.writes(bench.samples.requests[f"unchanged.{peers.OURS}"])
    if writes:
        raise Wrong(f"nothing changed, and yet {writes} writes")


def one_changed(bench: Bench, prefix: str) -> None:
    """Without Ansible, where 50 ms can be seen, against nothing changed; then the whole command."""
    mine, count = f"{prefix}-{peers.OURS}", bench.sizes.few
    kubeconfig, file = bench.identity(peers.OURS), bench.folder / f"{prefix}-{peers.OURS}.json"
    where = {"platform": mine, "ledger_namespace": peers.ledger(mine), "bundle_file": str(file), "wait": False}
    for changed in range(1, PAIRS + 1):
        engine(bench, "unchanged", count, **where)
        peers.command(peers.OURS, mine, kubeconfig, bench.folder, bench.set_of(count, mine, changed=changed))
        audit = kind.Audit(peers.OURS)
        engine(bench, "one", count, **where)
        assert_one_write(bench, audit.entries(), mine)
    command = peers.command(peers.OURS, mine, kubeconfig, bench.folder, bench.set_of(count, mine, changed=PAIRS + 1))
    assert_one_write(bench, measure(bench, "one", peers.OURS, command), mine)


def assert_one_write(bench: Bench, entries: list[dict], prefix: str) -> None:
    writes, total = kind.writes_outside(entries, peers.ledger(prefix)), table.writes(kind.by_verb(entries))
    bench.samples.requests["one.writes"] = {"objects": writes, "ledger": total - writes}
    if writes != 1:
        raise Wrong(f"one object changed, and yet {writes} writes to objects")


def rolled_back(bench: Bench, run: int, prefix: str) -> None:
    """Another version of every object, and back."""
    pair = rotated((peers.OURS, peers.HELM), run)
    for peer in pair:
        mine = f"{prefix}-{peer}"
        second = bench.set_of(bench.sizes.few, mine, version=2)
        measure(bench, "second", peer, peers.command(peer, mine, bench.identity(peer), bench.folder, second))
        assert_objects(mine, bench.sizes.few, version=2)
    for peer in pair:
        mine = f"{prefix}-{peer}"
        measure(bench, "rollback", peer, peers.rollback(peer, mine, bench.identity(peer), bench.folder))
        assert_objects(mine, bench.sizes.few)


def first_of_many(bench: Bench, run: int, prefix: str) -> None:
    for peer in rotated(LARGE_PEERS, run):
        mine = f"{prefix}-many-{peer}"
        manifests = bench.set_of(bench.sizes.many, mine)
        measure(bench, "many", peer, peers.command(peer, mine, bench.identity(peer), bench.folder, manifests))
        assert_objects(mine, bench.sizes.many)


def site(bench: Bench) -> None:
    """The whole platform of the kind inventory, as it is already."""
    command = ["ansible-playbook", "-i", "inventories/kind", "site.yml"]
    if "site.seconds" not in bench.samples.values:
        seconds_of(command)
    seconds, output = seconds_of(command)
    if set(re.findall(r"changed=(\d+)", output)) != {"0"}:
        raise Wrong(f"site.yml on a platform that is as it has to be:\n{output[-3000:]}")
    bench.samples.add("site.seconds", seconds)
    say(f"{'site.yml':<12} {'unchanged':<12} {seconds:7.2f} s")


def wait(bench: Bench, prefix: str) -> None:
    """From the moment another client sees a Deployment ready to the moment our wait returns, in ms."""
    namespace = f"{prefix}-wait"
    kind.kubectl("create", "namespace", namespace)
    body = objects.serving("serving", namespace, {"genai.platform/platform": namespace})
    given = json.dumps({"kubeconfig": str(bench.identity(peers.OURS)), "body": body})
    ours = [sys.executable, str(HERE / "engine.py"), "--wait", given]
    with _running(ours) as waiting:
        if _line(waiting) != "applied":
            raise Wrong("the wait did not begin")
        seen = _seen_ready(namespace)
        returned = float(_line(waiting))
    bench.samples.add("wait.ms", (returned - seen) * 1000)
    say(f"{'wait':<12} {'after ready':<12} {(returned - seen) * 1000:7.0f} ms")


def _seen_ready(namespace: str) -> float:
    """When kubectl saw the Deployment ready, in seconds of the clock."""
    fields = "{.metadata.generation} {.status.observedGeneration} {.status.updatedReplicas} {.status.availableReplicas}{'\\n'}"
    command = [kind.KUBECTL, f"--kubeconfig={kind.KUBECONFIG}", "get", "deployment", "serving", "-n", namespace, "--watch"]
    with _running([*command, "-o", f"jsonpath={fields}"]) as watch:
        while True:
            generation, *rest = _line(watch).split()
            if rest == [generation, "1", "1"]:
                return time.time()


@contextlib.contextmanager
def _running(command: list[str]) -> t.Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    # A limit for readline, which has none of its own.
    limit = subprocess.Popen(["sh", "-c", f"sleep {READY_SECONDS}; kill {process.pid}"], start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(limit.pid, signal.SIGTERM)
        limit.wait()
        process.terminate()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise Wrong(f"{' '.join(map(str, process.args))[:200]} ended, or said nothing for {READY_SECONDS} s")  # type: ignore[arg-type]
    return line.strip()


def scale(bench: Bench) -> None:
    """Our engine alone on ever more objects: seconds per object and memory."""
    for name in ("few", "many", "most"):
        count, mine = getattr(bench.sizes, name), f"{kind.PREFIX}-scale-{name}"
        peers.command(peers.OURS, mine, bench.identity(peers.OURS), bench.folder, bench.set_of(count, mine))
        where = {"platform": mine, "ledger_namespace": peers.ledger(mine), "bundle_file": str(bench.folder / f"{mine}.json"), "wait": False}
        engine(bench, f"scale.{name}", count, **where)
        assert_objects(mine, count)
        cleaned(mine)


def cleaned(prefix: str) -> None:
    start = time.monotonic()
    kind.remove_namespaces(prefix)
    say(f"{'':<12} {'cleaning up':<12} {time.monotonic() - start:7.2f} s")


# --- all of it -------------------------------------------------------------------------------------------------------


def one_run(bench: Bench, run: int) -> None:
    prefix = f"{kind.PREFIX}-{run}"
    start_up(bench)
    floor(bench, f"{prefix}-floor")
    first_and_again(bench, run, prefix)
    start_up(bench)  # again, because every other figure is held against it
    one_changed(bench, prefix)
    rolled_back(bench, run, prefix)
    site(bench)
    wait(bench, prefix)
    cleaned(prefix)
    first_of_many(bench, run, prefix)
    cleaned(prefix)


def prepare(bench: Bench) -> None:
    """Identities, and what kubectl and helm keep of a server's description: nobody pays for that in a first run."""
    kind.make_home()
    for peer in (*peers.PEERS, "floor"):
        bench.identity(peer)
    for peer in (peers.KUBECTL, peers.HELM, peers.TASK):
        mine = f"{kind.PREFIX}-warm-{peer}"
        seconds_of(peers.command(peer, mine, bench.identity(peer), bench.folder, bench.set_of(objects.PER_NAMESPACE, mine)))
    kind.remove_namespaces(f"{kind.PREFIX}-warm")


def run_all(bench: Bench, runs: int) -> None:
    prepare(bench)
    print(">> more and more objects", flush=True)
    scale(bench)
    for run in range(runs):
        print(f">> run {run + 1} of {runs}", flush=True)
        one_run(bench, run)
        text = report(bench, run + 1)  # each time, so that a benchmark that is cut short has not been for nothing
    print(text)


def report(bench: Bench, runs: int) -> str:
    """Writes what was measured so far to build/bench.{json,md}; returns the tables."""
    figures = bench.samples.as_json()
    text = table.markdown(bench.samples, dataclasses.asdict(bench.sizes), runs)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(json.dumps({"runs": runs, **dataclasses.asdict(bench.sizes), **figures}, indent=1), encoding="utf-8")
    (BUILD / "bench.md").write_text(text, encoding="utf-8")
    return text


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main(description: str, sizes: t.Any, quick: t.Any, run: t.Callable[[Bench, int], None]) -> int:
    """The command line of a benchmark; `quick` are the sizes of one run that only tries it. One benchmark at a time."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one run of few: tries the benchmark, measures nothing")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "bench.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kind.remove_everything()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="genai-bench-"))
        try:
            run(Bench(quick if args.quick else sizes, folder), 1 if args.quick else args.runs)
        except Wrong as exc:
            print(f"WRONG: {exc}", file=sys.stderr)
            return 1
        finally:
            print(">> cleaning up", flush=True)
            kind.remove_everything()
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(__doc__, Sizes(), QUICK, run_all))
