"""Every request has an id, in its answer, its problem and its line of the log; only one fit for a log is taken over."""

import json
import logging

import pytest
from fastapi.testclient import TestClient
from stub import StubEngine, digit

from genai_inference.logs import JsonLines

ONE = {"instances": [digit(1)]}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "genai_inference.access"]
    return [json.loads(JsonLines().format(record))["request_id"] for record in records]


def test_the_id_of_a_proxy_is_kept(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for path, status in (("/v1/predict", 200), ("/nowhere", 404)):
        answer = client.post(path, json=ONE, headers={"X-Request-ID": "abc-1.2_3"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, "abc-1.2_3")
    assert logged(caplog) == ["abc-1.2_3"] * 2


def test_each_request_without_one_gets_its_own(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = [client.post("/v1/predict", json=ONE).headers["x-request-id"] for _ in range(20)]
    assert len(set(found)) == 20
    assert logged(caplog) == found


@pytest.mark.parametrize("sent", [b"", b"a" * 65, b"a b", b"a\xe9", b'{"a": 1}', b"a\tb", b"a;b"], ids=str)
def test_an_unfit_one_is_replaced(client: TestClient, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answer = client.post("/v1/predict", json=ONE, headers={b"X-Request-ID": sent})
    assert len(answer.headers["x-request-id"]) == 16
    assert logged(caplog) == [answer.headers["x-request-id"]]


def test_an_unexpected_error_is_found_by_it(
    client: TestClient, engine: StubEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.error = ZeroDivisionError()
    answer = client.post("/v1/predict", json=ONE)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert set(logged(caplog)) == {answer.headers["x-request-id"]}
