"""Over HTTP: what is answered from the cache, and what never is."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from checks import check
from fastapi.testclient import TestClient
from processes import Start
from stub import CARD, StubEngine, digit, loaded
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.settings import ModelConfig, Settings

ONE = {"instances": [digit(1), digit(7), digit(7)]}
TTL = 600.0


@pytest.fixture
def settings() -> Settings:
    return Settings(cache_ttl_seconds=TTL, max_batch_size=4, max_queue=4, deadline_seconds=60)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def asked(client: TestClient, result: str) -> float:
    """How many requests had this result."""
    lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith(f'genai_cache_requests_total{{model="stub",result="{result}"}}')
    )


def test_the_second_time_it_is_a_hit(client: TestClient, engine: StubEngine) -> None:
    answers = [client.post("/v1/predict", json=ONE) for _ in range(3)]
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit", "hit"]
    assert [answer.headers.get("age") for answer in answers] == [None, "0", "0"]
    assert len({(answer.content, answer.headers["content-type"]) for answer in answers}) == 1
    assert engine.batches == [3]
    assert (asked(client, "miss"), asked(client, "local_hit")) == (1, 2)
    assert 'genai_predictions_total{label="7",model="stub",model_version="9.8.7"} 6.0' in client.get("/metrics").text
    assert "genai_cache_local_bytes 0.0" not in client.get("/metrics").text


def test_both_paths_of_a_model_share_its_answers(client: TestClient) -> None:
    client.post("/v1/predict", json=ONE)
    assert client.post("/v1/models/stub:predict", json=ONE).headers["x-cache"] == "hit"


def test_a_hit_needs_no_room_in_the_queue(client: TestClient, engine: StubEngine, pool: ThreadPoolExecutor) -> None:
    client.post("/v1/predict", json=ONE)
    engine.may_compute.clear()
    waiting = [pool.submit(client.post, "/v1/predict", json={"instances": [digit(2)] * 4})]
    eventually(lambda: len(engine.batches) == 2, "the device is busy")
    waiting.append(pool.submit(client.post, "/v1/predict", json={"instances": [digit(3)] * 4}))
    eventually(lambda: 'genai_queue_depth{model="stub"} 4.0' in client.get("/metrics").text, "the queue is full")
    check(client.post("/v1/predict", json={"instances": [digit(9)]}), 429, "Too many requests are waiting")
    assert client.post("/v1/predict", json=ONE).headers["x-cache"] == "hit"
    engine.may_compute.set()
    assert [each.result().status_code for each in waiting] == [200, 200]


@pytest.mark.parametrize(("directive", "kept"), [("no-cache", True), ("no-store", False)])
def test_a_client_may_have_it_computed(client: TestClient, engine: StubEngine, directive: str, kept: bool) -> None:
    for _ in range(2):
        answer = client.post("/v1/predict", json=ONE, headers={"Cache-Control": directive})
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "bypass")
        assert "age" not in answer.headers
    assert engine.batches == [3, 3]
    assert client.post("/v1/predict", json=ONE).headers["x-cache"] == ("hit" if kept else "miss")
    assert asked(client, "bypass") == 2
    assert 'genai_predictions_total{label="7",model="stub",model_version="9.8.7"} 6.0' in client.get("/metrics").text


BAD = [
    ({"json": {"instances": []}}, 422),
    ({"json": {"instances": [digit(1)] * 5}}, 422),
    ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    ({"content": b"x", "headers": {"content-type": "image/png"}}, 422),
]


@pytest.mark.parametrize(("body", "status"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_refusal_is_never_kept(client: TestClient, body: dict[str, object], status: int) -> None:
    for _ in range(2):
        answer = client.post("/v1/predict", **body)
        check(answer, status, "")
        assert "x-cache" not in answer.headers
    assert "genai_cache_local_bytes 0.0" in client.get("/metrics").text


def test_an_error_of_the_model_is_never_kept(client: TestClient, engine: StubEngine) -> None:
    engine.error = ZeroDivisionError()
    for _ in range(2):
        check(client.post("/v1/predict", json=ONE), 500, "Unexpected error")
    engine.error = None
    assert client.post("/v1/predict", json=ONE).headers["x-cache"] == "miss"


def test_what_arrives_together_is_computed_once(
    client: TestClient, engine: StubEngine, pool: ThreadPoolExecutor
) -> None:
    engine.may_compute.clear()
    waiting = [pool.submit(client.post, "/v1/predict", json=ONE) for _ in range(8)]
    eventually(lambda: "genai_http_requests_in_flight 9.0" in client.get("/metrics").text, "all are there")
    engine.may_compute.set()
    answers = [each.result() for each in waiting]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.content for answer in answers}) == 1
    assert engine.batches == [3]
    assert asked(client, "miss") == 1
    assert asked(client, "joined") + asked(client, "local_hit") == 7
    assert 'genai_predictions_total{label="7",model="stub",model_version="9.8.7"} 16.0' in client.get("/metrics").text


@pytest.mark.parametrize("hasty", ["first", "second"])
def test_each_has_its_own_deadline(
    client: TestClient, engine: StubEngine, pool: ThreadPoolExecutor, hasty: str
) -> None:
    engine.may_compute.clear()
    headers = [{"X-Request-Timeout-Ms": "1500" if hasty == which else "50000"} for which in ("first", "second")]
    first = pool.submit(client.post, "/v1/predict", json=ONE, headers=headers[0])
    eventually(lambda: bool(engine.batches), "the device is busy")
    second = pool.submit(client.post, "/v1/predict", json=ONE, headers=headers[1])
    late, patient = (first, second) if hasty == "first" else (second, first)
    check(late.result(60), 504, "not ready within the time")
    assert not patient.done()
    engine.may_compute.set()
    assert patient.result(60).status_code == 200


def test_what_nobody_waits_for_any_more_is_dropped(
    client: TestClient, engine: StubEngine, pool: ThreadPoolExecutor
) -> None:
    engine.may_compute.clear()
    busy = pool.submit(client.post, "/v1/predict", json={"instances": [digit(2)]})
    eventually(lambda: bool(engine.batches), "the device is busy")
    check(client.post("/v1/predict", json=ONE, headers={"X-Request-Timeout-Ms": "20"}), 504, "not ready within")
    metrics = client.get("/metrics").text
    assert 'genai_queue_depth{model="stub"} 0.0' in metrics
    assert 'genai_requests_dropped_total{model="stub",reason="deadline"} 1.0' in metrics
    engine.may_compute.set()
    assert busy.result().status_code == 200
    assert engine.batches == [1]


def test_an_answer_expires(engine: StubEngine) -> None:
    engine.may_load.set()
    with TestClient(create_app(Settings(cache_ttl_seconds=0.5), lambda _: engine)) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        client.post("/v1/predict", json=ONE)
        eventually(lambda: client.post("/v1/predict", json=ONE).headers["x-cache"] == "miss", "it expired")
    assert engine.batches == [3, 3]


def test_no_header_unless_the_model_has_a_cache() -> None:
    with TestClient(create_app(Settings(), lambda _: loaded())) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        for _ in range(2):
            assert "x-cache" not in client.post("/v1/predict", json=ONE).headers
        assert "genai_cache_requests_total{" not in client.get("/metrics").text


def test_a_new_version_computes_anew_and_a_model_has_its_own_time_to_live(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"

    def write(version: str) -> None:
        entries = [{"dir": f"/a/{version}"}, {"dir": "/b/1", "cache_ttl_seconds": 0}]
        new = file.with_suffix(".new")
        new.write_text(yaml.safe_dump({"models": entries}))
        new.rename(file)

    def make(config: ModelConfig) -> StubEngine:
        name, version = config.dir.parts[-2:]
        return loaded(CARD.model_copy(update={"name": name, "version": version}))

    write("1")
    settings = Settings(models_file=file, reload_seconds=0.02, cache_ttl_seconds=TTL)
    with TestClient(create_app(settings, make)) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        assert [client.post("/v1/models/a:predict", json=ONE).headers["x-cache"] for _ in range(2)] == ["miss", "hit"]
        assert "x-cache" not in client.post("/v1/models/b:predict", json=ONE).headers
        assert [client.get(f"/v1/models/{name}").json()["cache_ttl_seconds"] for name in "ab"] == [TTL, 0]
        write("2")
        eventually(lambda: client.get("/v1/models/a").json()["version"] == "2", "the new version")
        answer = client.post("/v1/models/a:predict", json=ONE)
        assert (answer.headers["x-cache"], answer.json()["model"]["version"]) == ("miss", "2")
        write("1")
        eventually(lambda: client.get("/v1/models/a").json()["version"] == "1", "back")
        answer = client.post("/v1/models/a:predict", json=ONE)
        assert (answer.headers["x-cache"], answer.json()["model"]["version"]) == ("hit", "1")


def test_who_began_may_leave(start: Start, pool: ThreadPoolExecutor) -> None:
    server = start("2", GENAI_CACHE_TTL_SECONDS=str(TTL))
    server.becomes("/ready", 200)
    body = httpx.Request("POST", server.url, json=ONE).content
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    def in_flight(count: int) -> bool:
        return f"genai_http_requests_in_flight {count}.0" in httpx.get(server.url + "/metrics").text

    with socket.create_connection(("127.0.0.1", server.port), 60) as leader:
        leader.sendall(head.encode() + body)
        eventually(lambda: in_flight(2), "the first one waits")
        follower = pool.submit(httpx.post, server.url + "/v1/predict", json=ONE, timeout=60)
        eventually(lambda: in_flight(3), "the second one waits")
    assert follower.result().status_code == 200
    metrics = httpx.get(server.url + "/metrics").text
    assert 'route="/v1/predict",status="499"} 1.0' in metrics
    assert 'genai_batch_size_sum{model="stub"} 3.0' in metrics, "computed once"
