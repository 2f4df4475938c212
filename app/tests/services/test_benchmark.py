"""Benchmarks that are interrupted in every way, with a real PostgreSQL and real processes around the stub."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from backing import Backing
from bench_stub import write_card
from stub import CARD
from waiting import LIMIT_SECONDS, eventually

SIZES = (1, 2, 4)
STEP_SECONDS = 1.5


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
            finished_at - started_at >= interval '1 second', peak_rss_bytes > 0, device_memory_bytes
        from benchmark_steps
        """
    model = ("node-1", "stub", "float32", "stub", CARD.name, CARD.version)
    assert set(ask(postgres_server, query)) == {(*model, True, True, True, True, True, None)}
    again = bench()
    assert (again.ends(), again.measured()) == (0, [])
    other = bench(GENAI_BENCHMARK_RUN="nightly-2", GENAI_BENCHMARK_SECONDS="0.1")
    assert (other.ends(), other.measured()) == (0, [1, 2, 4])


def test_told_to_end_it_goes_on_within_the_step(bench: Start, postgres_server: Backing) -> None:
    first = bench()
    in_the_middle(postgres_server)
    first.process.terminate()
    assert first.ends() == 5
    assert "interrupted" in first.log.read_text() and first.measured() == [1]
    kept = ask(postgres_server, "select length(samples) / 4, clock_timestamp() from benchmark_checkpoints")
    assert len(kept) == 1 and kept[0][0] > 0
    second = bench()
    assert (second.ends(), second.measured()) == (0, [2, 4])
    assert attempts(postgres_server) == {1: 1, 2: 2, 4: 1} and is_complete(postgres_server)
    ((passes, began),) = ask(postgres_server, "select passes, started_at from benchmark_steps where batch_size = 2")
    assert passes > kept[0][0] and began < kept[0][1], "the samples of both processes"


def test_on_another_node_the_step_begins_anew(bench: Start, postgres_server: Backing) -> None:
    first = bench()
    in_the_middle(postgres_server)
    first.process.terminate()
    assert first.ends() == 5
    ((ended,),) = ask(postgres_server, "select clock_timestamp()")
    second = bench(GENAI_NODE="node-2")
    assert (second.ends(), second.measured()) == (0, [2, 4])
    assert attempts(postgres_server) == {1: 1, 2: 2, 4: 1} and is_complete(postgres_server)
    rows = ask(postgres_server, "select node, started_at from benchmark_steps order by batch_size")
    assert [node for node, _ in rows] == ["node-1", "node-2", "node-2"] and rows[1][1] > ended


def test_killed_it_repeats_only_the_step_under_way(bench: Start, postgres_server: Backing) -> None:
    first = bench()
    in_the_middle(postgres_server)
    first.process.kill()
    assert first.ends() == -signal.SIGKILL
    second = bench()
    assert (second.ends(), second.measured()) == (0, [2, 4])
    assert attempts(postgres_server) == {1: 1, 2: 2, 4: 1} and is_complete(postgres_server)


def test_of_two_at_once_the_second_waits(bench: Start, postgres_server: Backing) -> None:
    both = [bench(), bench()]
    assert [each.ends() for each in both] == [0, 0]
    assert sorted(both[0].measured() + both[1].measured()) == [1, 2, 4]
    assert len([1 for each in both if each.lines("another process measures this run")]) == 1
    assert attempts(postgres_server) == {1: 1, 2: 1, 4: 1} and is_complete(postgres_server)


def test_the_second_goes_on_when_the_first_is_killed(bench: Start, postgres_server: Backing) -> None:
    first = bench()
    in_the_middle(postgres_server)
    second = bench()
    eventually(lambda: second.lines("another process measures this run") != [], "the second one waits")
    first.process.kill()
    assert (second.ends(), second.measured()) == (0, [2, 4])
    assert attempts(postgres_server) == {1: 1, 2: 2, 4: 1}


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
    assert attempts(postgres_server) == {1: 1, 2: 1, 4: 1} and is_complete(postgres_server)
    assert bool(running.lines("PostgreSQL does not answer")) == (outage == "stop")


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


def test_postgresql_refuses(bench: Start, postgres_server: Backing) -> None:
    ask(postgres_server, "create role reader login")
    try:
        running = bench(GENAI_DATABASE_URL=postgres_server.url.replace("//postgres@", "//reader@"))
        assert running.ends() == 6
        assert "genai-inference: PostgreSQL refuses: permission denied for schema public" in running.log.read_text()
    finally:
        ask(postgres_server, "drop role reader")
