"""API keys: who may call. The file, in Kubernetes a Secret, holds hashes, so reading it gives nobody a key.

One client a line, `NAME SHA256`, in hexadecimal; `#` begins a comment. A name may stand twice, while its key is being
replaced. Keys are long random words, which no list of guesses holds: a fast hash without salt is enough for those.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from .model import WORD
from .settings import PREFIX, SettingsError

log = logging.getLogger(__name__)

Keys = tuple[tuple[str, bytes], ...]
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def parse(text: str) -> Keys:
    """(client, digest) of every line; ValueError names the first line that is neither that nor a comment."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not re.match(WORD, words[0]) or not _DIGEST.fullmatch(words[1]):
            raise ValueError(f"line {number}: a client's name and the SHA-256 of its key expected")
        keys.append((words[0], bytes.fromhex(words[1])))
    if not keys:
        raise ValueError("no key in it: nobody could call")
    return tuple(keys)


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
    """The keys, read again when the file has changed. One that cannot be read leaves the keys as they were."""

    def __init__(self, file: Path) -> None:
        """SettingsError if there are no keys to begin with."""
        self._file = file
        try:
            self._seen, self._keys = self._stamp(), parse(file.read_text())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"{PREFIX}API_KEYS_FILE: {file}: {reason}") from None

    @property
    def keys(self) -> Keys:
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen
                self._keys = parse(self._file.read_text())
                log.info("API keys read", extra={"fields": {"keys": len(self._keys)}})
        except (OSError, ValueError) as error:
            if self._seen is not None:  # said once, not for each request
                log.error("API keys not read, the former ones hold", extra={"fields": {"reason": str(error)}})
            if isinstance(error, OSError):
                self._seen = None
        return self._keys

    def _stamp(self) -> tuple[int, int, int] | None:
        status = self._file.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
