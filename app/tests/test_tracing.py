"""Traces, as a real collector gets them; and what of them is in the log when there is none."""

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from backing import free_port
from collector import Collector, Span
from collector import collector as collector
from command import start as command
from fastapi.testclient import TestClient
from stub import CARD, StubEngine, digit
from waiting import eventually

from genai_inference import __version__, tracing
from genai_inference.api import create_app
from genai_inference.logs import JsonLines
from genai_inference.settings import Settings, SettingsError
from genai_inference.tracing import Heard, trace_id_of, traces

ONE = {"instances": [digit(1)]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FOLLOWED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SERVER = 2  # the kind of a span


@contextmanager
def serving(engine: StubEngine) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), lambda _: engine), raise_server_exceptions=False) as client:
        engine.may_load.set()
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Collector:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    return collector


def attributes(span: Span, *names: str) -> tuple[object, ...]:
    return tuple(span.attributes.get(name) for name in names)


def test_the_spans_of_a_request(traced: Collector, engine: StubEngine) -> None:
    with serving(engine) as client:
        body = {"instances": [digit(1), digit(2)]}
        client.post("/v1/models/stub:predict?token=secret", json=body, headers={"tracestate": "a=b", **FOLLOWED})
    (request,) = traced.named("POST /v1/models/{name}:predict")
    assert (request.trace, request.parent, request.kind, request.failed) == (TRACE, PARENT, SERVER, False)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{name}:predict",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "genai.model": CARD.name,
        "genai.model_version": CARD.version,
        "genai.instances": 2,
    }
    assert (request.resource["service.name"], request.resource["service.version"]) == ("genai-inference", __version__)
    queue, batch = traced.children(request)
    (forward,) = traced.children(batch)
    assert (queue.name, batch.name, forward.name) == ("queue", "batch", "forward")
    assert attributes(batch, "genai.items", "genai.batch.size", "genai.batch.requests") == (2, 2, 1)
    assert request.start <= queue.start <= queue.end == batch.start == forward.start <= forward.end <= batch.end
    assert batch.end <= request.end and request.end - request.start < 60e9
    assert len(traced.spans) == 4, "none of probes"
    assert "secret" not in str(traced.spans)


def test_a_batch_of_several_requests_is_in_the_trace_of_each(traced: Collector, engine: StubEngine) -> None:
    with serving(engine) as client:
        engine.may_compute.clear()
        predict = lambda: client.post("/v1/predict", json=ONE)  # noqa: E731
        threads = [threading.Thread(target=predict) for _ in range(4)]
        threads[0].start()
        eventually(lambda: engine.batches == [1], "the first is computed")
        for thread in threads[1:]:
            thread.start()
        (model,) = client.app.state.service.registry.models.values()  # type: ignore[attr-defined]
        eventually(lambda: model.batcher.waiting == 3, "the others wait")
        engine.may_compute.set()
        for thread in threads:
            thread.join()
    assert engine.batches == [1, 3]
    requests = traced.named("POST /v1/predict")
    assert len({request.trace for request in requests}) == 4
    together = [span for span in traced.named("batch") if span.attributes["genai.batch.size"] == 3]
    assert {span.attributes["genai.batch.requests"] for span in together} == {3}
    parents = {span.parent for span in together}
    assert len(parents) == 3 and parents < {request.id for request in requests}
    for span in together:
        assert span.links == parents - {span.parent}
    waits = sorted(span.end - span.start for span in traced.named("queue"))
    assert len(waits) == 4 and waits[0] < waits[-1]


def test_a_request_that_fails(traced: Collector, engine: StubEngine) -> None:
    engine.error = ZeroDivisionError()
    with serving(engine) as client:
        client.post("/v1/predict", json=ONE)
        client.post("/v1/predict", json={"instances": ["secret"]})
        client.request("SECRET", "/v1/nowhere")
    failed, refused = traced.named("POST /v1/predict")
    assert failed.failed and attributes(failed, "http.response.status_code", "error.type") == (500, "500")
    assert not refused.failed and attributes(refused, "http.response.status_code", "error.type") == (422, None)
    assert attributes(traced.named("forward")[0], "error.type") == ("ZeroDivisionError",)
    assert traced.named("_OTHER unmatched")
    assert "secret" not in str(traced.spans).lower()


@pytest.mark.parametrize(("flags", "spans"), [("01", 4), ("00", 0)])
def test_whether_a_request_is_sampled_its_caller_says(
    traced: Collector, engine: StubEngine, caplog: pytest.LogCaptureFixture, flags: str, spans: int
) -> None:
    caplog.set_level(logging.INFO)
    with serving(engine) as client:
        client.post("/v1/predict", json=ONE, headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"})
    assert len(traced.spans) == spans
    assert line(caplog)["trace_id"] == TRACE
    assert line(caplog)["span_id"] not in (PARENT, "0" * 16)


def test_or_the_sampler(traced: Collector, engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with serving(engine) as client:
        assert client.post("/v1/predict", json=ONE, headers=FOLLOWED).status_code == 200
    assert traced.spans == []


def test_a_service_may_be_named(traced: Collector, engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "digits")
    with serving(engine) as client:
        client.post("/v1/predict", json=ONE)
    assert {span.resource["service.name"] for span in traced.spans} == {"digits"}


def test_a_part_of_a_request(traced: Collector, engine: StubEngine) -> None:
    with serving(engine) as client:

        @client.app.post("/part")  # type: ignore[attr-defined]
        async def part() -> None:
            with tracing.child("cache", hit=True):
                pass

        client.post("/part")
    (request,), (cache,) = traced.named("POST /part"), traced.named("cache")
    assert (cache.parent, cache.attributes) == (request.id, {"hit": True})


@pytest.mark.parametrize("accepts", [False, True], ids=["refuses", "hangs"])
def test_a_collector_that_is_away_slows_nothing(
    monkeypatch: pytest.MonkeyPatch, engine: StubEngine, accepts: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if accepts else free_port()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with serving(engine) as client:
            started, sent = time.monotonic(), 0
            while time.monotonic() < started + 2:
                assert client.post("/v1/predict", json=ONE).status_code == 200
                sent += 1
            ended = time.monotonic()
        assert sent > 10, "none of them waited for it"
        assert time.monotonic() - ended < 10 * tracing.CLOSE_SECONDS, "nor does the end"


def line(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    (record,) = (r for r in caplog.records if getattr(r, "fields", {}).get("route") == "/v1/predict")
    # As the handler would have formatted it, in the request's own context.
    return dict(json.loads(record.__dict__["line"]))


@pytest.fixture(autouse=True)
def formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record keeps its line, formatted when it was made."""
    make = logging.Logger.makeRecord

    def keep(*arguments: object, **more: object) -> logging.LogRecord:
        record = make(*arguments, **more)  # type: ignore[arg-type]
        record.line = JsonLines().format(record)
        return record

    monkeypatch.setattr(logging.Logger, "makeRecord", keep)


def test_without_tracing_the_callers_trace_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, engine: StubEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(engine) as client:
        client.post("/v1/predict", json=ONE, headers=FOLLOWED)
        found = line(caplog)
        caplog.clear()
        client.post("/v1/predict", json=ONE)
    assert found["trace_id"] == TRACE and "span_id" not in found
    assert "trace_id" not in line(caplog)


PARENTS = {
    f"00-{TRACE}-{PARENT}-01": TRACE,
    f"00-{TRACE}-{PARENT}-00": TRACE,
    f"cc-{TRACE}-{PARENT}-01-what-will-come": TRACE,
    f"ff-{TRACE}-{PARENT}-01": None,
    f"00-{'0' * 32}-{PARENT}-01": None,
    f"00-{TRACE}-{'0' * 16}-01": None,
    f"00-{TRACE.upper()}-{PARENT}-01": None,
    f"00-{TRACE}-{PARENT}": None,
    f'00-{TRACE}-{PARENT}-01"\n': None,
    "": None,
    "secret": None,
}


@pytest.mark.parametrize(("sent", "trace"), PARENTS.items(), ids=range(len(PARENTS)))
def test_traceparent(sent: str, trace: str | None) -> None:
    assert trace_id_of([(b"host", b"x"), (b"traceparent", sent.encode())]) == trace
    assert trace_id_of([]) is None


def test_off_unless_there_is_somewhere_to_send_them() -> None:
    somewhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    for variables in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {**somewhere, "OTEL_SDK_DISABLED": "true"}):
        assert isinstance(traces(variables), Heard)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL='grpc': only http/protobuf"):
        traces({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_without_the_packages_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT: the packages of OpenTelemetry are not"):
        traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})


def test_the_process_ends_with_2_and_one_line() -> None:
    code, stderr = command(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_PROTOCOL="grpc", GENAI_PORT="0"
    )
    assert code == 2
    assert stderr == "genai-inference: OTEL_EXPORTER_OTLP_PROTOCOL='grpc': only http/protobuf is spoken here\n"
