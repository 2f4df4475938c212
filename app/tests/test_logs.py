"""One JSON line for each record, and nothing a caller sent in it."""

import json
import logging

import pytest
from fastapi.testclient import TestClient
from stub import StubEngine, digit

from genai_inference.logs import JsonLines


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[dict[str, object]]:
    texts = [JsonLines().format(record) for record in caplog.records if record.name == logger]
    assert not any("\n" in text for text in texts)
    return [json.loads(text) for text in texts]


def test_a_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client.get("/ready")
    client.post("/v1/predict?token=secret", json={"instances": [digit(1)]})
    client.get("/secret")
    known, unknown = lines(caplog, "genai_inference.access")  # a good probe is not worth a line
    assert {key: known[key] for key in ("level", "message", "method", "route", "status")} == {
        "level": "info",
        "message": "request",
        "method": "POST",
        "route": "/v1/predict",
        "status": 200,
    }
    assert (unknown["route"], unknown["status"]) == ("unmatched", 404)
    assert "secret" not in str((known, unknown))


def test_an_unexpected_error(client: TestClient, engine: StubEngine, caplog: pytest.LogCaptureFixture) -> None:
    engine.error = ZeroDivisionError()
    caplog.set_level(logging.INFO)
    client.post("/v1/predict", json={"instances": [digit(1)]})
    error, request = lines(caplog, "genai_inference.access")
    assert "ZeroDivisionError" in str(error["traceback"])
    assert request["status"] == 500
