"""The id by which a request is found again: in the answer's header, in a problem, in the log."""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar

HEADER = b"x-request-id"
# Whatever else a caller sends never gets into the log.
_FIT = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# Of the request that the current task answers; empty outside of one.
current: ContextVar[str] = ContextVar("request_id", default="")


def of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's or its proxy's own id if it is fit for a log, else a new one."""
    sent = next((value for name, value in headers if name == HEADER), b"")
    # No secret, so not of the operating system: each call to it would hand Python's lock to the inference thread.
    return sent.decode() if _FIT.fullmatch(sent) else f"{random.getrandbits(64):016x}"
