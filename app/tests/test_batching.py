"""What is computed together, what waits, what is refused and what leaves: the clock is real, the timing is not."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from genai_inference.batching import (
    Abandoned,
    Batcher,
    DeadlineExceeded,
    Device,
    NotFinite,
    QueueFull,
    Work,
    retry_after,
    take,
)
from genai_inference.engine import Batch, Probabilities

LONG = 60.0


@dataclass
class Observed:
    """An observer that remembers."""

    sizes: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def batch(self, items: int, forward: float) -> None:
        assert forward >= 0
        self.sizes.append(items)

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def dropped(self, reason: str) -> None:
        self.reasons.append(reason)


@dataclass
class Bench:
    """A device whose batches wait for `go`, and a batcher of 4 items on it with room for 8 more."""

    device: Device = field(default_factory=lambda: Device("test"))
    observed: Observed = field(default_factory=Observed)
    go: threading.Event = field(default_factory=threading.Event)
    computed: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batcher = self.another()

    def another(self) -> Batcher:
        return Batcher(self.predict, self.device, (4, 8), self.observed)

    def predict(self, batch: Batch) -> Probabilities:
        self.computed.append(batch[:, 0].tolist())
        assert self.go.wait(LONG)
        return (batch * 10).astype(np.float32)

    async def occupy(self) -> "asyncio.Future[Probabilities]":
        """Has the device compute one item, until `go`."""
        answer = self.batcher.submit(items(0), LONG)
        while not self.computed:
            await asyncio.sleep(0.001)
        return answer


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.go.set()
    bench.device.close()


def items(*values: float) -> Batch:
    return np.array(values, dtype=np.float32).reshape(-1, 1)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), LONG))


def test_an_idle_device_computes_at_once_and_a_busy_one_collects(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        others = [bench.batcher.submit(items(n), LONG) for n in range(1, 7)]
        assert bench.batcher.waiting == 6
        bench.go.set()
        answers = await asyncio.gather(first, *others)
        assert [float(answer[0, 0]) for answer in answers] == [0, 10, 20, 30, 40, 50, 60]

    run(main)
    assert bench.computed == [[0], [1, 2, 3, 4], [5, 6]]
    assert bench.observed.sizes == [1, 4, 2]
    assert len(bench.observed.waits) == 7
    assert bench.batcher.waiting == 0


def test_what_comes_together_is_computed_together_by_an_idle_device_too(bench: Bench) -> None:
    async def main() -> None:
        bench.go.set()
        await asyncio.gather(*(bench.batcher.submit(items(n), LONG) for n in range(3)))

    run(main)
    assert bench.computed == [[0, 1, 2]]


def test_a_full_batch_does_not_wait_for_the_event_loop(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        answers = [bench.batcher.submit(items(*[n] * 4), LONG) for n in (1, 2)]
        await asyncio.sleep(0.01)  # in which it hears of them
        bench.go.set()
        until = time.monotonic() + LONG
        while len(bench.computed) < 3 and time.monotonic() < until:
            time.sleep(0.001)  # so that the event loop does nothing else
        assert len(bench.computed) == 3
        await asyncio.gather(first, *answers)

    run(main)
    assert bench.computed == [[0], [1] * 4, [2] * 4]


def test_a_request_is_never_split_and_none_overtakes(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        answers = [bench.batcher.submit(items(*group), LONG) for group in ([1, 2, 3], [4, 5], [6])]
        bench.go.set()
        found = await asyncio.gather(first, *answers)
        assert [answer[:, 0].tolist() for answer in found] == [[0], [10, 20, 30], [40, 50], [60]]

    run(main)
    assert bench.computed == [[0], [1, 2, 3], [4, 5, 6]]


def test_beyond_the_bound_a_request_is_refused(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        fitting = [bench.batcher.submit(items(1, 2, 3, 4), LONG), bench.batcher.submit(items(5, 6, 7), LONG)]
        with pytest.raises(QueueFull) as caught:
            bench.batcher.submit(items(8, 9), LONG)
        assert caught.value.retry_after >= 1
        fitting.append(bench.batcher.submit(items(8), LONG))
        bench.go.set()
        await asyncio.gather(first, *fitting)

    run(main)
    assert bench.observed.reasons == ["queue_full"]
    assert bench.computed == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_what_is_too_late_is_answered_in_time_and_never_computed(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        late = bench.batcher.submit(items(1), 0.02)
        kept = bench.batcher.submit(items(2), LONG)
        with pytest.raises(DeadlineExceeded):
            await late  # although the device is still busy
        assert bench.batcher.waiting == 1
        bench.go.set()
        await asyncio.gather(first, kept)

    run(main)
    assert bench.computed == [[0], [2]]
    assert bench.observed.reasons == ["deadline"]


@pytest.mark.parametrize("how", ["cancelled", "abandoned"])
def test_what_nobody_waits_for_leaves_the_queue(bench: Bench, how: str) -> None:
    async def main() -> None:
        first = await bench.occupy()
        gone, kept = (bench.batcher.submit(items(n), LONG) for n in (1, 2))
        gone.cancel() if how == "cancelled" else gone.set_exception(Abandoned())
        await asyncio.sleep(0)
        assert bench.batcher.waiting == 1
        bench.go.set()
        await asyncio.gather(first, kept)

    run(main)
    assert bench.computed == [[0], [2]]
    assert bench.observed.reasons == ["abandoned"]


def test_given_up_while_it_is_computed_the_others_are_answered(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        first.cancel()
        other = bench.batcher.submit(items(1), LONG)
        bench.go.set()
        assert (await other).tolist() == [[10]]

    run(main)


def test_an_error_reaches_every_request_of_the_batch_and_none_of_the_next(bench: Bench) -> None:
    async def main() -> None:
        bench.go.set()

        def fail(batch: Batch) -> Probabilities:
            raise ZeroDivisionError

        batcher = Batcher(fail, bench.device, (4, 8), bench.observed)
        for answer in (batcher.submit(items(1), LONG), batcher.submit(items(2), LONG)):
            with pytest.raises(ZeroDivisionError):
                await answer
        assert (await bench.batcher.submit(items(3), LONG)).tolist() == [[30]]

    run(main)


def test_models_of_one_device_take_turns(bench: Bench) -> None:
    async def main() -> None:
        other = bench.another()
        first = await bench.occupy()
        answers = [bench.batcher.submit(items(*[1] * 4), LONG) for _ in range(2)]
        answers.append(other.submit(items(2), LONG))
        bench.go.set()
        await asyncio.gather(first, *answers)

    run(main)
    assert bench.computed == [[0], [1] * 4, [2], [1] * 4]


def test_answers_are_those_of_their_own_request_under_load(bench: Bench) -> None:
    async def main() -> None:
        bench.go.set()

        async def client(number: int) -> None:
            for turn in range(40):
                values = [float(number * 1000 + turn + n) for n in range(1 + turn % 4)]
                while True:
                    try:
                        answer = await bench.batcher.submit(items(*values), LONG)
                        break
                    except QueueFull:
                        await asyncio.sleep(0.001)
                assert answer[:, 0].tolist() == [value * 10 for value in values]

        await asyncio.gather(*(client(number) for number in range(16)))

    run(main)
    assert sum(bench.observed.sizes) == 16 * (10 + 20 + 30 + 40)
    assert max(bench.observed.sizes) == 4


def test_take_drops_what_is_over() -> None:
    loop = asyncio.new_event_loop()
    works = deque(Work(items(n), loop.create_future(), 0.0, deadline) for n, deadline in ((1, 5.0), (2, 9.0), (3, 9.0)))
    works[2].answer.cancel()
    batch, lost = take(works, 4, now=6.0)
    assert ([work.inputs[0, 0] for work in batch], lost, len(works)) == ([2], 3, 0)
    loop.close()


@pytest.mark.parametrize(
    ("waiting", "rate", "seconds"), [(0, 0.0, 1), (10, 100.0, 1), (250, 100.0, 3), (10**6, 1.0, 60)]
)
def test_retry_after(waiting: int, rate: float, seconds: int) -> None:
    assert retry_after(waiting, rate) == seconds


def test_an_answer_that_is_not_finite_reaches_nobody_else(bench: Bench) -> None:
    async def main() -> None:
        first = await bench.occupy()
        answers = [bench.batcher.submit(items(value), LONG) for value in (1.0, float("inf"), 2.0)]
        bench.go.set()
        _, one, infinite, two = await asyncio.gather(first, *answers, return_exceptions=True)
        assert isinstance(infinite, NotFinite)
        assert (one.tolist(), two.tolist()) == ([[10.0]], [[20.0]])  # type: ignore[union-attr]

    run(main)
    assert len(bench.computed) == 2


def test_who_waits_for_room_has_it_in_turn_and_is_not_counted(bench: Bench) -> None:
    """A large chunk that came first is not overtaken by small ones."""

    async def story() -> None:
        await bench.occupy()
        for _ in range(2):
            bench.batcher.submit(items(1, 2, 3, 4), LONG)
        order: list[int] = []

        async def come(size: int) -> None:
            await bench.batcher.room(size)
            order.append(size)
            await bench.batcher.submit(items(*range(size)), LONG)

        coming = [asyncio.create_task(come(size)) for size in (4, 1, 2)]
        await asyncio.sleep(0.2)
        assert order == [] and bench.observed.reasons == []
        bench.go.set()
        await asyncio.gather(*coming)
        assert order == [4, 1, 2]

    asyncio.run(story())
    assert bench.observed.reasons == []
