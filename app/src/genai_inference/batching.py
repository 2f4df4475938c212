"""Dynamic batching: requests that wait for the same model are computed together.

An idle device takes what there is as soon as the event loop has handled all that has come; while it computes, requests
collect, up to the model's `max_batch_size` items, and a full batch follows at once. Nothing ever waits for a batch to
fill. One thread serves one device, and takes turns among its models.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from . import tracing
from .engine import Batch, Probabilities
from .watchdog import Watchdog

log = logging.getLogger(__name__)

ROOM_SECONDS = 0.05  # until it is asked again whether there is room


class QueueFull(Exception):  # an answer, not an accident
    """So many items wait already that this request is not accepted; try again after `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests are waiting; try again in {retry_after} s.")
        self.retry_after = retry_after


class DeadlineExceeded(Exception):
    """The time the request may take was over before its answer was there."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class NotFinite(Exception):
    """The model's answer holds NaN or infinity: a float16 overflows where the same model in float32 does not."""

    def __init__(self) -> None:
        super().__init__("The model's answer to this input is not made of finite numbers.")


class Observer(Protocol):
    """What is told of the batches of one model. Seconds and items."""

    def batch(self, items: int, forward: float) -> None: ...
    def waited(self, seconds: float) -> None: ...
    def dropped(self, reason: str) -> None: ...


@dataclass(eq=False, slots=True)
class Work:
    """The instances of one request. Only the event loop settles `answer`."""

    inputs: Batch
    answer: "asyncio.Future[Probabilities]"
    queued_at: float
    deadline: float  # of time.monotonic(), as `queued_at`
    trace: tracing.Trace | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """What one batch came to."""

    works: list[Work]
    result: Probabilities | Exception
    started: float
    seconds: float
    finite: bool = True  # whether all numbers of the result are


def take(queue: deque[Work], limit: int, now: float) -> tuple[list[Work], int]:
    """Removes the next batch from the queue: whole requests in their order, `limit` items at most. What was given up or
    is too late goes with it, but is not part of it. Returns the batch, and how many items the queue lost.
    """
    batch: list[Work] = []
    items = dropped = 0
    while queue and items + len(queue[0].inputs) <= limit:
        work = queue.popleft()
        if work.deadline > now and not work.answer.done():
            batch.append(work)
            items += len(work.inputs)
        else:
            dropped += len(work.inputs)
    return batch, items + dropped


def retry_after(waiting: int, items_per_second: float) -> int:
    """Whole seconds until about as many items as wait now have been computed."""
    return max(1, min(60, math.ceil(waiting / items_per_second))) if items_per_second > 0 else 1


class Device:
    """The inference thread of one device, for all of its models."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Condition()
        self.watchdog = Watchdog(name)
        self._turns: deque[Batcher] = deque()
        self._open = True
        threading.Thread(target=self._run, name=f"inference-{name}", daemon=True).start()

    def wake(self, batcher: "Batcher") -> None:
        """`batcher` has work; the caller holds the lock."""
        if batcher not in self._turns:
            self._turns.append(batcher)
            self.lock.notify()

    def close(self) -> None:
        with self.lock:
            self._open = False
            self.lock.notify()

    def _run(self) -> None:
        while self._open:
            with self.lock:
                if self._open and not self._turns:
                    self.lock.wait(self.watchdog.idle_seconds)
                if not self._open:
                    return
                batcher = self._turns.popleft() if self._turns else None
                works = batcher.take() if batcher else []
                if batcher and batcher.has_full_batch():
                    self._turns.append(batcher)
            if batcher and works:
                batcher.compute(works)
            self.watchdog.try_again()
            del batcher, works  # a model that was switched off must not live on in an idle thread


class Batcher:
    """The queue of one model. `submit` belongs to the event loop, `take` and `compute` to the device's thread."""

    def __init__(
        self, predict: Callable[[Batch], Probabilities], device: Device, limits: tuple[int, int], observer: Observer
    ) -> None:
        """`limits` are items: of a batch, and of the queue."""
        self._predict = predict
        self._device = device
        self.max_batch_size, self.max_queue = limits
        self._observer = observer
        self._queue: deque[Work] = deque()
        self._items_per_second = 0.0
        self.waiting = 0  # items; changed under the device's lock only, as is `_computing`
        self._computing = 0  # batches whose answers the event loop has not seen yet
        self._announced = False
        self._turn = asyncio.Lock()

    def submit(self, inputs: Batch, seconds: float) -> "asyncio.Future[Probabilities]":
        """The answer to come: probabilities, or DeadlineExceeded after `seconds`. QueueFull at once.

        Whoever gives up sets Abandoned, or cancels: work that has not begun then leaves the queue.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        work = Work(inputs, loop.create_future(), now, now + seconds, tracing.current.get())
        with self._device.lock:
            self.check_room(len(inputs))
            self._queue.append(work)
            self.waiting += len(inputs)
        self._announce(loop)
        timer = loop.call_later(seconds, self._expire, work)
        work.answer.add_done_callback(lambda _: self._settled(work, timer))
        return work.answer

    def has_room(self, items: int = 1) -> bool:
        """Whether so many more can wait."""
        return self.waiting + items <= self.max_queue

    def check_room(self, items: int = 1) -> None:
        """QueueFull if so many more cannot wait. Asked before a body is decoded, it makes refusing cheap."""
        if not self.has_room(items):
            self._observer.dropped("queue_full")
            raise QueueFull(retry_after(self.waiting, self._items_per_second))

    async def room(self, items: int) -> None:
        """Waits until so many more can wait, for whoever would come again anyway. In the order of the calls, so that
        nobody waits for ever; nothing is dropped, and nothing counted.
        """
        async with self._turn:
            while not self.has_room(items):
                await asyncio.sleep(ROOM_SECONDS)

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has the device called in two turns of the event loop: in one it reads what has come, in the next that becomes
        work. To call it for the first request, while others are being read, costs more than computing them together.
        """
        if not self._announced:
            self._announced = True
            loop.call_soon(loop.call_soon, self._wake)

    def _wake(self) -> None:
        self._announced = False
        with self._device.lock:
            if self.has_full_batch() or (self.waiting and not self._computing):
                self._device.wake(self)

    def has_full_batch(self) -> bool:
        """So much waits that the next batch need not wait for what the event loop may still have to read."""
        return self.waiting >= self.max_batch_size

    def take(self) -> list[Work]:
        """The next batch, maybe empty; the caller holds the lock."""
        works, items = take(self._queue, self.max_batch_size, time.monotonic())
        self.waiting -= items
        self._computing += bool(works)
        return works

    def compute(self, works: list[Work]) -> None:
        """Runs one batch in the calling thread, and hands the answers to the event loop."""
        started = time.monotonic()
        results: list[Probabilities] = []

        def predict() -> None:
            results.append(self._predict(np.concatenate([work.inputs for work in works])))

        one = works[0].inputs[:1]
        error = self._device.watchdog.run(predict, lambda: self._predict(np.zeros_like(one)))
        result = error or results[0]
        finite = isinstance(result, Exception) or math.isfinite(result.sum())
        seconds = time.monotonic() - started
        self._items_per_second = sum(len(work.inputs) for work in works) / max(seconds, 1e-9)
        try:
            works[0].answer.get_loop().call_soon_threadsafe(
                self._deliver, Forward(works, result, started, seconds, finite)
            )
        except RuntimeError:  # the loop is closed: nobody is left to be answered
            log.debug("an answer came after the end")

    def _deliver(self, forward: Forward) -> None:
        with self._device.lock:
            self._computing -= 1
        if self.waiting:
            self._announce(asyncio.get_running_loop())
        at = 0
        for work in forward.works:
            end = at + len(work.inputs)
            self._observer.waited(forward.started - work.queued_at)
            if work.answer.done():
                pass  # given up while it was computed
            elif isinstance(forward.result, Exception):
                work.answer.set_exception(forward.result)
            elif not forward.finite and not np.isfinite(forward.result[at:end]).all():
                work.answer.set_exception(NotFinite())
            else:
                work.answer.set_result(forward.result[at:end])
            at = end
        self._observer.batch(at, forward.seconds)
        tracing.computed(forward)

    def _expire(self, work: Work) -> None:
        if not work.answer.done():
            work.answer.set_exception(DeadlineExceeded())

    def _settled(self, work: Work, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        if work.answer.cancelled() or work.answer.exception() is not None:
            self._leave(work)

    def _leave(self, work: Work) -> None:
        error = None if work.answer.cancelled() else work.answer.exception()
        if isinstance(error, DeadlineExceeded):
            self._observer.dropped("deadline")
        elif error is None or isinstance(error, Abandoned):
            self._observer.dropped("abandoned")
        with self._device.lock:
            if work in self._queue:
                self._queue.remove(work)
                self.waiting -= len(work.inputs)
