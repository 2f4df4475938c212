"""The routes and what they share."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware

from . import __version__, problems
from .engine import Engine, Pixels
from .lifecycle import Lifecycle
from .metrics import Metrics
from .middleware import LeaveWhileDraining, LimitBody, Observe
from .model import ModelCard, ModelError
from .schemas import ModelInfo, Prediction, PredictRequest, PredictResponse, Problem, Status, VersionResponse
from .settings import Settings

log = logging.getLogger(__name__)
router = APIRouter()


class Service:
    """What the routes work with: one for each application."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.lifecycle = Lifecycle()
        self.metrics = Metrics()
        # One inference at a time: torch spreads it over GENAI_TORCH_THREADS, more at once would only take turns.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inference")

    def start_loading(self) -> None:
        """Loads in a thread of its own; a daemon, so that a process told to end need not wait for it."""
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def _load(self) -> None:
        started = time.perf_counter()
        try:
            card = self.engine.load()
        except ModelError as error:
            self.lifecycle.failure = error
            return
        except Exception as error:
            log.exception("model not loaded")
            self.lifecycle.failure = ModelError(self.settings.model_dir, f"{type(error).__name__}: {error}")
            return
        seconds = time.perf_counter() - started
        self.metrics.loaded(card, seconds)
        self.lifecycle.card = card
        log.info("model loaded", extra={"fields": {"model": card.name, "version": card.version, "seconds": seconds}})

    async def infer(self, instances: list[Pixels], card: ModelCard) -> list[Prediction]:
        """Predictions, computed off the event loop; InputError if an instance does not fit the model."""
        predictions = await asyncio.get_running_loop().run_in_executor(self._worker, self._infer, instances)
        self.metrics.predicted(predictions, card.version)
        return predictions

    def _infer(self, instances: list[Pixels]) -> list[Prediction]:
        return self.engine.encode(self.engine.predict(self.engine.decode(instances)))

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)


def create_app(settings: Settings, engine: Engine) -> FastAPI:
    """The application. The model is loaded when it starts, not here."""
    service = Service(settings, engine)
    app = FastAPI(
        title="genai-inference",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,  # both pages load scripts from elsewhere; /openapi.json remains
        redoc_url=None,
        middleware=[  # outermost first
            Middleware(LeaveWhileDraining, lifecycle=service.lifecycle),
            Middleware(Observe, metrics=service.metrics),
            Middleware(LimitBody, limit=settings.max_body_bytes),
        ],
    )
    app.state.service = service
    problems.install(app)
    app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.start_loading()
    yield
    service.close()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _plain_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, "Content-Type must be application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "A compressed body is not accepted.")


ServiceDep = Annotated[Service, Depends(_service)]
PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 413, 415, 422, 503)}


@router.post("/v1/predict", dependencies=[Depends(_plain_json)], responses=PROBLEMS)
async def predict(body: PredictRequest, service: ServiceDep) -> PredictResponse:
    """Classifies up to GENAI_MAX_BATCH_SIZE images."""
    card, most = service.lifecycle.card, service.settings.max_batch_size
    if card is None:
        raise HTTPException(503, "The model is not loaded yet.", {"Retry-After": "1"})
    if len(body.instances) > most:
        raise HTTPException(422, f"instances: at most {most} at once, got {len(body.instances)}")
    predictions = await service.infer(body.instances, card)
    return PredictResponse(predictions=predictions, model=ModelInfo(name=card.name, version=card.version))


@router.get("/health")
async def health() -> Status:
    """The process is alive; says nothing about the model."""
    return Status(status="ok")


@router.get("/ready", responses={503: {"model": Status}})
async def ready(service: ServiceDep) -> JSONResponse:
    """200 when work may be sent here; 503 with the reason while loading, draining or broken."""
    reason = service.lifecycle.unready
    status = Status(status="unready" if reason else "ready", reason=reason)
    return JSONResponse(status.model_dump(exclude_none=True), status_code=503 if reason else 200)


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics.exposition(), media_type=service.metrics.content_type)


@router.get("/version")
async def version(service: ServiceDep) -> VersionResponse:
    """What is running: the application, its title from the configuration, the model and what computes it."""
    card = service.lifecycle.card
    return VersionResponse(
        app=__version__,
        title=service.settings.model_title,
        model=ModelInfo(name=card.name, version=card.version) if card else None,
        framework=service.engine.framework if card else None,
    )
