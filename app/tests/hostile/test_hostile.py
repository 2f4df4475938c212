"""Ten thousand hostile requests to one real server process: no 5xx, no crash, no leak, and the honest ones beside them
are answered all the while.
"""

import collections
import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from hostile import Honest, Hostile, files, requests
from processes import Start
from schemathesis import GenerationMode
from waiting import eventually

RAW, GENERATED, LARGE, SLOW = 9_600, 1_500, 40, 200
SEED = 20261127
HUNDRED_MB = 100 * 2**20
# Schemathesis finds these worth a warning: it may make no valid one at all.
QUIET = [hypothesis.HealthCheck.filter_too_much, hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]

pytestmark = pytest.mark.timeout(900)


def exchange(port: int, sent: Hostile) -> int:
    """The status of the answer to raw bytes; 0 when the connection ends without one."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        with contextlib.suppress(OSError):  # it may be closed on us while we send
            connection.sendall(sent.content)
            if not sent.answered:  # or both sides would wait
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return status_of(b"".join(iter(lambda: connection.recv(65536), b"")))
    return 0


def status_of(answer: bytes) -> int:
    """The worst status of one or more answers."""
    found = [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return max(found, default=0)


def large(port: int, number: int) -> int:
    """100 MB, announced or in chunks."""
    head = "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    length = f"Content-Length: {HUNDRED_MB}" if number % 2 else "Transfer-Encoding: chunked"
    block = bytes(2**20) if number % 2 else b"100000\r\n" + bytes(2**20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(f"{head}{length}\r\n\r\n".encode())
            for _ in range(100):
                connection.sendall(block)
        with contextlib.suppress(ConnectionError):
            return status_of(connection.recv(65536))
    return 413  # reset while we were still sending: what a refusal looks like from there


@contextlib.contextmanager
def slow_clients(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that send a byte of a request now and then, for as long as the server lets them."""
    text, done = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 1000, threading.Event()
    open_ones = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]

    def drip() -> None:
        for at in range(len(text)):
            for connection in open_ones:
                with contextlib.suppress(OSError):
                    connection.send(text[at : at + 1])
            if done.wait(0.2):
                return

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    yield open_ones
    done.set()
    dripping.join(30)
    for connection in open_ones:
        connection.close()


def generated(url: str, count: int, seen: Callable[[int], None]) -> None:
    """Requests that schemathesis makes out of the OpenAPI description, by its rules and against them."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    each = -(-count // (2 * len(operations)))
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.settings(max_examples=each, deadline=None, database=None, suppress_health_check=QUIET)
            @hypothesis.seed(SEED)
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def send(case: schemathesis.Case) -> None:
                seen(case.call(timeout=60).status_code)

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing about this one can be wrong
                send()


def test_ten_thousand_hostile_requests(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = start("0.001", GENAI_RECEIVE_SECONDS="5")
    server.becomes("/ready", 200)
    honest, statuses = Honest(server), collections.Counter[tuple[str, int]]()
    honest.start()

    def send(each: Hostile) -> tuple[Hostile, int]:
        return each, exchange(server.port, each)

    baseline_files, memory, threads = files(server), 0, 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number, (each, status) in enumerate(pool.map(send, requests(RAW, SEED))):
            statuses[each.kind, status] += 1
            assert status < 500 and (status or not each.answered), (each.kind, status, each.content[:300])
            if number == RAW // 4:
                memory, threads = server.resident(), server.threads()  # whatever is made once was made by now
        for status in pool.map(lambda number: large(server.port, number), range(LARGE)):
            statuses["100 MB", status] += 1
            assert status == 413
    with slow_clients(server.port, SLOW) as connections:
        before = honest.answered
        eventually(lambda: honest.answered > before + 20, "honest clients are answered beside slow ones")
        eventually(lambda: all(ended(each) for each in connections), "slow clients are left")
        statuses["slow clients", 0] += SLOW
    generated(server.url, GENERATED, lambda status: statuses.update([("generated", status)]))
    honest.stop()

    total = sum(statuses.values())
    growth = server.resident() - memory
    with capsys.disabled():
        kinds = collections.Counter[str]()
        for (kind, _), count in statuses.items():
            kinds[kind] += count
        print(
            f"\nhostile requests: {total}; answered 5xx: {sum(n for key, n in statuses.items() if key[1] >= 500)};"
            f" honest ones beside them: {honest.answered}, wrong: {len(honest.wrong)}; memory {growth / 2**20:+.1f} MB"
        )
        print("  " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    assert total >= 10_000
    assert not [key for key in statuses if key[1] >= 500], statuses
    assert honest.wrong == [] and honest.answered > 100
    assert server.process.poll() is None
    eventually(lambda: files(server) <= baseline_files + 2, "every connection was closed")
    assert growth < 32 * 2**20 and server.resident() < 1.5 * memory
    assert server.threads() <= 2 * threads
    eventually(lambda: server.in_flight() == 0, "nothing is left of any request")
    assert server.counted_5xx() == server.errors() == []


def ended(connection: socket.socket) -> bool:
    """Whether the other side has closed."""
    connection.setblocking(False)
    try:
        return connection.recv(4096) == b"" or ended(connection)
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_time_is_up_for_slow_ones_only(start: Start) -> None:
    """The same connection may be used for longer than a request may take to come."""
    server = start(GENAI_RECEIVE_SECONDS="1")
    server.becomes("/ready", 200)
    until, client = time.monotonic() + 3, httpx.Client(base_url=server.url)
    while time.monotonic() < until:
        assert client.get("/health").status_code == 200
        time.sleep(0.1)
    client.close()
