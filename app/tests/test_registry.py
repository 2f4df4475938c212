"""Models come, change and go by configuration, while requests are answered."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from stub import CARD, StubEngine, digit
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.engine import Engine
from genai_inference.job_compute import copies
from genai_inference.lifecycle import Lifecycle
from genai_inference.metrics import Metrics
from genai_inference.model import ModelError
from genai_inference.registry import Registry
from genai_inference.settings import ModelConfig, Settings, read_models

ONE = {"instances": [digit(1)]}


class Shelf:
    """Folders that stand for packages, and the stubs made from them."""

    def __init__(self, root: Path) -> None:
        self.file = root / "models.yaml"
        self.root = root
        self.engines: dict[str, StubEngine] = {}
        self.broken: set[str] = set()

    def write(self, *entries: dict[str, object]) -> None:
        """The models file, in one step, as a ConfigMap's is."""
        for entry in entries:
            (self.root / str(entry["dir"])).mkdir(parents=True, exist_ok=True)
        listed = [{**entry, "dir": str(self.root / str(entry["dir"]))} for entry in entries]
        new = self.file.with_suffix(".new")
        new.write_text(yaml.safe_dump({"models": listed}))
        new.rename(self.file)

    def make(self, config: ModelConfig) -> Engine:
        name, version = config.dir.parts[-2:]
        key = f"{name}/{version}"
        failure = ModelError(config.dir, "broken") if key in self.broken else None
        engine = StubEngine(
            failure=failure, card=CARD.model_copy(update={"name": config.name or name, "version": version})
        )
        if not version.startswith("slow"):
            engine.may_load.set()
        self.engines[key] = engine
        return engine


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def start(shelf: Shelf) -> Iterator[Callable[[], TestClient]]:
    clients: list[TestClient] = []

    def run() -> TestClient:
        settings = Settings(models_file=shelf.file, reload_seconds=0.02)
        clients.append(TestClient(create_app(settings, shelf.make), raise_server_exceptions=False))
        clients[-1].__enter__()
        return clients[-1]

    yield run
    for client in clients:
        for engine in shelf.engines.values():
            engine.may_load.set()
            engine.may_compute.set()
        client.__exit__(None, None, None)


def ready(client: TestClient) -> bool:
    return client.get("/ready").status_code == 200


def served(client: TestClient) -> list[tuple[str, str]]:
    return [(model["name"], model["version"]) for model in client.get("/v1/models").json()["models"]]


def test_several_models(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    shelf.write({"dir": "a/1", "max_batch_size": 2}, {"dir": "b/1", "max_queue": 99, "deadline_seconds": 3})
    client = start()
    eventually(lambda: ready(client), "ready")
    assert served(client) == [("a", "1"), ("b", "1")]
    assert client.post("/v1/predict", json=ONE).json()["model"]["name"] == "a"
    for name in "ab":
        answer = client.post(f"/v1/models/{name}:predict", json=ONE).json()
        assert (answer["model"]["name"], answer["predictions"][0]["label"]) == (name, 1)
    three = {"instances": [digit(1)] * 3}
    assert client.post("/v1/models/a:predict", json=three).json()["detail"] == "instances: at most 2 at once, got 3"
    assert client.post("/v1/models/b:predict", json=three).status_code == 200
    b = client.get("/v1/models/b").json()
    assert (b["default"], b["max_batch_size"], b["max_queue"], b["deadline_seconds"]) == (False, 32, 99, 3)
    assert b["label_names"] == list(range(10))
    assert client.get("/v1/models/a").json()["max_queue"] == 16  # eight batches


@pytest.mark.parametrize("path", ["/v1/models/c", "/v1/models/c:predict"])
def test_a_model_that_is_not_there(shelf: Shelf, start: Callable[[], TestClient], path: str) -> None:
    shelf.write({"dir": "a/1"}, {"dir": "b/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    answer = client.post(path, json=ONE) if path.endswith("predict") else client.get(path)
    assert (answer.status_code, answer.json()["detail"]) == (404, "No such model. There are: a, b.")


def test_a_version_is_switched_under_load_without_a_failed_request(
    shelf: Shelf, start: Callable[[], TestClient]
) -> None:
    shelf.write({"dir": "a/1"})
    client, stop = start(), threading.Event()
    eventually(lambda: ready(client), "ready")
    versions: list[str] = []

    def call() -> list[int]:
        statuses = []
        while not stop.is_set():
            answer = client.post("/v1/predict", json=ONE)
            statuses.append(answer.status_code)
            versions.append(answer.json()["model"]["version"])
        return statuses

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call) for _ in range(4)]
        shelf.write({"dir": "a/slow-2"})
        eventually(lambda: "a/slow-2" in shelf.engines, "the new version is being loaded")
        before = len(versions)
        eventually(lambda: len(versions) > before + 40, "the old version answers while the new one is loaded")
        assert set(versions) == {"1"}
        assert ready(client)
        shelf.engines["a/slow-2"].may_load.set()
        eventually(lambda: versions[-1] == "slow-2", "the new version answers")
        before = len(versions)
        eventually(lambda: len(versions) > before + 40, "and goes on")
        stop.set()
        assert {status for caller in callers for status in caller.result()} == {200}
    # The other three callers may each have been waiting for an answer of the old version.
    assert set(versions[before:]) <= {"1", "slow-2"} and versions[before:].count("1") <= 3
    metrics = client.get("/metrics").text
    assert 'genai_model_info{name="a",version="slow-2"} 1.0' in metrics
    assert 'version="1"} 1.0' not in metrics


def test_a_request_that_waits_is_answered_by_the_version_it_came_to(
    shelf: Shelf, start: Callable[[], TestClient]
) -> None:
    shelf.write({"dir": "a/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    old = shelf.engines["a/1"]
    old.may_compute.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.post, "/v1/predict", json=ONE)
        eventually(lambda: bool(old.batches), "the old version computes")
        shelf.write({"dir": "a/2"})
        eventually(lambda: served(client) == [("a", "2")], "the new version is there")
        old.may_compute.set()
        assert waiting.result().json()["model"]["version"] == "1"
    assert client.post("/v1/predict", json=ONE).json()["model"]["version"] == "2"


def test_a_model_is_unloaded(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    shelf.write({"dir": "a/1"}, {"dir": "b/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    engine = shelf.engines["a/1"]
    shelf.write({"dir": "a/1"})
    eventually(lambda: served(client) == [("a", "1")], "b is gone")
    assert client.post("/v1/models/b:predict", json=ONE).status_code == 404
    assert shelf.engines["a/1"] is engine  # what did not change was not loaded again
    assert 'genai_queue_depth{model="b"}' not in client.get("/metrics").text


def test_the_series_of_what_is_gone_go(
    shelf: Shelf, start: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genai_inference.metrics.GONE_SECONDS", 0.0)
    shelf.write({"dir": "a/1", "cache_ttl_seconds": 60}, {"dir": "b/1", "cache_ttl_seconds": 60})
    client = start()
    eventually(lambda: ready(client), "ready")
    for name in "ab":
        assert client.post(f"/v1/models/{name}:predict", json=ONE).status_code == 200
    shelf.write({"dir": "a/1", "cache_ttl_seconds": 60, "max_batch_size": 4}, {"dir": "b/1", "cache_ttl_seconds": 60})
    eventually(lambda: client.get("/v1/models/a").json()["max_batch_size"] == 4, "it is served in another way")
    count = 'genai_predictions_total{label="1",model="%s",model_version="%s"} 1.0'
    for _ in range(3):
        assert count % ("a", 1) in client.get("/metrics").text  # of the same version it goes on
    shelf.write({"dir": "a/2"})
    eventually(lambda: served(client) == [("a", "2")], "the others are gone")
    assert client.post("/v1/predict", json=ONE).status_code == 200
    client.get("/metrics")  # shows the last of their counts
    after = client.get("/metrics").text
    assert 'model_version="1"' not in after and count % ("a", 2) in after
    assert '"b"' not in after


def test_what_an_old_version_leaves_is_collected(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    """Even though the server froze what it found in memory with the first one."""
    shelf.write({"dir": "a/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    engine = shelf.engines.pop("a/1")
    engine.itself = engine  # type: ignore[attr-defined]  # only the collector finds what holds itself
    old = weakref.ref(engine)
    del engine
    gc.freeze()  # as server.on_tick does
    try:
        shelf.write({"dir": "a/2"})
        eventually(lambda: served(client) == [("a", "2")], "the new version is there")
        eventually(lambda: gc.collect() >= 0 and old() is None, "the old one is gone")
    finally:
        gc.unfreeze()


def test_what_cannot_be_loaded_changes_nothing_and_is_said(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    shelf.write({"dir": "a/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    shelf.broken.add("b/1")
    shelf.write({"dir": "a/2"}, {"dir": "b/1"})
    eventually(lambda: "degraded" in client.get("/ready").json(), "degraded")
    assert client.get("/ready").json() == {
        "status": "ready",
        "degraded": {"models": f"{shelf.root}/b/1: broken"},
    }
    assert served(client) == [("a", "1")]
    first = shelf.engines["b/1"]
    assert "genai_model_load_failures_total 1.0" in client.get("/metrics").text  # it is not tried again and again
    shelf.broken.clear()
    shelf.write({"dir": "a/2"}, {"dir": "b/1", "max_batch_size": 8})
    eventually(lambda: client.get("/ready").json() == {"status": "ready"}, "recovered")
    assert served(client) == [("a", "2"), ("b", "1")]
    assert shelf.engines["b/1"] is not first


def test_an_error_nobody_expected_is_said_too_and_ends_nothing(
    shelf: Shelf, start: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.write({"dir": "a/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    with monkeypatch.context() as broken:
        broken.setattr("genai_inference.registry.fingerprint", lambda _: 1 / 0)
        eventually(lambda: "ZeroDivisionError" in client.get("/ready").text, "degraded")
        assert client.post("/v1/predict", json=ONE).status_code == 200
    eventually(lambda: client.get("/ready").json() == {"status": "ready"}, "recovered")


def test_a_changed_file_of_the_package_is_a_new_version(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    shelf.write({"dir": "a/1"})
    client = start()
    eventually(lambda: ready(client), "ready")
    first = shelf.engines["a/1"]
    (shelf.root / "a" / "1" / "model.yaml").write_text("another")
    eventually(lambda: shelf.engines["a/1"] is not first, "loaded again")


def test_the_same_name_twice_ends_the_start(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    shelf.write({"dir": "x/a/1"}, {"dir": "y/a/2"})
    client = start()
    eventually(lambda: "failed" in client.get("/ready").text, "failed")
    expected = f"failed: {shelf.root}/y/a/2/model.yaml: name: 'a' is also the model in {shelf.root}/x/a/1"
    assert client.get("/ready").json()["reason"] == expected


def test_one_package_under_two_names(shelf: Shelf, start: Callable[[], TestClient]) -> None:
    shelf.write({"dir": "a/1"}, {"dir": "a/1", "name": "a-small", "max_batch_size": 2})
    client = start()
    eventually(lambda: ready(client), "ready")
    assert served(client) == [("a", "1"), ("a-small", "1")]
    assert client.post("/v1/models/a-small:predict", json=ONE).json()["model"] == {"name": "a-small", "version": "1"}
    assert client.get("/v1/models/a-small").json()["max_batch_size"] == 2
    assert 'genai_model_info{name="a-small",version="1"} 1.0' in client.get("/metrics").text


FILES = {
    "bad name": ("models: [{dir: a, name: a b}]", "models.0.name: String should match pattern"),
    "missing": (None, "no such file or directory"),
    "not YAML": ("models: [", "not valid YAML: "),
    "empty": ("", "content: Input should be a valid dictionary"),
    "no models": ("models: []", "models: List should have at least 1 item"),
    "no dir": ("models: [{}]", "models.0.dir: Field required"),
    "unknown option": ("models: [{dir: a, batch: 1}]", "models.0.batch: Extra inputs are not permitted"),
    "bad dtype": ("models: [{dir: a, dtype: int8}]", "models.0.dtype: Input should be 'float32', "),
    "queue below a batch": ("models: [{dir: a, max_queue: 1}]", "models.0: Value error, max_queue must be at least"),
}


@pytest.mark.parametrize(("content", "reason"), FILES.values(), ids=FILES)
def test_bad_models_file(tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "models.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ModelError) as caught:
        read_models(Settings(models_file=file))
    assert str(caught.value).startswith(f"{file}: {reason}")
    assert "\n" not in str(caught.value)


def test_packages_without_a_file() -> None:
    configs = read_models(Settings(model_dir=Path("/a:/b"), max_batch_size=7))
    assert [(str(config.dir), config.max_batch_size) for config in configs] == [("/a", 7), ("/b", 7)]


# --- what is held ----------------------------------------------------------------------------------------------------


class OnAGpu(StubEngine):
    """Says how much it has there, by a method of its own."""

    def device_memory(self) -> int | None:
        return 7


def test_engines_of_the_past_are_not_held(tmp_path: Path) -> None:
    """By nothing: their memory is that of the GPU."""
    made: list[weakref.ref[StubEngine]] = []
    configs = [ModelConfig(dir=tmp_path / "0")]
    metrics = Metrics()

    def make(_: ModelConfig) -> Engine:
        engine = OnAGpu(card=CARD)
        engine.may_load.set()
        made.append(weakref.ref(engine))
        return engine

    registry = Registry(lambda: configs, copies(make), Lifecycle(), metrics, 0)
    for number in range(4):  # the first, and three reloads
        configs[:] = [ModelConfig(dir=tmp_path / str(number))]
        registry.reconcile()
        assert b'genai_device_memory_bytes{device="stub"} 7.0' in metrics.exposition()
    gc.collect()
    assert [number for number, engine in enumerate(made) if engine() is not None] == [3]
    registry.close()


def test_engines_that_were_refused_are_not_held(tmp_path: Path) -> None:
    """Nor does anything grow while the same configuration is refused again and again."""
    made: list[weakref.ref[StubEngine]] = []

    def make(config: ModelConfig) -> Engine:
        engine = StubEngine(failure=ModelError(config.dir, "broken"))
        engine.may_load.set()
        made.append(weakref.ref(engine))
        return engine

    registry = Registry(lambda: [ModelConfig(dir=tmp_path)], make, Lifecycle(), Metrics(), 0)
    for _ in range(5):
        error = registry._try()
        assert error is not None and error.__traceback__ is None
    gc.collect()
    assert [engine() for engine in made] == [None]
    registry.close()
