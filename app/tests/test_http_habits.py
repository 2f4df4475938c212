"""What load balancers, monitors and client libraries do without being asked."""

import codecs
import http.client
import json
import re

import pytest
from checks import check
from fastapi.testclient import TestClient
from processes import Server, Start
from stub import digit

ONE = json.dumps({"instances": [digit(3)]}).encode()
JSON = {"content-type": "application/json"}
READABLE = ["/health", "/ready", "/metrics", "/version", "/v1/models", "/v1/models/stub", "/openapi.json", "/"]
# What differs from one answer to the next of the same request.
OWN = {"date", "x-request-id"}


@pytest.fixture(scope="module")
def server(start_once: Start) -> Server:
    server = start_once()
    server.becomes("/ready", 200)
    return server


def ask(server: Server, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body, read as that method's answer has to be."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path)
    with connection.getresponse() as answer:
        fields = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in OWN}
        found = answer.status, fields, answer.read()
    connection.request("GET", "/health")  # only a connection on which no byte is left over can be used again
    assert connection.getresponse().read() == b'{"status":"ok","reason":null}'
    connection.close()
    return found


@pytest.mark.parametrize("path", READABLE)
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    got, (status, fields, body) = ask(server, "GET", path), ask(server, "HEAD", path)
    assert (status, body) == (got[0], b"") == (200, b"")
    assert int(fields.pop("content-length")) > 0
    if path != "/metrics":  # each scrape has numbers of its own
        assert int(got[1]["content-length"]) == len(got[2])
        assert ask(server, "HEAD", path)[1]["content-length"] == got[1]["content-length"]
    del got[1]["content-length"]
    assert fields == got[1]


def test_head_is_named_where_another_method_is_refused(client: TestClient) -> None:
    refused = client.post("/version")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_is_not_described_beside_get(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {method for operations in paths.values() for method in operations} == {"get", "post"}


@pytest.mark.parametrize("path", ["/v1/predict/", "/v1/models/", "/health/", "/v1/models/stub:predict/"])
def test_nothing_is_redirected(client: TestClient, path: str) -> None:
    """Behind a proxy that speaks TLS, the address it would lead to has http:// and takes a client's token along."""
    headers = {**JSON, "x-forwarded-proto": "https"}
    for method in ("GET", "POST"):
        answer = client.request(method, path, content=ONE, headers=headers, follow_redirects=False)
        assert answer.status_code in (404, 405) and "location" not in answer.headers


def test_a_byte_order_mark_is_skipped(client: TestClient) -> None:
    """.NET and PowerShell write one before their JSON; RFC 8259, 8.1 lets it be ignored."""
    answer = client.post("/v1/predict", content=codecs.BOM_UTF8 + ONE, headers=JSON)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == 3
    check(client.post("/v1/predict", content=codecs.BOM_UTF8 * 2 + ONE, headers=JSON), 400, "not valid JSON")
    assert re.search(r'status="200"} 1\.0', client.get("/metrics").text)
