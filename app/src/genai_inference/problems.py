"""Errors as problem details (RFC 9457): never a traceback, never the caller's own data."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from . import request_id
from .batching import Abandoned, DeadlineExceeded, NotFinite, QueueFull
from .codec import InputError
from .schemas import FORMS, Problem

MEDIA_TYPE = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, name: str = "") -> Response:
    """The response to a request that failed: to the current one, or to the one with this id."""
    name = name or request_id.current.get()
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, request_id=name)
    return Response(body.model_dump_json(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def queue_full(error: QueueFull, name: str = "") -> Response:
    """The response to a request for which there is no room; `name` as for `problem`."""
    return problem(429, str(error), {"Retry-After": str(error.retry_after)}, name)


def invalid(fault: Mapping[str, Any]) -> HTTPException:
    """The answer to a body, or a part of a request, in which pydantic found this fault."""
    if fault["type"] == "json_invalid":
        return HTTPException(400, "The body is not valid JSON.")
    # Leaves out "body" and the names of the forms of an instance, which the caller does not know.
    where = ".".join(str(part) for part in fault["loc"] if part not in ("body", *FORMS))
    return HTTPException(422, f"{where}: {fault['msg']}" if where else str(fault["msg"]))


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _unfit)
    app.add_exception_handler(QueueFull, _queue_full)
    app.add_exception_handler(DeadlineExceeded, _too_late)
    app.add_exception_handler(Abandoned, _abandoned)
    app.add_exception_handler(NotFinite, _not_finite)
    app.add_exception_handler(ClientDisconnect, _abandoned)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # for the type checker
    return problem(error.status_code, str(error.detail), error.headers)


async def _unfit(_: Request, error: Exception) -> Response:
    return problem(422, str(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return await _http_error(request, invalid(error.errors()[0]))


async def _queue_full(_: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFull)  # noqa: S101
    return queue_full(error)


async def _too_late(_: Request, __: Exception) -> Response:
    return problem(504, "The answer was not ready within the time this request may take.")


async def _not_finite(_: Request, error: Exception) -> Response:
    return problem(500, str(error))


async def _abandoned(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # as nginx counts it; nobody reads it
