"""Where a model package may come from: a bucket, an archive on a web server, or a folder.

A source hands its files to an `Intake`, which writes them and refuses what does not belong into a folder. What passes
by itself (a server that is busy, a connection that breaks) is tried again; FetchError is everything else.
"""

import http.client
import logging
import os
import random
import re
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

log = logging.getLogger(__name__)

CHUNK = 2**20
MOST_FILES = 1000
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5
SILENCE_SECONDS = 30  # without a byte, a connection is given up
SAID_EVERY_SECONDS = 10
BUSY = 429
NO_URL = "not a URL that can be asked for"


class FetchError(Exception):
    """A package that cannot be had; one line."""

    exit_code = 3


class Unsteady(Exception):
    """What may go better next time."""


class Source(Protocol):
    """`shown` is what a log may say of it: never credentials, nor the query of a signed URL."""

    @property
    def shown(self) -> str: ...

    def copy(self, intake: "Intake") -> None:
        """Hands over every file; FetchError if that cannot be done."""


@dataclass
class Intake:
    """Writes the files of a package below `folder`, at most `most_bytes` in all."""

    folder: Path
    most_bytes: int
    sizes: dict[str, int] = field(default_factory=dict)

    def file(self, name: str, size: int | None, chunks: Iterable[bytes]) -> None:
        """One file. It is whole, or gone again with an exception."""
        relative = safe(name)
        if str(relative) in self.sizes:
            raise FetchError(f"{name!r} is in it twice")
        if len(self.sizes) == MOST_FILES:
            raise FetchError(f"more than {MOST_FILES} files")
        path, room = self.folder / relative, self.most_bytes - self.total
        if (size or 0) > room:
            raise self._too_large
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            self.sizes[str(relative)] = self._write(path, size, chunks, room)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    @property
    def _too_large(self) -> FetchError:
        return FetchError(f"larger than the {self.most_bytes} bytes of --max-bytes")

    def _write(self, path: Path, size: int | None, chunks: Iterable[bytes], room: int) -> int:
        written, started = 0, time.monotonic()
        said = started
        with path.open("xb") as out:
            for chunk in chunks:
                written += len(chunk)
                if written > room:
                    raise self._too_large
                out.write(chunk)
                if time.monotonic() - said > SAID_EVERY_SECONDS:
                    said = time.monotonic()
                    _say("fetching", file=path.name, bytes=written, of=size)
        if size is not None and written != size:
            raise Unsteady(f"{path.name}: {written} of {size} bytes came")
        path.chmod(0o644)  # whoever serves it may be another user
        _say("file fetched", file=path.name, bytes=written, seconds=round(time.monotonic() - started, 3))
        return written


def safe(name: str) -> PurePosixPath:
    """A path that stays in its folder; FetchError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or not name.isprintable():
        raise FetchError(f"{name!r} is not a file's path inside of a package")
    return path


def source_of(address: str, pinned: bool) -> Source:
    """The source at `s3://bucket/prefix/`, `https://host/model.tar` or a folder; FetchError if it is none of them.

    Plain HTTP proves nothing of who answers, so it is taken only for what is `pinned` by its SHA-256.
    """
    if "://" not in address:
        return Folder(Path(address).absolute())
    try:
        parts = _parts(address)
    except FetchError as error:
        raise FetchError(f"--from: {error}") from None
    if parts.scheme == "s3" and parts.netloc:
        return Bucket(parts.netloc, unquote(parts.path).strip("/"))
    if parts.scheme == "https" or (parts.scheme == "http" and pinned):
        return Archive(address)
    if parts.scheme == "http":
        raise FetchError("--from: http:// needs --sha256; https:// does not")
    raise FetchError("--from: s3://BUCKET/PREFIX/, https://HOST/PATH.tar or a folder expected")


def _parts(url: str) -> SplitResult:
    """The parts of a URL; FetchError, which does not repeat it, if it is none or has a password in it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # it would name the port, which is a password if an unquoted slash follows
        raise FetchError(NO_URL) from None
    if "@" in parts.netloc:
        raise FetchError("a URL with a user's name or password; take a signed URL")
    return parts


def persistently(action: Callable[[], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Does it, and again after a growing pause as long as it is Unsteady; FetchError after the last attempt."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Unsteady as error:
            if attempt == ATTEMPTS:
                raise FetchError(f"{error}; {ATTEMPTS} attempts") from None
            pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)  # noqa: S311  # no secret
            _say("trying again", reason=str(error), attempt=attempt, pause_seconds=round(pause, 2))
            sleep(pause)


# --- a folder ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A package on a volume."""

    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)

    def copy(self, intake: Intake) -> None:
        for folder, folders, names in os.walk(self.path, onerror=_raise):
            for name in sorted(folders + names):
                path = Path(folder, name)
                relative = path.relative_to(self.path).as_posix()
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    raise FetchError(f"{relative!r} is a link or a device")
                if path.is_file():
                    with path.open("rb") as file:
                        intake.file(relative, path.stat().st_size, _chunks(file))


def _raise(error: OSError) -> None:
    raise error


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, CHUNK), b"")


# --- an archive ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """A tar archive, compressed or not, unpacked as it comes."""

    url: str

    @property
    def shown(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def copy(self, intake: Intake) -> None:
        def attempt() -> None:
            for name in list(intake.sizes):
                (intake.folder / name).unlink()
                del intake.sizes[name]
            with self._open() as response:
                _unpack(_Body(response), intake)

        persistently(attempt)

    def _open(self) -> http.client.HTTPResponse:
        try:
            opener = urllib.request.build_opener(_Hops)
            response: http.client.HTTPResponse = opener.open(self.url, timeout=SILENCE_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            # Not in the server's words, nor urllib's: of a redirect these repeat the URL.
            raise _refused(error.code, http.client.responses.get(error.code, "")) from None
        except http.client.InvalidURL:
            raise FetchError(NO_URL) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unsteady(_reason(error)) from None
        except ValueError:
            raise FetchError(NO_URL) from None
        return response


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects by HTTP, but never from https:// to http://: whoever is on the way could lead back to https."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, *about: Any) -> urllib.request.Request | None:  # noqa: ANN401
        try:
            before, after = urlsplit(req.full_url).scheme, _parts(about[-1]).scheme
        except FetchError as error:
            raise FetchError(f"it leads to {error}") from None
        if after != "https" and (before == "https" or after != "http"):
            raise FetchError(f"it leads from {before}:// to {after}://")
        return super().redirect_request(req, fp, *about)


def _refused(status: int, reason: str) -> Exception:
    kind = Unsteady if status >= http.client.INTERNAL_SERVER_ERROR or status == BUSY else FetchError
    return kind(f"the server answered {status} {reason}")


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps the error of the connection
    return re.sub(r"//\S*@", "//...@", " ".join(str(cause).split())) or type(cause).__name__


class _Body:
    """A response that is read to its end, or says that it broke off."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._left = -1 if response.length is None else response.length

    def read(self, size: int) -> bytes:
        try:
            content = self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise Unsteady(f"broke off: {_reason(error)}") from None
        if not content and size and self._left > 0:
            raise Unsteady(f"broke off, {self._left} bytes before the end")
        self._left -= len(content)
        return content


def _unpack(body: _Body, intake: Intake) -> None:
    try:
        with tarfile.open(fileobj=body, mode="r|*") as archive:  # type: ignore[call-overload]  # it only reads
            for member in archive:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise FetchError(f"{member.name!r} is a link or a device")
                content = archive.extractfile(member)
                if content is not None:
                    intake.file(member.name, member.size, _chunks(content))
        while body.read(CHUNK):  # what follows the end of the archive: padding, or the news that it broke off
            pass
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FetchError(f"not a tar archive that can be read: {_reason(error)}") from None


# --- a bucket ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """The objects below a prefix. Endpoint, region and credentials come from the AWS_* environment."""

    bucket: str
    prefix: str

    @property
    def shown(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def copy(self, intake: Intake) -> None:
        client = _s3()
        objects: list[dict[str, Any]] = []

        def list_all() -> None:
            objects[:] = self._list(client)

        persistently(partial(_translating, list_all))
        if not objects:
            raise FetchError("nothing is there")
        if sum(entry["Size"] for entry in objects) > intake.most_bytes:
            raise FetchError(f"larger than the {intake.most_bytes} bytes of --max-bytes")
        for entry in objects:
            persistently(partial(_translating, partial(self._get, client, entry, intake)))

    def _list(self, client: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # boto3 makes its classes at run time
        folder = f"{self.prefix}/" if self.prefix else ""
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
        entries = (entry for page in pages for entry in page.get("Contents", ()))
        return [
            {**entry, "name": entry["Key"].removeprefix(folder)} for entry in entries if not entry["Key"].endswith("/")
        ]

    def _get(self, client: Any, entry: dict[str, Any], intake: Intake) -> None:  # noqa: ANN401
        safe(entry["name"])  # before anything is asked for
        answer = client.get_object(Bucket=self.bucket, Key=entry["Key"], IfMatch=entry["ETag"])
        with closing(answer["Body"]) as body:
            intake.file(entry["name"], entry["Size"], body.iter_chunks(CHUNK))


def _s3() -> Any:  # noqa: ANN401
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise FetchError("s3:// needs boto3, which is not installed") from None
    # Names of buckets are no host names where the endpoint is MinIO's Service.
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        connect_timeout=10,
        read_timeout=SILENCE_SECONDS,
        retries={"total_max_attempts": 1},  # we try again ourselves, also when a body breaks off
        s3={"addressing_style": "path" if own else "auto"},
    )
    try:
        return boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise FetchError(_reason(error)) from None


def _translating(action: Callable[[], None]) -> None:
    """Does it; what boto3 and urllib3 raise becomes Unsteady or FetchError, with the code alone for a reason."""
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, HTTPError, ConnectionError)
    try:
        action()
    except boto.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise _refused(status, error.response.get("Error", {}).get("Code", "")) from None
    except passing as error:
        raise Unsteady(f"broke off: {type(error).__name__}") from None
    except boto.BotoCoreError as error:
        raise FetchError(_reason(error)) from None


def _say(message: str, **fields: object) -> None:
    log.info(message, extra={"fields": fields})
