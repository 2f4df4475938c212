"""What a client does, or leaves undone, is no failure of the service: neither a 5xx nor a line of error in the log."""

import contextlib
import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from processes import PREDICT, Server, Start
from stub import StubEngine, digit
from waiting import LIMIT_SECONDS, eventually

from genai_inference import server as serving
from genai_inference.settings import Settings

BODY = json.dumps({"instances": [digit(7)]})
JOB = json.dumps({"input": {"instances": [digit(7)]}})
PREDICT_WHOLE = f"{PREDICT}Content-Length: {len(BODY)}\r\n\r\n{BODY}"
CHUNKED = f"{PREDICT}Transfer-Encoding: chunked\r\n\r\n"
JOBS = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HANG_UPS = {
    "half a body": PREDICT_WHOLE[:-9],
    "no byte of a body": f"{PREDICT}Content-Length: 9\r\n\r\n",
    "half a chunk": CHUNKED + "ff\r\nabc",
    "no last chunk": f"{CHUNKED}{len(BODY):x}\r\n{BODY}\r\n",
    "a bad chunk": f"{CHUNKED}3\r\n[1,\r\nzz\r\n",
    "half a body, after a question": f"{PREDICT}Expect: 100-continue\r\nContent-Length: 9\r\n\r\nabc",
    "half a body, behind another request": f"GET /health HTTP/1.1\r\nHost: x\r\n\r\n{PREDICT_WHOLE[:-9]}",
    "half a job": f"{JOBS}Content-Length: {len(JOB)}\r\n\r\n{JOB[:-9]}",
    "half a job in chunks": f"{JOBS}Transfer-Encoding: chunked\r\n\r\n9\r\n[",
    "half a body that nobody reads": "GET /v1/benchmarks HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
    "half a body of 1 MB": f"{PREDICT}Content-Length: 1000000\r\n\r\n{' ' * 400_000}",
    "half a body of a method that is not": "DELETE /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    "a whole request": PREDICT_WHOLE,
    "many": PREDICT_WHOLE * 20,
    "another protocol, half a body": f"{PREDICT}Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 9\r\n\r\nabc",
}


@pytest.fixture(scope="module", params=["0", "60"], ids=["no cache", "cache"])
def server(request: pytest.FixtureRequest, start_once: Start) -> Iterator[Server]:
    """Jobs are accepted, but for the Redis they would go to."""
    cache = {"GENAI_CACHE_TTL_SECONDS": request.param}
    server = start_once("0.05", GENAI_JOBS="true", GENAI_REDIS_URL="redis://127.0.0.1:1", **cache)
    server.becomes("/ready", 200)
    yield server
    assert server.process.poll() is None


def reset(connection: socket.socket) -> None:
    """Closes with RST in place of FIN, as when a process is killed with bytes unread."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_close(connection: socket.socket) -> None:
    """Says that nothing more will come, and reads on to the end."""
    connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass


def faults(server: Server) -> list[str]:
    return server.counted_5xx() + server.errors()


@pytest.mark.parametrize("sent", HANG_UPS.values(), ids=HANG_UPS)
def test_a_client_that_hangs_up_is_no_error(server: Server, sent: str) -> None:
    before = faults(server)
    for leave in (socket.socket.close, reset, half_close):
        with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
            connection.sendall(sent.encode())
            leave(connection)
    eventually(lambda: server.in_flight() == 0, "nothing is left of them")
    assert faults(server) == before


def test_one_that_hangs_up_in_its_body_is_counted_as_such(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_SECONDS) as connection:
        connection.sendall(PREDICT_WHOLE[:-9].encode())
        eventually(lambda: server.in_flight() == 1, "it waits for its body")
    eventually(lambda: 'route="/v1/predict",status="499"}' in server.metrics(), "it is counted")


def test_one_that_leaves_while_its_answer_is_sent_is_no_error(server: Server) -> None:
    """A description is so long that it does not fit into the buffers between here and there."""
    before = faults(server)
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 90
    for _ in range(4):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(ask)
            connection.recv(100)
            reset(connection)
    eventually(lambda: server.in_flight() == 0, "nothing is left of it")
    assert faults(server) == before


def test_one_that_never_sends_its_body_is_no_error_when_the_process_ends(
    app: FastAPI, engine: StubEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "FINISH_SECONDS", 3.5)
    engine.may_load.set()
    caplog.set_level(logging.INFO)
    settings = Settings(host="127.0.0.1", port=0, drain_seconds=0)
    running = threading.Thread(target=serving.run, args=(app, settings))
    running.start()
    service = app.state.service
    eventually(lambda: service.lifecycle.loaded and bool(caplog.records), "ready")
    port = next(record.fields["port"] for record in caplog.records if record.message == "listening")
    with socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS) as connection:
        connection.sendall(PREDICT_WHOLE[:-9].encode())
        eventually(lambda: b"in_flight 1.0" in service.metrics.exposition(), "it waits for its body")
        service.lifecycle.draining = True
        running.join(LIMIT_SECONDS)
    assert not running.is_alive()
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert b'route="/v1/predict",status="499"' in service.metrics.exposition()
