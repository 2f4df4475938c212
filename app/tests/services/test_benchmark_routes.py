"""What the API says of benchmarks while PostgreSQL is there, is stopped and is frozen."""

import asyncio
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from backing import Backing
from checks import check
from fastapi.testclient import TestClient
from stub import CARD, digit, loaded
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.benchmark_reader import AGAIN_SECONDS, FRESH_SECONDS, Benchmarks
from genai_inference.benchmark_results import Kept, Place, Step, StepResult
from genai_inference.settings import Settings

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STEP = Step(CARD.name, CARD.version, 1)
PLACE = Place("node-1", "cuda:0", "float32", "torch 2.6.0")
RESULT = StepResult(*astuple(STEP), "0" * 64, *astuple(PLACE), 1, 500, 99.5, 10.0, 11.0, 12.0, 2**28, None, NOW, NOW)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(postgres_server: Backing, clock: Clock) -> Iterator[TestClient]:
    """A service that waits for PostgreSQL for longer than a busy machine takes to answer."""
    settings = Settings(database_url=postgres_server.url, reload_seconds=0, store_timeout_seconds=5)
    app = create_app(settings, lambda _: loaded())
    app.state.service.benchmarks = Benchmarks(app.state.service.postgres, clock)
    with TestClient(app) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


def keep(server: Backing, run: str, *results: StepResult, complete: bool = True) -> None:
    """Writes results as a benchmark does."""

    async def write() -> None:
        kept = Kept(server.url, run, 2, 5.0, asyncio.Event())
        for result in results:
            await kept.begin(result.step, PLACE)
            await kept.finish(result)
            await kept.finish(result)  # as when the answer to the first time was lost
        await kept.complete() if complete else await kept.finished()

    asyncio.run(write())


def shown(client: TestClient) -> list[tuple[int, float]]:
    """The benchmarks in the catalog; those of the model by itself are the same."""
    (entry,) = client.get("/v1/models").json()["models"]
    assert client.get(f"/v1/models/{CARD.name}").json()["benchmarks"] == entry["benchmarks"]
    return [(each["batch_size"], each["items_per_second"]) for each in entry["benchmarks"]]


def test_nothing_has_been_measured(api: TestClient) -> None:
    response = api.get("/v1/benchmarks")
    assert (response.status_code, response.json()) == (200, {"runs": []})
    assert shown(api) == [] and api.get("/v1/models").json()["degraded"] is None


def test_runs_are_the_newest_first(api: TestClient, postgres_server: Backing) -> None:
    keep(postgres_server, "first", RESULT, replace(RESULT, batch_size=16))
    keep(postgres_server, "second", RESULT, replace(RESULT, model="other"), complete=False)
    keep(postgres_server, "third", complete=False)
    runs = api.get("/v1/benchmarks").json()["runs"]
    assert [(run["run"], run["finished_at"] is not None, run["steps"], run["step_seconds"]) for run in runs] == [
        ("third", False, 2, 5.0),
        ("second", False, 2, 5.0),
        ("first", True, 2, 5.0),
    ]
    assert [len(run["results"]) for run in runs] == [0, 2, 2]
    result = runs[2]["results"][0]
    assert result == {
        **{name: getattr(RESULT, name) for name in result},
        "started_at": "2026-03-01T12:00:00Z",
        "finished_at": "2026-03-01T12:00:00Z",
    }
    assert [run["run"] for run in api.get("/v1/benchmarks?limit=1").json()["runs"]] == ["third"]
    of_one = api.get("/v1/benchmarks?model=other").json()["runs"]
    assert [(run["run"], [each["model"] for each in run["results"]]) for run in of_one] == [("second", ["other"])]
    assert api.get("/v1/benchmarks?model=none").json() == {"runs": []}


@pytest.mark.parametrize(("query", "fault"), [("limit=0", "limit"), ("limit=101", "limit"), ("model=a%00", "model")])
def test_bad_queries(api: TestClient, query: str, fault: str) -> None:
    check(api.get(f"/v1/benchmarks?{query}"), 422, f"query.{fault}: ")


def test_the_catalog_has_the_newest_of_each_size(api: TestClient, postgres_server: Backing, clock: Clock) -> None:
    later = replace(RESULT, items_per_second=200.0, finished_at=NOW + timedelta(hours=1))
    keep(postgres_server, "second", later)
    keep(postgres_server, "first", RESULT, replace(RESULT, batch_size=16), replace(RESULT, version="9.8.6"))
    assert shown(api) == [(1, 200.0), (16, 99.5)]
    keep(postgres_server, "third", replace(RESULT, batch_size=2))
    assert len(shown(api)) == 2, "not asked for anew within a while"
    clock.now += FRESH_SECONDS
    assert [size for size, _ in shown(api)] == [1, 2, 16]


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_postgresql_is_away(api: TestClient, postgres_server: Backing, clock: Clock, outage: str) -> None:
    keep(postgres_server, "first", RESULT)
    assert shown(api) == [(1, 99.5)]
    getattr(postgres_server, outage)()
    assert shown(api) == [(1, 99.5)] and api.get("/v1/models").json()["degraded"] is None
    clock.now += FRESH_SECONDS
    assert shown(api) == [(1, 99.5)], "what was measured stays true"
    assert api.get("/v1/models").json()["degraded"] == "benchmarks: postgres does not answer"
    assert "postgres (benchmarks)" in api.get("/ready").json()["degraded"]
    response = api.get("/v1/benchmarks")
    check(response, 503, "Benchmarks cannot be read: postgres does not answer.")
    assert response.headers["retry-after"] == "1"
    assert api.post("/v1/predict", json={"instances": [digit(1)]}).status_code == 200
    postgres_server.thaw() if outage == "freeze" else postgres_server.start()
    eventually(lambda: api.get("/v1/benchmarks").status_code == 200, "benchmarks can be read again")
    clock.now += AGAIN_SECONDS
    assert shown(api) == [(1, 99.5)] and api.get("/v1/models").json()["degraded"] is None


def test_a_process_that_never_saw_postgresql_shows_none(api: TestClient, postgres_server: Backing) -> None:
    postgres_server.stop()
    assert shown(api) == []
    assert api.get(f"/v1/models/{CARD.name}").json()["degraded"] == "benchmarks: postgres does not answer"


def test_results_that_cannot_be_read(api: TestClient, postgres_server: Backing) -> None:
    keep(postgres_server, "first", RESULT)

    async def spoil() -> None:
        connection = await asyncpg.connect(postgres_server.url)
        await connection.execute("alter table benchmark_steps rename column p50_ms to other")
        await connection.close()

    asyncio.run(spoil())
    check(api.get("/v1/benchmarks"), 503, "postgres refuses the query")
    assert shown(api) == []
