"""Waiting for a condition; the limit is generous, because it only matters when a test fails anyway."""

import time
from collections.abc import Callable

LIMIT_SECONDS = 60.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {LIMIT_SECONDS:g} s: {what}"
        time.sleep(0.01)
