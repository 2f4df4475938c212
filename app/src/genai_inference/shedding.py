"""Refuses what cannot be queued before anything is done for it: when most requests have to be refused, that must cost
next to nothing, or the ones that are accepted pay for it.
"""

import time
from http import HTTPStatus

import pydantic_core
from starlette.types import ASGIApp, Receive, Scope, Send

from . import problems, request_id
from .registry import Model
from .schemas import Problem
from .service import MODELS, PREDICT, VERB, Service

TOO_MANY = HTTPStatus.TOO_MANY_REQUESTS
_MEDIA_TYPE = problems.MEDIA_TYPE.encode()


class Shed:
    """Answers 429 for predictions whose model's queue is full, without a line in the log: the metrics count them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self._service.full(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if model is None:
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        await _refuse(scope, send, model.batcher.retry_after)
        self._note(model, scope["path"], time.perf_counter() - started)

    def _note(self, model: Model, path: str, seconds: float) -> None:
        route = PREDICT if path == PREDICT else f"{MODELS}{{name}}{VERB}"
        self._service.metrics.answered(route, "POST", TOO_MANY, seconds)
        self._service.metrics.of_model(model.card.name).dropped("queue_full")


async def _refuse(scope: Scope, send: Send, seconds: int) -> None:
    name = request_id.of(scope["headers"])
    detail = f"Too many requests are waiting; try again in {seconds} s."
    problem = Problem(title=TOO_MANY.phrase, status=TOO_MANY, detail=detail, request_id=name)
    body = pydantic_core.to_json(problem)
    headers = [
        (b"content-type", _MEDIA_TYPE),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(seconds).encode()),
        (request_id.HEADER, name.encode()),
    ]
    await send({"type": "http.response.start", "status": TOO_MANY, "headers": headers})
    await send({"type": "http.response.body", "body": body})
