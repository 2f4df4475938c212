"""uvicorn, with a shutdown that loses no request.

On the first SIGTERM or SIGINT the process turns unready and asks every client to leave, but goes on answering for
`drain_seconds`: until the last load balancer has heard of it. Only then is the listener closed and are the requests
in flight finished. A second signal ends the process at once.
"""

import asyncio
import logging
import os
import socket
import time
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from fastapi import FastAPI

from .api import create_app
from .engine import MakeEngine
from .lifecycle import Lifecycle
from .service import Service
from .settings import Settings, SettingsError

log = logging.getLogger(__name__)

# Once the listener is closed, a request may take this long. With the default drain of 8 s that stays below the
# 30 s after which Kubernetes kills.
FINISH_SECONDS = 15


def impatient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, but a connection is closed whose client takes longer than `seconds` to say what it wants.
    uvicorn would wait for ever, and a few thousand such clients would use up every file that the process may open.
    """

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def on_response_complete(self) -> None:
            self._wait()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(seconds, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Impatient


class DrainingServer(uvicorn.Server):
    """A server that drains before it stops, and stops by itself if the model cannot be loaded."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._close_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler. Does not note the signal as uvicorn does, which would re-raise it: we exit with 0."""
        if self._lifecycle.draining:
            os._exit(128 + sig)
        self._lifecycle.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; true ends the serving and starts its own graceful shutdown."""
        if self._lifecycle.draining and self._close_at is None:
            self._close_at = self._start_draining()
        if self._lifecycle.failure is not None or (self._close_at is not None and time.monotonic() >= self._close_at):
            self.should_exit = True
        if self._lifecycle.drained:
            self.should_exit = True
        return await super().on_tick(counter)

    def _start_draining(self) -> float:
        # Nobody was ever told to send requests to a process that has not been ready: that one need not wait.
        wait = self._drain_seconds if self._lifecycle.loaded else 0.0
        log.info("draining", extra={"fields": {"seconds": wait}})
        return time.monotonic() + wait


def serve(settings: Settings, make_engine: MakeEngine) -> None:
    """Serves until told to stop. Raises SettingsError if it cannot listen, or what loading the model raised."""
    run(create_app(settings, make_engine), settings)


def run(app: FastAPI, settings: Settings) -> None:
    """Runs an application of ours on its port; see `serve`."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=impatient(settings.receive_seconds),  # h11: the same parser, a strict one, whatever else is installed
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
    DrainingServer(config, service.lifecycle, settings.drain_seconds).run(sockets=[listener])
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
