"""What benchmarks have measured."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel

from .benchmark_reader import BenchmarkRun
from .model import WORD
from .schemas import Problem
from .service import ServiceDep, readable
from .stores import Away

router = APIRouter()


class BenchmarkRuns(BaseModel):
    """Runs, the newest first."""

    runs: list[BenchmarkRun]


@readable(router, "/v1/benchmarks", responses={status: {"model": Problem} for status in (401, 404, 422, 503)})
async def benchmarks(
    service: ServiceDep,
    model: Annotated[str | None, Query(pattern=WORD)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BenchmarkRuns:
    """The newest runs with their results: all, or those that measured `model`. Empty if there are none; 404 where no
    database is configured that could keep them.
    """
    if service.postgres is None:
        raise HTTPException(404, "Benchmarks are not kept: no database is configured (GENAI_DATABASE_URL).")
    try:
        return BenchmarkRuns(runs=await service.benchmarks.runs(model, limit))
    except Away as away:
        raise HTTPException(503, f"Benchmarks cannot be read: {away}.", {"Retry-After": "1"}) from None
