"""Pictures are unpacked in few threads, and count until their thread is done with them."""

import asyncio
import io
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from processes import Start

from genai_inference import unpacking
from genai_inference.codec import LargePicture
from genai_inference.unpacking import TooMany, Unpacking


def picture(size: int) -> bytes:
    """A PNG of so many pixels each way: a few KB, which are 4 bytes a pixel in memory."""
    file = io.BytesIO()
    Image.new("RGBA", (size, size), (9, 99, 199, 255)).save(file, "PNG", compress_level=9)
    return file.getvalue()


class Held:
    """Work that its thread does not get done with until told; counts how much of it is under way at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.now = self.most = 0
        self._lock = threading.Lock()

    def small(self, _: int | None) -> str:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.begun.release()
        self.go.wait(30)
        with self._lock:
            self.now -= 1
        return "small"

    def large(self, room: int | None) -> str:
        if room is not None:
            raise LargePicture
        return self.small(room) and "large"


def run(test: Callable[[Unpacking, Held], object], cpus: int = 2) -> object:
    async def main() -> object:
        pool, held = Unpacking(cpus), Held()
        try:
            return await test(pool, held)  # type: ignore[misc]
        finally:
            held.go.set()
            pool.close()

    return asyncio.run(main())


async def begun(held: Held, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(held.begun.acquire, timeout=30)


def test_large_ones_come_one_after_the_other_and_small_ones_beside_them() -> None:
    async def test(pool: Unpacking, held: Held) -> list[str]:
        large = [asyncio.ensure_future(pool.run(held.large)) for _ in range(4)]
        await begun(held, 1)
        small = [asyncio.ensure_future(pool.run(held.small)) for _ in range(6)]
        await begun(held, 3)
        held.go.set()
        return await asyncio.gather(*large, *small)

    holds: list[Held] = []

    async def watched(pool: Unpacking, held: Held) -> list[str]:
        holds.append(held)
        return await test(pool, held)

    assert run(watched, cpus=3) == ["large"] * 4 + ["small"] * 6
    assert holds[0].most <= 1 + 3


@pytest.mark.parametrize("cpus", [1, 64])
def test_no_more_threads_than_cpus_and_never_very_many(cpus: int) -> None:
    async def test(pool: Unpacking, held: Held) -> int:
        works = [asyncio.ensure_future(pool.run(held.small)) for _ in range(40)]
        await begun(held, min(cpus, unpacking.MOST_THREADS))
        assert not await asyncio.to_thread(held.begun.acquire, timeout=0.2)
        held.go.set()
        await asyncio.gather(*works)
        return held.most

    assert run(test, cpus) == min(cpus, unpacking.MOST_THREADS)


@pytest.mark.parametrize(("kind", "most"), [("small", unpacking.MOST_SMALL), ("large", unpacking.MOST_LARGE)])
def test_one_too_many_is_refused_also_after_the_others_were_given_up(kind: str, most: int) -> None:
    """Whoever gave up frees no place that a thread still needs: three waves of those that left were 48 at once."""

    async def test(pool: Unpacking, held: Held) -> None:
        work = getattr(held, kind)
        waiting = [asyncio.ensure_future(pool.run(work)) for _ in range(most)]
        await begun(held, 1)
        under_way = 1 if kind == "large" else 2
        await begun(held, under_way - 1)
        while kind == "large" and len(pool._large.taken) < most:
            await asyncio.sleep(0.01)
        with pytest.raises(TooMany):
            await pool.run(work)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        lane = getattr(pool, f"_{kind}")
        assert len(lane.taken) == under_way, "what no thread has begun is given up, and the rest is not"
        again = [asyncio.ensure_future(pool.run(work)) for _ in range(most - under_way)]
        while len(lane.taken) < most:
            await asyncio.sleep(0.01)
        with pytest.raises(TooMany):
            await pool.run(work)
        held.go.set()
        await asyncio.gather(*again)
        assert held.most == under_way

    run(test)


def test_a_flood_of_the_largest_pictures_takes_little_memory_and_stops_nobody(start: Start) -> None:
    """64 at once, on a node of 16 CPUs: 16 of them side by side would take 2 GB."""
    server = start("cpus 16", GENAI_DEADLINE_SECONDS="60")
    server.becomes("/ready", 200)
    small, large = picture(64), picture(4096)
    before = server.most_resident()

    def post(body: bytes) -> int:
        headers = {"Content-Type": "image/png"}
        return httpx.post(f"{server.url}/v1/predict", content=body, headers=headers, timeout=120).status_code

    assert post(small) == 200
    with ThreadPoolExecutor(66) as pool:
        flood = [pool.submit(post, large) for _ in range(64)]
        others = [post(small) for _ in iter(lambda: all(each.done() for each in flood), True)]
        answers = Counter(each.result() for each in flood)
    assert set(answers) == {200, 429} and answers[200] >= unpacking.MOST_LARGE
    assert others and set(others) == {200}
    grown = server.most_resident() - before
    assert grown < 300 * 2**20, f"{grown / 2**20:.0f} MiB"
