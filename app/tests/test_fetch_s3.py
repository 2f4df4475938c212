"""Fetching from a bucket. Moto stands in for the object store: the real protocol over HTTP, not the real server.

Where it is not installed (the image), only the first test runs, with canned answers: that boto3 has all that it needs.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import package
import pytest
from command import run
from faulty import Answer, Faulty, serving
from package import nothing_left, pin, refused

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

KEYS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "word-of-the-reader", "AWS_REGION": "eu-west-1"}


class Store(Faulty):
    """Moto behind a proxy, whose moods concern the weights."""

    def __init__(self, port: int) -> None:
        super().__init__(self._forward, fragile="weights.safetensors")
        self._behind = f"http://127.0.0.1:{port}"

    def _forward(self, path: str, headers: Mapping[str, str]) -> Answer:
        request = urllib.request.Request(self._behind + path, headers=dict(headers))  # noqa: S310
        try:
            with urllib.request.urlopen(request) as response:  # noqa: S310
                return response.status, _passed_on(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _passed_on(error.headers), error.read()

    def downloads(self) -> int:
        return sum("weights.safetensors" in path for path in self.asked)

    def variables(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL_S3": self.url}


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    own = {"content-length", "connection", "date", "server", "transfer-encoding"}
    return {name: value for name, value in headers.items() if name.lower() not in own}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    package.write(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "volume" / "digits"


@pytest.fixture
def behind() -> Iterator[Any]:
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(behind: Any, source: Path) -> Iterator[Store]:  # noqa: ANN401
    """Holds the package below models/digits/1.0.0, and another one whose name begins with the same letters."""
    port = behind.get_host_and_port()[1]
    names = {"aws_access_key_id": "writer", "aws_secret_access_key": "word", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **names)
    client.create_bucket(Bucket="models")
    for path in source.iterdir():
        client.upload_file(str(path), "models", f"digits/1.0.0/{path.name}")
    client.put_object(Bucket="models", Key="digits/1.0.0/", Body=b"")  # as consoles mark folders
    client.put_object(Bucket="models", Key="digits/1.0.0-rc1/model.yaml", Body=b"another")
    client.put_object(Bucket="models", Key="hostile/../../escaped", Body=b"x")
    with serving(Store(port)) as store:
        yield store


def fetched(store: Store, target: Path, *more: str, prefix: str = "digits/1.0.0/", **variables: str) -> Any:  # noqa: ANN401
    return run("fetch", "--from", f"s3://models/{prefix}", "--to", str(target), *more, **store.variables(), **variables)


def test_canned_answers(source: Path, target: Path) -> None:
    def answer(path: str, headers: Mapping[str, str]) -> Answer:
        assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=reader/")
        if "list-type=2" not in path:
            return 200, {}, (source / Path(path).name).read_bytes()
        entries = "".join(
            f"<Contents><Key>digits/{file.name}</Key><Size>{file.stat().st_size}</Size><ETag>x</ETag></Contents>"
            for file in source.iterdir()
        )
        return 200, {"Content-Type": "application/xml"}, f"<ListBucketResult>{entries}</ListBucketResult>".encode()

    with serving(Faulty(answer)) as server:
        variables = {**KEYS, "AWS_ENDPOINT_URL_S3": server.url}
        result = run("fetch", "--from", "s3://models/digits", "--to", str(target), **variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert package.contents(target) == package.contents(source)


@pytest.mark.parametrize("prefix", ["digits/1.0.0/", "digits/1.0.0"])
def test_a_bucket(store: Store, source: Path, target: Path, prefix: str) -> None:
    result = fetched(store, target, "--sha256", pin(source), prefix=prefix)
    assert (result.returncode, result.stderr) == (0, "")
    assert package.contents(target) == package.contents(source)
    nothing_left(target)
    assert fetched(store, target, "--sha256", pin(source)).returncode == 0
    assert store.downloads() == 1


@pytest.mark.parametrize("moods", [["break"], ["busy", "break", "429"]])
def test_what_passes_is_tried_again(store: Store, source: Path, target: Path, moods: list[str]) -> None:
    store.moods = list(moods)
    result = fetched(store, target, "--sha256", pin(source))
    assert (result.returncode, result.stderr) == (0, "")
    assert store.downloads() == 1 + len(moods)
    assert package.contents(target) == package.contents(source)


def test_a_store_that_trickles_ends_in_time(store: Store, source: Path, target: Path) -> None:
    package.write(target, "0.9.0", b"old")
    before = package.contents(target)
    store.moods = ["trickle"] * 99
    result = fetched(store, target, "--sha256", pin(source), GENAI_FETCH_SECONDS="6")
    refused(result, "s3://models/digits/1.0.0: not here within 6 s (GENAI_FETCH_SECONDS)")
    assert store.downloads() == 1
    assert package.contents(target) == before
    nothing_left(target)


def test_a_store_that_always_breaks_off(store: Store, target: Path) -> None:
    store.moods = ["break"] * 99
    refused(fetched(store, target), "5 attempts")
    assert not target.exists()
    nothing_left(target)


def test_the_wrong_package_changes_nothing(store: Store, target: Path) -> None:
    package.write(target, "0.9.0", b"old")
    before = package.contents(target)
    refused(fetched(store, target, "--sha256", "0" * 64), "model.yaml: its sha256 is not the one of --sha256")
    assert package.contents(target) == before
    nothing_left(target)


REFUSED = {
    "hostile": "'../../escaped' is not a file's path inside of a package",
    "digits/2.0.0": "nothing is there",
    "digits/1.0.0-rc1": "model.yaml: content:",
}


@pytest.mark.parametrize(("prefix", "reason"), REFUSED.items())
def test_what_is_no_package(store: Store, target: Path, prefix: str, reason: str) -> None:
    refused(fetched(store, target, prefix=prefix), f"s3://models/{prefix}: {reason}")
    assert not target.exists()


def test_what_is_too_large_is_not_asked_for(store: Store, target: Path) -> None:
    refused(fetched(store, target, "--max-bytes", "1000"), "larger than the 1000 bytes of --max-bytes")
    assert store.downloads() == 0


def test_no_such_bucket_and_no_access_are_final(store: Store, target: Path) -> None:
    address = ("fetch", "--from", "s3://none/x", "--to", str(target))
    refused(run(*address, **store.variables()), "s3://none/x: the server answered 404 NoSuchBucket")
    store.moods = ["403"]
    result = fetched(store, target)
    refused(result, "the server answered 403")
    assert store.downloads() == 1
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in result.stdout + result.stderr


def test_a_store_that_is_away(target: Path) -> None:
    variables = {**KEYS, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    result = run("fetch", "--from", "s3://models/digits", "--to", str(target), **variables)
    refused(result, "broke off: EndpointConnectionError; 5 attempts")
