"""Migrations, with a real PostgreSQL."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from backing import Backing
from waiting import LIMIT_SECONDS

from genai_inference.benchmark_results import PART, STATEMENTS
from genai_inference.database import migrate

ONE = "create table one (value int)"
TWO = "insert into one values (1); insert into one values (2)"
MIGRATE = f"""
import asyncio, asyncpg, sys
from genai_inference.benchmark_results import PART, STATEMENTS
from genai_inference.database import migrate

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    print("connected", flush=True)
    sys.stdin.read()
    print(await migrate(connection, PART, STATEMENTS), await migrate(connection, "test", [{ONE!r}, {TWO!r}]))

asyncio.run(main())
"""


def with_connection(server: Backing, work: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: ANN401
    async def connect() -> Any:  # noqa: ANN401
        while True:
            with contextlib.suppress(asyncpg.CannotConnectNowError):  # it still starts
                return await asyncpg.connect(server.url)
            await asyncio.sleep(0.05)

    async def run() -> Any:  # noqa: ANN401
        connection = await connect()
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_five_processes_at_once_migrate_once(postgres_server: Backing) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MIGRATE, postgres_server.url]
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    for process in processes:
        assert process.stdout.readline() == "connected\n"
    for process in processes:  # what all of them wait for
        process.stdin.close()
        process.stdin = None
    applied = [process.communicate(timeout=LIMIT_SECONDS)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    assert [sum(map(int, part)) for part in zip(*applied, strict=True)] == [len(STATEMENTS), 2]
    versions = "select part, count(*), max(version) from schema_version group by part order by part"
    rows = with_connection(postgres_server, lambda connection: connection.fetch(versions))
    assert [tuple(row) for row in rows] == [(PART, len(STATEMENTS), len(STATEMENTS)), ("test", 2, 2)]
    values = with_connection(postgres_server, lambda connection: connection.fetch("select value from one"))
    assert [row["value"] for row in values] == [1, 2]


def test_only_what_is_new_is_applied(postgres_server: Backing) -> None:
    async def story(connection: Any) -> list[int]:  # noqa: ANN401
        lists = ([ONE], [ONE, TWO], [ONE, TWO], [ONE])  # the last one: an older process beside a newer one
        return [await migrate(connection, "test", statements) for statements in lists]

    assert with_connection(postgres_server, story) == [1, 1, 0, 0]


def test_a_statement_that_fails_leaves_nothing_behind(postgres_server: Backing) -> None:
    async def story(connection: Any) -> None:  # noqa: ANN401
        with pytest.raises(asyncpg.UndefinedTableError):
            await migrate(connection, "test", [ONE, "insert into two values (1)"])
        assert await connection.fetchval("select to_regclass('one')") is None
        assert await migrate(connection, "test", [ONE, TWO]) == 2

    with_connection(postgres_server, story)


def _timescaledb(connection: Any) -> Awaitable[Any]:  # noqa: ANN401
    return connection.fetchval("select count(*) from pg_available_extensions where name = 'timescaledb'")


def test_steps_are_a_plain_table_where_timescaledb_is_not_preloaded(postgres_server: Backing) -> None:
    async def story(connection: Any) -> None:  # noqa: ANN401
        assert await migrate(connection, PART, STATEMENTS) == len(STATEMENTS)
        assert await connection.fetchval("select count(*) from pg_extension where extname = 'timescaledb'") == 0
        assert await connection.fetchval("select count(*) from benchmark_steps") == 0

    with_connection(postgres_server, story)


def test_a_hypertable_that_cannot_be_made_fails_nothing(postgres_server: Backing) -> None:
    """The setting makes it look as if TimescaleDB were loaded; what then fails is what a real one may refuse."""

    async def story(connection: Any) -> None:  # noqa: ANN401
        await connection.execute("set timescaledb.disable_load = on")
        taken = STATEMENTS[1].replace("exists (select from pg_available_extensions where name = 'timescaledb')", "true")
        assert taken != STATEMENTS[1]
        warnings: list[str] = []
        connection.add_log_listener(lambda _, message: warnings.append(message.message))
        assert await migrate(connection, PART, [STATEMENTS[0], taken]) == 2
        await connection.fetchval("select count(*) from benchmark_steps")
        assert [warning.split(":")[0] for warning in warnings] == ["benchmark_steps stays a plain table"]

    with_connection(postgres_server, story)


def test_steps_are_a_hypertable_where_timescaledb_is_loaded(postgres_server: Backing) -> None:
    if not with_connection(postgres_server, _timescaledb):
        pytest.skip("PostgreSQL's TimescaleDB is not installed here")
    postgres_server.restart("-c", "shared_preload_libraries=timescaledb")

    async def story(connection: Any) -> None:  # noqa: ANN401
        assert await migrate(connection, PART, STATEMENTS) == len(STATEMENTS)
        found = "select hypertable_name from timescaledb_information.hypertables"
        assert await connection.fetchval(found) == "benchmark_steps"

    with_connection(postgres_server, story)
