"""Refuses what cannot be queued before anything is done for it: when most requests have to be refused, that must cost
next to nothing, or the ones that are accepted pay for it.
"""

import time

from starlette.types import ASGIApp, Receive, Scope, Send

from . import request_id
from .batching import QueueFull
from .problems import queue_full
from .service import MODELS, PREDICT, VERB, Service


class Shed:
    """Answers 429 for predictions whose model's queue is full, without a line in the log: the metrics count them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self._service.queued(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        started = time.perf_counter()
        try:
            if model is not None:
                model.batcher.check_room()
        except QueueFull as full:
            name = request_id.of(scope["headers"])
            request_id.current.set(name)
            refusal = queue_full(full)
            refusal.raw_headers.append((request_id.HEADER, name.encode()))
            await refusal(scope, receive, send)
            route = PREDICT if scope["path"] == PREDICT else f"{MODELS}{{name}}{VERB}"
            return self._service.metrics.answered(route, "POST", refusal.status_code, time.perf_counter() - started)
        await self._app(scope, receive, send)
