# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BentoML: an adaptive-batching API in one worker. Started by `bentoml serve`."""
import bentoml
import numpy as np
from shared import LIMIT, Predictor, from_numbers, from_text, to_answer


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024}, logging={"access": {"enabled": False}})
class Model:
    def __init__(self) -> None:
        self.predictor = Predictor()

    @bentoml.api(route="/raw", batchable=True, max_batch_size=LIMIT, max_latency_ms=10000)
    def raw(self, images: list[str]) -> list[dict]:
        return [to_answer(row) for row in self.predictor(np.stack([from_text(image) for image in images]))]

    @bentoml.api(route="/json", batchable=True, max_batch_size=LIMIT, max_latency_ms=10000)
    def json(self, instances: list[list[float]]) -> list[dict]:
        return [to_answer(row) for row in self.predictor(np.stack([from_numbers(numbers) for numbers in instances]))]
