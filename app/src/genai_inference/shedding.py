"""Refuses what cannot be queued before anything is done for it: when most requests have to be refused, that must cost
next to nothing, or the ones that are accepted pay for it.
"""

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from . import request_id
from .batching import Batcher, QueueFull
from .problems import queue_full
from .service import MODELS, PREDICT, VERB, Service

# Of the time that a full batch takes, and at most so many seconds.
REST, MOST_REST_SECONDS = 0.125, 0.005


class Shed:
    """Answers 429 for predictions whose model's queue is full, without a line in the log: the metrics count them.

    After that the event loop rests for a moment. Whenever it wakes up it takes a core, and its caches, away from the
    model that everybody waits for: to refuse ten requests at once costs much less than to refuse them one by one.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._resting = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self._service.queued(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if model is not None:
            try:
                model.batcher.check_room()
            except QueueFull as full:
                await self._refuse(full, scope, receive, send)
                return self._rest_soon(model.batcher)
        await self._app(scope, receive, send)

    async def _refuse(self, full: QueueFull, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        name = request_id.of(scope["headers"])
        request_id.current.set(name)
        refusal = queue_full(full)
        refusal.raw_headers.append((request_id.HEADER, name.encode()))
        await refusal(scope, receive, send)
        route = PREDICT if scope["path"] == PREDICT else f"{MODELS}{{name}}{VERB}"
        self._service.metrics.answered(route, "POST", refusal.status_code, time.perf_counter() - started)

    def _rest_soon(self, batcher: Batcher) -> None:
        if not self._resting:
            self._resting = True
            seconds = min(MOST_REST_SECONDS, REST * batcher.full_batch_seconds)
            asyncio.get_running_loop().call_soon(self._rest, seconds)

    def _rest(self, seconds: float) -> None:
        self._resting = False
        time.sleep(seconds)
