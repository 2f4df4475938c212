"""How much a client may ask for, and who is one."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from checks import check
from fastapi import FastAPI
from fastapi.testclient import TestClient
from processes import Start
from stub import digit, loaded
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.middleware import WRONG_BURST, Authenticate
from genai_inference.rate_limit import LONGEST_SECONDS, Bucket, Buckets, LimitRate, Verdict, client_of, take
from genai_inference.settings import Settings

ONE = {"instances": [digit(1)]}
RATE, BURST = 2.0, 4


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("tokens", "passed", "left", "verdict"),
    [
        (4.0, 0.0, 3.0, Verdict(True, 3, 1, 1)),
        (1.0, 0.0, 0.0, Verdict(True, 0, 2, 1)),
        (0.5, 0.0, 0.5, Verdict(False, 0, 2, 1)),
        (0.0, 0.25, 0.5, Verdict(False, 0, 2, 1)),
        (0.0, 0.5, 0.0, Verdict(True, 0, 2, 1)),
        (0.0, 1.9, 2.8, Verdict(True, 2, 1, 1)),
        (0.0, 1e9, 3.0, Verdict(True, 3, 1, 1)),  # no more than the burst
        (2.0, -5.0, 1.0, Verdict(True, 1, 2, 1)),  # a clock that went back
    ],
)
def test_take(tokens: float, passed: float, left: float, verdict: Verdict) -> None:
    bucket, said = take(Bucket(tokens, 100.0), 100.0 + passed, RATE, BURST)
    assert said == verdict
    assert bucket.tokens == pytest.approx(left) and bucket.at == 100.0 + passed


@pytest.mark.parametrize(("per_second", "seconds"), [(0.1, 10), (3.0, 1), (1e-320, LONGEST_SECONDS)])
def test_how_long_to_wait(per_second: float, seconds: int) -> None:
    verdict = take(Bucket(0.0, 0.0), 0.0, per_second, 1)[1]
    assert (verdict.allowed, verdict.retry_after) == (False, seconds)


@pytest.mark.parametrize(
    ("scope", "client"),
    [
        ({"client_name": "shop", "client": ("192.0.2.1", 1)}, ("name", "shop")),
        ({"client_name": "192.0.2.1", "client": ("192.0.2.1", 1)}, ("name", "192.0.2.1")),
        ({"client": ("192.0.2.1", 1), "headers": [(b"x-forwarded-for", b"192.0.2.9")]}, ("address", "192.0.2.1")),
        ({"client": ("::ffff:192.0.2.1", 1)}, ("address", "192.0.2.1")),
        ({"client": ("2001:db8::1", 1)}, ("address", "2001:db8::/64")),
        ({"client": ("2001:db8::ffff:1", 1)}, ("address", "2001:db8::/64")),
        ({"client": ("fe80::1%eth0", 1)}, ("address", "fe80::/64")),
        ({"client": ("::1", 1)}, ("address", "::/64")),
        ({"client": None}, ("address", "")),
        ({}, ("address", "")),
    ],
)
def test_who_asks(scope: dict[str, Any], client: tuple[str, str]) -> None:
    assert client_of(scope) == client


def test_a_bucket_is_spent_and_filled_again() -> None:
    clock = Clock()
    buckets = Buckets(RATE, BURST, clock)
    assert [buckets.take(("name", "a")).allowed for _ in range(6)] == [True] * 4 + [False] * 2
    assert buckets.take(("address", "a")).allowed, "others have their own"
    clock.now += 1.0
    assert [buckets.take(("name", "a")).allowed for _ in range(3)] == [True, True, False]


def test_no_more_clients_are_known_than_there_is_room_for() -> None:
    buckets = Buckets(RATE, BURST, Clock(), most=3)
    for name in ("a", "b", "c", "a", "d"):
        buckets.take(("name", name))
    assert {name for _, name in buckets._buckets} == {"c", "a", "d"}
    assert buckets.take(("name", "a")).remaining == 1


KEY, OTHER = "a-long-random-word", "another-one"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(app: FastAPI, clock: Clock) -> FastAPI:
    """The application with this clock in all that limits rates."""
    for middleware in app.user_middleware:
        if middleware.cls in (LimitRate, Authenticate):
            middleware.kwargs["clock"] = clock
    return app


@pytest.fixture
def client(tmp_path: Path, clock: Clock) -> Iterator[TestClient]:
    file = tmp_path / "keys"
    hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in {"shop": KEY, "lab": OTHER}.items()}
    file.write_text("".join(f"{name} {value}\n" for name, value in hashes.items()))
    settings = Settings(api_keys_file=file, rate_per_second=RATE, rate_burst=BURST)
    with TestClient(limited(create_app(settings, lambda _: loaded()), clock)) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


def limits(response: httpx.Response) -> tuple[str, ...]:
    return tuple(response.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset"))


def test_too_many_are_refused_until_there_are_tokens_again(client: TestClient, clock: Clock) -> None:
    shop = {"X-API-Key": KEY}
    answers = [client.post("/v1/predict", json=ONE, headers=shop) for _ in range(4)]
    assert [limits(answer) for answer in answers] == [
        ("4", "3", "1"),
        ("4", "2", "1"),
        ("4", "1", "2"),
        ("4", "0", "2"),
    ]
    refused = client.post("/v1/predict", content=b"rubbish", headers=shop)
    check(refused, 429, "Too many requests from this client; try again in 1 s.")
    assert (refused.headers["retry-after"], limits(refused)) == ("1", ("4", "0", "2"))
    assert client.get("/v1/models", headers=shop).status_code == 429, "all of /v1 counts"
    assert client.get("/v1/models", headers={"X-API-Key": OTHER}).status_code == 200
    for path in ("/health", "/ready", "/metrics", "/version"):
        assert client.get(path).status_code == 200
    assert "genai_rate_limited_total 2.0" in client.get("/metrics").text
    clock.now += 0.5
    assert [client.get("/v1/models", headers=shop).status_code for _ in range(2)] == [200, 429]


def test_who_is_nobody_takes_nobodys_tokens(client: TestClient) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer shop"}):
        for _ in range(3 * BURST):
            assert client.get("/v1/models", headers=headers).status_code == 401
    assert limits(client.get("/v1/models", headers={"X-API-Key": KEY})) == ("4", "3", "1")


def test_wrong_keys_are_limited_and_a_right_one_is_not(client: TestClient, clock: Clock) -> None:
    """All of these come from the same address, as from behind a proxy."""
    wrong = [client.get("/v1/models", headers={"X-API-Key": f"wrong{number}"}) for number in range(WRONG_BURST + 2)]
    assert [answer.status_code for answer in wrong] == [401] * WRONG_BURST + [429] * 2
    check(wrong[-1], 429, "Too many wrong keys or tokens from this address; try again in 1 s.")
    assert wrong[-1].headers["retry-after"] == "1"
    assert client.get("/v1/models", headers={"X-API-Key": KEY}).status_code == 200
    check(client.get("/v1/models"), 401, "An API key is needed")  # who has none yet is asked for one
    clock.now += 1.0
    again = [client.get("/v1/models", headers={"X-API-Key": "wrong"}).status_code for _ in range(2)]
    assert again == [401, 429]


@pytest.mark.parametrize(
    ("settings", "limit"), [({"rate_per_second": 0.5}, "1"), ({"rate_per_second": 2.5}, "3"), ({}, None)]
)
def test_the_burst_is_one_second_unless_set(settings: dict[str, float], limit: str | None) -> None:
    with TestClient(create_app(Settings(**settings), lambda _: loaded())) as client:
        assert client.get("/v1/models").headers.get("ratelimit-limit") == limit


def test_it_comes_after_whoever_names_the_client() -> None:
    names = [middleware.cls.__name__ for middleware in create_app(Settings(), lambda _: loaded()).user_middleware]
    assert names.index("Authenticate") < names.index("LimitRate") < names.index("LimitBody")


def test_a_connection_outlives_a_refusal_of_a_large_body(start: Start) -> None:
    server = start("0", GENAI_RATE_PER_SECOND="0.001", GENAI_RATE_BURST="1")
    server.becomes("/ready", 200)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/v1/predict", json=ONE).status_code == 200
        for _ in range(3):
            check(client.post("/v1/predict", content=b"x" * 900_000), 429, "Too many requests from this client")
        assert client.get("/health").status_code == 200
