"""The application: what holds for every request, and the routes."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from . import __version__, benchmark_routes, jobs_routes, page, problems, routes
from .engine import MakeEngine
from .middleware import Authenticate, LeaveWhileDraining, LimitBody, Observe
from .rate_limit import LimitRate
from .service import Service
from .settings import Settings

ROUTERS = (routes.plain, routes.router, benchmark_routes.router, page.router)


def create_app(settings: Settings, make_engine: MakeEngine) -> FastAPI:
    """The application. Its models are loaded when it starts, not here."""
    routers = (*ROUTERS, jobs_routes.router) if settings.jobs else ROUTERS
    return assemble(settings, Service(settings, make_engine), routers)


def assemble(settings: Settings, service: Service, routers: Iterable[APIRouter]) -> FastAPI:
    """An application of these routes around a service, which starts and ends with it."""
    app = FastAPI(
        title="genai-inference",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,  # both pages load scripts from elsewhere; /openapi.json remains
        redoc_url=None,
        redirect_slashes=False,  # the address would be http:// also where a proxy speaks TLS, and a token would follow
        middleware=[  # outermost first
            Middleware(LeaveWhileDraining, lifecycle=service.lifecycle),
            Middleware(Observe, metrics=service.metrics, traces=service.traces, audit=service.audit),
            Middleware(Authenticate, admission=service.admission),
            Middleware(
                LimitRate, per_second=settings.rate_per_second, burst=settings.rate_burst, metrics=service.metrics
            ),
            Middleware(
                LimitBody,
                limit=settings.max_body_bytes,
                seconds=settings.receive_seconds,
                in_flight=service.in_flight,
            ),
        ],
    )
    app.state.service = service
    problems.install(app)
    for router in routers:
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.start()
    yield
    await service.close()
