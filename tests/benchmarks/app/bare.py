# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bare model loop, in one process with one thread: prints {batch size: seconds of a batch}, as JSON.

    bare.py PACKAGE DEVICE SECONDS SIZE...
"""
from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import pathlib
import statistics
import sys
import time
import typing as t

import numpy as np
from genai_inference.model import read_card
from genai_inference.network import find_device, load_network, place, probabilities, use_threads


def main(package: str, device: str, seconds: str, *sizes: str) -> None:
    use_threads(1)
    folder = pathlib.Path(package)
    card = read_card(folder)
    network = place(load_network(folder, card), find_device(device), "float32", False, card.input.shape)
    images = np.random.default_rng(0).integers(0, 17, (max(map(int, sizes)), *card.input.shape), dtype=np.uint8)
    found = {}
    for size in map(int, sizes):
        taken = times(lambda batch=images[:size]: probabilities(network, batch, card.input.maximum), float(seconds))
        found[size] = statistics.mean(taken[1:])  # of the time that passed, as for a server
    print(json.dumps(found))


def times(compute: t.Callable[[], object], seconds: float) -> list[float]:
    """Seconds of every call, of which there are four at least."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 4:
        start = time.perf_counter()
        compute()
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    main(*sys.argv[1:])
