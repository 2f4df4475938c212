"""What may be fetched, and from where; how often it is tried."""

from pathlib import Path

import pytest

from genai_inference import sources
from genai_inference.sources import (
    ATTEMPTS,
    Archive,
    Bucket,
    FetchError,
    Folder,
    Intake,
    Unsteady,
    persistently,
    safe,
    source_of,
)

SOURCES = {
    "s3://models/digits/1.0.0/": Bucket("models", "digits/1.0.0"),
    "s3://models": Bucket("models", ""),
    "https://example.org/model.tar": Archive("https://example.org/model.tar"),
    "/pv/models/digits": Folder(Path("/pv/models/digits")),
}


@pytest.mark.parametrize(("address", "source"), SOURCES.items(), ids=SOURCES)
def test_sources(address: str, source: object) -> None:
    assert source_of(address, pinned=False) == source


def test_plain_http_only_for_what_is_pinned() -> None:
    assert source_of("http://example.org/model.tar", pinned=True) == Archive("http://example.org/model.tar")
    with pytest.raises(FetchError, match=r"^--from: http:// needs --sha256"):
        source_of("http://example.org/model.tar", pinned=False)


@pytest.mark.parametrize(
    "address", ["ftp://x/y", "s3://", "s3:///digits", "file:///model", "https://x:y/z", "gs://x/y"]
)
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(FetchError, match=r"^--from: "):
        source_of(address, pinned=True)


def test_no_secret_of_a_url_is_shown() -> None:
    shown = source_of("https://example.org:8443/model.tar?X-Amz-Signature=word", pinned=False).shown
    assert shown == "https://example.org:8443/model.tar"


@pytest.mark.parametrize(
    "address",
    [
        "https://me:hunter@example.org/model.tar",
        "https://hunter@example.org/model.tar",
        "https://me:my/hunter@example.org/model.tar",
        "https://me:hunter/2@example.org/model.tar",
        "http://me:hunter@example.org/model.tar",
        "s3://me:hunter@models/digits",
        "https://example.org:hunter/model.tar",
        "https://[hunter/model.tar",
        "ftp://me:hunter@example.org/model.tar",
        "https://example.org/a model.tar?X-Amz-Signature=hunter",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(FetchError) as caught:
        source_of(address, pinned=True).copy(Intake(Path("/nowhere"), 1))
    assert "hunter" not in str(caught.value)


def test_no_password_of_an_endpoint_is_shown() -> None:
    assert sources._reason(ValueError("Invalid endpoint: http://me:a@b@minio:9000/")) == (
        "Invalid endpoint: http://...@minio:9000/"
    )


@pytest.mark.parametrize("name", ["model.yaml", "./model.yaml", "a/b/c", "..a"])
def test_names_that_stay_inside(name: str) -> None:
    assert not safe(name).is_absolute()


@pytest.mark.parametrize(
    "name", ["", ".", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\\..\\x", "a\0b", "a\nb"]
)
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(FetchError, match="is not a file's path inside of a package"):
        safe(name)


def test_only_so_much_is_taken_whatever_was_said(tmp_path: Path) -> None:
    intake = Intake(tmp_path, most_bytes=10)
    intake.file("first", 4, [b"1234"])
    with pytest.raises(FetchError, match="larger than the 10 bytes"):
        intake.file("said", 7, [])
    with pytest.raises(FetchError, match="larger than the 10 bytes"):
        intake.file("not said", None, [b"123", b"4567"])
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    with pytest.raises(FetchError, match="'first' is in it twice"):
        intake.file("first", 1, [b"1"])


def test_a_file_that_ends_early_is_gone_and_may_come_again(tmp_path: Path) -> None:
    intake = Intake(tmp_path, most_bytes=10)
    with pytest.raises(Unsteady, match=r"^weights: 3 of 8 bytes came$"):
        intake.file("weights", 8, [b"123"])
    assert (list(tmp_path.iterdir()), intake.total) == ([], 0)
    intake.file("weights", 8, [b"12345678"])
    assert intake.total == 8


@pytest.mark.parametrize("failures", [0, 1, ATTEMPTS - 1])
def test_what_passes_is_tried_again(failures: int) -> None:
    left, pauses = [failures], []

    def action() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Unsteady("busy")

    persistently(action, pauses.append)
    assert len(pauses) == failures
    assert pauses == sorted(pauses)


def test_not_for_ever_and_nothing_else() -> None:
    def unsteady() -> None:
        raise Unsteady("busy")

    def final() -> None:
        raise FetchError("no")

    pauses: list[float] = []
    with pytest.raises(FetchError, match=rf"^busy; {ATTEMPTS} attempts$"):
        persistently(unsteady, pauses.append)
    assert len(pauses) == ATTEMPTS - 1
    with pytest.raises(FetchError, match=r"^no$"):
        persistently(final, lambda _: pytest.fail("no second attempt"))
