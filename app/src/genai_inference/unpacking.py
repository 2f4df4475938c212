"""Unpacks pictures beside the event loop, in so few threads that the memory they take has a bound: small ones side by
side, and large ones one after the other, behind which no small one waits.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from .codec import LargePicture

T = TypeVar("T")
MOST_SMALL, MOST_LARGE = 128, 16  # pictures that wait or are unpacked
MOST_THREADS = 8
SMALL_PIXELS = 2**20


class TooMany(Exception):  # an answer, not an accident
    """So many pictures wait already that this one is not accepted; it may come again in a second."""


class _Lane:
    """Threads, and how many pictures they have: a picture counts until its thread is done with it, whoever left."""

    def __init__(self, name: str, threads: int, most: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"unpack-{name}")
        self._most = most
        self.taken: set[Future[Any]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        if len(self.taken) >= self._most:
            raise TooMany
        future = self._executor.submit(work)
        self.taken.add(future)
        future.add_done_callback(self.taken.discard)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class Unpacking:
    """`run` belongs to the event loop."""

    def __init__(self, cpus: int) -> None:
        self._small = _Lane("small", min(cpus, MOST_THREADS), MOST_SMALL)
        self._large = _Lane("large", 1, MOST_LARGE)

    async def run(self, work: Callable[[int | None], T]) -> T:
        """What `work` returns. It is called with the pixels beyond which it has to raise LargePicture, and again with
        None where it did. Raises TooMany at once.
        """
        try:
            return await self._small.run(lambda: work(SMALL_PIXELS))
        except LargePicture:
            return await self._large.run(lambda: work(None))

    def close(self) -> None:
        self._small.close()
        self._large.close()
