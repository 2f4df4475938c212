"""What a benchmark measures, and where it is kept: the tables in PostgreSQL, and how a run writes to them."""

import asyncio
import contextlib
import logging
import time
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from .database import migrate
from .stores import postgres_gone, within

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 60.0  # how long PostgreSQL may be away, and how long another process may hold the run
CALL_SECONDS = 10.0
CONNECT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
LOCK = 0x62656E63  # the first half of a run's advisory lock: "benc"

# A node that died must not hold its run for the two hours after which TCP would notice.
KEEPALIVE = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3"

PART = "benchmarks"
STATEMENTS = (
    """
    create table benchmark_runs (
        run_id text primary key,
        started_at timestamptz not null default clock_timestamp(),
        finished_at timestamptz,
        steps int not null,
        step_seconds double precision not null
    );
    create index on benchmark_runs (started_at desc);
    create table benchmark_steps (
        run_id text not null references benchmark_runs on delete cascade,
        run_started_at timestamptz not null,
        model text not null,
        version text not null,
        batch_size int not null,
        weights_sha256 text not null,
        node text not null,
        device text not null,
        dtype text not null,
        framework text not null,
        attempts int not null,
        passes int not null,
        items_per_second double precision not null,
        p50_ms double precision not null,
        p95_ms double precision not null,
        p99_ms double precision not null,
        peak_rss_bytes bigint not null,
        device_memory_bytes bigint,
        started_at timestamptz not null,
        finished_at timestamptz not null,
        primary key (run_id, model, version, batch_size, run_started_at)
    );
    create index on benchmark_steps (model, version, batch_size, finished_at desc);
    create table benchmark_checkpoints (
        run_id text not null references benchmark_runs on delete cascade,
        model text not null,
        version text not null,
        batch_size int not null,
        attempts int not null,
        place text[] not null,
        started_at timestamptz not null,
        samples bytea not null default '',
        primary key (run_id, model, version, batch_size)
    );
    """,
    # The time column is the start of the run, which never changes: a hypertable's keys must contain it, and with the
    # end of the step the same step could be there twice. Without the library preloaded, CREATE EXTENSION would end the
    # connection and not only fail; only its loader knows the setting asked for here.
    """
    do $$
    begin
        if current_setting('timescaledb.disable_load', true) is not null
            and exists (select from pg_available_extensions where name = 'timescaledb')
        then
            create extension if not exists timescaledb;
            perform create_hypertable('benchmark_steps', 'run_started_at', chunk_time_interval => interval '90 days');
        end if;
    exception when others then
        raise warning 'benchmark_steps stays a plain table: %', sqlerrm;
    end $$
    """,
)


class BenchmarkError(Exception):
    """A benchmark that ends before its last step; the message says why."""

    exit_code: int


class Interrupted(BenchmarkError):
    """Told to end; the same run goes on where this process ended."""

    exit_code = 5

    def __init__(self) -> None:
        super().__init__("interrupted before the last step of the benchmark")


class NotKept(BenchmarkError):
    """PostgreSQL did not answer for longer than a benchmark waits, or refused."""

    exit_code = 6


class RunTaken(BenchmarkError):
    """Another process measures the same run."""

    exit_code = 7


@dataclass(frozen=True)
class Step:
    """One measurement of a run."""

    model: str
    version: str
    batch_size: int


@dataclass(frozen=True)
class Place:
    """Where a step is measured. Samples of two places are never mixed: they would be the speed of neither."""

    node: str
    device: str
    dtype: str
    framework: str


@dataclass(frozen=True)
class Checkpoint:
    """What has been measured of a step: seconds of each pass so far, by how many processes, and since when."""

    attempts: int
    started_at: datetime
    samples: "array[float]"  # of C floats


@dataclass(frozen=True)
class StepResult:
    """One finished step. Milliseconds are those of a whole batch."""

    model: str
    version: str
    batch_size: int
    weights_sha256: str
    node: str
    device: str
    dtype: str
    framework: str
    attempts: int
    passes: int
    items_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    peak_rss_bytes: int
    device_memory_bytes: int | None
    started_at: datetime
    finished_at: datetime

    @property
    def step(self) -> Step:
        return Step(self.model, self.version, self.batch_size)


COLUMNS = tuple(field.name for field in fields(StepResult))  # of benchmark_steps too


class Results(Protocol):
    """Where the results of one run go."""

    async def finished(self) -> set[Step]: ...
    async def begin(self, step: Step, place: Place) -> Checkpoint: ...
    async def checkpoint(self, step: Step, samples: "array[float]") -> None: ...
    async def finish(self, result: StepResult) -> None: ...
    async def complete(self) -> None: ...


class Unkept:
    """Results without PostgreSQL: they are only logged, and the next process knows nothing of them."""

    def __init__(self) -> None:
        self._finished: set[Step] = set()

    async def finished(self) -> set[Step]:
        return self._finished

    async def begin(self, step: Step, place: Place) -> Checkpoint:
        return Checkpoint(1, datetime.now(UTC), array("f"))

    async def checkpoint(self, step: Step, samples: "array[float]") -> None:
        pass

    async def finish(self, result: StepResult) -> None:
        self._finished.add(result.step)

    async def complete(self) -> None:
        pass


class Kept:
    """Results in PostgreSQL, on one connection that holds the run's lock. Each method waits while PostgreSQL is away,
    and then raises NotKept; Interrupted as soon as `stop` is set while it waits.
    """

    def __init__(
        self,
        url: str,
        run: str,
        steps: int,
        step_seconds: float,
        stop: asyncio.Event,
    ) -> None:
        self._url = url
        self._run = run
        self._plan = (steps, step_seconds)
        self._stop = stop
        self._connection: Any = None

    async def finished(self) -> set[Step]:
        rows = await self._call(
            lambda to: to.fetch("select model, version, batch_size from benchmark_steps where run_id = $1", self._run)
        )
        return {Step(**row) for row in rows}

    async def begin(self, step: Step, place: Place) -> Checkpoint:
        """Notes that a process begins this step, and gives what an earlier one measured of it in the same place."""
        row = await self._call(
            lambda to: to.fetchrow(
                """
            insert into benchmark_checkpoints as kept
                (run_id, model, version, batch_size, attempts, place, started_at)
                values ($1, $2, $3, $4, 1, $5, clock_timestamp())
            on conflict (run_id, model, version, batch_size) do update set
                attempts = kept.attempts + 1,
                place = excluded.place,
                started_at = case when kept.place = excluded.place and kept.samples <> '' then kept.started_at
                    else excluded.started_at end,
                samples = case when kept.place = excluded.place then kept.samples else '' end
            returning attempts, started_at, samples
            """,
                self._run,
                *astuple(step),
                list(astuple(place)),
            )
        )
        return Checkpoint(row["attempts"], row["started_at"], array("f", row["samples"]))

    async def checkpoint(self, step: Step, samples: "array[float]") -> None:
        """Keeps what has been measured of a step, if PostgreSQL answers now: there is no time to wait for it."""
        with contextlib.suppress(*postgres_gone()):
            await within(
                CALL_SECONDS,
                self._once(
                    lambda to: to.execute(
                        """
                update benchmark_checkpoints set samples = $5
                where (run_id, model, version, batch_size) = ($1, $2, $3, $4)
                """,
                        self._run,
                        *astuple(step),
                        samples.tobytes(),
                    )
                ),
            )

    async def finish(self, result: StepResult) -> None:
        await self._call(lambda to: self._finish(to, result))

    async def _finish(self, connection: Any, result: StepResult) -> None:  # noqa: ANN401
        places = ", ".join(f"${number}" for number in range(2, len(COLUMNS) + 2))
        async with connection.transaction():
            await connection.execute(
                f"insert into benchmark_steps (run_id, run_started_at, {', '.join(COLUMNS)}) "  # noqa: S608  # our fields
                f"select run_id, started_at, {places} from benchmark_runs where run_id = $1 on conflict do nothing",
                self._run,
                *astuple(result),
            )
            await connection.execute(
                "delete from benchmark_checkpoints where (run_id, model, version, batch_size) = ($1, $2, $3, $4)",
                self._run,
                *astuple(result.step),
            )

    async def complete(self) -> None:
        await self._call(
            lambda to: to.execute(
                "update benchmark_runs set finished_at = coalesce(finished_at, clock_timestamp()) where run_id = $1",
                self._run,
            )
        )
        with contextlib.suppress(*postgres_gone()):
            await within(CALL_SECONDS, self._connection.close())

    async def _call(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        """What `operation(connection)` gives, tried again until PostgreSQL answers. Each is safe to repeat."""
        import asyncpg  # type: ignore[import-untyped]

        until, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE
        while True:
            try:
                return await self._once(operation)
            except postgres_gone() as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
            except asyncpg.PostgresError as error:
                raise NotKept(f"PostgreSQL refuses: {' '.join(str(error).split())[:200]}") from None
            self._drop()
            if time.monotonic() + pause > until:
                raise NotKept(f"PostgreSQL does not answer: {reason}")
            log.warning("PostgreSQL does not answer", extra={"fields": {"reason": reason, "again_in_seconds": pause}})
            await self._wait(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _once(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        if self._connection is None:
            self._connection = await within(CALL_SECONDS, self._connect())
            await self._take_run()

        async def ask() -> T:
            return await operation(self._connection)

        return await within(CALL_SECONDS, ask())

    async def _connect(self) -> Any:  # noqa: ANN401
        import asyncpg

        connection = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS)
        try:
            await connection.execute(KEEPALIVE)
            await migrate(connection, PART, STATEMENTS)
            await connection.execute(
                "insert into benchmark_runs (run_id, steps, step_seconds) values ($1, $2, $3) on conflict do nothing",
                self._run,
                *self._plan,
            )
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _take_run(self) -> None:
        """Waits for the run's lock. It belongs to the connection: whatever happens to this process, it is set free."""
        until, said = time.monotonic() + PATIENCE_SECONDS, False
        while not await within(CALL_SECONDS, self._try_lock()):
            if not said:
                log.warning("another process measures this run", extra={"fields": {"run": self._run}})
                said = True
            if time.monotonic() > until:
                raise RunTaken(f"another process measures the run {self._run}")
            await self._wait(0.5)

    async def _try_lock(self) -> bool:
        locked: bool = await self._connection.fetchval("select pg_try_advisory_lock($1, hashtext($2))", LOCK, self._run)
        return locked

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
            raise Interrupted

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
