"""Over HTTP: the queue's bound, the deadline, and a client that leaves."""

import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from checks import check
from fastapi.testclient import TestClient
from processes import PREDICT, Server, Start
from stub import StubEngine, digit
from waiting import eventually

from genai_inference.settings import Settings

ONE = {"instances": [digit(1)]}


@pytest.fixture
def settings() -> Settings:
    return Settings(max_batch_size=2, max_queue=2, deadline_seconds=30)


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8)


def test_more_than_may_wait_is_refused_with_429(
    client: TestClient, engine: StubEngine, pool: ThreadPoolExecutor
) -> None:
    engine.may_compute.clear()
    computed = pool.submit(client.post, "/v1/predict", json=ONE)
    eventually(lambda: bool(engine.batches), "the device is busy")
    waiting = pool.submit(client.post, "/v1/predict", json={"instances": [digit(1)] * 2})
    eventually(lambda: 'genai_queue_depth{model="stub"} 2.0' in client.get("/metrics").text, "the queue is full")
    refused = client.post("/v1/predict", json=ONE)
    check(refused, 429, "Too many requests are waiting; try again in ")
    assert int(refused.headers["retry-after"]) >= 1
    rubbish = client.post("/v1/predict", content=b"rubbish", headers={"content-type": "image/png"})
    check(rubbish, 429, "Too many requests are waiting")  # what is refused is not even decoded
    engine.may_compute.set()
    assert (computed.result().status_code, waiting.result().status_code) == (200, 200)
    assert client.post("/v1/predict", json=ONE).status_code == 200
    metrics = client.get("/metrics").text
    assert 'genai_requests_dropped_total{model="stub",reason="queue_full"} 2.0' in metrics
    assert 'genai_batch_size_sum{model="stub"} 4.0' in metrics
    assert 'genai_queue_wait_seconds_count{model="stub"} 3.0' in metrics
    assert 'genai_forward_seconds_count{model="stub"} 3.0' in metrics


def test_the_client_says_how_long_it_waits(client: TestClient, engine: StubEngine, pool: ThreadPoolExecutor) -> None:
    engine.may_compute.clear()
    computed = pool.submit(client.post, "/v1/predict", json=ONE)
    eventually(lambda: bool(engine.batches), "the device is busy")
    check(
        client.post("/v1/predict", json=ONE, headers={"X-Request-Timeout-Ms": "20"}), 504, "not ready within the time"
    )
    engine.may_compute.set()
    assert computed.result().status_code == 200
    assert engine.batches == [1]
    assert client.post("/v1/predict", json=ONE, headers={"X-Request-Timeout-Ms": "999999999"}).status_code == 200


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1s", "9" * 10, "²"])
def test_a_senseless_time(client: TestClient, value: str) -> None:
    headers = {"X-Request-Timeout-Ms": value.encode()}
    check(client.post("/v1/predict", json=ONE, headers=headers), 422, "x-request-timeout-ms: a whole number of")


@pytest.mark.parametrize("padding", [0, 900_000], ids=["small", "large"])  # of a large body, not all is read at once
def test_a_client_that_leaves_takes_its_work_along(start: Start, padding: int) -> None:
    server = start("1.5", GENAI_MAX_BATCH_SIZE="1")
    server.becomes("/ready", 200)
    body = '{"instances": [[' + "0," * 63 + "0]]}" + " " * padding
    request = f"{PREDICT}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    busy = threading.Thread(target=lambda: httpx.post(server.url + "/v1/predict", json=ONE, timeout=60))
    busy.start()
    waiting = 'genai_queue_depth{model="stub"} 1.0'
    in_flight = "genai_http_requests_in_flight 2.0"
    eventually(lambda: in_flight in server.metrics(), "the device is busy")
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(request)
        eventually(lambda: waiting in server.metrics(), "the work waits")
    gone = 'genai_requests_dropped_total{model="stub",reason="abandoned"} 1.0'
    eventually(lambda: gone in server.metrics(), "the work is gone")
    busy.join(60)
    metrics = server.metrics()
    assert 'genai_batch_size_sum{model="stub"} 1.0' in metrics
    assert 'route="/v1/predict",status="499"} 1.0' in metrics


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ("", b""),
        ("POST /v1/predict HTTP/1.1\r\nHost:", b""),
        (f"{PREDICT}Content-Length: 100\r\n\r\n{{", b" 408 "),
        (f"{PREDICT}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n", b" 408 "),
    ],
    ids=["nothing", "half a head", "half a body", "half of the chunks"],
)
def test_a_client_that_takes_too_long_to_say_what_it_wants_is_left(start: Start, sent: str, answer: bytes) -> None:
    server = start(GENAI_RECEIVE_SECONDS="0.5")
    server.becomes("/ready", 200)
    said = server.says(sent)  # up to the end of the connection, which is the server's doing
    assert said[:20].find(answer) >= 0 and bool(said) == bool(answer)


@pytest.mark.parametrize(
    ("deadline", "own"), [("300", "X-Request-Timeout-Ms: 100\r\n"), ("0.1", "")], ids=["its own", "the model's"]
)
def test_the_time_of_a_request_begins_with_its_head(start: Start, deadline: str, own: str) -> None:
    server = start(GENAI_DEADLINE_SECONDS=deadline, GENAI_RECEIVE_SECONDS="300")
    server.becomes("/ready", 200)
    for sent in ("Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        answer = server.says(PREDICT + own + sent)  # its body never comes
        assert answer.startswith(b"HTTP/1.1 408") and b"within the time this request may take" in answer


def test_the_time_of_a_request_passes_while_others_sent_ahead_are_answered(start: Start) -> None:
    server = start("1")
    server.becomes("/ready", 200)
    body = '{"instances": [[' + "0," * 63 + "0]]}"
    first = f"{PREDICT}Content-Length: {len(body)}\r\n\r\n{body}"
    second = f"{PREDICT}X-Request-Timeout-Ms: 1500\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    answer = server.says(first + second)  # either takes a second
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"504"]


def test_one_that_waits_for_its_answer_is_not(start: Start) -> None:
    server = start("2", GENAI_RECEIVE_SECONDS="0.5")
    server.becomes("/ready", 200)
    assert httpx.post(f"{server.url}/v1/predict", json=ONE, timeout=60).status_code == 200


def test_one_that_does_not_read_its_answers_is_left(start: Start) -> None:
    server = start(GENAI_RECEIVE_SECONDS="2")
    server.becomes("/ready", 200)
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:

        def stuck() -> bool:
            try:
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            except ConnectionError:  # it has been left already: this machine is slow
                return True
            return all(in_flight(server) == 2 for _ in range(20))  # with the one that asks

        eventually(stuck, "an answer finds no room")
        assert gauge(server, "genai_in_flight_bytes") > 0
        eventually(lambda: in_flight(server) == 1, "the connection is closed")
        assert gauge(server, "genai_in_flight_bytes") == 0


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_bodies_have_one_bound_together(start: Start, pool: ThreadPoolExecutor, chunked: bool) -> None:
    server = start("1.5", GENAI_MAX_BODY_BYTES="20000", GENAI_IN_FLIGHT_BYTES="66000", GENAI_MAX_BATCH_SIZE="1")
    server.becomes("/ready", 200)
    body = ('{"instances": [[' + "0," * 63 + "0]]}").ljust(20_000).encode()
    headers = {"Content-Type": "application/json"}

    def post() -> httpx.Response:
        content = (part for part in (body[:9000], body[9000:])) if chunked else body
        return httpx.post(f"{server.url}/v1/predict", content=content, headers=headers, timeout=60)

    first = pool.submit(post)
    eventually(lambda: gauge(server, "genai_in_flight_bytes") == 3 * len(body), "one is there")
    refused = post()
    check(refused, 429, "The bodies of other requests take all the memory there is for them")
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
    assert httpx.post(f"{server.url}/v1/predict", json=ONE, timeout=60).status_code == 200, "a small one finds room"
    assert first.result().status_code == 200
    assert post().status_code == 200
    assert gauge(server, "genai_in_flight_bytes") == 0


def in_flight(server: Server) -> float:
    return gauge(server, "genai_http_requests_in_flight")


def gauge(server: Server, name: str) -> float:
    return next(float(line.split()[1]) for line in server.metrics().splitlines() if line.startswith(f"{name} "))
