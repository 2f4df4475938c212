"""A web server that answers as it is told to: well, not at all, half, or drop by drop."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, Mapping[str, str], bytes]
DROP_SECONDS = 0.05


class Faulty(ThreadingHTTPServer):
    """`answer(path, headers)` is what a good server says; `moods` are how the next requests for `fragile` paths go:
    `well`, `busy`, `break`, `trickle`, or a number, the status of a refusal. After the last one all is well.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[str, Mapping[str, str]], Answer], fragile: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.fragile = answer, fragile
        self.moods: list[str] = []
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"{'https' if isinstance(self.socket, ssl.SSLSocket) else 'http'}://127.0.0.1:{self.server_port}"

    def secured(self, context: ssl.SSLContext) -> "Faulty":
        """The same server, by https."""
        self.socket = context.wrap_socket(self.socket, server_side=True)
        return self


class _Handler(BaseHTTPRequestHandler):
    server: Faulty

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        fragile = self.server.fragile in self.path
        mood = self.server.moods.pop(0) if fragile and self.server.moods else "well"
        status, headers, body = self.server.answer(self.path, dict(self.headers))
        if mood == "busy":
            status, headers, body = 503, {}, b""
        elif mood.isdigit():
            status, headers, body = int(mood), {}, b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever asked may be gone
            self._send(body, mood)

    def _send(self, body: bytes, mood: str) -> None:
        if mood == "break":
            self.wfile.write(body[: len(body) // 2])
        elif mood == "trickle":
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(DROP_SECONDS)
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(server: Faulty) -> Iterator[Faulty]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
