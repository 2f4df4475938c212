"""A thousand clients that hang up, each at some byte of a valid request: none of that is the server's fault, nothing is
left of them, and another client is answered all along.
"""

import concurrent.futures
import contextlib
import random
import socket
import struct

import pytest
from hostile import Honest, files, hang_ups
from processes import Server, Start
from waiting import LIMIT_SECONDS, eventually

CLIENTS, ROUNDS = 1000, 10
SEED = 20261201

pytestmark = pytest.mark.timeout(600)


def leave(port: int, sent: bytes, how: str) -> None:
    """Sends this, and closes, resets or half-closes the connection."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS) as connection, contextlib.suppress(OSError):
        connection.sendall(sent)
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half-close":
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


def hang_up(server: Server, honest: Honest, seed: int) -> None:
    ways = random.Random(seed)  # noqa: S311
    before = honest.answered
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        sent = [(each, ways.choice(["close", "reset", "half-close"])) for each in hang_ups(CLIENTS // ROUNDS, seed)]
        done = list(pool.map(lambda each: leave(server.port, *each), sent))
    assert len(done) == CLIENTS // ROUNDS
    eventually(lambda: honest.answered > before, "the other client is answered")


@pytest.mark.parametrize("ttl", ["0", "60"], ids=["no cache", "cache"])
def test_a_thousand_clients_that_hang_up(start: Start, ttl: str) -> None:
    # Jobs are accepted, but for the Redis they would go to.
    jobs = {"GENAI_JOBS": "true", "GENAI_REDIS_URL": "redis://127.0.0.1:1"}
    server = start("0.005", GENAI_CACHE_TTL_SECONDS=ttl, **jobs)
    server.becomes("/ready", 200)
    honest = Honest(server)
    honest.start()
    hang_up(server, honest, SEED)  # whatever is made once is made by now
    eventually(lambda: server.in_flight() <= 1, "nothing is left but what the other client asks")
    memory, threads, descriptors = server.resident(), server.threads(), files(server)
    for number in range(1, ROUNDS):
        hang_up(server, honest, SEED + number)
    honest.stop()
    eventually(lambda: server.in_flight() == 0, "nothing is left of any request")
    eventually(lambda: files(server) <= descriptors + 2, "every connection was closed")
    assert server.counted_5xx() == server.errors() == []
    for route in ("/v1/predict", "/v1/jobs"):
        assert f'route="{route}",status="499"' in server.metrics()
    assert honest.wrong == []
    assert server.resident() < 1.5 * memory
    assert server.threads() <= 2 * threads
    assert server.process.poll() is None
