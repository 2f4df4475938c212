"""The schema of PostgreSQL. Each part of the service has its own numbered list of statements and calls `migrate`.

A list only ever grows at its end: what has been released may have been applied somewhere.
"""

from collections.abc import Sequence
from typing import Any

LOCK = 0x67656E61  # of pg_advisory_xact_lock, for all parts: "gena"

VERSIONS = """
create table if not exists schema_version (
    part text not null,
    version int not null,
    applied_at timestamptz not null default now(),
    primary key (part, version)
)
"""


def pending(statements: Sequence[str], version: int) -> list[tuple[int, str]]:
    """The statements after `version`, with their numbers; they count from 1."""
    return [(number, statement) for number, statement in enumerate(statements, 1) if number > version]


async def migrate(connection: Any, part: str, statements: Sequence[str]) -> int:  # noqa: ANN401  # of asyncpg
    """Applies what is new of `statements` (each may be several commands): all of it, or, if one fails, nothing.

    Any number of processes may call it at once: one does the work, the others wait. Returns how many were applied. A
    database that is already newer is left alone, so that an older process can work beside a newer one.
    """
    if await _version(connection, part) >= len(statements):
        return 0
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(VERSIONS)
        new = pending(statements, await _version(connection, part))
        for number, statement in new:
            await connection.execute(statement)
            await connection.execute("insert into schema_version (part, version) values ($1, $2)", part, number)
        return len(new)


async def _version(connection: Any, part: str) -> int:  # noqa: ANN401
    """The last statement of a part that was applied; 0 if none was."""
    if await connection.fetchval("select to_regclass('schema_version')") is None:
        return 0
    found: int | None = await connection.fetchval("select max(version) from schema_version where part = $1", part)
    return found or 0
