"""API keys: who may call. The file, in Kubernetes a Secret, holds hashes, so reading it gives nobody a key.

One client a line, `NAME SHA256`, in hexadecimal; `#` begins a comment. A name may stand twice, while its key is being
replaced. Keys are long random words, which no list of guesses holds: a fast hash without salt is enough for those.

What is not in the file opens nothing: an empty file lets nobody in, and of a line that is wrong only the others count.
"""

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .lifecycle import Lifecycle
from .model import WORD
from .settings import PREFIX, SettingsError

log = logging.getLogger(__name__)

Keys = tuple[tuple[str, bytes], ...]
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
PART = "api_keys"  # of what /ready calls degraded
# A file that cannot be read may be in somebody's editor, or on a server that starts again. One that stays away was
# taken away: from a mounted Secret, Kubernetes removes the file of an entry that was deleted.
UNREADABLE_SECONDS = 10.0
MOST_SAID = 10


def parse(text: str) -> tuple[Keys, list[int]]:
    """(client, digest) of every line, and the numbers of the lines that are neither that nor a comment."""
    keys, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if len(words) == 2 and re.match(WORD, words[0]) and _DIGEST.fullmatch(words[1]):
            keys.append((words[0], bytes.fromhex(words[1])))
        elif words:
            bad.append(number)
    return tuple(keys), bad


def fault_of(keys: Keys, bad: list[int]) -> str | None:
    """What is wrong with a file, in one line without its content, which may be a key."""
    if bad:
        left_out, lines = ("they are", "lines") if len(bad) > 1 else ("it is", "line")
        numbers = ", ".join(map(str, bad[:MOST_SAID])) + (", ..." if len(bad) > MOST_SAID else "")
        return f"left out, for {left_out} not a name and the SHA-256 of a key: {lines} {numbers}"
    return None if keys else "no key in it: it lets nobody in"


def client_of(keys: Keys, presented: bytes) -> str | None:
    """Whose key this is. Takes as long for a wrong key as for a right one: every digest is compared, to its end."""
    digest = hashlib.sha256(presented).digest()
    found = None
    for client, expected in keys:
        if hmac.compare_digest(digest, expected):
            found = client
    return found


def presented_in(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key of `Authorization: Bearer KEY`, or of `X-API-Key: KEY`."""
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key", b"").strip() or None


class KeyFile:
    """The keys of a file, which is read again when it has changed. A fault in it degrades `/ready`."""

    def __init__(self, file: Path, lifecycle: Lifecycle, clock: Callable[[], float] = time.monotonic) -> None:
        """SettingsError if the file cannot be read."""
        self._file = file
        self._lifecycle = lifecycle
        self._clock = clock
        self._keys: Keys = ()
        self._seen: tuple[int, int, int] | None = None  # None: of the next look everything is new
        self._unread_since: float | None = None
        try:
            self._look()
        except OSError as error:
            raise SettingsError(f"{PREFIX}API_KEYS_FILE: {file}: {error.strerror or error}") from None

    @property
    def keys(self) -> Keys:
        """Those of the file; while it cannot be read the former ones, for UNREADABLE_SECONDS."""
        try:
            self._look()
        except OSError as error:
            self._do_without(error.strerror or str(error))
        return self._keys

    def _look(self) -> None:
        status = self._file.stat()
        # Unlike the time of the last write, which whoever copies a file may set, this one is the system's own.
        seen = status.st_ino, status.st_ctime_ns, status.st_size
        if seen == self._seen:
            return
        self._keys, bad = parse(self._file.read_bytes().decode(errors="replace"))
        self._seen, self._unread_since = seen, None
        fault = fault_of(self._keys, bad)
        self._lifecycle.degrade(PART, fault)
        fields = {"keys": len(self._keys), **({"fault": fault} if fault else {})}
        log.log(logging.ERROR if fault else logging.INFO, "API keys read", extra={"fields": fields})

    def _do_without(self, reason: str) -> None:
        if self._unread_since is None:
            self._seen, self._unread_since = None, self._clock()
            self._lifecycle.degrade(PART, f"cannot be read: {reason}")
            log.error("API keys not read", extra={"fields": {"reason": reason, "hold_seconds": UNREADABLE_SECONDS}})
        elif self._keys and self._clock() - self._unread_since > UNREADABLE_SECONDS:
            self._keys = ()
            log.error("API keys forgotten: nobody has one", extra={"fields": {"reason": reason}})
