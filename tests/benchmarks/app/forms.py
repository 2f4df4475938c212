# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the forms of one network take in which it can be computed: prints a Markdown table of milliseconds for each size of a batch.

    forms.py PACKAGE DEVICE SECONDS SIZE...       with the interpreter that has torch, and app/src in PYTHONPATH

Layers one by one, as a training program has them; what the service makes of them (`place`); and its types of numbers.
"""
from __future__ import annotations

import functools
import pathlib
import statistics
import sys
import typing as t

import bare  # first: it sets torch's threads
import numpy as np
from genai_inference.model import read_card
from genai_inference.network import find_device, framework, load_network, place, probabilities, use_threads

TYPES = ("float32", "bfloat16", "float16")
ON_CPU = TYPES[:1]  # where it has no fast code, one core takes seconds for the others


def main(package: str, device_name: str, seconds: str, *sizes: str) -> None:
    use_threads(1)
    folder = pathlib.Path(package)
    card = read_card(folder)
    device = find_device(device_name)
    images = np.random.default_rng(0).integers(0, 17, (max(map(int, sizes)), *card.input.shape), dtype=np.uint8)

    def served(kind: str) -> t.Any:
        return place(load_network(folder, card), device, kind, False, card.input.shape)

    kinds = ON_CPU if device.type == "cpu" else TYPES
    forms: dict[str, t.Callable] = {"layers": lambda: load_network(folder, card).to(device)}
    forms |= {f"as served, {kind}": functools.partial(served, kind) for kind in kinds}
    print(f"{card.architecture} of {'x'.join(map(str, card.input.shape))} on {device_title(device)}, {framework()}, median ms of a batch\n")
    print("| | " + " | ".join(sizes) + " |\n|---|" + "---|" * len(sizes))
    for title, make in forms.items():
        network = make()
        found = [median(functools.partial(probabilities, network, images[: int(size)], card.input.maximum), float(seconds)) for size in sizes]
        print(f"| {title} | " + " | ".join(f"{taken * 1000:.2f}" for taken in found) + " |", flush=True)


def device_title(device: t.Any) -> str:
    if device.type == "cpu":
        return "one core"
    import torch

    return torch.cuda.get_device_name(device)


def median(compute: t.Callable[[], object], seconds: float) -> float:
    """Seconds of one call, after the first ones, which choose kernels and allocate."""
    for _ in range(3):
        compute()
    return statistics.median(bare.times(compute, seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
