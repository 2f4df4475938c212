"""What every route answers, and when."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from stub import StubEngine, digit
from waiting import eventually

from genai_inference import __version__
from genai_inference.api import create_app
from genai_inference.model import ModelError
from genai_inference.settings import Settings


def test_predict_answers_in_order(client: TestClient) -> None:
    response = client.post("/v1/predict", json={"instances": [digit(7), digit(0), digit(3)]})
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == {"name": "stub", "version": "9.8.7"}
    assert [prediction["label"] for prediction in body["predictions"]] == [7, 0, 3]
    first = body["predictions"][0]
    assert round(first["probability"], 2) == 0.91
    assert len(first["probabilities"]) == 10
    assert round(sum(first["probabilities"]), 5) == 1.0


def test_rows_and_flat_pixels_mean_the_same(client: TestClient) -> None:
    flat = digit(5)
    rows = [flat[at : at + 8] for at in range(0, 64, 8)]
    predictions = client.post("/v1/predict", json={"instances": [flat, rows]}).json()["predictions"]
    assert predictions[0] == predictions[1]


def test_inference_leaves_the_event_loop(client: TestClient, engine: StubEngine) -> None:
    client.post("/v1/predict", json={"instances": [digit(1)]})
    assert all(name.startswith("inference") for name in engine.threads)


def test_the_largest_batch_is_taken(client: TestClient) -> None:
    response = client.post("/v1/predict", json={"instances": [digit(1)] * 32})
    assert len(response.json()["predictions"]) == 32


def test_while_loading_only_the_probes_answer(loading: TestClient) -> None:
    assert loading.get("/health").json() == {"status": "ok", "reason": None}
    ready = loading.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "unready", "reason": "loading the model"})
    predict = loading.post("/v1/predict", json={"instances": [digit(1)]})
    assert (predict.status_code, predict.headers["retry-after"]) == (503, "1")
    assert predict.headers["content-type"] == "application/problem+json"
    assert loading.get("/version").json()["model"] is None


def test_ready_once_loaded(client: TestClient) -> None:
    response = client.get("/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})
    assert "connection" not in response.headers


def test_draining_turns_unready_and_sends_clients_away_but_serves(app: FastAPI, client: TestClient) -> None:
    app.state.service.lifecycle.draining = True
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
    assert client.get("/health").status_code == 200
    predict = client.post("/v1/predict", json={"instances": [digit(1)]})
    assert predict.status_code == 200
    for response in (ready, predict, client.get("/nowhere")):
        assert response.headers["connection"] == "close"


def test_a_model_that_cannot_be_loaded_is_named(settings: Settings) -> None:
    engine = StubEngine(failure=ModelError(settings.model_dir / "model.yaml", "no such file or directory"))
    engine.may_load.set()
    with TestClient(create_app(settings, lambda _: engine)) as client:
        eventually(lambda: "failed" in client.get("/ready").text, "failure")
        assert client.get("/ready").json()["reason"] == "failed: /model/model.yaml: no such file or directory"
        assert client.get("/ready").status_code == 503


def test_an_unexpected_error_while_loading_is_named_too(settings: Settings) -> None:
    engine = StubEngine(failure=ImportError("no torch"))
    engine.may_load.set()
    with TestClient(create_app(settings, lambda _: engine)) as client:
        eventually(lambda: "failed" in client.get("/ready").text, "failure")
        assert client.get("/ready").json()["reason"] == "failed: /model: ImportError: no torch"


def test_version(client: TestClient) -> None:
    assert client.get("/version").json() == {
        "app": __version__,
        "title": "a title",
        "model": {"name": "stub", "version": "9.8.7"},
        "framework": "stub",
    }


def test_the_api_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/predict",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/models/{name}:predict",
        "/v1/benchmarks",
        "/health",
        "/ready",
        "/metrics",
        "/version",
    }
