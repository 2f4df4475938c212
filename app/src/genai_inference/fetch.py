"""Fills a model volume: brings a package to a folder, checks it, and puts it in place in one step.

What was there stays until the new package is whole and checked, and for good if it never is.
"""

import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from .model import CARD_FILE, WEIGHTS_FILE, ModelCard, ModelError, read_card
from .sources import FetchError, Intake, Source, Unsteady, source_of

log = logging.getLogger(__name__)

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux


class _OutOfTime(BaseException):
    """Not an Exception: nothing on the way may take it for an error of its own and go on."""


def fetch(address: str, target: Path, pinned: str | None, most_bytes: int, seconds: float) -> ModelCard:
    """The package at `address` is in `target` afterwards; FetchError, within `seconds`, if it cannot be."""
    source, target = source_of(address, pinned is not None), target.absolute()
    _check_target(target)
    fields: dict[str, object] = {"source": source.shown, "target": str(target)}
    with contextlib.suppress(ModelError):
        card = verified(target, pinned)
        log.info("already there", extra={"fields": {**fields, "name": card.name, "version": card.version}})
        return card
    log.info("fetching", extra={"fields": fields})
    started = time.monotonic()
    try:
        with _within(seconds):
            card, size = _bring(source, target, pinned, most_bytes, seconds)
    except _OutOfTime:
        raise FetchError(f"{source.shown}: not here within {seconds:g} s (GENAI_FETCH_SECONDS)") from None
    except OSError as error:
        raise FetchError(f"{error.filename or target}: {(error.strerror or str(error)).lower()}") from None
    fields = {**fields, "name": card.name, "version": card.version, "bytes": size}
    log.info("fetched", extra={"fields": {**fields, "seconds": round(time.monotonic() - started, 3)}})
    return card


def verified(folder: Path, pinned: str | None) -> ModelCard:
    """The card of a package that is whole; ModelError says what is wrong with it.

    `pinned` is the SHA-256 of model.yaml. That holds the weights' own, so it pins all that a model computes with.
    """
    card = read_card(folder)
    if pinned and _sha256(folder / CARD_FILE) != pinned:
        raise ModelError(folder / CARD_FILE, "its sha256 is not the one of --sha256")
    if _sha256(folder / WEIGHTS_FILE) != card.weights.sha256:
        raise ModelError(folder / WEIGHTS_FILE, f"its sha256 is not the one in {CARD_FILE}")
    return card


def put_in_place(new: Path, target: Path) -> None:
    """`target` is `new` from one moment to the next; what was there, if anything, is where `new` was."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):  # not on this kind of file system (NFS): for a moment nothing is there
        former = new.with_name("former")
        target.rename(former)
        try:
            new.rename(target)
        except OSError:
            former.rename(target)
            raise
        former.rename(new)


def _check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FetchError(f"--to: {target} is not a folder")
    if target.is_mount():
        raise FetchError(f"--to: {target} is a mount point, which cannot be replaced; give a folder inside of it")


def _bring(source: Source, target: Path, pinned: str | None, most_bytes: int, seconds: float) -> tuple[ModelCard, int]:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    prefix = f".{target.name}.fetch-"
    _clear_leftovers(target.parent, prefix, seconds)
    workplace = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        folder = workplace / "package"
        folder.mkdir(mode=0o755)
        intake = Intake(folder, most_bytes)
        try:
            source.copy(intake)
            found = _root(folder)
            card = verified(found, pinned)
        except (FetchError, Unsteady, ModelError) as error:
            raise FetchError(f"{source.shown}: {error}".replace(f"{folder}/", "")) from None
        put_in_place(found, target)
        return card, intake.total
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _root(folder: Path) -> Path:
    """Where the package is: many an archive holds it in one folder."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _clear_leftovers(parent: Path, prefix: str, seconds: float) -> None:
    """Of fetches that were killed: older than any that may still be running, on this node or another."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 2 * seconds:
                shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(path, (error.strerror or str(error)).lower()) from None


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """_OutOfTime once that long has passed, wherever the process is, also in a read that is fed byte by byte."""

    def ring(_: int, __: FrameType | None) -> None:
        raise _OutOfTime

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(other))
