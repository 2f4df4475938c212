"""The audit log in a real PostgreSQL, which goes away and comes back."""

import asyncio
import hashlib
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from backing import Backing
from fastapi.testclient import TestClient
from processes import Start
from prometheus_client.parser import text_string_to_metric_families
from stub import CARD, digit, loaded
from waiting import eventually

from genai_inference import audit
from genai_inference.api import create_app
from genai_inference.settings import Settings

ONE = {"instances": [digit(1)]}
KEY = "a-long-random-word"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def rows(server: Backing, what: str = "*", rest: str = "order by at") -> list[dict[str, Any]]:
    """Of the audit log; none while there is no table."""

    async def ask() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(server.url)
        try:
            return [dict(row) for row in await connection.fetch(f"select {what} from audit_log {rest}")]  # noqa: S608
        except asyncpg.UndefinedTableError:
            return []
        finally:
            await connection.close()

    return asyncio.run(ask())


def value(client: TestClient | httpx.Client, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


@contextmanager
def serving(server: Backing, **settings: object) -> Iterator[TestClient]:
    wanted: dict[str, Any] = {"database_url": server.url, "audit": True, **settings}
    with TestClient(create_app(Settings(**wanted), lambda _: loaded())) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


def test_what_is_in_a_row_and_what_is_not(postgres_server: Backing, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"shop {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    key = {"X-API-Key": KEY}
    with serving(postgres_server, api_keys_file=keys) as client:
        names = {**key, "X-Request-ID": "mine", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        client.post("/v1/models/stub:predict?token=secret", json={"instances": [digit(7), digit(3)]}, headers=names)
        client.post("/v1/predict", json={"instances": ["secret"]}, headers=key)
        client.post("/v1/predict", json=ONE)
        client.request("BREW", "/v1/secret", headers=key)
        for path in ("/v1/models", "/health", "/metrics"):
            client.get(path, headers=key)
        eventually(lambda: len(rows(postgres_server)) == 4, "written")
        assert value(client, "genai_audit_written_total") == 4
    good, unfit, unknown, odd = rows(postgres_server)
    assert good["id"].startswith("mine-") and abs(good.pop("at").timestamp() - time.time()) < 60
    assert good.pop("duration_ms") > 0 and good.pop("id")
    assert good == {
        "request_id": "mine",
        "trace_id": TRACE,
        "client": "shop",
        "method": "POST",
        "route": "/v1/models/{name}:predict",
        "model": CARD.name,
        "model_version": CARD.version,
        "status": 200,
        "verdict": "ok",
        "instances": 2,
        "cache": None,
    }
    assert (unfit["status"], unfit["verdict"], unfit["model"], unfit["instances"]) == (422, "refused", "stub", None)
    assert (unknown["status"], unknown["client"], unknown["route"]) == (401, None, "unmatched")
    assert (odd["method"], odd["status"]) == ("other", 404)
    everything = str(rows(postgres_server))
    assert "secret" not in everything and KEY not in everything and "16.0" not in everything


def test_the_same_request_id_twice_makes_two_rows(postgres_server: Backing) -> None:
    with serving(postgres_server) as client:
        for _ in range(2):
            client.post("/v1/predict", json=ONE, headers={"X-Request-ID": "mine"})
    assert [row["request_id"] for row in rows(postgres_server)] == ["mine", "mine"]


def test_what_waits_is_written_at_the_end(postgres_server: Backing, start: Start) -> None:
    server = start("0", drain_seconds=0, GENAI_DATABASE_URL=postgres_server.url, GENAI_AUDIT="true")
    server.becomes("/ready", 200)
    assert {httpx.post(f"{server.url}/v1/predict", json=ONE).status_code for _ in range(20)} == {200}
    server.terminate()
    assert server.exit_code() == 0
    assert len(rows(postgres_server)) == 20


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_while_it_is_away_requests_are_as_fast_and_no_row_is_lost(
    postgres_server: Backing, start: Start, outage: str
) -> None:
    server = start("0", GENAI_DATABASE_URL=postgres_server.url, GENAI_AUDIT="true")
    server.becomes("/ready", 200)
    sent = 0

    with httpx.Client(base_url=server.url, timeout=60) as client:

        def median_of(seconds: float) -> float:
            nonlocal sent
            took, end = [], time.monotonic() + seconds
            while time.monotonic() < end:
                started = time.perf_counter()
                assert client.post("/v1/predict", json=ONE).status_code == 200
                took.append(time.perf_counter() - started)
                sent += 1
                time.sleep(0.005)  # fewer than may wait
            assert max(took) < audit.WRITE_SECONDS, "none of them waited for PostgreSQL"
            return statistics.median(took)

        before = median_of(2)
        eventually(lambda: value(client, "genai_audit_written_total") == sent, "written")
        getattr(postgres_server, outage)()
        away = median_of(audit.WRITE_SECONDS + 2)
        ready = client.get("/ready")
        assert ready.status_code == 200 and "postgres (audit)" in ready.json()["degraded"]
        assert away < 5 * before
        postgres_server.thaw() if outage == "freeze" else postgres_server.start()
        eventually(lambda: value(client, "genai_audit_written_total") >= sent, "what waited is written")
        assert value(client, "genai_audit_dropped_total") == 0
    assert rows(postgres_server, "count(*), count(distinct id) as ids", "") == [{"count": sent, "ids": sent}]


def test_too_many_rows_are_dropped_and_counted(postgres_server: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "QUEUED", 20)
    monkeypatch.setattr(audit, "BATCH", 5)
    with serving(postgres_server) as client:
        postgres_server.stop()
        for number in range(50):
            client.post("/v1/predict", json=ONE, headers={"X-Request-ID": f"r{number}"})
        dropped = value(client, "genai_audit_dropped_total")
        assert 25 <= dropped <= 30, "20 wait, and 5 are being written"
        postgres_server.start()
        eventually(lambda: value(client, "genai_audit_written_total") == 50 - dropped, "the others are written")
    names = [row["request_id"] for row in rows(postgres_server)]
    assert names[-20:] == [f"r{number}" for number in range(30, 50)], "the newest are kept"


def test_one_that_is_away_does_not_hold_up_the_end(postgres_server: Backing, caplog: pytest.LogCaptureFixture) -> None:
    with serving(postgres_server) as client:
        postgres_server.freeze()
        client.post("/v1/predict", json=ONE)
        started = time.monotonic()
    assert time.monotonic() - started < 10 * audit.FLUSH_SECONDS
    postgres_server.thaw()
    assert "rows of the audit log are lost" in caplog.text


def test_a_batch_that_is_written_twice_is_there_once(postgres_server: Backing) -> None:
    async def story() -> None:
        with serving(postgres_server) as client:
            log = client.app.state.service.audit  # type: ignore[attr-defined]
            scope = {"path": "/v1/predict", "method": "POST"}
            row = audit.row_of(scope, "/v1/predict", 200, 0.1, audit.datetime.now(audit.UTC))
            pool = await asyncpg.create_pool(postgres_server.url)
            for _ in range(3):
                await log._insert([row], pool)
            await pool.close()

    asyncio.run(story())
    assert len(rows(postgres_server)) == 1


def test_a_table_that_cannot_be_written_is_said_and_comes_right(postgres_server: Backing) -> None:
    async def run(statement: str) -> None:
        connection = await asyncpg.connect(postgres_server.url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run("create table audit_log (other int)"))
    with serving(postgres_server) as client:
        assert client.post("/v1/predict", json=ONE).status_code == 200
        eventually(lambda: "audit" in client.get("/ready").json().get("degraded", {}), "degraded")
        asyncio.run(run("drop table audit_log"))
        eventually(lambda: "degraded" not in client.get("/ready").json(), "well again")
    assert len(rows(postgres_server)) == 1


def test_replicas_that_begin_together_make_one_table(postgres_server: Backing) -> None:
    async def story() -> None:
        pool = await asyncpg.create_pool(postgres_server.url, min_size=8, max_size=8)

        async def make() -> None:
            async with pool.acquire() as connection:
                await audit.migrate(connection, "audit", audit.STATEMENTS)

        await asyncio.gather(*(make() for _ in range(8)))
        await pool.close()

    asyncio.run(story())
    assert rows(postgres_server) == []


def test_a_slow_query_of_another_use_does_not_hold_it_up(postgres_server: Backing) -> None:
    async def story() -> None:
        connection = await asyncpg.connect(postgres_server.url)
        await connection.execute("create table benchmark_runs (run_id text)")
        await connection.execute("begin; lock table benchmark_runs in access exclusive mode")
        with serving(postgres_server) as client:
            log = client.app.state.service.audit  # type: ignore[attr-defined]
            assert client.get("/v1/benchmarks").status_code == 503
            assert client.portal.call(log._postgres.call, lambda pool: pool.fetchval("select 1")) == 1
            assert client.post("/v1/predict", json=ONE).status_code == 200
            eventually(
                lambda: client.get("/v1/benchmarks").status_code + value(client, "genai_audit_written_total") == 504,
                "written, while benchmarks are still asked for",
            )
            assert set(client.get("/ready").json()["degraded"]) == {"postgres (benchmarks)"}
        left = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        while await connection.fetchval(left):
            await asyncio.sleep(0.01)
        await connection.close()

    asyncio.run(story())
