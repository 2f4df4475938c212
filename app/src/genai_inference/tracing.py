"""Traces. With OTEL_EXPORTER_OTLP_ENDPOINT, every request becomes an OpenTelemetry span, with its wait, its batch and
its forward pass as children; without it, the trace that a caller names is still in the log.

All of OpenTelemetry's own variables count (OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS ...). Its
packages are imported only when traces are on. Spans leave the process in a thread of OpenTelemetry, which drops them
while its collector is away.
"""

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from starlette.types import Scope

from . import __version__
from .metrics import METHODS
from .settings import SettingsError

if TYPE_CHECKING:
    from .batching import Forward

PARENT = b"traceparent"
STATE = b"tracestate"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
CLOSE_SECONDS = 2.0
NAME = "genai-inference"
# W3C Trace Context: version, trace, span, flags. Later versions may say more after that.
_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_UNTRACED = frozenset({"/health", "/ready", "/metrics"})


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a request. Without tracing there is its id alone; `span` is None too where it is not sampled."""

    trace_id: str
    span_id: str | None = None
    span: "Any | None" = None  # opentelemetry.trace.Span
    tracer: "Any | None" = None  # opentelemetry.trace.Tracer


# Of the request that the current task answers.
current: ContextVar[Trace | None] = ContextVar("trace", default=None)


class Traces(Protocol):
    """What is told of every request: as it comes, and when it was answered."""

    def begin(self, scope: Scope) -> Trace | None: ...
    def end(self, trace: Trace | None, scope: Scope, route: str, status: int) -> None: ...
    async def close(self) -> None: ...


def trace_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The trace that a `traceparent` names; None if there is none, or one that is not well-formed."""
    sent = next((value for name, value in headers if name == PARENT), None)
    found = _PARENT.fullmatch(sent) if sent is not None else None
    return found[1].decode() if found else None


def log_fields() -> dict[str, str]:
    """What a line of the log says of the current trace."""
    trace = current.get()
    if trace is None:
        return {}
    return {"trace_id": trace.trace_id, **({"span_id": trace.span_id} if trace.span_id else {})}


def traces(variables: Mapping[str, str] = os.environ) -> Traces:
    """As the variables say; SettingsError if they ask for what is not there."""
    named = next((name for name in ENDPOINTS if variables.get(name)), None)
    if named is None or variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Heard()
    protocol = next((name for name in PROTOCOLS if variables.get(name)), None)
    if protocol and variables[protocol] != SPOKEN:
        raise SettingsError(f"{protocol}={variables[protocol]!r}: only {SPOKEN} is spoken here")
    try:
        return Spans(variables)
    except ImportError as error:
        raise SettingsError(f"{named}: the packages of OpenTelemetry are not installed: {error}") from None


class Heard:
    """Without tracing: only the id of a trace that others follow."""

    def begin(self, scope: Scope) -> Trace | None:
        trace_id = trace_id_of(scope["headers"])
        return Trace(trace_id) if trace_id else None

    def end(self, trace: Trace | None, scope: Scope, route: str, status: int) -> None: ...

    async def close(self) -> None: ...


class Spans:
    """With tracing: a span for each request but probes and scrapes, whose sampler says so."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """ImportError if packages are missing."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        attributes = {"service.version": __version__}
        if not variables.get("OTEL_SERVICE_NAME") and "service.name=" not in variables.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes["service.name"] = NAME
        # A provider of its own, not the process's global one: no library begins to trace because this one does.
        # Without shutdown_on_exit, which would wait for a collector that is away.
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("genai_inference", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        # That a batch of spans was lost is an error; each try to send it would be a warning.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)

    def begin(self, scope: Scope) -> Trace | None:
        """Begins the span of a request. Its name is not final: the route is not known yet."""
        if scope["path"] in _UNTRACED:
            return None
        from opentelemetry.trace import SpanKind

        carrier = {
            name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in (PARENT, STATE)
        }
        method = _method(scope)
        span = self._tracer.start_span(
            method,
            context=self._extract(carrier),
            kind=SpanKind.SERVER,
            # Nothing of what a caller sent: not its path, its query, its address.
            attributes={"http.request.method": method, "url.scheme": scope.get("scheme", "http")},
        )
        ids = span.get_span_context()
        recorded = (span, self._tracer) if span.is_recording() else ()
        return Trace(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", *recorded)

    def end(self, trace: Trace | None, scope: Scope, route: str, status: int) -> None:
        if trace is None or trace.span is None:
            return
        from opentelemetry.trace import StatusCode

        span, card = trace.span, scope.get("model")
        span.update_name(f"{_method(scope)} {route}")
        known = {
            "http.route": route,
            "http.response.status_code": status,
            "enduser.id": scope.get("client_name"),
            "genai.model": card.name if card else None,
            "genai.model_version": card.version if card else None,
            "genai.instances": scope.get("instances"),
            "genai.cache": scope.get("cache"),
        }
        span.set_attributes({name: value for name, value in known.items() if value is not None})
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", str(status))
        span.end()

    async def close(self) -> None:
        """Sends what there is; gives up after CLOSE_SECONDS, as its collector may be away."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        end = time.monotonic() + CLOSE_SECONDS
        while thread.is_alive() and time.monotonic() < end:
            await asyncio.sleep(0.01)


def _method(scope: Scope) -> str:
    """As OpenTelemetry's conventions have it: no word of a caller's own."""
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


@contextmanager
def child(name: str, **attributes: str | int | float | bool) -> Iterator[None]:
    """A span of a part of the current request; nothing where it is not traced."""
    trace = current.get()
    if trace is None or trace.span is None:
        yield
        return
    span = _child(trace, name, time.time_ns(), attributes)
    try:
        yield
    finally:
        span.end()


def computed(forward: "Forward") -> None:
    """The spans of one batch, in the trace of every request that was in it: how long it waited, and how long the batch
    and its forward pass took. Each batch is linked to the other requests that were in it.
    """
    traced = [work for work in forward.works if work.trace is not None and work.trace.span is not None]
    if not traced:
        return
    from opentelemetry.trace import Link

    now = time.time_ns()
    # From time.monotonic() to nanoseconds since 1970.
    offset = now - time.monotonic_ns()
    started = offset + int(forward.started * 1e9)
    ended = started + int(forward.seconds * 1e9)
    size = sum(len(work.inputs) for work in forward.works)
    for work in traced:
        trace: Any = work.trace
        queued = offset + int(work.queued_at * 1e9)
        _child(trace, "queue", queued, {}).end(started)
        links = [Link(other.trace.span.get_span_context()) for other in traced if other is not work]  # type: ignore[union-attr]
        sizes = {"genai.items": len(work.inputs), "genai.batch.size": size, "genai.batch.requests": len(forward.works)}
        batch = _child(trace, "batch", started, sizes, links)
        failed = {"error.type": type(forward.result).__name__} if isinstance(forward.result, Exception) else {}
        _child(Trace("", span=batch, tracer=trace.tracer), "forward", started, failed).end(ended)
        batch.end(now)


def _child(trace: Trace, name: str, start: int, attributes: Mapping[str, Any], links: Iterable[Any] = ()) -> Any:  # noqa: ANN401
    """A span that has begun at `start` (nanoseconds since 1970). The trace has a span."""
    from opentelemetry.trace import set_span_in_context

    assert trace.tracer is not None and trace.span is not None  # noqa: S101  # for the type checker
    context = set_span_in_context(trace.span)
    return trace.tracer.start_span(name, context=context, start_time=start, attributes=attributes, links=tuple(links))
