"""The metrics move with what happens, and no caller can make up label values."""

import math

import pytest
from checks import check
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from stub import CARD, StubEngine, digit
from waiting import eventually

from genai_inference.metrics import GONE_SECONDS, Metrics
from genai_inference.model import ModelCard

Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(client: TestClient) -> dict[Sample, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def moved(before: dict[Sample, float], after: dict[Sample, float], name: str, **labels: str) -> float:
    key = (name, frozenset(labels.items()))
    return after[key] - before.get(key, 0.0)


def test_requests_are_counted_by_route_method_and_status(client: TestClient) -> None:
    before = scrape(client)
    for _ in range(3):
        client.post("/v1/predict", json={"instances": [digit(1)]})
    client.post("/v1/predict", json={"instances": []})
    client.post("/v1/predict", content=b" " * 65537, headers={"content-type": "application/json"})
    after = scrape(client)
    for status, count in {"200": 3, "422": 1}.items():
        labels = {"route": "/v1/predict", "method": "POST", "status": status}
        assert moved(before, after, "genai_http_requests_total", **labels) == count
    refused = {"route": "unmatched", "method": "POST", "status": "413"}  # before it got to a route
    assert moved(before, after, "genai_http_requests_total", **refused) == 1
    labels = {"route": "/v1/predict", "method": "POST"}
    assert moved(before, after, "genai_http_request_duration_seconds_count", **labels) == 4
    assert moved(before, after, "genai_http_request_duration_seconds_sum", **labels) > 0


def test_predictions_are_counted_by_label_and_version(client: TestClient) -> None:
    before = scrape(client)
    client.post("/v1/predict", json={"instances": [digit(4), digit(4), digit(9)]})
    after = scrape(client)
    for label, count in {"4": 2, "9": 1}.items():
        assert (
            moved(before, after, "genai_predictions_total", model="stub", label=label, model_version="9.8.7") == count
        )


def card(version: str, labels: int) -> ModelCard:
    return CARD.model_copy(update={"version": version, "labels": list(range(labels))})


def test_labels_are_told_apart_unless_there_are_very_many() -> None:
    metrics = Metrics()
    for version, labels in (("few", 100), ("many", 101)):
        metrics.loaded("stub", version, 1.0, lambda: 0)
        metrics.predicted(card(version, labels), [1, 1, 99])
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith("genai_predictions_total")]
    assert lines == [
        'genai_predictions_total{label="1",model="stub",model_version="few"} 2.0',
        'genai_predictions_total{label="99",model="stub",model_version="few"} 1.0',
        'genai_predictions_total{label="",model="stub",model_version="many"} 3.0',
    ]


def test_an_answer_of_a_version_that_is_gone_is_counted_and_leaves_nothing() -> None:
    now = 0.0
    metrics = Metrics(lambda: now)
    metrics.loaded("stub", "1", 1.0, lambda: 0)
    metrics.unloaded("stub", "1", successor="2")
    metrics.loaded("stub", "2", 1.0, lambda: 0)
    for _ in range(2):
        metrics.predicted(card("1", 10), [3])
        for _ in range(3):  # one for each of several scrapers
            assert b'{label="3",model="stub",model_version="1"} 1.0' in metrics.exposition()
        now += GONE_SECONDS
        metrics.exposition()
        assert b'model_version="1"' not in metrics.exposition()


def test_a_version_that_comes_back_counts_on() -> None:
    now = 0.0
    metrics = Metrics(lambda: now)
    metrics.loaded("stub", "1", 1.0, lambda: 0)
    for _ in range(3):
        metrics.unloaded("stub", "1", successor="2")
        metrics.predicted(card("1", 10), [3])
        metrics.exposition()
        metrics.loaded("stub", "1", 1.0, lambda: 0)
        metrics.exposition()
        now += GONE_SECONDS - 1
    assert b'{label="3",model="stub",model_version="1"} 3.0' in metrics.exposition()


def test_copies_of_a_model_on_several_devices_count_under_one_name() -> None:
    metrics = Metrics()
    metrics.loaded("stub@cuda:0", "1", 1.0, lambda: 0)
    metrics.predicted(card("1", 10), [3])
    for _ in range(3):
        assert b'{label="3",model="stub",model_version="1"} 1.0' in metrics.exposition()


def test_no_series_says_when_another_one_was_created(client: TestClient) -> None:
    client.post("/v1/predict", json={"instances": [digit(1)]})
    assert not any(name.endswith("_created") for name, _ in scrape(client))


def test_model_and_process(client: TestClient) -> None:
    values = scrape(client)
    assert values["genai_model_info", frozenset({("name", "stub"), ("version", "9.8.7")})] == 1
    assert values["genai_model_load_seconds", frozenset({("model", "stub")})] > 0
    assert values["process_resident_memory_bytes", frozenset()] > 0
    assert values["genai_http_requests_in_flight", frozenset()] == 1  # this scrape


def test_nothing_a_caller_sends_becomes_a_label(client: TestClient) -> None:
    client.get("/metrics")
    before = set(scrape(client))
    client.get("/one")
    client.request("BREW", "/two")
    after = set(scrape(client))
    client.get("/three?x=1")
    client.request("STEW", "/v1/four")
    assert set(scrape(client)) == after
    assert {value for _, labels in after - before for key, value in labels if key in {"route", "method"}} == {
        "unmatched",
        "GET",
        "other",
    }


def test_an_unexpected_error_is_counted(client: TestClient, engine: StubEngine) -> None:
    engine.error = ZeroDivisionError()
    before = scrape(client)
    client.post("/v1/predict", json={"instances": [digit(1)]})
    labels = {"route": "/v1/predict", "method": "POST", "status": "500"}
    assert moved(before, scrape(client), "genai_http_requests_total", **labels) == 1


def test_a_gpu(loading: TestClient, engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([0.5, 0.25, None])  # the first one, as the model is loaded, says that it can be known
    monkeypatch.setattr(engine, "device_utilization", lambda: next(answers))
    engine.may_load.set()
    eventually(lambda: loading.get("/ready").status_code == 200, "ready")
    utilization = ("genai_gpu_utilization_ratio", frozenset({("device", "stub")}))
    assert scrape(loading)[utilization] == 0.25
    assert math.isnan(scrape(loading)[utilization]), "not known any more"


def test_no_gpu(client: TestClient) -> None:
    assert not any(name == "genai_gpu_utilization_ratio" for name, _ in scrape(client))


def test_media_type(client: TestClient) -> None:
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_metrics_are_not_for_those_outside(client: TestClient, header: str) -> None:
    check(client.get("/metrics", headers={header: "for=192.0.2.1"}), 404, "Not Found")
    assert client.get("/metrics", headers={"X-Forwarded-Proto": "http"}).status_code == 200  # as in a mesh
