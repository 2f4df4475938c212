"""What the routes share: the service of one application, how a route gets at it, and what refusals look like."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute

from . import bodies, problems, tracing
from .admission import Admission
from .api_keys import KeyFile
from .audit import Audit
from .benchmark_reader import Benchmarks
from .cache import Cache
from .cpus import usable_cpus
from .engine import Batch, MakeEngine
from .in_flight import InFlight
from .job_upkeep import Upkeep
from .jobs import Jobs
from .lifecycle import Lifecycle
from .metrics import Metrics
from .oidc import Tokens
from .registry import Model, Registry
from .schemas import Problem
from .settings import ModelConfig, Settings, read_models
from .stores import Postgres, Redis
from .unpacking import TooMany, Unpacking

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
MOST_READING = 4  # connections to PostgreSQL that read benchmarks
# The paths of predictions: the default model's, and MODELS + name + VERB.
PREDICT, MODELS, VERB = "/v1/predict", "/v1/models/", ":predict"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {problems.MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504)
}
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


class PlainRoute(APIRoute):
    """A route that FastAPI describes and Starlette calls: request in, response out. Resolving dependencies and
    validating the answer would take longer than a small model's batch.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def readable(router: APIRouter, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:  # noqa: ANN401
    """Registers a route for GET and HEAD, which a server has to support together (RFC 9110, 9.1)."""

    def register(endpoint: Endpoint) -> Endpoint:
        # The first one answers. The second one only describes it: as one of two methods, it would be described twice.
        router.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(endpoint)
        return router.get(path, **options)(endpoint)

    return register


class Service:
    """What the routes work with: one for each application. `redis` and `postgres` (which benchmarks are read from)
    are None where none is configured."""

    def __init__(
        self, settings: Settings, make_engine: MakeEngine, read: Callable[[Settings], list[ModelConfig]] = read_models
    ) -> None:
        self.settings = settings
        self.lifecycle = Lifecycle()
        self.metrics = Metrics()
        self.in_flight = InFlight(settings.in_flight_bytes)
        self.metrics.in_flight_bytes.set_function(lambda: self.in_flight.used)
        self.registry = Registry(
            partial(read, settings), make_engine, self.lifecycle, self.metrics, settings.reload_seconds
        )
        self.lifecycle.trouble = partial(self.registry.trouble, settings.device_seconds)
        self.metrics.device_trouble.set_function(lambda: self.lifecycle.trouble() is not None)
        stores = (self.lifecycle, self.metrics, settings.store_timeout_seconds)
        self.redis = Redis(settings.redis_url.get_secret_value(), *stores) if settings.redis_url else None
        self.postgres = self._postgres("benchmarks", MOST_READING)
        self.cache = Cache(self.redis, self.lifecycle, self.metrics, settings.cache_local_bytes)
        self.jobs = Jobs(self.redis, settings, self.metrics.jobs) if settings.jobs and self.redis else None
        self._upkeep = (
            Upkeep(self.redis, settings, self.metrics.jobs, self.lifecycle) if self.jobs and self.redis else None
        )
        self.benchmarks = Benchmarks(self.postgres)
        self._audited = self._postgres("audit", 1) if settings.audit else None
        self.audit = Audit(self._audited, self.lifecycle, self.metrics) if self._audited else None
        self.traces = tracing.traces()
        self.tokens = Tokens(settings, self.lifecycle) if settings.oidc_issuer else None
        keys = KeyFile(settings.api_keys_file, self.lifecycle) if settings.api_keys_file else None
        self.admission = Admission(keys, self.tokens)
        self._unpacking = Unpacking(usable_cpus())

    async def start(self) -> None:
        self.registry.start()
        if self.tokens is not None:
            self.tokens.refresh()
        if self.audit is not None:
            self.audit.start()
        if self._upkeep is not None:
            self._upkeep.start()

    async def close(self) -> None:
        self.registry.close()
        self._unpacking.close()
        if self._upkeep is not None:
            await self._upkeep.close()
        await self.cache.close()
        if self.audit is not None:
            await self.audit.close()
        await self.traces.close()
        for store in (self.redis, self.postgres, self._audited):
            if store is not None:
                await store.close()

    def _postgres(self, use: str, connections: int) -> Postgres | None:
        url, seconds = self.settings.database_url, self.settings.store_timeout_seconds
        if url is None:
            return None
        return Postgres(url.get_secret_value(), self.lifecycle, self.metrics, seconds, use, connections)

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

    def queued(self, path: str) -> Model | None:
        """The model that a prediction asks for by this path, if none is answered but through its queue: no cache."""
        name = None if path == PREDICT else path.removeprefix(MODELS).removesuffix(VERB)
        if name is not None and len(name) + len(MODELS) + len(VERB) != len(path):
            return None
        models = self.registry.models
        model = next(iter(models.values()), None) if name is None else models.get(name)
        return model if model is not None and not model.config.cache_ttl_seconds else None

    async def decode(self, model: Model, kind: str, body: bytes) -> Batch:
        """The instances in a body. Pictures are unpacked beside the event loop, a few at a time."""
        arguments = (model.card.input, kind, body, model.config.max_batch_size, self.settings.max_image_pixels)
        if kind not in bodies.IMAGES:
            return bodies.to_batch(*arguments)
        try:
            return await self._unpacking.run(partial(bodies.to_batch, *arguments))
        except TooMany:
            raise HTTPException(
                429, "Too many images are being unpacked; try again in 1 s.", {"Retry-After": "1"}
            ) from None


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]
