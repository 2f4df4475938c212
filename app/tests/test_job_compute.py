"""How a job's instances are cut and spread, and what it comes to."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from PIL import Image
from safetensors.numpy import save
from stub import CARD, StubEngine, digit, loaded

from genai_inference import bodies
from genai_inference.batching import Batcher, Device
from genai_inference.engine import Batch
from genai_inference.job_compute import Wish, chunks, compute, copies, named, on_each
from genai_inference.job_queue import Claim, Entry, Outcome, entries_of
from genai_inference.jobs import to_npy
from genai_inference.metrics import Metrics
from genai_inference.registry import Model
from genai_inference.settings import ModelConfig

CHUNKS = {
    "one instance": ((1, 32, 4), [1]),
    "less than a batch": ((20, 32, 1), [20]),
    "less than a batch for several": ((20, 32, 4), [5, 5, 5, 5]),
    "more than batches": ((70, 32, 1), [32, 32, 6]),
    "more than batches for several": ((70, 8, 3), [8] * 8 + [6]),
    "fewer than devices": ((2, 32, 8), [1, 1]),
}


@pytest.mark.parametrize(("arguments", "sizes"), CHUNKS.values(), ids=CHUNKS)
def test_chunks(arguments: tuple[int, int, int], sizes: list[int]) -> None:
    found = chunks(*arguments)
    assert [chunk.stop - chunk.start for chunk in found] == sizes
    assert [index for chunk in found for index in range(arguments[0])[chunk]] == list(range(arguments[0]))


def test_models_on_devices() -> None:
    configs = [ModelConfig(dir=Path("a")), ModelConfig(dir=Path("b"), device="cuda:1")]
    found = [(str(config.dir), config.device) for config in on_each(configs, ["cuda:0", "cuda:1"])]
    assert found == [("a", "cuda:0"), ("a", "cuda:1"), ("b", "cuda:1")]


def test_a_copy_is_named_after_its_device() -> None:
    engine = copies(lambda _: loaded())(ModelConfig(dir=Path("a")))
    assert engine.load().name == "stub@stub"
    assert (engine.device, engine.framework) == ("stub", "stub")


ANSWERS: dict[str, Any] = {
    "nothing, RESP2": [],
    "nothing": None,
    "RESP2": [[b"s", [(b"1-0", {b"job": b"a"}), (b"2-0", {b"job": b"b"})]]],
    "RESP3": {b"s": [[(b"1-0", {b"job": b"a"}), (b"2-0", {b"job": b"b"})]]},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_entries(name: str) -> None:
    expected = [] if name.startswith("nothing") else [Entry("1-0", "a"), Entry("2-0", "b")]
    assert entries_of(ANSWERS[name]) == expected


# --- a whole job -----------------------------------------------------------------------------------------------------

Models = dict[str, Model]


@pytest.fixture
def models() -> Iterator[Models]:
    """The stub on two devices, four instances a batch."""
    found, devices = {}, [Device("stub:0"), Device("stub:1")]
    for device in devices:
        engine, config = loaded(), ModelConfig(dir=Path("a"), max_batch_size=4, max_queue=4)
        batcher = Batcher(engine.predict, device, (4, 4), Metrics().of_model("stub"))
        found[f"stub@{device.name}"] = Model(config, (), CARD, engine, batcher, 0.0)
    yield found
    for device in devices:
        device.close()


def engines(models: Models) -> list[StubEngine]:
    return [model.engine for model in models.values()]  # type: ignore[misc]


def claim(labels: list[int], **more: Any) -> Claim:  # noqa: ANN401
    batch = np.array([digit(label) for label in labels], dtype=np.float32).reshape(-1, 8, 8)
    values: dict[str, Any] = {
        "entry": Entry("1-0", "a"),
        "lease": 1,
        "attempt": 1,
        "taken_over": False,
        "waited": 0.0,
        "remaining": None,
        "kind": "blueprint",
        "model": "stub",
        "gpus": 0,
        "input": to_npy(batch),
        "media_type": "application/x-npy",
        "request_id": "",
    }
    return Claim(**{**values, **more})


async def decode(model: Model, media_type: str, body: bytes) -> Batch:
    return bodies.to_batch(model.card.input, media_type, body, 1, 10_000)


def outcome(of: Claim, models: Models, wish: Wish | None = None) -> Outcome:
    return asyncio.run(compute(of, models, wish or Wish(), Metrics(), decode))


def test_predictions_in_the_order_of_the_instances(models: Models) -> None:
    """Although each model's queue has room for one batch only, and both compute at once: the first four chunks, of four
    instances each, are handed out in turn; how the rest is shared depends on which thread gets a core.
    """
    labels = [index % 10 for index in range(101)]
    found = outcome(claim(labels), models)
    assert found.status == "succeeded"
    answer = json.loads(found.result)
    assert [each["label"] for each in answer["predictions"]] == labels
    assert answer["model"] == {"name": "stub", "version": "9.8.7"}
    assert min(sum(engine.batches) for engine in engines(models)) >= 8


def test_no_more_devices_than_asked_for(models: Models) -> None:
    outcome(claim([1] * 50, gpus=1), models)
    assert sorted(sum(engine.batches) for engine in engines(models)) == [0, 50]


def test_the_shortest_queue_comes_first(models: Models) -> None:
    busy, idle = models.values()
    busy.batcher.waiting = 3
    assert named(models, "stub") == [idle, busy]


FAILURES: dict[str, tuple[dict[str, Any], str, str]] = {
    "another model": ({"model": "b"}, "model", "No such model. There are: stub."),
    "another shape": (
        {"input": to_npy(np.zeros((1, 9, 9), np.float32))},
        "input",
        "tensor: 8x8 or n x 8x8 numbers expected, got 1x9x9",
    ),
    "no time": ({"remaining": 0.0}, "deadline", "The deadline passed while the job was computed."),
}


@pytest.mark.parametrize(("more", "reason", "detail"), FAILURES.values(), ids=FAILURES)
def test_failures_that_no_other_attempt_would_mend(
    models: Models, more: dict[str, Any], reason: str, detail: str
) -> None:
    assert outcome(claim([1], **more), models) == Outcome("failed", reason, detail)


def test_a_failure_of_the_engine_is_raised(models: Models) -> None:
    engines(models)[0].error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        outcome(claim([1] * 50), models)


def test_cancelled_before_the_next_batch(models: Models) -> None:
    assert outcome(claim([1] * 50), models, Wish(cancelled=True)) == Outcome("cancelled")
    assert all(not engine.batches for engine in engines(models))


def test_waiting_for_room_drops_nothing(models: Models) -> None:
    """Four lanes share queues with room for one batch each: what has to wait was never refused."""
    metrics = Metrics()
    for model in models.values():
        model.batcher._observer = metrics.of_model("stub")
    for engine in engines(models):
        engine.may_compute.clear()

    async def story() -> None:
        computing = asyncio.create_task(compute(claim([1] * 50), models, Wish(), metrics, decode))
        await asyncio.sleep(0.3)
        for engine in engines(models):
            engine.may_compute.set()
        assert (await computing).status == "succeeded"

    asyncio.run(story())
    assert b'reason="queue_full"' not in metrics.exposition()


# --- inputs ----------------------------------------------------------------------------------------------------------


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(file, "PNG")
    return file.getvalue()


INPUTS: dict[str, tuple[str, bytes, str, int | str]] = {
    "a tensor": ("application/x-npy", to_npy(np.zeros((3, 8, 8), np.uint8)), "succeeded", 3),
    "safetensors": ("application/x-safetensors", save({"x": np.zeros((2, 8, 8), np.float32)}), "succeeded", 2),
    "a picture": ("image/png", picture(), "succeeded", 1),
    "no picture": ("image/png", b"x", "failed", "image: cannot be read as image/png: UnidentifiedImageError"),
    "another picture": ("image/jpeg", picture(), "failed", "image: cannot be read as image/jpeg"),
}


@pytest.mark.parametrize(("media_type", "body", "status", "expected"), INPUTS.values(), ids=INPUTS)
def test_an_input_is_read_by_its_media_type(
    models: Models, media_type: str, body: bytes, status: str, expected: int | str
) -> None:
    found = outcome(claim([], input=body, media_type=media_type), models)
    assert found.status == status
    if isinstance(expected, int):
        assert len(json.loads(found.result)["predictions"]) == expected
    else:
        assert found.reason == "input" and found.detail.startswith(expected)


def test_a_picture_waits_while_many_are_unpacked(models: Models) -> None:
    refusals = iter([HTTPException(429, "Too many"), HTTPException(429, "Too many")])

    async def busy(model: Model, media_type: str, body: bytes) -> Batch:
        for refusal in refusals:
            raise refusal
        return await decode(model, media_type, body)

    found = asyncio.run(compute(claim([], input=picture(), media_type="image/png"), models, Wish(), Metrics(), busy))
    assert found.status == "succeeded"
