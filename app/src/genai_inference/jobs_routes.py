"""/v1/jobs: predictions that are asked for now and computed by a worker later. They exist with GENAI_JOBS only."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pydantic_core
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from . import bodies, jobs, request_id
from .registry import Model
from .schemas import JobDocument, PredictResponse
from .service import PROBLEMS, PlainRoute, Service, readable, service_of
from .stores import RETRY_SECONDS, Away

FULL_SECONDS = 10  # a worker needs that long for some jobs; nobody knows how long these take
KEY_HEADER = "idempotency-key"
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes it safe to send a job again. 1 to 128 letters, digits, . _ : or -.",
    "schema": {"type": "string", "pattern": jobs.KEY.pattern},
}
ID = {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}
RAW = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": jobs.JobRequest.model_json_schema()},
        **dict.fromkeys(bodies.MEDIA_TYPES[1:], RAW),
    },
}
OPTIONS = [
    {"name": name, "in": "query", "description": "Where the body is the input alone.", "schema": schema}
    for name, schema in jobs.JobOptions.model_json_schema()["properties"].items()
]


class JobRoute(PlainRoute):
    """A route that needs Redis: 503 while it is away."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except Away:
                headers = {"Retry-After": f"{RETRY_SECONDS:.0f}"}
                raise HTTPException(503, "Jobs are not available at the moment.", headers) from None

        return handler


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in statuses}


router = APIRouter(route_class=JobRoute)


@router.post(
    "/v1/jobs",
    status_code=202,
    responses={
        202: {"model": JobDocument},
        200: {"model": JobDocument},
        **_refusals(400, 401, 404, 413, 415, 422, 429, 503),
    },
    openapi_extra={"requestBody": BODY, "parameters": [KEY, *OPTIONS]},
)
async def submit(request: Request) -> Response:
    """Accepts a job: 202, or 200 with the job for which this client used the same Idempotency-Key before."""
    key, headers = _key(request.headers.get(KEY_HEADER)), request.headers
    media_type = bodies.media_type(headers.get("content-type", ""), headers.get("content-encoding", "identity"))
    new, model = await _new(request, media_type)
    try:
        job, created = await _jobs(request).submit(
            new, model.card.name, _client(request), key, request_id.current.get()
        )
    except jobs.OtherBody:
        raise HTTPException(422, "Idempotency-Key: it was used before, with another body.") from None
    except jobs.QueueIsFull as full:
        detail = f"{full}; try again in {FULL_SECONDS} s."
        raise HTTPException(429, detail, {"Retry-After": str(FULL_SECONDS)}) from None
    return await _answer(request, job, 202 if created else 200)


@readable(router, "/v1/jobs/{job}", responses={200: {"model": JobDocument}, **_refusals(401, 404, 503)})
async def job(request: Request) -> Response:
    """How a job is getting on, with its result once it has succeeded, if that is small: `result_url` leads to any."""
    return await _answer(request, request.path_params["job"], 200)


@readable(router, "/v1/jobs/{job}/result", responses={200: {"model": PredictResponse}, **_refusals(401, 404, 503)})
async def result(request: Request) -> Response:
    """The predictions of a job that has succeeded; 404 until then."""
    found = await _found(request, request.path_params["job"])
    size, first = await _jobs(request).result(found["id"], 0, jobs.PIECE_BYTES)
    if found["status"] == "succeeded" and not size:
        raise HTTPException(404, "The result is not kept any more.")
    if not size:
        raise HTTPException(404, f"There is no result: the job is {found['status']}.")
    pieces = _jobs(request).rest_of_result(found["id"], first, size)
    return StreamingResponse(pieces, headers={"Content-Length": str(size)}, media_type="application/json")


@router.delete(
    "/v1/jobs/{job}",
    responses={200: {"model": JobDocument}, 202: {"model": JobDocument}, **_refusals(401, 404, 503)}
    | {409: PROBLEMS[404]},
)
async def cancel(request: Request) -> Response:
    """Cancels a job: at once while it waits (200), between two batches while it runs (202); 409 if it is finished."""
    found = await _found(request, request.path_params["job"])
    state = await _jobs(request).cancel(found["id"], found["kind"], _client(request))
    if state == "finished":
        raise HTTPException(409, "The job is finished.")
    return await _answer(request, found["id"], 202 if state == "asked" else 200)


async def _new(request: Request, media_type: str) -> tuple[jobs.NewJob, Model]:
    """The job in a request, and its model. Bodies are read beside the event loop, which answers predictions."""
    service, body = service_of(request), await request.body()
    in_json = media_type == "application/json"
    cards = [model.card for model in service.registry.models.values()]
    asked = await asyncio.to_thread(jobs.parse, body, cards) if in_json else jobs.options_in(request.query_params)
    if asked.kind not in service.settings.job_kinds.split(","):
        raise HTTPException(422, f"kind: no worker here computes jobs of kind {asked.kind}")
    model = service.model(asked.model)
    if isinstance(asked, jobs.JobRequest):
        return await asyncio.to_thread(jobs.prepare, asked, model.card), model
    return await asyncio.to_thread(jobs.prepare_raw, asked, media_type, body, model.card), model


def _key(header: str | None) -> str:
    """The idempotency key, with or without the quotes of the draft standard; empty if there is none."""
    if header is None:
        return ""
    match = jobs.KEY.fullmatch(header)
    if match is None:
        raise HTTPException(422, "Idempotency-Key: 1 to 128 letters, digits, '.', '_', ':' or '-' expected")
    return match[2]


def _client(request: Request) -> str:
    """Whose jobs these are: everybody's where nobody needs a key."""
    name: str = request.scope.get("client_name", "")
    return name


def _jobs(request: Request) -> jobs.Jobs:
    service: Service = service_of(request)
    assert service.jobs is not None  # noqa: S101  # the routes are there only with GENAI_JOBS
    return service.jobs


async def _found(request: Request, job: str) -> dict[str, str]:
    found = await _jobs(request).find(job, _client(request))
    if found is None:
        raise HTTPException(404, "No such job.")
    return found


async def _answer(request: Request, job: str, status: int) -> Response:
    """The document of a job, into which a small result goes as the bytes that the worker wrote."""
    found = await _found(request, job)
    body = pydantic_core.to_json(jobs.document(found))
    succeeded = found["status"] == "succeeded"
    size, result = await _jobs(request).result(job, 0, jobs.INLINE_BYTES) if succeeded else (0, b"")
    body = body[:-1] + b',"result":' + (result if size == len(result) > 0 else b"null") + b"}"
    return Response(body, status, {"Location": f"/v1/jobs/{job}"}, "application/json")
