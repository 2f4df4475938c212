"""Predictions, the catalog, and what probes, scrapers and people ask of a process."""

import asyncio
import time
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from . import __version__, bodies, cached, codec
from .batching import Abandoned
from .registry import Model
from .schemas import (
    Catalog,
    ModelDetail,
    ModelEntry,
    ModelInfo,
    PredictRequest,
    PredictResponse,
    Problem,
    Readiness,
    Status,
    VersionResponse,
)
from .service import MODELS, NAME, PREDICT, PROBLEMS, VERB, PlainRoute, Service, ServiceDep, readable, service_of

router = APIRouter()
plain = APIRouter(route_class=PlainRoute)

T = TypeVar("T")
PASSED_ON = frozenset({"forwarded", "x-forwarded-for"})  # the marks of a proxy, which its clients cannot take off
TIMEOUT_HEADER = "x-request-timeout-ms"
RAW = {"schema": {"type": "string", "format": "binary"}}
TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "Milliseconds this request may take; no more than the model's own deadline.",
    "schema": {"type": "integer", "minimum": 1},
}
CACHE_CONTROL = {
    "name": "cache-control",
    "in": "header",
    "description": "For a model with a cache: `no-cache` has the answer computed anew, `no-store` also not kept.",
    "schema": {"type": "string"},
}
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": PredictRequest.model_json_schema()},
        **dict.fromkeys(bodies.MEDIA_TYPES[1:], RAW),
    },
}


@plain.post(
    PREDICT,
    responses={200: {"model": PredictResponse}, **PROBLEMS},
    openapi_extra={"requestBody": BODY, "parameters": [TIMEOUT, CACHE_CONTROL]},
)
@plain.post(
    f"{MODELS}{{name}}{VERB}",  # the path and the JSON of KServe's V1 protocol and of TensorFlow Serving
    responses={200: {"model": PredictResponse}, **PROBLEMS},
    openapi_extra={"requestBody": BODY, "parameters": [NAME, TIMEOUT, CACHE_CONTROL]},
)
async def predict(request: Request) -> Response:
    """Classifies images: JSON, one raw tensor, or one picture."""
    service = service_of(request)
    headers = request.headers
    kind = bodies.media_type(headers.get("content-type", ""), headers.get("content-encoding", "identity"))
    model = service.model(request.path_params.get("name"))
    request.scope["model"] = model.card  # for the audit log and the trace
    until = _until(request, model.config.deadline_seconds)
    client_left = request.scope.get("client_left")  # see server.bounded
    body = await _body(request, until)
    if model.config.cache_ttl_seconds:
        asked = cached.Asked(kind, body, ", ".join(headers.getlist("cache-control")), until)
        found = await cached.predict(service, model, asked, partial(_unless_abandoned, client_left=client_left))
        request.scope.update(instances=len(found.answer.labels), cache=found.result)
        return cached.response(found)
    model.batcher.check_room()
    batch = await service.decode(model, kind, body)
    request.scope["instances"] = len(batch)
    answer = model.batcher.submit(batch, until - time.monotonic())
    probabilities = await _unless_abandoned(answer, client_left)
    labels = codec.labels_of(model.card, probabilities)
    service.metrics.predicted(model.card, labels)
    return Response(codec.to_json(model.card, probabilities, labels), media_type="application/json")


def _until(request: Request, most: float) -> float:
    """When the time of a request is over, by time.monotonic(): it begins once its head is there."""
    arrived: float = request.scope.get("arrived") or time.monotonic()  # see server.bounded
    return arrived + _seconds(request.headers.get(TIMEOUT_HEADER), most)


async def _body(request: Request, until: float) -> bytes:
    """The whole body; HTTPException if it has not come by then."""
    if request.scope.get("complete"):
        return await request.body()
    try:
        async with asyncio.timeout(until - time.monotonic()):
            return await request.body()
    except TimeoutError:
        detail = "The body did not come within the time this request may take."
        raise HTTPException(408, detail, {"Connection": "close"}) from None


def _seconds(header: str | None, most: float) -> float:
    """The time a request may take: what its client says, within the model's own deadline."""
    if header is None:
        return most
    if not (header.isascii() and header.isdigit() and 0 < len(header) < 10 and int(header)):
        raise HTTPException(422, f"{TIMEOUT_HEADER}: a whole number of milliseconds expected, at least 1")
    return min(most, int(header) / 1000)


async def _unless_abandoned(answer: "asyncio.Future[T]", client_left: "asyncio.Future[None] | None") -> T:
    """The answer; or Abandoned, once the client has closed its connection."""
    if client_left is None:  # another server than ours, as in tests
        return await answer

    def give_up(_: object) -> None:
        if not answer.done():
            answer.set_exception(Abandoned())

    client_left.add_done_callback(give_up)
    try:
        return await answer
    finally:
        client_left.remove_done_callback(give_up)


@readable(router, "/v1/models")
async def models(service: ServiceDep) -> Catalog:
    """What is served."""
    known = await service.benchmarks.newest(service.registry.models.values())
    return Catalog(
        models=[
            ModelEntry(**_entry(model, service), benchmarks=known.of(model.card))
            for model in service.registry.models.values()
        ],
        degraded=known.degraded,
    )


@readable(router, "/v1/models/{name}", responses={404: {"model": Problem}, 503: {"model": Problem}})
async def model(name: str, service: ServiceDep) -> ModelDetail:
    """One model, with its labels."""
    found = service.model(name)
    known = await service.benchmarks.newest(service.registry.models.values())
    return ModelDetail(
        **_entry(found, service),
        benchmarks=known.of(found.card),
        degraded=known.degraded,
        label_names=found.card.labels,
        weights_sha256=found.card.weights.sha256,
    )


def _entry(model: Model, service: Service) -> dict[str, Any]:
    card, config = model.card, model.config
    return {
        "name": card.name,
        "version": card.version,
        "default": model is service.model(None),
        "architecture": card.architecture,
        **card.input.model_dump(),
        "labels": len(card.labels),
        "accuracy": card.held_out.accuracy if card.held_out else None,
        "device": model.engine.device,
        "dtype": config.dtype,
        "compiled": config.compile,
        "max_batch_size": config.max_batch_size,
        "max_queue": config.queue_bound,
        "deadline_seconds": config.deadline_seconds,
        "cache_ttl_seconds": config.cache_ttl_seconds,
        "load_seconds": round(model.load_seconds, 3),
    }


@readable(plain, "/health", responses={200: {"model": Status}})
async def health(_: Request) -> Response:
    """The process is alive; says nothing about the model."""
    return Response(b'{"status":"ok","reason":null}', media_type="application/json")


@readable(router, "/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
async def ready(service: ServiceDep) -> JSONResponse:
    """200 when work may be sent here; 503 with the reason while loading, draining or broken."""
    reason = service.lifecycle.unready
    degraded = dict(service.lifecycle.degraded) or None
    status = Readiness(status="unready" if reason else "ready", reason=reason, degraded=degraded)
    return JSONResponse(status.model_dump(exclude_none=True), status_code=503 if reason else 200)


@readable(router, "/metrics", response_class=Response)
async def metrics(request: Request, service: ServiceDep) -> Response:
    """Prometheus' text format, for who reaches the pod itself: what comes through an Ingress, a Route or a Gateway is
    told that there is nothing.
    """
    if not PASSED_ON.isdisjoint(request.headers):
        raise HTTPException(404)
    if service.jobs is not None:
        await service.jobs.measure()
    service.metrics.degraded(list(service.lifecycle.degraded))
    return Response(service.metrics.exposition(), media_type=service.metrics.content_type)


@readable(router, "/version")
async def version(service: ServiceDep) -> VersionResponse:
    """What is running: the application, its title from the configuration, the default model and what computes it."""
    model = next(iter(service.registry.models.values()), None)
    return VersionResponse(
        app=__version__,
        title=service.settings.model_title,
        model=ModelInfo(name=model.card.name, version=model.card.version) if model else None,
        framework=model.engine.framework if model else None,
    )
