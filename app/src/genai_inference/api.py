"""The routes and what they share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.types import Receive

from . import __version__, bodies, codec, problems
from .api_keys import KeyFile
from .batching import Abandoned
from .engine import Batch, MakeEngine, Probabilities
from .lifecycle import Lifecycle
from .metrics import Metrics
from .middleware import Authenticate, LeaveWhileDraining, LimitBody, Observe
from .registry import Model, Registry
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
from .settings import Settings, read_models


class PlainRoute(APIRoute):
    """A route that FastAPI describes and Starlette calls: request in, response out. Resolving dependencies and
    validating the answer would take longer than a small model's batch.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


router = APIRouter()
plain = APIRouter(route_class=PlainRoute)

TIMEOUT_HEADER = "x-request-timeout-ms"
# A client is looked after only once its request has waited this long: sooner, that costs more than it can save.
PATIENCE_SECONDS = 0.02
MOST_DECODING = 16


class Service:
    """What the routes work with: one for each application."""

    def __init__(self, settings: Settings, make_engine: MakeEngine) -> None:
        self.settings = settings
        self.lifecycle = Lifecycle()
        self.metrics = Metrics()
        self.registry = Registry(
            partial(read_models, settings), make_engine, self.lifecycle, self.metrics, settings.reload_seconds
        )
        self._images = 0

    def model(self, name: str | None) -> Model:
        """The model of this name, or the default one; 503 while loading, 404 if there is none."""
        models = self.registry.models
        if not models:
            raise HTTPException(503, "The model is not loaded yet.", {"Retry-After": "1"})
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            raise HTTPException(404, f"No such model. There are: {', '.join(models)}.")
        return models[name]

    async def decode(self, model: Model, kind: str, body: bytes) -> Batch:
        """The instances in a body. Pictures are unpacked beside the event loop, a few at a time."""
        arguments = (model.card.input, kind, body, model.config.max_batch_size, self.settings.max_image_pixels)
        if kind not in bodies.IMAGES:
            return bodies.to_batch(*arguments)
        if self._images >= MOST_DECODING:
            raise HTTPException(429, "Too many images are being unpacked; try again in 1 s.", {"Retry-After": "1"})
        self._images += 1
        try:
            return await asyncio.to_thread(bodies.to_batch, *arguments)
        finally:
            self._images -= 1


def create_app(settings: Settings, make_engine: MakeEngine) -> FastAPI:
    """The application. Its models are loaded when it starts, not here."""
    service = Service(settings, make_engine)
    app = FastAPI(
        title="genai-inference",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,  # both pages load scripts from elsewhere; /openapi.json remains
        redoc_url=None,
        middleware=[  # outermost first
            Middleware(LeaveWhileDraining, lifecycle=service.lifecycle),
            Middleware(Observe, metrics=service.metrics),
            Middleware(Authenticate, keys=KeyFile(settings.api_keys_file) if settings.api_keys_file else None),
            Middleware(LimitBody, limit=settings.max_body_bytes),
        ],
    )
    app.state.service = service
    problems.install(app)
    app.include_router(plain)
    app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.registry.start()
    yield
    service.registry.close()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {problems.MEDIA_TYPE: {}}}
    for status in (400, 401, 404, 413, 415, 422, 429, 503, 504)
}
RAW = {"schema": {"type": "string", "format": "binary"}}
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "Milliseconds this request may take; no more than the model's own deadline.",
    "schema": {"type": "integer", "minimum": 1},
}
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": PredictRequest.model_json_schema()},
        **dict.fromkeys(bodies.MEDIA_TYPES[1:], RAW),
    },
}


@plain.post(
    "/v1/predict",
    responses={200: {"model": PredictResponse}, **PROBLEMS},
    openapi_extra={"requestBody": BODY, "parameters": [TIMEOUT]},
)
@plain.post(
    "/v1/models/{name}:predict",  # the path and the JSON of KServe's V1 protocol and of TensorFlow Serving
    responses={200: {"model": PredictResponse}, **PROBLEMS},
    openapi_extra={"requestBody": BODY, "parameters": [NAME, TIMEOUT]},
)
async def predict(request: Request) -> Response:
    """Classifies images: JSON, one raw tensor, or one picture."""
    service = _service(request)
    headers = request.headers
    kind = bodies.media_type(headers.get("content-type", ""), headers.get("content-encoding", "identity"))
    model = service.model(request.path_params.get("name"))
    seconds = _seconds(headers.get(TIMEOUT_HEADER), model.config.deadline_seconds)
    body = await request.body()
    model.batcher.check_room()
    batch = await service.decode(model, kind, body)
    probabilities = await _unless_abandoned(model.batcher.submit(batch, seconds), request.receive)
    labels = codec.labels_of(model.card, probabilities)
    service.metrics.predicted(labels, model.card.name, model.card.version)
    return Response(codec.to_json(model.card, probabilities, labels), media_type="application/json")


def _seconds(header: str | None, most: float) -> float:
    """The time a request may take: what its client says, within the model's own deadline."""
    if header is None:
        return most
    if not (header.isascii() and header.isdigit() and 0 < len(header) < 10 and int(header)):
        raise HTTPException(422, f"{TIMEOUT_HEADER}: a whole number of milliseconds expected, at least 1")
    return min(most, int(header) / 1000)


async def _unless_abandoned(answer: "asyncio.Future[Probabilities]", receive: Receive) -> Probabilities:
    """The answer; or Abandoned, once the client has closed its connection."""
    loop = asyncio.get_running_loop()
    watching: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not answer.done():
            answer.set_exception(Abandoned())

    timer = loop.call_later(PATIENCE_SECONDS, lambda: watching.append(loop.create_task(watch())))
    try:
        return await answer
    finally:
        timer.cancel()
        for task in watching:
            task.cancel()


@router.get("/v1/models")
async def models(service: ServiceDep) -> Catalog:
    """What is served."""
    return Catalog(models=[ModelEntry(**_entry(model, service)) for model in service.registry.models.values()])


@router.get("/v1/models/{name}", responses={404: {"model": Problem}, 503: {"model": Problem}})
async def model(name: str, service: ServiceDep) -> ModelDetail:
    """One model, with its labels."""
    found = service.model(name)
    return ModelDetail(
        **_entry(found, service), label_names=found.card.labels, weights_sha256=found.card.weights.sha256
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
        "load_seconds": round(model.load_seconds, 3),
    }


@plain.get("/health", responses={200: {"model": Status}})
async def health(_: Request) -> Response:
    """The process is alive; says nothing about the model."""
    return Response(b'{"status":"ok","reason":null}', media_type="application/json")


@router.get("/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
async def ready(service: ServiceDep) -> JSONResponse:
    """200 when work may be sent here; 503 with the reason while loading, draining or broken."""
    reason = service.lifecycle.unready
    degraded = service.lifecycle.degraded or None
    status = Readiness(status="unready" if reason else "ready", reason=reason, degraded=degraded)
    return JSONResponse(status.model_dump(exclude_none=True), status_code=503 if reason else 200)


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics.exposition(), media_type=service.metrics.content_type)


@router.get("/version")
async def version(service: ServiceDep) -> VersionResponse:
    """What is running: the application, its title from the configuration, the default model and what computes it."""
    model = next(iter(service.registry.models.values()), None)
    return VersionResponse(
        app=__version__,
        title=service.settings.model_title,
        model=ModelInfo(name=model.card.name, version=model.card.version) if model else None,
        framework=model.engine.framework if model else None,
    )
