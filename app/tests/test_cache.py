"""What is kept, for how long, and under which name."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from stub import CARD, StubEngine

from genai_inference.batching import Batcher, Device
from genai_inference.cache import (
    ENTRY_BYTES,
    LARGEST_BYTES,
    Answer,
    Cache,
    Found,
    Local,
    Stored,
    decode,
    directive_in,
    encode,
    key_of,
)
from genai_inference.cached import headers_of
from genai_inference.lifecycle import Lifecycle
from genai_inference.metrics import Metrics
from genai_inference.model import WeightsSpec
from genai_inference.registry import Model
from genai_inference.settings import ModelConfig

ANSWER = Answer(b'{"predictions":\n[]}', [1, 1, "cat"])
SIZE = ENTRY_BYTES + 10


@pytest.fixture
def model() -> Model:
    device = Device("stub")
    device.close()
    batcher = Batcher(StubEngine().predict, device, (1, 1), Metrics().of_model("stub"))
    return Model(ModelConfig(dir=Path("/model")), (), CARD, StubEngine(), batcher, 0.0)


@pytest.mark.parametrize(
    ("header", "directive"),
    [
        ("", None),
        ("max-age=0", None),
        ("no-cache", "no-cache"),
        ("No-Cache, max-age=0", "no-cache"),
        ("max-age=0,no-store", "no-store"),
        ("no-cache, no-store", "no-store"),
        ("no-caches", None),
    ],
)
def test_directives(header: str, directive: str | None) -> None:
    assert directive_in(header) == directive


def test_an_entry_is_read_as_it_was_written() -> None:
    assert decode(encode(ANSWER, 60.0)) == (ANSWER, 60.0)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\n",
        b"{}\n{}",
        b"[60.0]\n{}",
        b'[60.0,["a"]]',
        b'[60.0,["a"]]\n',
        b'[0,["a"]]\n{}',
        b"[60.0,[null]]\n{}",
        b"\xff\n{}",
        b"[NaN,[1]]\n{}",
    ],
)
def test_what_is_no_entry_of_ours_is_none(entry: bytes) -> None:
    assert decode(entry) is None


def test_the_same_input_has_one_name(model: Model) -> None:
    name = key_of(model, "application/json", b"{}")
    assert name == key_of(replace(model, load_seconds=9.0), "application/json", b"{}")
    prefix, _, digest = name.rpartition(":")
    assert (prefix, len(digest)) == ("genai:cache:stub", 64)


OTHERS: dict[str, dict[str, Any]] = {
    "name": {"card": CARD.model_copy(update={"name": "other"})},
    "version": {"card": CARD.model_copy(update={"version": "9.8.8"})},
    "weights": {"card": CARD.model_copy(update={"weights": WeightsSpec(sha256="1" * 64)})},
    "labels": {"card": CARD.model_copy(update={"labels": list("abcdefghij")})},
    "dtype": {"config": ModelConfig(dir=Path("/model"), dtype="float16")},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_model_never_has_the_same_name(model: Model, other: dict[str, Any]) -> None:
    assert key_of(model, "image/png", b"x") != key_of(replace(model, **other), "image/png", b"x")


@pytest.mark.parametrize(("kind", "body"), [("image/jpeg", b"x"), ("image/png", b"y"), ("image/png", b"")])
def test_another_input_never_has_the_same_name(model: Model, kind: str, body: bytes) -> None:
    assert key_of(model, "image/png", b"x") != key_of(model, kind, body)


def stored(since: float = 0.0, size: int = 10) -> Stored:
    return Stored(Answer(b"x" * size, []), since)


def test_what_was_not_used_for_longest_goes_first() -> None:
    local = Local(3 * SIZE)
    for key in "abc":
        local.put(key, stored())
    local.get("a", 60, 1)
    local.put("d", stored())
    assert [key for key in "abcd" if local.get(key, 60, 1)] == ["a", "c", "d"]
    assert local.bytes == 3 * SIZE


def test_one_too_large_displaces_nothing() -> None:
    local = Local(2 * SIZE)
    local.put("a", stored())
    local.put("b", stored(size=2 * SIZE))
    assert local.get("a", 60, 1) and not local.get("b", 60, 1)
    local.put("a", stored(size=2 * SIZE))
    assert local.get("a", 60, 1) is None and local.bytes == 0, "the former one is not the answer any more"


def test_the_same_one_again_takes_no_more_room() -> None:
    local = Local(9 * SIZE)
    for since in range(5):
        local.put("a", stored(since))
    assert local.bytes == SIZE and local.get("a", 60, 9) == stored(4)


@pytest.mark.parametrize(("now", "alive"), [(10.0, True), (69.9, True), (70.0, False), (1e9, False)])
def test_an_entry_lives_as_long_as_its_model_says(now: float, alive: bool) -> None:
    local = Local(9 * SIZE)
    local.put("a", stored(since=10.0))
    assert bool(local.get("a", 60.0, now)) == alive
    assert local.bytes == (SIZE if alive else 0)


@pytest.mark.parametrize(
    ("found", "headers"),
    [
        (Found(ANSWER, "miss"), {"X-Cache": "miss"}),
        (Found(ANSWER, "joined"), {"X-Cache": "miss"}),
        (Found(ANSWER, "bypass"), {"X-Cache": "bypass"}),
        (Found(ANSWER, "local_hit", 0.2), {"X-Cache": "hit", "Age": "0"}),
        (Found(ANSWER, "redis_hit", 61.9), {"X-Cache": "hit", "Age": "61"}),
        (Found(ANSWER, "joined", 3.0), {"X-Cache": "hit", "Age": "3"}),
    ],
)
def test_headers(found: Found, headers: dict[str, str]) -> None:
    assert headers_of(found) == headers


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("local_bytes", [0, 2**20])
def test_without_redis_the_local_layer_is_all_there_is(local_bytes: int) -> None:
    clock = Clock()
    cache = Cache(None, Lifecycle(), Metrics(), local_bytes, clock)
    cache.put("a", 60, ANSWER)
    clock.now += 59
    assert cache.local("a", 60) == (Found(ANSWER, "local_hit", 59.0) if local_bytes else None)
    assert cache.local("a", 30) is None, "the model's time to live was shortened"
    cache.put("a", 60, ANSWER)
    clock.now += 60
    assert cache.local("a", 60) is None


def test_a_very_large_answer_is_not_kept() -> None:
    cache = Cache(None, Lifecycle(), Metrics(), 2**30)
    for key, size in (("fits", LARGEST_BYTES), ("too large", LARGEST_BYTES + 1)):
        cache.put(key, 60, Answer(b"x" * size, []))
        assert bool(cache.local(key, 60)) == (key == "fits")


def test_closing_a_cache_without_redis() -> None:
    asyncio.run(Cache(None, Lifecycle(), Metrics(), 1).close())
