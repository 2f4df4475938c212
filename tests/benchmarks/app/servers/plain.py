# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain FastAPI: a `def` endpoint, which Starlette runs in its thread pool. No batches."""

import uvicorn
from fastapi import Body, Depends, FastAPI, Request
from shared import PORT, Predictor, from_body, from_numbers, to_answer

app = FastAPI()
predictor = Predictor()


async def raw(request: Request) -> bytes:
    return await request.body()


@app.post("/json")
def of_json(instances: list[list[float]] = Body(embed=True)) -> dict:
    return to_answer(predictor(from_numbers(instances[0])[None])[0])


@app.post("/raw")
def of_raw(body: bytes = Depends(raw)) -> dict:
    return to_answer(predictor(from_body(body)[None])[0])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, access_log=False, log_level="warning")
