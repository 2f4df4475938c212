"""Benchmarks that are interrupted in every way, with a real PostgreSQL and real processes around the stub."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from backing import Backing
from bench_stub import write_card
from stub import CARD
from waiting import LIMIT_SECONDS, eventually

from genai_inference import benchmark_results
from genai_inference.benchmark_results import Kept, NotKept, Place, Step

SIZES = (1, 2, 4)
PLACE = Place("node-1", "cpu", "float32", "torch 2.6.0")
STEP_SECONDS = 1.0


@dataclass
class Running:
    """A bench_stub.py."""

    process: subprocess.Popen[bytes]
    log: Path

    def ends(self) -> int:
        return self.process.wait(LIMIT_SECONDS)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The lines of its log with this message."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def measured(self) -> list[int]:
        return [line["batch_size"] for line in self.lines("benchmark step")]


Start = Callable[..., Running]


@pytest.fixture
def bench(tmp_path: Path, postgres_server: Backing) -> Iterator[Start]:
    """Starts benchmarks of the stub, all of the same run, and ends those that still run after the test."""
    started: list[Running] = []
    write_card(tmp_path / "model", CARD)

    def start(patience: float = 60, **settings: str) -> Running:
        variables = {
            "GENAI_MODEL_DIR": str(tmp_path / "model"),
            "GENAI_DATABASE_URL": postgres_server.url,
            "GENAI_BENCHMARK_RUN": "nightly-1",
            "GENAI_BENCHMARK_SECONDS": str(STEP_SECONDS),
            "GENAI_BENCHMARK_BATCH_SIZES": ",".join(map(str, SIZES)),
            "GENAI_NODE": "node-1",
            **settings,
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        script = Path(__file__).parent.parent / "support" / "bench_stub.py"
        log = tmp_path / f"{len(started)}.log"
        with log.open("wb") as out:
            command = [sys.executable, str(script), "0.01", str(patience)]
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        started.append(Running(process, log))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def ask(server: Backing, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query; none as long as the tables are not there."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(server.url)
        try:
            return await connection.fetch(query)
        except asyncpg.UndefinedTableError:
            return []
        finally:
            await connection.close()

    return [tuple(row) for row in asyncio.run(run())]


def attempts(server: Backing) -> dict[int, int]:
    """How many processes began each finished step. A step that is there twice fails the test."""
    rows = ask(
        server, "select batch_size, attempts from benchmark_steps where run_id = 'nightly-1' order by batch_size"
    )
    assert len({size for size, _ in rows}) == len(rows)
    return dict(rows)


def in_the_middle(server: Backing) -> None:
    """Waits until the first step is finished and the second one has been measured for a while."""
    eventually(lambda: ask(server, "select from benchmark_checkpoints where batch_size = 2") != [], "the second step")
    time.sleep(STEP_SECONDS / 3)


def is_complete(server: Backing) -> bool:
    """The run is finished, and nothing is left of what was under way."""
    ended = ask(server, "select finished_at is not null, steps from benchmark_runs") == [(True, len(SIZES))]
    return ended and ask(server, "select from benchmark_checkpoints") == []


def test_a_complete_run_and_the_same_again(bench: Start, postgres_server: Backing) -> None:
    first = bench()
    assert first.ends() == 0, first.log.read_text()
    assert attempts(postgres_server) == {1: 1, 2: 1, 4: 1} and is_complete(postgres_server)
    query = """
        select node, device, dtype, framework, model, version, passes > 1, items_per_second > 0, p50_ms <= p99_ms,
            finished_at - started_at >= interval '0.9 seconds', peak_rss_bytes > 0, device_memory_bytes
        from benchmark_steps
        """
    model = ("node-1", "stub", "float32", "stub", CARD.name, CARD.version)
    assert set(ask(postgres_server, query)) == {(*model, True, True, True, True, True, None)}
    again = bench()
    assert (again.ends(), again.measured()) == (0, [])
    other = bench(GENAI_BENCHMARK_RUN="nightly-2", GENAI_BENCHMARK_SECONDS="0.1")
    assert (other.ends(), other.measured()) == (0, [1, 2, 4])


def sizes(server: Backing, table: str) -> list[int]:
    return [size for (size,) in ask(server, f"select batch_size from {table} order by batch_size")]  # noqa: S608


def interrupted(first: Running, server: Backing, how: signal.Signals) -> tuple[int, int]:
    """Ends the first process in the middle; its exit code, and the step it was at."""
    in_the_middle(server)
    first.process.send_signal(how)
    code = first.ends()
    (under_way,) = sizes(server, "benchmark_checkpoints")
    assert 1 in sizes(server, "benchmark_steps")
    return code, under_way


def goes_on(second: Running, server: Backing, under_way: int) -> None:
    """The second process measures what the first one did not, and nothing twice but the step that was under way."""
    left = [size for size in SIZES if size >= under_way]
    assert (second.ends(), second.measured()) == (0, left)
    assert attempts(server) == {size: 2 if size == under_way else 1 for size in SIZES}
    assert is_complete(server)


def test_told_to_end_it_goes_on_within_the_step(bench: Start, postgres_server: Backing) -> None:
    first = bench()
    code, under_way = interrupted(first, postgres_server, signal.SIGTERM)
    assert code == 5 and "genai-inference: interrupted" in first.log.read_text()
    ((kept, ended),) = ask(postgres_server, "select length(samples) / 4, clock_timestamp() from benchmark_checkpoints")
    assert kept > 0
    goes_on(bench(), postgres_server, under_way)
    rows = ask(postgres_server, "select batch_size, passes, started_at from benchmark_steps")
    ((passes, began),) = [row[1:] for row in rows if row[0] == under_way]
    assert passes >= kept and began < ended, "the samples of both processes"


def test_on_another_node_the_step_begins_anew(bench: Start, postgres_server: Backing) -> None:
    code, under_way = interrupted(bench(), postgres_server, signal.SIGTERM)
    assert code == 5
    ((ended,),) = ask(postgres_server, "select clock_timestamp()")
    goes_on(bench(GENAI_NODE="node-2"), postgres_server, under_way)
    rows = ask(postgres_server, "select batch_size, node, started_at from benchmark_steps")
    assert {size: (node, began > ended) for size, node, began in rows} == {
        size: ("node-2", True) if size >= under_way else ("node-1", False) for size in SIZES
    }


def test_killed_it_repeats_only_the_step_under_way(bench: Start, postgres_server: Backing) -> None:
    code, under_way = interrupted(bench(), postgres_server, signal.SIGKILL)
    assert code == -signal.SIGKILL
    goes_on(bench(), postgres_server, under_way)


def test_of_two_at_once_the_second_waits(bench: Start, postgres_server: Backing) -> None:
    both = [bench(), bench()]
    assert [each.ends() for each in both] == [0, 0]
    assert sorted(both[0].measured() + both[1].measured()) == [1, 2, 4]
    assert len([1 for each in both if each.lines("another process measures this run")]) == 1
    assert attempts(postgres_server) == {1: 1, 2: 1, 4: 1} and is_complete(postgres_server)


def test_the_second_goes_on_when_the_first_is_killed(bench: Start, postgres_server: Backing) -> None:
    first = bench(GENAI_BENCHMARK_SECONDS="60")
    eventually(lambda: sizes(postgres_server, "benchmark_checkpoints") == [1], "the first step")
    second = bench()
    eventually(lambda: second.lines("another process measures this run") != [], "the second one waits")
    first.process.kill()
    goes_on(second, postgres_server, under_way=1)


def test_the_second_refuses_after_a_while(bench: Start, postgres_server: Backing) -> None:
    first = bench(GENAI_BENCHMARK_SECONDS="60")
    eventually(lambda: ask(postgres_server, "select from benchmark_checkpoints") != [], "the first step")
    second = bench(patience=0.5)
    assert second.ends() == 7 and second.measured() == []
    assert "genai-inference: another process measures the run nightly-1" in second.log.read_text()
    assert first.process.poll() is None
    assert ask(postgres_server, "select attempts from benchmark_checkpoints") == [(1,)]


@pytest.mark.parametrize("outage", ["stop", "freeze"])
def test_postgresql_goes_away_and_comes_back(bench: Start, postgres_server: Backing, outage: str) -> None:
    running = bench()
    in_the_middle(postgres_server)
    getattr(postgres_server, outage)()
    time.sleep(STEP_SECONDS * 2)
    assert running.process.poll() is None
    postgres_server.thaw() if outage == "freeze" else postgres_server.start()
    assert (running.ends(), running.measured()) == (0, [1, 2, 4])
    assert set(attempts(postgres_server)) == set(SIZES) and is_complete(postgres_server)
    assert outage == "freeze" or running.lines("PostgreSQL does not answer")


def test_postgresql_stays_away(bench: Start, postgres_server: Backing) -> None:
    postgres_server.stop()
    url = postgres_server.url.replace("//postgres@", "//postgres:hidden-word@")
    running = bench(patience=1, GENAI_DATABASE_URL=url)
    assert running.ends() == 6 and running.measured() == []
    log = running.log.read_text()
    assert "genai-inference: PostgreSQL does not answer: " in log and "hidden-word" not in log
    waiting = bench()
    eventually(lambda: waiting.lines("PostgreSQL does not answer") != [], "it waits")
    waiting.process.terminate()
    assert waiting.ends() == 5


def test_postgresql_that_is_frozen_is_given_up_and_used_again(
    postgres_server: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_results, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(benchmark_results, "PATIENCE_SECONDS", 3.0)
    step = Step("stub", "1", 1)

    async def story() -> None:
        kept = Kept(postgres_server.url, "nightly-1", 1, 5.0, asyncio.Event())
        assert (await kept.begin(step, PLACE)).attempts == 1
        postgres_server.freeze()
        with pytest.raises(NotKept, match=r"^PostgreSQL does not answer: "):
            await kept.finished()
        await kept.checkpoint(step, array("f", [0.5]))  # not kept, and nobody hangs
        postgres_server.thaw()
        monkeypatch.setattr(benchmark_results, "CALL_SECONDS", 30.0)
        monkeypatch.setattr(benchmark_results, "PATIENCE_SECONDS", 60.0)
        await kept.checkpoint(step, array("f", [0.5, 0.25]))
        begun = await kept.begin(step, PLACE)
        assert (begun.attempts, list(begun.samples)) == (2, [0.5, 0.25])
        elsewhere = await kept.begin(step, replace(PLACE, dtype="bfloat16"))
        assert (elsewhere.attempts, list(elsewhere.samples)) == (3, [])

    asyncio.run(story())


def test_postgresql_refuses(bench: Start, postgres_server: Backing) -> None:
    ask(postgres_server, "create role reader login")
    try:
        running = bench(GENAI_DATABASE_URL=postgres_server.url.replace("//postgres@", "//reader@"))
        assert running.ends() == 6
        assert "genai-inference: PostgreSQL refuses: permission denied for schema public" in running.log.read_text()
    finally:
        ask(postgres_server, "drop role reader")
