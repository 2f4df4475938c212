"""Refuses what cannot be queued before anything is done for it: when most requests have to be refused, that must cost
next to nothing, or the ones that are accepted pay for it.
"""

import time
from collections.abc import Iterable

from starlette.responses import Response

from . import request_id
from .api_keys import presented_in
from .batching import QueueFull
from .problems import queue_full
from .service import MODELS, PREDICT, VERB, Service

Fields = Iterable[tuple[bytes, bytes]]


class Shedding:
    """Answers 429 to predictions whose model's queue is full, without a line in the log: the metrics count them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def refusal(self, method: bytes, target: bytes, fields: Fields) -> Response | None:
        """The answer to a request that is not accepted; None for any other. `target` is the path, as it was sent."""
        # The audit log has what was refused, too, and a client has to hear that the process drains.
        if method != b"POST" or self._service.audit is not None or self._service.lifecycle.draining:
            return None
        path = target.decode("latin-1")
        model = self._service.queued(path)
        if model is None or model.batcher.has_room() or not self._admits(fields):
            return None
        started = time.perf_counter()
        try:
            model.batcher.check_room()
        except QueueFull as full:
            name = request_id.of(fields)
            response = queue_full(full, name)
            response.raw_headers.append((request_id.HEADER, name.encode()))
            route = PREDICT if path == PREDICT else f"{MODELS}{{name}}{VERB}"
            self._service.metrics.answered(route, "POST", response.status_code, time.perf_counter() - started)
            return response
        return None

    def _admits(self, fields: Fields) -> bool:
        """Whether the queue may be spoken of to whoever sent these. Where that cannot be told at once, Authenticate
        finds out: a stranger shall hear the same whether a model is busy, idle or not there.
        """
        admission = self._service.admission
        return admission.is_open or admission.known(presented_in(dict(fields))) is not None
