"""The audit log: one row in PostgreSQL for each request under /v1/ that does something. It says who asked for what and
what became of it, and nothing of what was sent or answered.

A request only leaves its row in memory. Rows are written once a second, or sooner when many wait. While PostgreSQL is
away they are kept, the newest QUEUED of them; what had to be dropped is counted.

A route adds what it knows to the request's scope: `model` (a ModelCard), `instances` (int), `cache` (str);
Authenticate adds `unaudited` (bool).
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

from . import request_id, tracing
from .database import migrate
from .lifecycle import Lifecycle
from .metrics import METHODS, Metrics
from .stores import RETRY_SECONDS, Away, Postgres

log = logging.getLogger(__name__)

Row = tuple[Any, ...]  # the values of COLUMNS

QUEUED = 10_000
BATCH = 500
EVERY_SECONDS = 1.0
WRITE_SECONDS = 3.0
FLUSH_SECONDS = 3.0
CLIENT_CLOSED = 499
PREFIX = "/v1/"
READING = frozenset({"GET", "HEAD", "OPTIONS"})

COLUMNS = {
    "at": "timestamptz not null",  # when the request came
    "id": "text not null",
    "request_id": "text not null",
    "trace_id": "text",
    "client": "text",
    "method": "text not null",
    "route": "text not null",  # the template of the path; 'unmatched' if it got to none
    "model": "text",
    "model_version": "text",
    "status": "smallint not null",
    "verdict": "text not null",  # ok, refused, failed
    "instances": "integer",
    "duration_ms": "real not null",
    "cache": "text",
}
STATEMENTS = (f"create table audit_log ({', '.join(map(' '.join, COLUMNS.items()))}, primary key (at, id))",)
# Whoever writes a batch again, not knowing whether it got there, writes no row twice.
INSERT = (
    f"insert into audit_log ({', '.join(COLUMNS)}) select * from unnest("  # noqa: S608  # constants
    + ", ".join(f"${number}::{kind.split()[0]}[]" for number, kind in enumerate(COLUMNS.values(), 1))
    + ") on conflict do nothing"
)


def is_audited(scope: Scope) -> bool:
    """Whether the request does something: predictions, jobs. Of strangers, so many that they cannot fill the log."""
    return scope["path"].startswith(PREFIX) and scope["method"] not in READING and not scope.get("unaudited")


def verdict(status: int) -> str:
    """What became of a request. One whose client went away was not refused: it got no answer."""
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    return "refused" if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != CLIENT_CLOSED else "failed"


def row_of(scope: Scope, route: str, status: int, seconds: float, now: datetime) -> Row:
    """The row of a request that was answered at `now`, after `seconds`."""
    name, card, trace = request_id.current.get(), scope.get("model"), tracing.current.get()
    return (
        now - timedelta(seconds=seconds),
        f"{name}-{os.urandom(8).hex()}",  # a client may send the same request id twice
        name,
        trace.trace_id if trace else None,
        scope.get("client_name"),
        scope["method"] if scope["method"] in METHODS else "other",
        route,
        card.name if card else None,
        card.version if card else None,
        status,
        verdict(status),
        scope.get("instances"),
        round(seconds * 1000, 3),
        scope.get("cache"),
    )


class Audit:
    """The rows that wait, and the task that writes them. All of it belongs to the event loop."""

    def __init__(self, postgres: Postgres, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._postgres = postgres
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._rows: deque[Row] = deque(maxlen=QUEUED)
        self._batch: list[Row] = []
        self._many = asyncio.Event()
        self._table_is_there = False
        self._writer: asyncio.Task[None] | None = None

    def note(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        """Leaves the row of one request; drops the oldest one if too many wait."""
        if not is_audited(scope):
            return
        if len(self._rows) == QUEUED:
            self._metrics.audit_dropped.inc()
        self._rows.append(row_of(scope, route, status, seconds, datetime.now(UTC)))
        if len(self._rows) >= BATCH:
            self._many.set()

    def start(self) -> None:
        self._writer = asyncio.get_running_loop().create_task(self._write_on())

    async def close(self) -> None:
        """Writes what still waits, for FLUSH_SECONDS at most."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait({self._writer})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._write_all(), FLUSH_SECONDS)
        lost = len(self._batch) + len(self._rows)
        if lost:
            self._metrics.audit_dropped.inc(lost)
            log.error("rows of the audit log are lost", extra={"fields": {"rows": lost}})

    async def _write_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), EVERY_SECONDS)
            self._many.clear()
            await self._write_all()

    async def _write_all(self) -> None:
        """Until no row waits, however long PostgreSQL is away."""
        while self._batch or self._rows:
            # Out of the queue, so that no row is dropped, and counted as such, while it is being written.
            self._batch = self._batch or [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
            if await self._written():
                self._metrics.audit_written.inc(len(self._batch))
                self._batch = []
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _written(self) -> bool:
        try:
            await self._postgres.call(partial(self._insert, self._batch), WRITE_SECONDS)
        except Away:  # the store says so
            return False
        except Exception as error:  # no space, no privilege, no table any more: it may be put right
            self._table_is_there = False
            reason = " ".join(str(error).split())[:200]
            if "audit" not in self._lifecycle.degraded:
                log.error("audit log not written", extra={"fields": {"reason": reason}})
            self._lifecycle.degrade("audit", reason)
            return False
        self._lifecycle.degrade("audit", None)
        return True

    async def _insert(self, batch: list[Row], pool: Any) -> None:  # noqa: ANN401  # of asyncpg
        async with pool.acquire() as connection:
            if not self._table_is_there:
                await migrate(connection, "audit", STATEMENTS)
                self._table_is_there = True
            await connection.execute(INSERT, *map(list, zip(*batch, strict=True)))
