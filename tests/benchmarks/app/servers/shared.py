# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every peer's server has in common: the same network out of the same package, computed by the same function."""
from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import base64
import json
import pathlib

import numpy as np
from genai_inference.model import read_card
from genai_inference.network import find_device, load_network, place, probabilities, use_threads

LIMIT = int(os.environ["BENCH_BATCH"])
DEVICE = os.environ["BENCH_DEVICE"]
PORT = int(os.environ["BENCH_PORT"])
FOLDER = pathlib.Path(os.environ["BENCH_MODEL"])
CARD = read_card(FOLDER)
NPY_HEADER = 128  # bytes before the numbers of an .npy file such as the client sends


class Predictor:
    """The model. Its one input is a batch (n, *shape)."""

    def __init__(self) -> None:
        use_threads(1)
        self._network = place(load_network(FOLDER, CARD), find_device(DEVICE), "float32", False, CARD.input.shape)
        for size in (1, LIMIT):
            self(np.zeros((size, *CARD.input.shape), dtype=np.uint8))

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return probabilities(self._network, batch, CARD.input.maximum)


def from_body(body: bytes) -> np.ndarray:
    """One instance (*shape) of a raw body, or the first one of JSON. As little as will do: nothing is checked."""
    if body[:1] == b"{":
        return from_numbers(json.loads(body)["instances"][0])
    return np.frombuffer(body, np.uint8, offset=NPY_HEADER).reshape(CARD.input.shape)


def from_text(text: str) -> np.ndarray:
    """One instance of a raw body in base64, for servers that take JSON only."""
    return from_body(base64.b64decode(text))


def from_numbers(numbers: list) -> np.ndarray:
    return np.array(numbers, dtype=np.float32).reshape(CARD.input.shape)


def to_answer(row: np.ndarray) -> dict:
    numbers = row.tolist()
    highest = max(numbers)
    prediction = {"label": CARD.labels[numbers.index(highest)], "probability": highest, "probabilities": numbers}
    return {"predictions": [prediction], "model": {"name": CARD.name, "version": CARD.version}}
