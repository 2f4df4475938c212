# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ray Serve: one replica, @serve.batch without a wait, enough ongoing requests to fill the batches."""
import time

import numpy as np
import ray
from ray import serve
from shared import DEVICE, LIMIT, PORT, Predictor, from_body, to_answer
from starlette.requests import Request

GPUS = int(DEVICE != "cpu")


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1, "num_gpus": GPUS})
class Model:
    def __init__(self) -> None:
        self.predictor = Predictor()

    @serve.batch(max_batch_size=LIMIT, batch_wait_timeout_s=0.0)
    async def predict(self, images: list[np.ndarray]) -> list[dict]:
        return [to_answer(row) for row in self.predictor(np.stack(images))]

    async def __call__(self, request: Request) -> dict:
        return await self.predict(from_body(await request.body()))


if __name__ == "__main__":
    ray.init(num_cpus=2, num_gpus=GPUS, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Model.bind())
    while True:
        time.sleep(3600)
