"""What benchmarks have measured, for the API. PostgreSQL may be away: the catalog then goes on without it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from .benchmark_results import COLUMNS, StepResult
from .model import ModelCard
from .registry import Model
from .stores import Away, Postgres

log = logging.getLogger(__name__)

FRESH_SECONDS = 30.0  # how old the catalog's results may be
AGAIN_SECONDS = 5.0  # after a failure
Served = tuple[tuple[str, str], ...]  # (name, version) of models

STEPS = ", ".join(f"step.{column}" for column in COLUMNS)
NEWEST = f"""
select distinct on (step.model, step.version, step.batch_size) {STEPS}
from benchmark_steps step
join unnest($1::text[], $2::text[]) served (model, version) using (model, version)
order by step.model, step.version, step.batch_size, step.finished_at desc
"""  # noqa: S608  # our own columns
RUNS = f"""
with newest as (
    select * from benchmark_runs run
    where $1::text is null
        or exists (select from benchmark_steps step where step.run_id = run.run_id and step.model = $1)
    order by started_at desc, run_id limit $2
)
select newest.run_id, newest.started_at as run_began, newest.finished_at as run_ended, newest.steps,
    newest.step_seconds, {STEPS}
from newest left join benchmark_steps step on step.run_id = newest.run_id and ($1::text is null or step.model = $1)
order by newest.started_at desc, newest.run_id, step.model, step.version, step.batch_size
"""  # noqa: S608


@dataclass(frozen=True)
class BenchmarkRun:
    """One run: `steps` were planned, and `results` are those that are finished. `finished_at` is null until all are."""

    run: str
    started_at: datetime
    finished_at: datetime | None
    steps: int
    step_seconds: float
    results: list[StepResult]


@dataclass(frozen=True)
class Newest:
    """The newest result for each batch size of what is served. `degraded` says why it may be missing or old."""

    results: Sequence[StepResult] = ()
    degraded: str | None = None

    def of(self, card: ModelCard) -> list[StepResult]:
        """Those of this version of a model."""
        return [each for each in self.results if (each.model, each.version) == (card.name, card.version)]


@dataclass(frozen=True)
class _Known:
    until: float = 0.0
    served: Served = ()
    newest: Newest = field(default_factory=Newest)


class Benchmarks:
    """Reads results; what the catalog shows is read anew only every FRESH_SECONDS."""

    def __init__(self, postgres: Postgres | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._postgres = postgres
        self._clock = clock
        self._known = _Known()
        self._reading = asyncio.Lock()

    async def newest(self, models: Iterable[Model]) -> Newest:
        """Never raises, and waits for PostgreSQL no longer than any call to it may take."""
        if self._postgres is None:
            return Newest()
        served = tuple((model.card.name, model.card.version) for model in models)
        async with self._reading:
            known = self._known
            if known.served != served or self._clock() >= known.until:
                self._known = await self._read_newest(served, known)
        return self._known.newest

    async def _read_newest(self, served: Served, known: _Known) -> _Known:
        try:
            rows = await self._fetch(NEWEST, [name for name, _ in served], [version for _, version in served])
        except Away as away:
            old = known.newest.results  # what was measured stays true
            return _Known(self._clock() + AGAIN_SECONDS, served, Newest(old, f"benchmarks: {away}"))
        return _Known(self._clock() + FRESH_SECONDS, served, Newest([StepResult(**row) for row in rows]))

    async def runs(self, model: str | None, limit: int) -> list[BenchmarkRun]:
        """The newest runs, all or those that measured `model`, with their results; Away if PostgreSQL is."""
        return to_runs(await self._fetch(RUNS, model, limit))

    async def _fetch(self, query: str, *values: object) -> list[dict[str, Any]]:
        if self._postgres is None:
            raise Away("no database is configured (GENAI_DATABASE_URL)")
        import asyncpg  # type: ignore[import-untyped]

        async def ask(pool: Any) -> list[dict[str, Any]]:  # noqa: ANN401
            try:
                return [dict(row) for row in await pool.fetch(query, *values)]
            except asyncpg.UndefinedTableError:  # no benchmark has ever run
                return []

        try:
            return await self._postgres.call(ask)
        except asyncpg.PostgresError as error:
            log.warning("benchmarks not read", extra={"fields": {"reason": str(error)}})
            raise Away("postgres refuses the query") from None


def to_runs(rows: Iterable[dict[str, Any]]) -> list[BenchmarkRun]:
    """Rows of RUNS: one for each result, or one without for a run that has none yet."""
    runs = []
    for run_id, group in groupby(rows, key=lambda row: row["run_id"]):
        steps = list(group)
        results = [StepResult(**{name: row[name] for name in COLUMNS}) for row in steps if row["model"] is not None]
        first = steps[0]
        began, ended = first["run_began"], first["run_ended"]
        runs.append(BenchmarkRun(run_id, began, ended, first["steps"], first["step_seconds"], results))
    return runs
