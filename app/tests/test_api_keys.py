"""Who may call: only whoever has a key, of which the service knows the hash alone."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checks import check
from command import start
from fastapi.testclient import TestClient
from stub import digit, loaded
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.api_keys import client_of, parse
from genai_inference.settings import Settings

ONE = {"instances": [digit(1)]}
KEY, OTHER = "a-long-random-word", "another-one"


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# clients\nshop {sha(KEY)}\n\nlab {sha(OTHER).upper()}  # in a hurry\n")
    return file


@pytest.fixture
def client(file: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(api_keys_file=file), lambda _: loaded())) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("headers", [bearer(KEY), {"Authorization": f"bearer {KEY}"}, {"X-API-Key": OTHER}], ids=str)
def test_a_key_opens(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/predict", json=ONE, headers=headers).status_code == 200


WRONG = [{}, bearer("wrong"), bearer(""), bearer(sha(KEY)), {"X-API-Key": KEY[:-1]}, {"Authorization": f"Basic {KEY}"}]


@pytest.mark.parametrize("headers", WRONG, ids=str)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/models/stub:predict", "/v1/nowhere"])
def test_nothing_else_does(client: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = client.post(path, json=ONE, headers=headers)
    check(answer, 401, "API key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


def test_the_catalog_needs_a_key_too(client: TestClient) -> None:
    check(client.get("/v1/models"), 401, "An API key is needed")
    assert client.get("/v1/models", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/version", "/openapi.json"])
def test_probes_and_scrapers_need_none(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_log_says_who_but_not_the_key(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client.post("/v1/predict", json=ONE, headers=bearer(KEY))
    (record,) = (record for record in caplog.records if record.name == "genai_inference.access")
    assert record.fields["client"] == "shop"  # type: ignore[attr-defined]
    assert KEY not in str(record.fields)  # type: ignore[attr-defined]


def test_a_changed_file_counts_at_once_and_a_broken_one_changes_nothing(client: TestClient, file: Path) -> None:
    status: Callable[[str], int] = lambda key: client.get("/v1/models", headers=bearer(key)).status_code  # noqa: E731
    assert (status(KEY), status(OTHER)) == (200, 200)
    file.write_text(f"lab {sha(OTHER)}\n")
    assert (status(KEY), status(OTHER)) == (401, 200)
    file.write_text("rubbish\n")
    assert (status(KEY), status(OTHER)) == (401, 200)
    file.unlink()
    assert (status(KEY), status(OTHER)) == (401, 200)
    file.write_text(f"shop {sha(KEY)}\n")
    assert (status(KEY), status(OTHER)) == (200, 401)


BAD = {
    "empty": "",
    "comments": "# shop\n",
    "a key, no hash": f"shop {KEY}\n",
    "no name": sha(KEY),
    "a bad name": f"a/b {sha(KEY)}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1: a client's name|no key in it"):
        parse(text)


def test_a_name_may_have_two_keys() -> None:
    keys = parse(f"a {sha(KEY)}\na {sha(OTHER)}\n")
    assert client_of(keys, KEY.encode()) == client_of(keys, OTHER.encode()) == "a"
    assert client_of(keys, b"") is None


def test_without_its_file_the_process_ends_with_2_and_one_line(tmp_path: Path) -> None:
    code, stderr = start(GENAI_API_KEYS_FILE=str(tmp_path / "none"), GENAI_HOST="127.0.0.1", GENAI_PORT="0")
    assert code == 2
    assert stderr == f"genai-inference: GENAI_API_KEYS_FILE: {tmp_path}/none: No such file or directory\n"
