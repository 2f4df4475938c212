"""Pure ASGI middleware: what holds for every request, whatever its route."""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus

from fastapi import HTTPException, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import request_id, tracing
from .admission import PROTECTED, Admission
from .api_keys import presented_in
from .audit import Audit
from .in_flight import BYTES_PER_BODY_BYTE, InFlight
from .lifecycle import Lifecycle
from .metrics import Metrics
from .oidc import Refused, WrongKey
from .problems import problem
from .rate_limit import Buckets, client_of

access = logging.getLogger("genai_inference.access")
PROBES = frozenset({"/health", "/ready", "/metrics"})
# How often an address hears that its key is wrong. A right key is never refused for wrong ones: behind a proxy all
# have its address, and whoever sent rubbish would shut out the others. Nobody guesses a key, however often he tries;
# what is bounded is what he writes into the audit log.
WRONG_PER_SECOND, WRONG_BURST = 1.0, 60


class LeaveWhileDraining:
    """While draining, every response asks its client to close the connection and come back elsewhere."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_or_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._lifecycle.draining:
                others = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
                message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_or_close)


class Observe:
    """Names, counts, times and logs every request; turns an error nobody expected into a 500 and one log line."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: tracing.Traces, audit: Audit | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, started = 0, time.perf_counter()
        name = request_id.of(scope["headers"])
        request_id.current.set(name)
        trace = self._traces.begin(scope)
        tracing.current.set(trace)

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (request_id.HEADER, name.encode())]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, note)
            except Exception:
                access.exception("unexpected error", extra={"fields": {"request_id": name}})
                if status:  # too late for another answer: the server breaks the connection off
                    raise
                await problem(500, "Unexpected error; see the log.")(scope, receive, note)
            finally:
                self._record(scope, trace, status or 500, time.perf_counter() - started)

    def _record(self, scope: Scope, trace: tracing.Trace | None, status: int, seconds: float) -> None:
        route: str = getattr(scope.get("route"), "path", "unmatched")
        self._traces.end(trace, scope, route, status)
        if self._audit is not None:
            self._audit.note(scope, route, status, seconds)
        self._metrics.answered(route, scope["method"], status, seconds)
        level = logging.DEBUG if route in PROBES and status < HTTPStatus.BAD_REQUEST else logging.INFO
        if not access.isEnabledFor(level):
            return
        request = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
        request["request_id"] = request_id.current.get()
        if "client_name" in scope:
            request["client"] = scope["client_name"]
        access.log(level, "request", extra={"fields": request})


class Authenticate:
    """Lets nobody without a key or a token into /v1; what probes, scrapers and clients ask first stays open."""

    def __init__(self, app: ASGIApp, admission: Admission, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._admission = admission
        self._wrong = Buckets(WRONG_PER_SECOND, WRONG_BURST, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admission.is_open or scope["type"] != "http":
            return await self._app(scope, receive, send)
        if not scope["path"].startswith(PROTECTED):
            self._admission.look()
            return await self._app(scope, receive, send)
        try:
            scope["client_name"] = await self._admission.client_of(presented_in(dict(scope["headers"])))
        except Refused as refused:
            return await self._refusal(scope, refused)(scope, receive, send)
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, refused: Refused) -> Response:
        headers = {"WWW-Authenticate": refused.challenge, "Connection": "close"}
        if refused.status == HTTPStatus.UNAUTHORIZED:
            verdict = self._wrong.take(client_of(scope))
            scope["unaudited"] = not verdict.allowed
            if isinstance(refused, WrongKey) and not verdict.allowed:
                detail = f"Too many wrong keys or tokens from this address; try again in {verdict.retry_after} s."
                return problem(429, detail, {"Retry-After": str(verdict.retry_after), "Connection": "close"})
        return problem(refused.status, str(refused), headers)


class LimitBody:
    """Refuses a body over `limit` bytes, by its declared length or, if it has none, once that many bytes came, one
    that takes longer than `seconds` to come, and one for which there is no room beside those of other requests.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float, in_flight: InFlight) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if declared.isdigit():
            if int(declared) > self._limit:
                return await problem(413, self._refusal, {"Connection": "close"})(scope, receive, send)
            if scope.get("complete"):  # see server.bounded; it is not longer than declared, the parser saw to that
                return await self._complete(int(declared), scope, receive, send)
        received, counted, complete = 0, 0, False
        until = time.monotonic() + self._seconds

        async def count() -> Message:
            nonlocal received, counted, complete
            if complete:  # whoever asks now waits for the client to leave
                return await receive()
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                detail = f"The body did not come within {self._seconds:g} s."
                raise HTTPException(408, detail, {"Connection": "close"}) from None
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, self._refusal, {"Connection": "close"})
            self._take(len(message.get("body", b"")))
            counted += len(message.get("body", b""))
            return message

        try:
            await self._app(scope, count, send)
        finally:
            self._in_flight.give(counted * BYTES_PER_BODY_BYTE)

    async def _complete(self, size: int, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._take(size)
        except HTTPException as refused:
            return await problem(refused.status_code, refused.detail, refused.headers)(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight.give(size * BYTES_PER_BODY_BYTE)

    def _take(self, size: int) -> None:
        if not self._in_flight.take(size * BYTES_PER_BODY_BYTE):
            detail = "The bodies of other requests take all the memory there is for them; try again in 1 s."
            raise HTTPException(429, detail, {"Retry-After": "1", "Connection": "close"})

    @property
    def _refusal(self) -> str:
        return f"The body may have at most {self._limit} bytes."
