# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the release engine of this checkout with that of an earlier commit, by turns in one run, on the cluster of `make up`.

    pairs.py --before COMMIT [--runs 3] [--count 300]     prints a table of medians, ratios and requests

The cases: a first release, the same again, one object changed, every object changed. Nothing is asserted about times.
"""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import kind
import objects

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NEEDED = ("kubernetes", "community")  # collections beside our own
CASES = ("first", "unchanged", "one", "all")


def checkout(commit: str, folder: pathlib.Path) -> pathlib.Path:
    """A copy of the collection at `commit`, found as Python finds this one; what goes into PYTHONPATH."""
    whole = folder / "before"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(whole), commit], cwd=ROOT, check=True)
    spaces = whole / ".collections" / "ansible_collections"
    (spaces / "genai").mkdir(parents=True, exist_ok=True)
    if not (spaces / "genai" / "platform").exists():
        (spaces / "genai" / "platform").symlink_to(whole)
    for name in NEEDED:
        (spaces / name).symlink_to(ROOT / ".collections" / "ansible_collections" / name)
    return whole / ".collections"


def engine(path: pathlib.Path, given: dict) -> dict:
    """What the engine found at `path` says of one release. Each checkout brings the program that drives its own engine."""
    command = [sys.executable, str(path.parent / "tests" / "benchmarks" / "engine.py"), json.dumps({"kubeconfig": str(kind.KUBECONFIG), "wait": False, **given})]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(path)}, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def manifests(case: str, count: int, prefix: str) -> list[dict]:
    return objects.objects(count, prefix, version=2 if case == "all" else 1, changed=1 if case == "one" else 0)


def measured(paths: dict[str, pathlib.Path], run: int, count: int, folder: pathlib.Path) -> dict[tuple[str, str], dict]:
    """{(case, side): what the engine says} of one run; each case begins with the other side."""
    found = {}
    for number, case in enumerate(CASES):
        for side in sorted(paths, reverse=(run + number) % 2 == 1):
            prefix = f"{kind.PREFIX}-{run}-{side}"
            file = folder / f"{prefix}.json"
            file.write_text(json.dumps(objects.bundle(manifests(case, count, prefix))), encoding="utf-8")
            found[case, side] = engine(paths[side], {"platform": prefix, "ledger_namespace": f"{prefix}-ledger", "bundle_file": str(file)})
            print(f"  {case:<10} {side:<7} {found[case, side]['seconds']:6.2f} s  {found[case, side]['requests']}", flush=True)
    kind.remove_namespaces(f"{kind.PREFIX}-{run}")
    return found


def table(runs: list[dict[tuple[str, str], dict]]) -> str:
    lines = ["| case | before, s | after, s | after / before | requests before | requests after |", "|---|---|---|---|---|---|"]
    for case in CASES:
        before, after = ([run[case, side]["seconds"] for run in runs] for side in ("before", "after"))
        ratio = statistics.median(b / a for a, b in zip(before, after))
        asked = [sum(runs[-1][case, side]["requests"].values()) for side in ("before", "after")]
        lines.append(f"| {case} | {statistics.median(before):.2f} | {statistics.median(after):.2f} | {ratio:.2f} x | {asked[0]} | {asked[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=300)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="genai-pairs-"))
    kind.remove_namespaces(kind.PREFIX)
    try:
        paths = {"before": checkout(args.before, folder), "after": ROOT / ".collections"}
        runs = [measured(paths, run, args.count, folder) for run in range(args.runs)]
        print(table(runs))
    finally:
        kind.remove_namespaces(kind.PREFIX)
        subprocess.run(["git", "worktree", "remove", "--force", str(folder / "before")], cwd=ROOT, check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
