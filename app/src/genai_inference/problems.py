"""Errors as problem details (RFC 9457): a clear sentence, never a traceback, never the caller's own data."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .engine import InputError
from .schemas import Problem

MEDIA_TYPE = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response to a request that failed."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(body.model_dump(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _unfit)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # for the type checker
    return problem(error.status_code, str(error.detail), error.headers)


async def _unfit(_: Request, error: Exception) -> JSONResponse:
    return problem(422, str(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(400, "The body is not valid JSON.")
    # Leaves out "body" and the names of the two forms of an instance, which the caller does not know.
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "flat", "rows"))
    return problem(422, f"{where}: {first['msg']}" if where else first["msg"])
