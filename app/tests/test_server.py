"""A real server process on a real port: how it ends, and what it does with HTTP that no client library would send."""

import http.client
import json
import re
import signal
import socket
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest
from processes import PREDICT, Server, Start
from stub import digit
from waiting import LIMIT_SECONDS, eventually

from genai_inference.server import _listen
from genai_inference.settings import Settings

ONE = {"instances": [digit(7)]}
ONE_MORE = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Caller(threading.Thread):
    """Sends one request after the other, as a load balancer would, until told that this server is no longer its own."""

    server: Server
    keep_alive: bool
    leave: threading.Event
    statuses: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    sent_away: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        client = self._client()
        while not self.leave.is_set():
            if not self.keep_alive:
                client.close()
                client = self._client()
            try:
                response = client.post("/v1/predict", json=ONE)
            except httpx.HTTPError as error:
                self.errors.append(repr(error))
            else:
                self.statuses.append(response.status_code)
                self.sent_away += response.headers.get("connection") == "close"
        client.close()

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, timeout=LIMIT_SECONDS)


def test_sigterm_under_load_loses_no_request(start: Start) -> None:
    server, leave = start(drain_seconds=8), threading.Event()
    server.becomes("/ready", 200)
    callers = [Caller(server, keep_alive, leave) for keep_alive in [True] * 4 + [False] * 4]
    for caller in callers:
        caller.start()
    eventually(lambda: all(len(caller.statuses) >= 5 for caller in callers), "every caller was answered")
    assert not any(caller.sent_away for caller in callers)

    server.terminate()
    server.becomes("/ready", 503)
    assert server.status("/health") == 200
    eventually(lambda: all(caller.sent_away >= 5 for caller in callers), "every caller was answered and sent away")
    assert server.process.poll() is None
    leave.set()  # the endpoint is gone; what was sent is still to be answered
    for caller in callers:
        caller.join(LIMIT_SECONDS)

    assert server.exit_code() == 0
    assert [error for caller in callers for error in caller.errors] == []
    assert {status for caller in callers for status in caller.statuses} == {200}


def test_a_request_in_flight_when_the_listener_closes_is_answered(start: Start) -> None:
    server = start("3", drain_seconds=0)
    server.becomes("/ready", 200)
    answers: list[int] = []
    slow = threading.Thread(
        target=lambda: answers.append(
            httpx.post(server.url + "/v1/predict", json=ONE, timeout=LIMIT_SECONDS).status_code
        )
    )
    slow.start()
    in_flight = "genai_http_requests_in_flight 2.0"  # the slow one, and the one that asks
    eventually(lambda: in_flight in httpx.get(server.url + "/metrics").text, "the request is in flight")
    server.terminate()
    slow.join(LIMIT_SECONDS)
    assert answers == [200]
    assert server.exit_code() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(start: Start, second: signal.Signals) -> None:
    server = start()
    server.becomes("/ready", 200)
    server.terminate()
    server.becomes("/ready", 503)
    server.process.send_signal(second)
    assert server.exit_code() == 128 + second


def test_sigterm_while_loading_ends_promptly(start: Start) -> None:
    server = start("loading")
    assert server.status("/health") == 200
    assert server.status("/ready") == 503
    server.terminate()
    assert server.exit_code() == 0


def test_nothing_is_left_of_an_idle_connection(start: Start) -> None:
    server = start(GENAI_KEEP_ALIVE_SECONDS="0.5")
    server.becomes("/ready", 200)
    answer = server.says("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")  # returns when the server closes
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" not in answer


def test_an_idle_connection_is_kept_for_longer_than_a_request_may_take_to_come(start: Start) -> None:
    server = start(GENAI_RECEIVE_SECONDS="0.2")
    server.becomes("/ready", 200)
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        for _ in range(3):
            connection.sendall(ONE_MORE.encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b'{"status":"ok","reason":null}')
            time.sleep(0.6)


def test_one_whose_answer_came_before_its_body_is_idle_after_that(start: Start) -> None:
    server = start(GENAI_RECEIVE_SECONDS="0.5")
    server.becomes("/ready", 200)
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 404 and answer.read()
        connection.sendall(b"abc")
        time.sleep(2)
        connection.sendall(ONE_MORE.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", ["GET /health HT", PREDICT])
def test_one_that_begins_another_request_is_not_idle(start: Start, begun: str) -> None:
    server = start(GENAI_RECEIVE_SECONDS="0.2", GENAI_KEEP_ALIVE_SECONDS="300")
    server.becomes("/ready", 200)
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        connection.sendall(ONE_MORE.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(begun.encode())
        assert b"HTTP/1.1" not in b"".join(iter(lambda: connection.recv(4096), b""))  # up to the end of the connection


def test_idle_connections_end_early_in_a_drain(start: Start) -> None:
    server = start(GENAI_KEEP_ALIVE_SECONDS="300")
    server.becomes("/ready", 200)
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        connection.sendall(ONE_MORE.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert b"ok" in answer.read()
        server.terminate()
        assert connection.recv(1) == b""
    assert (server.status("/ready"), server.status("/health")) == (503, 200)


@pytest.fixture(scope="module")
def server(start_once: Start) -> Server:
    """One for all that clients may do to it, and that it has to survive."""
    server = start_once(GENAI_MAX_BODY_BYTES="1024", GENAI_RECEIVE_SECONDS="300")
    server.becomes("/ready", 200)
    return server


RAW = {
    "no HTTP": ("HELLO\r\n\r\n", 400),
    "a length that is none": (PREDICT + "Content-Length: 1O\r\n\r\n", 400),
    "a length too large, and nothing sent": (PREDICT + "Content-Length: 99999999999\r\n\r\n", 413),
    "chunks without end": (PREDICT + "Transfer-Encoding: chunked\r\n\r\n" + f"800\r\n{'x' * 2048}\r\n", 413),
    "two lengths": (PREDICT + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{", 400),
    "a proxy's method": ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a length and chunks": (PREDICT + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "an encoding that is not chunked": (PREDICT + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a blank before the colon": (PREDICT + "Content-Length : 1\r\n\r\n{", 400),
    "a folded field": (PREDICT + "X: a\r\n b\r\n\r\n", 400),
    "lines without CR": (PREDICT.replace("\r", "") + "\n", 400),
    "a line's end in an extension": (PREDICT + "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\n{\r\n0\r\n\r\n", 400),
}


@pytest.mark.parametrize(("text", "status"), RAW.values(), ids=RAW)
def test_odd_http(server: Server, text: str, status: int) -> None:
    assert server.says(text).startswith(b"HTTP/1.1 %d" % status)
    assert server.status("/health") == 200


ENDLESS = {
    "a field": ("X: ", "a"),
    "fields": ("", "X: a\r\n"),
    "trailers": ("Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: a\r\n"),
    "an extension of a chunk": ("Transfer-Encoding: chunked\r\n\r\n1;", "a"),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_is_ended(server: Server, begin: str, more: str) -> None:
    block = (more * 4096).encode()
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        connection.sendall((PREDICT + begin).encode())
        with pytest.raises(ConnectionError):  # long before all of it is sent
            for _ in range(4096):
                connection.sendall(block)
    assert server.status("/health") == 200


def test_requests_sent_ahead_are_answered_in_their_order(server: Server) -> None:
    paths = ["/health", "/none", "/version"] * 10
    ahead = "".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths)
    answer = server.says(ahead + "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"] * 10 + [b"200"]


def test_one_connection_cannot_queue_requests_without_end(server: Server) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, LIMIT_SECONDS) as connection, pytest.raises(ConnectionError):
        for _ in range(1000):
            connection.sendall(request * 1000)
    assert server.status("/health") == 200


@pytest.mark.parametrize("pause", [0, 0.5])
def test_a_protocol_that_is_offered_changes_nothing(server: Server, pause: float) -> None:
    """By Java's client, or by `curl --http2`."""
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    body = json.dumps({"instances": [digit(3)]})
    head = f"{PREDICT}Content-Length: {len(body)}\r\n{upgrade}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        for _ in range(2):
            connection.sendall(head.encode())
            time.sleep(pause)
            connection.sendall(body.encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            assert json.load(answer)["predictions"][0]["label"] == 3


def test_protocols_offered_ahead_change_nothing(server: Server) -> None:
    offer = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    answer = server.says(offer * 50 + "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 51


def test_what_follows_the_last_request_is_ignored(server: Server) -> None:
    """With another protocol offered as without: a stray request behind `Connection: close` costs nobody an answer."""
    for offer in ("", "Upgrade: h2c\r\n"):
        names = "Upgrade, close" if offer else "close"
        last = f"GET /health HTTP/1.1\r\nHost: x\r\nConnection: {names}\r\n{offer}\r\n"
        answer = server.says(last + "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"]
        assert answer.endswith(b'{"status":"ok","reason":null}')


BROKEN = {
    "no HTTP": "HELLO\r\n\r\n",
    "a proxy's method": "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad chunk": PREDICT + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a bad chunk behind a good one": PREDICT + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n",
}


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_what_was_asked_before_is_answered_before_a_refusal(server: Server, broken: str, ahead: int) -> None:
    body = json.dumps({"instances": [digit(3)]})
    answer = server.says(f"{PREDICT}Content-Length: {len(body)}\r\n\r\n{body}" * ahead + broken + ONE_MORE)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * ahead + [b"400"]
    assert answer.count(b'"label":3') == ahead
    assert server.counted_5xx() == server.errors() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_body_of_an_answer_does_not_wait_for_the_client_to_acknowledge_the_head(host: str) -> None:
    with _listen(Settings(host=host, port=0)) as listener, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
