# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LitServe, as its documentation on batching and speed has it: batches, one worker, ZeroMQ between the processes.

`batch_timeout` was chosen for throughput among 0 (its default, which spins), 2, 5 and 20 ms.
"""
import os

import litserve
import numpy as np
from shared import DEVICE, LIMIT, PORT, Predictor, from_numbers, from_text, to_answer

BATCH_TIMEOUT = float(os.environ.get("BENCH_BATCH_TIMEOUT", "0.005"))


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.predictor = Predictor()

    def decode_request(self, request: dict) -> np.ndarray:
        return from_text(request["image"]) if "image" in request else from_numbers(request["instances"][0])

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return self.predictor(np.asarray(batch))

    def encode_response(self, output: np.ndarray) -> dict:
        return to_answer(output)


if __name__ == "__main__":
    api = Api(max_batch_size=LIMIT, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu" if DEVICE == "cpu" else "cuda", devices=1, workers_per_device=1, timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, log_level="warning", generate_client_file=False, access_log=False)
