# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A proxy between the engine and the real API server that breaks what it is told to break.

The engine speaks plain HTTP to it; it speaks TLS to the API server with the kubeconfig's client certificate.
"""
from __future__ import annotations

import enum
import http.server
import json
import os
import signal
import sys
import threading
import typing as t
import urllib.parse

import urllib3
from live import Api

WATCH_SECONDS = 10  # a server may end a watch early; here it does, so that watches of ended runs do not pile up
NOT_FORWARDED = {"host", "authorization", "connection", "content-length", "accept-encoding"}


class Fate(enum.Enum):
    """What becomes of one request."""

    PASS = "is forwarded and answered"
    CUT_BEFORE = "the connection ends before the request arrived"
    CUT_AFTER = "the connection ends after the request was done, before its answer"
    ERROR_500 = "is answered 500 and not forwarded"
    ERROR_409 = "is answered 409 and not forwarded"
    ERROR_429 = "is answered 429, come back in a second, and not forwarded"
    KILL_BEFORE = "the client is killed before the request arrived"
    KILL_AFTER = "the client is killed after the request was done, before its answer"
    HOLD = "waits until released, then is forwarded and answered"


class Request(t.NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    body: t.Any

    @property
    def is_write(self) -> bool:
        asking = "/authorization.k8s.io/" in self.path  # a question by POST, which stores nothing
        return self.method not in ("GET", "HEAD") and "dryRun" not in self.query and not asking

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


def always_pass(_request: Request) -> Fate:
    return Fate.PASS


class Proxy(http.server.ThreadingHTTPServer):
    """Asks `decide` about every request. `writes`: (method, path) of all that wanted to write, in order of arrival."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: Api) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.decide: t.Callable[[Request], Fate] = always_pass
        self.writes: list[tuple[str, str]] = []
        self.hits = 0
        self.victim = 0  # process id of the client to be killed
        self.dead = False  # the client was killed: what it may still seem to send was never sent
        self.held, self.released = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._under_way = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def reset(self, decide: t.Callable[[Request], Fate] = always_pass) -> None:
        """Forgets what was and decides anew; nothing of before is under way any more."""
        self.wait_until_idle()
        with self._lock:
            self.decide, self.writes, self.hits, self.victim, self.dead = decide, [], 0, 0, False
            self.held.clear()
            self.released.clear()

    def wait_until_idle(self) -> None:
        with self._idle:
            assert self._idle.wait_for(lambda: self._under_way == 0, 60), "requests are stuck in the proxy"

    def begin(self, request: Request) -> Fate | None:
        """What becomes of the request; None when its client was dead before it could be sent."""
        with self._lock:
            if self.dead:
                return None
            if request.is_write:
                self.writes.append((request.method, request.path))
            fate = self.decide(request)
            self.hits += fate is not Fate.PASS
            self.dead = fate in (Fate.KILL_BEFORE, Fate.KILL_AFTER)
            self._under_way += 1
        if fate is Fate.KILL_BEFORE:
            self.kill()
        return fate

    def end(self) -> None:
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """Says nothing of clients that went away in the middle: some of them were killed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def kill(self) -> None:
        os.kill(self.victim, signal.SIGKILL)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:  # pylint: disable=redefined-builtin
        """Says nothing: the base class writes every request to stderr."""

    def _serve(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = Request(self.command, parts.path, dict(urllib.parse.parse_qsl(parts.query)), json.loads(data) if data else None)
        if request.is_watch:
            self._watch(request)
            return
        fate = self.server.begin(request)
        if fate is None:
            self._cut()
            return
        try:
            self._meet(fate, data)
        finally:
            self.server.end()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _meet(self, fate: Fate, data: bytes) -> None:
        if fate is Fate.HOLD:
            self.server.held.set()
            self.server.released.wait(60)
        if fate in (Fate.ERROR_500, Fate.ERROR_409, Fate.ERROR_429):
            self._refuse(int(fate.name[-3:]))
        elif fate in (Fate.CUT_BEFORE, Fate.KILL_BEFORE):
            self._cut()
        else:
            answer = self._forward(self.path, data)
            if fate in (Fate.PASS, Fate.HOLD):
                self._answer(answer.status, dict(answer.headers), answer.data)
                return
            if fate is Fate.KILL_AFTER:
                self.server.kill()
            self._cut()

    def _forward(self, path: str, data: bytes, **how: t.Any) -> t.Any:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_FORWARDED}
        return self.server.api.pool.request(
            self.command, path, body=data or None, headers=headers, retries=False, timeout=60, decode_content=False, **how
        )

    def _refuse(self, status: int) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": f"injected {status}", "reason": "Injected"}
        headers = {"Content-Type": "application/json", **({"Retry-After": "1"} if status == 429 else {})}
        self._answer(status, headers, json.dumps(body).encode())

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self._cut()  # the client is gone

    def _cut(self) -> None:
        self.close_connection = True

    def _watch(self, request: Request) -> None:
        """Passes on what arrives as it arrives, and ends with the connection."""
        self._cut()
        query = {**request.query, "timeoutSeconds": str(min(WATCH_SECONDS, int(request.query.get("timeoutSeconds", WATCH_SECONDS))))}
        answer = self._forward(f"{request.path}?{urllib.parse.urlencode(query)}", b"", preload_content=False)
        try:
            self.send_response_only(answer.status)
            self.send_header("Content-Type", answer.headers.get("content-type", "application/json"))
            self.send_header("Connection", "close")
            self.end_headers()
            while chunk := answer.read1(1 << 16):
                self.wfile.write(chunk)
                self.wfile.flush()
        except (OSError, urllib3.exceptions.HTTPError):
            pass  # the client is gone, or the API server; either way the watch has ended
        finally:
            answer.close()
