"""What a full queue refuses, on a real connection: before a body is looked at, and without losing what follows."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from checks import check
from issuer import AUDIENCE, Issuer, listening
from processes import PREDICT, Server, Start
from stub import digit
from waiting import LIMIT_SECONDS, eventually

LAST = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(start_once: Start) -> Server:
    """Busy with one prediction, with another one in its queue, and no room for a third."""
    return busy(start_once)


def busy(start_once: Start, headers: dict[str, str] | None = None, **settings: str) -> Server:
    limits = {"GENAI_MAX_BATCH_SIZE": "1", "GENAI_MAX_QUEUE": "1", "GENAI_DEADLINE_SECONDS": "300"}
    server = start_once("300", **limits, **settings)
    server.becomes("/ready", 200)
    for waits in (0, 1):
        threading.Thread(target=predict, args=(server, headers), daemon=True).start()
        taken = [f"genai_http_requests_in_flight {waits + 2}.0", f'genai_queue_depth{{model="stub"}} {waits}.0']
        eventually(lambda: all(line in server.metrics() for line in taken), "it is taken")  # noqa: B023
    return server


def predict(server: Server, headers: dict[str, str] | None = None) -> None:
    """Until the server ends."""
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{server.url}/v1/predict", json={"instances": [digit(1)]}, headers=headers, timeout=300)


@pytest.mark.parametrize(
    ("path", "others"), [("/v1/predict", [405, 404]), ("/v1/models/stub:predict", [404, 405])], ids=["default", "named"]
)
def test_an_answer_is_whole(server: Server, path: str, others: list[int]) -> None:
    template = path.replace("stub", "{name}")
    counted = re.compile(
        rf'genai_http_requests_total{{method="POST",route="{re.escape(template)}",status="429"}} (\d+)'
    )
    before = [int(count) for count in counted.findall(server.metrics())] or [0]
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            refused = client.post(path, content=b"rubbish", headers={"X-Request-Id": "mine"})
            check(refused, 429, "Too many requests are waiting; try again in ")
            assert refused.json()["request_id"] == refused.headers["x-request-id"] == "mine"
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["content-type"] == "application/problem+json"
            assert "date" in refused.headers
        assert client.post(f"{path}?a=b", json={"instances": []}).status_code == 429
        found = client.get(path), client.post(path.replace("predict", "explain"))
        assert [each.status_code for each in found] == others
        names = {client.post(path).headers["x-request-id"] for _ in range(3)}
        assert len(names) == 3
    assert [int(count) for count in counted.findall(server.metrics())] == [before[0] + 7]


BODIES = {
    "no body": ("\r\n", [429]),
    "a body": ("Content-Length: 3\r\n\r\nabc", [429]),
    "chunks": ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", [429]),
    "a large body": ("Content-Length: 900000\r\n\r\n" + "x" * 900_000, [429]),
    "a question before the body": ("Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", [100, 429]),
    "another protocol": ("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc", [429]),
}


@pytest.mark.parametrize(("rest", "statuses"), BODIES.values(), ids=BODIES)
def test_what_follows_is_answered(server: Server, rest: str, statuses: list[int]) -> None:
    answer = server.says((PREDICT + rest) * 20 + LAST)
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)] == statuses * 20 + [200]
    assert answer.endswith(b'{"status":"ok","reason":null}')


@pytest.mark.parametrize("connection", ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\n"], ids=["1.0", "close"])
def test_a_connection_that_shall_end_ends(server: Server, connection: str) -> None:
    kind = "Content-Type: application/json\r\n"
    answer = server.says(f"POST /v1/predict {connection}Host: x\r\n{kind}Content-Length: 3\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 429")  # and that is all, up to the end of the connection
    assert answer.count(b"HTTP/1.1") == 1


def test_it_comes_behind_what_was_asked_before(server: Server) -> None:
    answer = server.says("GET /version HTTP/1.1\r\nHost: x\r\n\r\n" + PREDICT + "Content-Length: 3\r\n\r\nabc" + LAST)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"429", b"200"]


def test_who_reads_no_refusals_gets_no_more_of_them(server: Server) -> None:
    """Else they would pile up in the server's memory."""
    request = (PREDICT + "Content-Length: 0\r\n\r\n").encode() * 100
    resident, address = server.resident(), ("127.0.0.1", server.port)
    with socket.create_connection(address, LIMIT_SECONDS) as connection, pytest.raises(ConnectionError):
        for _ in range(10_000):
            connection.sendall(request)
    assert server.resident() - resident < 16 * 2**20
    assert server.status("/health") == 200


KEY = "a-long-random-word"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with listening() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def closed(start_once: Start, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """As busy, and only for those who have KEY or a token."""
    file: Path = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"shop {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    tokens = {"GENAI_OIDC_ISSUER": issuer.url, "GENAI_OIDC_AUDIENCE": AUDIENCE}
    return busy(start_once, {"X-API-Key": KEY}, GENAI_API_KEYS_FILE=str(file), **tokens)


def dropped(server: Server) -> float:
    return sum(map(float, re.findall(r'genai_requests_dropped_total{.*reason="queue_full"} (.*)', server.metrics())))


@pytest.mark.parametrize("model", ["stub", "no-such-model"])
@pytest.mark.parametrize("key", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer eyJh.eyJh.x"}], ids=str)
def test_a_stranger_hears_nothing_of_the_queue(closed: Server, key: dict[str, str], model: str) -> None:
    before = dropped(closed)
    check(httpx.post(f"{closed.url}/v1/models/{model}:predict", content=b"rubbish", headers=key), 401, "")
    assert dropped(closed) == before


def test_clients_hear_that_it_is_full(closed: Server, issuer: Issuer) -> None:
    before = dropped(closed)
    key, token = {"X-API-Key": KEY}, {"Authorization": f"Bearer {issuer.token()}"}
    # A token that is new is verified, and known from then on.
    for headers in (key, token, token):
        refused = httpx.post(f"{closed.url}/v1/predict", json={"instances": [digit(1)]}, headers=headers)
        check(refused, 429, "Too many requests are waiting; try again in ")
    assert dropped(closed) == before + 3
