"""Fixtures, and the rule about the folders of PARTS: each is collected only with the option of its name, and the header
says so either way.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from backing import durable_redis, postgres_cluster, postgres_server, redis_server
from fastapi import FastAPI
from fastapi.testclient import TestClient
from processes import start, start_once
from stories import queues, store
from stub import StubEngine
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.settings import Settings

# The fixtures.
__all__ = [
    "durable_redis",
    "postgres_cluster",
    "postgres_server",
    "queues",
    "redis_server",
    "start",
    "start_once",
    "store",
]

TORCH_TESTS = Path(__file__).parent / "torch"
PARTS = {Path(__file__).parent / name: f"--{name}" for name in ("torch", "services", "hostile", "browser")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--torch",
        action="store_true",
        help="collect tests/torch too; needs torch and a model package in GENAI_MODEL_DIR",
    )
    parser.addoption(
        "--hostile", action="store_true", help="collect tests/hostile too: 10,000 requests, minutes; needs schemathesis"
    )
    parser.addoption(
        "--services",
        action="store_true",
        help="collect tests/services too; needs redis-server and PostgreSQL's programs",
    )
    parser.addoption(
        "--browser",
        action="store_true",
        help="collect tests/browser too; needs chromium, chromedriver and selenium",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    option = PARTS.get(collection_path)
    return True if option and not config.getoption(option) else None


def pytest_report_header(config: pytest.Config) -> list[str]:
    left_out = "left out, ask for it with"
    return [
        f"tests/{folder.name}: " + ("collected" if config.getoption(option) else f"{left_out} {option}")
        for folder, option in PARTS.items()
    ]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test sees the settings of whoever runs it (the tests of the real package need GENAI_MODEL_DIR)."""
    for name in [name for name in os.environ if name.startswith(("GENAI_", "OTEL_"))]:
        if not request.path.is_relative_to(TORCH_TESTS):
            monkeypatch.delenv(name)


@pytest.fixture
def settings() -> Settings:
    return Settings(max_body_bytes=64 * 1024, model_title="a title")


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    """Not yet allowed to load."""
    engine = StubEngine()
    yield engine
    engine.may_load.set()
    engine.may_compute.set()


@pytest.fixture
def app(settings: Settings, engine: StubEngine) -> FastAPI:
    return create_app(settings, lambda _: engine)


@pytest.fixture
def loading(app: FastAPI) -> Iterator[TestClient]:
    """A client of the application while its model is being loaded."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(loading: TestClient, engine: StubEngine) -> TestClient:
    """A client of the application once it is ready."""
    engine.may_load.set()
    eventually(lambda: loading.get("/ready").status_code == 200, "ready")
    return loading
