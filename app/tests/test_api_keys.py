"""Who may call: only whoever has a key, of which the service knows the hash alone."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from checks import check
from command import start
from fastapi.testclient import TestClient
from stub import digit, loaded
from waiting import eventually

from genai_inference import jobs_routes
from genai_inference.admission import PROTECTED
from genai_inference.api import ROUTERS, create_app
from genai_inference.api_keys import UNREADABLE_SECONDS, KeyFile, client_of, parse
from genai_inference.lifecycle import Lifecycle
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


def test_every_other_route_needs_one() -> None:
    """A route that shall be open has to be written down here."""
    paths = {route.path for router in (*ROUTERS, jobs_routes.router) for route in router.routes}  # type: ignore[attr-defined]
    unprotected = {path for path in paths if not path.startswith(PROTECTED)}
    assert unprotected == {"/health", "/ready", "/metrics", "/version", "/", "/page/{name}"}


def test_the_log_says_who_but_not_the_key(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client.post("/v1/predict", json=ONE, headers=bearer(KEY))
    (record,) = (record for record in caplog.records if record.name == "genai_inference.access")
    assert record.fields["client"] == "shop"  # type: ignore[attr-defined]
    assert KEY not in str(record.fields)  # type: ignore[attr-defined]


def statuses(client: TestClient) -> tuple[int, int]:
    """What whoever has KEY hears, and whoever has OTHER."""
    mine, others = (client.get("/v1/models", headers=bearer(key)).status_code for key in (KEY, OTHER))
    return mine, others


def degraded(client: TestClient) -> str | None:
    """What `/ready` says of the file; it says so in `/metrics` too."""
    reason = client.get("/ready").json().get("degraded", {}).get("api_keys")
    assert ('genai_degraded{part="api_keys"} 1.0' in client.get("/metrics").text) is (reason is not None)
    return reason


def test_a_changed_file_counts_at_once(client: TestClient, file: Path) -> None:
    assert statuses(client) == (200, 200)
    file.write_text(f"lab {sha(OTHER)}\n")
    assert statuses(client) == (401, 200)
    file.write_text(f"shop {sha(KEY)}\n")
    assert statuses(client) == (200, 401)
    assert degraded(client) is None


@pytest.mark.parametrize("text", ["", "\n", "# shop\n"], ids=repr)
def test_an_empty_file_is_nobody(client: TestClient, file: Path, text: str) -> None:
    assert statuses(client) == (200, 200)
    file.write_text(text)
    assert statuses(client) == (401, 401)
    assert degraded(client) == "no key in it: it lets nobody in"
    file.write_text(f"shop {sha(KEY)}\n")
    assert (statuses(client), degraded(client)) == ((200, 401), None)


def test_a_bad_line_keeps_no_former_key(client: TestClient, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert statuses(client) == (200, 200)
    file.write_text(f"shop {sha(KEY)[:-1]}\nlab {sha(OTHER)}\nold {KEY}\n")
    assert statuses(client) == (401, 200)
    assert degraded(client) == "left out, for they are not a name and the SHA-256 of a key: lines 1, 3"
    assert KEY not in caplog.text + client.get("/ready").text


def test_it_is_said_without_a_request_that_needs_a_key(client: TestClient, file: Path) -> None:
    file.write_text("rubbish\n")
    assert degraded(client) == "left out, for it is not a name and the SHA-256 of a key: line 1"


def test_a_process_may_begin_with_nobody(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    with TestClient(create_app(Settings(api_keys_file=tmp_path / "keys"), lambda _: loaded())) as client:
        assert statuses(client) == (401, 401)
        assert degraded(client) is not None


def test_a_secret_is_swapped_as_kubernetes_does_it(tmp_path: Path) -> None:
    """`keys` leads to `..data/keys`, and `..data` to a folder; that link is replaced in one step."""

    def swap(number: int, text: str) -> None:
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "keys").write_text(text)
        (tmp_path / "tmp").symlink_to(str(number))
        (tmp_path / "tmp").rename(tmp_path / "..data")

    swap(1, f"shop {sha(KEY)}\n")
    (tmp_path / "keys").symlink_to("..data/keys")
    with TestClient(create_app(Settings(api_keys_file=tmp_path / "keys"), lambda _: loaded())) as client:
        assert statuses(client) == (200, 401)
        swap(2, f"shop {sha(OTHER)}\n")
        assert statuses(client) == (401, 200)
        (tmp_path / "2" / "keys").unlink()
        (tmp_path / "2").rmdir()
        assert statuses(client) == (401, 200), "for a moment"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def keys_and_lifecycle(file: Path, clock: Clock) -> tuple[KeyFile, Lifecycle]:
    lifecycle = Lifecycle()
    return KeyFile(file, lifecycle, clock), lifecycle


@pytest.mark.parametrize("loss", ["gone", "unreadable", "a folder"])
def test_what_cannot_be_read_any_more_counts_for_a_moment_only(file: Path, loss: str) -> None:
    clock = Clock()
    keys, lifecycle = keys_and_lifecycle(file, clock)
    text = file.read_text()
    file.unlink()
    if loss == "unreadable":
        file.symlink_to(file)  # a loop: root may read whatever has permissions
    elif loss == "a folder":
        file.mkdir()
    assert len(keys.keys) == 2
    assert lifecycle.degraded["api_keys"].startswith("cannot be read: ")
    clock.now += UNREADABLE_SECONDS
    assert len(keys.keys) == 2
    clock.now += 1
    assert keys.keys == ()
    file.rmdir() if loss == "a folder" else file.unlink(missing_ok=True)
    file.write_text(text)
    assert len(keys.keys) == 2
    assert not lifecycle.degraded


def test_a_file_comes_back_as_it_was(file: Path, tmp_path: Path) -> None:
    """The same file, unchanged, under the name it had."""
    clock = Clock()
    keys, lifecycle = keys_and_lifecycle(file, clock)
    file.rename(tmp_path / "away")
    assert len(keys.keys) == 2
    clock.now += UNREADABLE_SECONDS + 1
    assert keys.keys == ()
    (tmp_path / "away").rename(file)
    assert len(keys.keys) == 2
    assert not lifecycle.degraded


def test_other_content_of_the_same_length_and_time_counts(file: Path) -> None:
    """As `rsync --inplace --times` leaves it: the hash of a new key is as long as that of the old one."""
    keys, _ = keys_and_lifecycle(file, Clock())
    text, status = file.read_text(), file.stat()

    def written_later() -> bool:  # a file system's clock goes in steps
        file.write_text(text.replace(sha(KEY), sha("a new key")))
        return file.stat().st_ctime_ns > status.st_ctime_ns

    eventually(written_later, "it is written in another moment")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert client_of(keys.keys, KEY.encode()) is None
    assert client_of(keys.keys, b"a new key") == "shop"


BAD = {
    "a key, no hash": f"shop {KEY}",
    "no name": sha(KEY),
    "a bad name": f"a/b {sha(KEY)}",
    "a word too many": f"shop {sha(KEY)} {sha(OTHER)}",
    "no text": "\ufffd\0",
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_a_bad_line_is_left_out(line: str) -> None:
    assert parse(f"# clients\n{line}\nlab {sha(OTHER)}\n") == ((("lab", bytes.fromhex(sha(OTHER))),), [2])


def test_a_name_may_have_two_keys() -> None:
    keys, _ = parse(f"a {sha(KEY)}\na {sha(OTHER)}\n")
    assert client_of(keys, KEY.encode()) == client_of(keys, OTHER.encode()) == "a"
    assert client_of(keys, b"") is None


def test_without_its_file_the_process_ends_with_2_and_one_line(tmp_path: Path) -> None:
    code, stderr = start(GENAI_API_KEYS_FILE=str(tmp_path / "none"), GENAI_HOST="127.0.0.1", GENAI_PORT="0")
    assert code == 2
    assert stderr == f"genai-inference: GENAI_API_KEYS_FILE: {tmp_path}/none: No such file or directory\n"
