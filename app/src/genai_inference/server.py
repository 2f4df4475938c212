"""uvicorn, with a shutdown that loses no request.

On the first SIGTERM or SIGINT the process turns unready and asks every client to leave, but goes on answering for
`drain_seconds`: until the last load balancer has heard of it. Only then is the listener closed and are the requests
in flight finished. A second signal ends the process at once.
"""

import asyncio
import gc
import logging
import os
import socket
import time
from types import FrameType

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .api import create_app
from .engine import MakeEngine
from .in_flight import InFlight
from .lifecycle import Lifecycle
from .service import Service
from .settings import Settings, SettingsError
from .shedding import Shedding
from .watchdog import DeviceLost

log = logging.getLogger(__name__)

# Once the listener is closed, a request may take this long. With the default drain of 8 s that stays below the
# 30 s after which Kubernetes kills.
FINISH_SECONDS = 15


# Bytes that may come before they complete a head or add to a body; requests of one connection that may wait their turn.
PENDING_BYTES, PIPELINED = 64 * 1024, 100


def bounded(seconds: float, shedding: Shedding, in_flight: InFlight) -> type[asyncio.Protocol]:
    """uvicorn's protocol, but a connection is closed whose client takes longer than `seconds` for the head of a request
    or to read on, sends more than PENDING_BYTES of header fields or trailers, or more than PIPELINED requests ahead of
    their answers. uvicorn bounds none of these, and a few such clients would use up all the files or memory that the
    process may have.

    Every request's scope has `client_left`, a future that is done once the connection is gone. ASGI's own way, to wait
    for `http.disconnect`, would take a task for each request. It has `arrived`, the time.monotonic() at which its head
    was complete, and once all of its body has come, `complete`.

    What nobody has read yet of an answer counts in `in_flight`.

    What `shedding` refuses is answered here: an ASGI application would take a task and two messages for it.
    """

    class Bounded(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None
        _unread_bytes = 0
        _pending = 0
        _begun = False
        _refused = False
        _rejection: str | None = None

        def keep_idle(self, seconds: float) -> None:
            """From now on, the connection may be idle for this time, not for that of uvicorn's configuration."""
            self.timeout_keep_alive = seconds  # type: ignore[assignment]  # handed to call_later as it is
            if self._is_free() and not self._begun and self._timer is None:
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._left = self.loop.create_future()
            self._cycles: list[RequestResponseCycle] = []  # that are not answered yet
            self._wait()

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            while data and self._rejection is None and not self.transport.is_closing():
                data = self._read(data)
                if len(self.pipeline) > PIPELINED:
                    self.transport.abort()  # to close would wait until all answers are read
            if self._is_free() and self._timer is None and self.timeout_keep_alive_task is None:
                self._wait() if self._begun else self.keep_idle(self.timeout_keep_alive)

        def _read(self, data: bytes) -> bytes:
            """Parses `data`; what it returns is to be parsed next."""
            self._pending += len(data)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                return self._without_offer(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self._reject("This is no HTTP/1.1.")
            else:
                if self._pending > PENDING_BYTES:
                    self._reject(f"Header fields may have {PENDING_BYTES} bytes.")
            return b""

        def _reject(self, detail: str) -> None:
            """Answers 400 and ends the connection, once what was asked before is answered. (uvicorn does not wait: a
            good request that comes in one segment with a bad one gets no answer.)
            """
            waiting = not self._is_free()
            if waiting and self.cycle.more_body:  # it is the body of this one, the latest, that is wrong
                waiting = bool(self.pipeline)
                if waiting:
                    self.pipeline.popleft()
            if waiting:
                self._rejection = detail
            else:
                self.send_400_response(detail)

        def _without_offer(self, rest: bytes) -> bytes:
            """Another protocol was offered, as Java's client and `curl --http2` do: the request is to be read again
            without that. The parser would take the body, and what follows, for the other protocol's (RFC 9110, 7.8).
            """
            if self.parser.get_method() == b"CONNECT":
                self._reject("This is no proxy.")
                return b""
            lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
            lines += [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            return b"\r\n".join([*lines, b"", rest])

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._begun = True
            self.scope["client_left"] = self._left  # type: ignore[typeddict-unknown-key]

        def on_headers_complete(self) -> None:
            self._pending = 0
            self.scope["arrived"] = time.monotonic()  # type: ignore[typeddict-unknown-key]
            self._stop_waiting()
            if not self.parser.should_upgrade() and not self._refuse():
                super().on_headers_complete()
                # Older releases of uvicorn see `Connection: close` only where nothing else is said there.
                self.cycle.keep_alive = self.cycle.keep_alive and self.parser.should_keep_alive()
                self._cycles = [*(cycle for cycle in self._cycles if not cycle.response_complete), self.cycle]

        def _refuse(self) -> bool:
            """Answers at once, where uvicorn is not needed: it is this request's turn, its client reads what it gets,
            and the connection stays.
            """
            turn = self._is_free() and not self.flow.write_paused
            plain = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
            if not turn or not plain or self.expect_100_continue:
                return False
            response = shedding.refusal(self.parser.get_method(), self.url, self.headers)
            if response is None:
                return False
            fields = (*self.server_state.default_headers, *response.raw_headers)
            head = b"".join(b"%s: %s\r\n" % field for field in fields)
            self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[response.status_code], head, response.body))
            self._refused = True
            return True

        def on_body(self, body: bytes) -> None:
            self._pending = 0
            if not self._refused:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self._pending = 0
            self._begun = False
            self._stop_waiting()
            if self._refused:
                self._refused = False
                self.on_response_complete()
            elif not self.parser.should_upgrade():
                self.scope["complete"] = True  # type: ignore[typeddict-unknown-key]
                super().on_message_complete()
                if not self.pipeline:
                    self.flow.resume_reading()  # paused by a large body; else nobody would see the client leave

        def on_response_complete(self) -> None:
            if self._rejection is not None and not self.pipeline and not self.transport.is_closing():
                self.send_400_response(self._rejection)
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(seconds, self.transport.abort)
            self._unread_bytes = self.transport.get_write_buffer_size()
            in_flight.add(self._unread_bytes)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._read_by_client()
            if self._unread is not None:
                self._unread.cancel()

        def shutdown(self) -> None:
            """The process ends. uvicorn finishes what it can, then cancels the rest with a line of error for each: what
            waits only for its client is to leave before that.
            """
            super().shutdown()
            self.loop.call_later(FINISH_SECONDS - 3, self._end)

        def _end(self) -> None:
            if self.flow.write_paused or (not self._is_free() and self.cycle.more_body):
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._timer, self._unread):
                if timer is not None:
                    timer.cancel()
            self._read_by_client()
            # uvicorn tells only the latest of several requests that the client has gone, and uvloop takes nothing then.
            for cycle in self._cycles:
                cycle.disconnected = True
                cycle.message_event.set()
            self._left.set_result(None)
            super().connection_lost(exc)

        def _read_by_client(self) -> None:
            in_flight.give(self._unread_bytes)
            self._unread_bytes = 0

        def _wait(self) -> None:
            self._timer = self.loop.call_later(seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            if self._is_free():
                self.transport.close()

        def _is_free(self) -> bool:
            """Whether no answer is owed."""
            return self.cycle is None or self.cycle.response_complete

    return Bounded


class DrainingServer(uvicorn.Server):
    """A server that drains before it stops, and stops by itself if the model cannot be loaded, or a device that does
    not compute is not back after `device_seconds`.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, settings: Settings) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = settings.drain_seconds
        self._idle_seconds = settings.drain_idle_seconds  # while draining, connections are closed that are idle so long
        self._device_seconds = settings.device_seconds
        self._close_at: float | None = None
        self._frozen = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler. Does not note the signal as uvicorn does, which would re-raise it: we exit with 0."""
        if self._lifecycle.draining:
            os._exit(128 + sig)
        self._lifecycle.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; true ends the serving and starts its own graceful shutdown."""
        if self._lifecycle.loaded and not self._frozen:
            gc.freeze()  # what is there now stays: looking for garbage in all of torch would stop the world for 0.1 s
            self._frozen = True
        if self._lifecycle.draining and self._close_at is None:
            self._close_at = self._start_draining()
        trouble = self._lifecycle.trouble()
        if trouble is not None and time.monotonic() - trouble.since >= self._device_seconds:
            self._lifecycle.failure = DeviceLost(f"{trouble.reason}, and it did not come back")
        if self._lifecycle.failure is not None or (self._close_at is not None and time.monotonic() >= self._close_at):
            self.should_exit = True
        if self._lifecycle.drained:
            self.should_exit = True
        return await super().on_tick(counter)

    def _start_draining(self) -> float:
        # Nobody was ever told to send requests to a process that has not been ready: that one need not wait.
        wait = self._drain_seconds if self._lifecycle.loaded else 0.0
        log.info("draining", extra={"fields": {"seconds": wait}})
        # Not at once: a client that is not told to leave with an answer may be sending a request just now.
        self.config.timeout_keep_alive = self._idle_seconds  # type: ignore[assignment]  # of connections to come
        for connection in self.server_state.connections:
            connection.keep_idle(self._idle_seconds)  # type: ignore[union-attr]  # see bounded
        return time.monotonic() + wait


def serve(settings: Settings, make_engine: MakeEngine) -> None:
    """Serves until told to stop. Raises SettingsError if it cannot listen, or what loading the model raised."""
    run(create_app(settings, make_engine), settings)


def run(app: FastAPI, settings: Settings) -> None:
    """Runs an application of ours on its port; see `serve`."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=bounded(settings.receive_seconds, Shedding(service), service.in_flight),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who asks is no matter of ours, and headers that say so can be forged
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # handed to call_later as it is
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    listener = _listen(settings)
    log.info("listening", extra={"fields": {"port": listener.getsockname()[1]}})
    DrainingServer(config, service.lifecycle, settings).run(sockets=[listener])
    if service.lifecycle.failure is not None:
        raise service.lifecycle.failure


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise SettingsError(f"GENAI_HOST, GENAI_PORT: cannot listen on {where}: {error.strerror or error}") from None
    # Connections inherit it. asyncio, unlike uvloop, leaves it off for them: an answer's body would then wait about
    # 40 ms for the client to acknowledge the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
