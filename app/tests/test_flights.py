"""Several wait for one piece of work, and none of them can spoil it for the others."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from genai_inference import flights
from genai_inference.batching import Abandoned, DeadlineExceeded, QueueFull
from genai_inference.flights import Flight, Flights

LONG = 60.0
Story = Callable[["Runway"], Awaitable[None]]


class Runway:
    """Flights, and work that ends when the test says so."""

    def __init__(self) -> None:
        self.flights: Flights[str] = Flights()
        self.begun = 0
        self.results: list[asyncio.Future[str]] = []
        self.ended: list[BaseException | None] = []

    async def work(self, flight: Flight[str]) -> str:
        self.begun += 1
        result = flight.computing = asyncio.get_running_loop().create_future()
        self.results.append(result)
        try:
            answer = await result
        except BaseException as error:
            self.ended.append(error)
            raise
        self.ended.append(None)
        return answer

    async def join(self, key: str = "a", seconds: float = LONG) -> asyncio.Future[str]:
        waiter, _ = self.flights.join(key, self.work, seconds)
        await asyncio.sleep(0)  # the work begins
        return waiter


def run(story: Story) -> Runway:
    async def limited() -> Runway:
        runway = Runway()
        await asyncio.wait_for(story(runway), 30)
        return runway

    return asyncio.run(limited())


def test_what_many_ask_for_is_done_once() -> None:
    async def story(runway: Runway) -> None:
        waiters = [await runway.join() for _ in range(5)]
        other = await runway.join("b")
        runway.results[0].set_result("done")
        assert await asyncio.gather(*waiters) == ["done"] * 5
        assert not other.done()
        runway.results[1].set_result("other")
        assert await other == "other"
        again = await runway.join()
        runway.results[2].set_result("anew")
        assert await again == "anew", "what has landed is not joined any more"

    assert run(story).begun == 3


def test_who_began_and_who_joined() -> None:
    async def story(runway: Runway) -> None:
        assert [runway.flights.join("a", runway.work, LONG)[1] for _ in range(3)] == [False, True, True]

    run(story)


def _abandons(waiter: "asyncio.Future[str]") -> None:
    waiter.set_exception(Abandoned())
    waiter.exception()


def _is_cancelled(waiter: "asyncio.Future[str]") -> None:
    waiter.cancel()


@pytest.mark.parametrize("leave", [_abandons, _is_cancelled])
@pytest.mark.parametrize("who", [0, 1])
def test_one_who_leaves_ends_nothing_for_the_others(who: int, leave: Callable[["asyncio.Future[str]"], None]) -> None:
    async def story(runway: Runway) -> None:
        waiters = [await runway.join() for _ in range(2)]
        leave(waiters[who])
        await asyncio.sleep(0.01)
        runway.results[0].set_result("done")
        assert await waiters[1 - who] == "done"

    assert run(story).begun == 1


@pytest.mark.parametrize("seconds", [(0.02, LONG), (LONG, 0.02)])
def test_each_has_a_deadline_of_its_own(seconds: tuple[float, float]) -> None:
    async def story(runway: Runway) -> None:
        waiters = [await runway.join(seconds=each) for each in seconds]
        late = waiters[seconds.index(0.02)]
        with pytest.raises(DeadlineExceeded):
            await late
        runway.results[0].set_result("done")
        assert await waiters[1 - waiters.index(late)] == "done"

    assert run(story).begun == 1


def test_the_last_one_who_leaves_ends_it_and_says_why() -> None:
    async def story(runway: Runway) -> None:
        first, second = await runway.join(), await runway.join(seconds=0.02)
        first.cancel()
        with pytest.raises(DeadlineExceeded):
            await second
        await asyncio.sleep(0.01)
        assert isinstance(runway.ended[0], DeadlineExceeded)
        await runway.join()
        assert runway.begun == 2, "who comes later does not join what was given up"

    run(story)


def test_the_last_one_who_is_cancelled_cancels_it() -> None:
    async def story(runway: Runway) -> None:
        (await runway.join()).cancel()
        await asyncio.sleep(0.01)
        assert isinstance(runway.ended[0], asyncio.CancelledError)

    run(story)


def test_an_error_is_everybodys() -> None:
    async def story(runway: Runway) -> None:
        waiters = [await runway.join() for _ in range(3)]
        runway.results[0].set_exception(ZeroDivisionError())
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 3

    run(story)


def test_no_more_join_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "MOST_JOINED", 2)

    async def story(runway: Runway) -> None:
        waiters = [await runway.join() for _ in range(3)]
        with pytest.raises(QueueFull):
            await runway.join()
        await runway.join("b")
        waiters[1].cancel()
        await asyncio.sleep(0)
        await runway.join()  # there is room again

    run(story)
