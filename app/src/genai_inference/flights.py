"""Single flight: what several ask for at the same time is done once."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from .batching import DeadlineExceeded, QueueFull

T = TypeVar("T")
MOST_JOINED = 1024  # requests that wait for what another one began


class Flight(Generic[T]):
    """One piece of work. It belongs to none of those who wait for it, and is given up when the last of them has gone.

    `computing` is what the work itself waits for at the moment, if it says so: it is told why it was given up.
    """

    task: "asyncio.Task[T]"

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[T]] = set()
        self.computing: asyncio.Future[Any] | None = None

    def give_up(self, reason: BaseException | None) -> None:
        """Nobody waits any more; `reason` is why the last one went, None if it was cancelled."""
        if reason is not None and self.computing is not None and not self.computing.done():
            self.computing.set_exception(reason)
        else:
            self.task.cancel()


class Flights(Generic[T]):
    """The work that is under way, by its key."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight[T]] = {}
        self._joined = 0

    def join(
        self, key: str, work: Callable[[Flight[T]], Coroutine[Any, Any, T]], seconds: float
    ) -> tuple["asyncio.Future[T]", bool]:
        """The result to come, or DeadlineExceeded after `seconds`; and whether somebody else had begun.

        Whoever gives up sets Abandoned, or cancels, as with Batcher.submit. What the work raises, all get who wait.
        QueueFull if too many have joined.
        """
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._flights[key] = Flight()
            flight.task = loop.create_task(work(flight))
            flight.task.add_done_callback(partial(self._landed, key, flight))
        elif self._joined >= MOST_JOINED:
            raise QueueFull(1)
        self._joined += joined
        waiter: asyncio.Future[T] = loop.create_future()
        flight.waiters.add(waiter)
        timer = loop.call_later(seconds, _expire, waiter)
        waiter.add_done_callback(partial(self._left, key, flight, joined, timer))
        return waiter, joined

    def _landed(self, key: str, flight: Flight[T], task: "asyncio.Task[T]") -> None:
        self._forget(key, flight)
        error = None if task.cancelled() else task.exception()
        for waiter in [waiter for waiter in flight.waiters if not waiter.done()]:
            if task.cancelled():
                waiter.cancel()
            elif error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(task.result())

    def _left(
        self, key: str, flight: Flight[T], joined: bool, timer: asyncio.TimerHandle, waiter: "asyncio.Future[T]"
    ) -> None:
        timer.cancel()
        self._joined -= joined
        flight.waiters.discard(waiter)
        if not flight.waiters and not flight.task.done():
            self._forget(key, flight)
            flight.give_up(None if waiter.cancelled() else waiter.exception())

    def _forget(self, key: str, flight: Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _expire(waiter: "asyncio.Future[Any]") -> None:
    if not waiter.done():
        waiter.set_exception(DeadlineExceeded())
