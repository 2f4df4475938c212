"""A device that fails, hangs, and comes back: what is known of it, what probes hear, and when the process ends."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from processes import Start
from stub import StubEngine, digit
from waiting import eventually

from genai_inference import watchdog
from genai_inference.settings import Settings
from genai_inference.watchdog import FAILED_BATCHES, Trouble, Watchdog

ONE = {"instances": [digit(1)]}


def works() -> None:
    pass


def fails() -> None:
    raise RuntimeError("CUDA error: unspecified launch failure\nmore")


def after(dog: Watchdog, *batches: Callable[[], None], trial: Callable[[], None] = works) -> Watchdog:
    for batch in batches:
        dog.run(batch, trial)
        dog.try_again()
    return dog


def test_what_cannot_be_computed_is_not_the_devices_fault() -> None:
    dog = after(Watchdog("cuda:0"), *[fails] * 10 * FAILED_BATCHES)
    assert dog.trouble(time.monotonic(), 30) is None and dog.idle_seconds is None


def test_a_device_on_which_nothing_works_is_lost_until_something_does() -> None:
    dog = after(Watchdog("cuda:0"), *[fails] * (FAILED_BATCHES - 1), trial=fails)
    assert dog.trouble(time.monotonic(), 30) is None
    after(dog, fails, trial=fails)
    trouble = dog.trouble(time.monotonic(), 30)
    assert trouble is not None
    assert trouble.reason == "cuda:0: 3 batches in a row failed: RuntimeError: CUDA error: unspecified launch failure"
    assert dog.idle_seconds == watchdog.TRIAL_SECONDS
    after(dog, fails, trial=fails)
    assert dog.trouble(time.monotonic(), 30) == trouble, "since when stays"
    after(dog, works)
    assert dog.trouble(time.monotonic(), 30) is None


def test_one_that_works_between_those_that_fail_makes_it_well() -> None:
    dog = after(Watchdog("cuda:0"), *[fails, fails, works] * 5, trial=fails)
    assert dog.trouble(time.monotonic(), 30) is None


def test_a_batch_that_takes_too_long() -> None:
    dog, seen = Watchdog("cuda:0"), list[Trouble | None]()

    def slow() -> None:
        now = time.monotonic()
        seen.extend(dog.trouble(now + later, 30) for later in (29, 31, 45))

    after(dog, slow)
    assert [trouble is None for trouble in seen] == [True, False, False]
    assert seen[1] is not None and seen[1] == seen[2]
    assert seen[1].reason == "cuda:0: a batch is not computed within 30 s"
    assert dog.trouble(time.monotonic() + 60, 30) is None


def test_a_model_is_not_held_after_a_failure_of_its_own() -> None:
    dog = after(Watchdog("cuda:0"), fails)
    assert dog._trial is None


@pytest.fixture
def settings() -> Settings:
    return Settings(device_seconds=1, deadline_seconds=30)


def test_probes_hear_of_a_device_that_fails_and_of_its_return(
    client: TestClient, engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TRIAL_SECONDS", 0.05)
    engine.error = RuntimeError("CUDA error: unspecified launch failure")
    for _ in range(FAILED_BATCHES):
        assert client.post("/v1/predict", json=ONE).status_code == 500
    eventually(lambda: client.get("/ready").status_code == 503, "unready")
    assert client.get("/ready").json()["reason"].startswith("stub: 3 batches in a row failed: RuntimeError: CUDA error")
    assert "genai_device_trouble 1.0" in client.get("/metrics").text and client.get("/health").status_code == 200
    engine.error = None
    eventually(lambda: client.get("/ready").status_code == 200, "ready again, though nobody sent a request")
    assert "genai_device_trouble 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("state", ["fail", "hang"])
def test_a_process_whose_device_does_not_come_back_ends(start: Start, tmp_path: Path, state: str) -> None:
    file = tmp_path / "state"
    file.write_text("well")
    server = start(f"device {file}", GENAI_DEVICE_SECONDS="2", GENAI_DEADLINE_SECONDS="0.5")
    server.becomes("/ready", 200)
    url = f"{server.url}/v1/predict"
    assert httpx.post(url, json=ONE, timeout=60).status_code == 200
    file.write_text(state)
    for _ in range(FAILED_BATCHES):
        assert httpx.post(url, json=ONE, timeout=60).status_code in (500, 504)
    server.becomes("/ready", 503)
    file.write_text("well")
    server.becomes("/ready", 200)
    assert httpx.post(url, json=ONE, timeout=60).status_code == 200
    file.write_text(state)
    for _ in range(FAILED_BATCHES):
        httpx.post(url, json=ONE, timeout=60)
    assert server.exit_code() == 8
