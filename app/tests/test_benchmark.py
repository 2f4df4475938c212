"""What a benchmark measures, and what its samples come to; how it goes on after an interruption is in services/."""

import json
import os
import subprocess
import sys
from array import array
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from bench_stub import write_card
from stub import CARD
from waiting import LIMIT_SECONDS

from genai_inference import benchmark
from genai_inference.benchmark import (
    Memory,
    Target,
    batch_sizes,
    by_name,
    measure,
    noise,
    percentiles_ms,
    plan,
    remaining,
    run_name,
    to_result,
)
from genai_inference.benchmark_reader import to_runs
from genai_inference.benchmark_results import COLUMNS, Checkpoint, Place, Step
from genai_inference.model import ModelError, WeightsSpec
from genai_inference.settings import ModelConfig

NOW = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
PLACE = Place("node-1", "cuda:0", "bfloat16", "torch 2.6.0")
STEP = Step("stub", "9.8.7", 4)


def target(name: str = "stub", most: int = 32, version: str = "9.8.7") -> Target:
    card = CARD.model_copy(update={"name": name, "version": version})
    return Target(ModelConfig(dir=Path("/models") / name, max_batch_size=most), card)


@pytest.mark.parametrize(
    ("text", "sizes"), [("1,4,16,32", [1, 4, 16, 32]), ("8", [8]), ("16,2,16", [2, 16]), ("9,10", [9, 10])]
)
def test_batch_sizes(text: str, sizes: list[int]) -> None:
    assert batch_sizes(text) == sizes


@pytest.mark.parametrize(
    ("most", "fitting", "left_out"),
    [((32, 32), "a1 a16 b1 b16", ""), ((16, 8), "a1 a16 b1", "b16"), ((1, 15), "a1 b1", "a16 b16")],
)
def test_plan(most: tuple[int, int], fitting: str, left_out: str) -> None:
    steps = plan([target("a", most[0]), target("b", most[1])], [1, 16])
    assert [" ".join(f"{step.model}{step.batch_size}" for step in part) for part in steps] == [fitting, left_out]


@pytest.mark.parametrize(
    ("finished", "left"),
    [
        ([], [1, 4, 16]),
        ([STEP], [1, 16]),
        ([STEP, replace(STEP, batch_size=1), replace(STEP, batch_size=16)], []),
        ([replace(STEP, version="9.8.6"), replace(STEP, model="other")], [1, 4, 16]),
    ],
)
def test_what_remains_of_a_run(finished: list[Step], left: list[int]) -> None:
    steps = [replace(STEP, batch_size=size) for size in (1, 4, 16)]
    assert [step.batch_size for step in remaining(steps, set(finished))] == left


def test_two_models_of_one_name_are_refused() -> None:
    assert list(by_name([target("a"), target("b")])) == ["a", "b"]
    with pytest.raises(ModelError, match=r"^/models/a/model.yaml: name: 'a' is also the model in /models/a$"):
        by_name([target("a"), target("a", version="2")])


def test_a_run_is_named_by_its_day_and_what_it_measures() -> None:
    named = run_name(NOW, [target()], [STEP], 5.0)
    assert named.startswith("2026-03-01-") and named == run_name(NOW.replace(hour=0), [target()], [STEP], 5.0)
    other = Target(target().config, CARD.model_copy(update={"weights": WeightsSpec(sha256="1" * 64)}))
    others = [
        run_name(NOW.replace(day=2), [target()], [STEP], 5.0),
        run_name(NOW, [other], [STEP], 5.0),
        run_name(NOW, [target()], [replace(STEP, batch_size=8)], 5.0),
        run_name(NOW, [target()], [STEP], 6.0),
    ]
    assert len({named, *others}) == 5


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ([0.002], (2, 2, 2)),
        ([0.001, 0.003], (1, 3, 3)),
        ([number / 1000 for number in range(100, 0, -1)], (50, 95, 99)),
        ([number / 1000 for number in range(1, 1001)], (500, 950, 990)),
    ],
)
def test_percentiles_are_times_that_were_measured(seconds: list[float], found: tuple[float, ...]) -> None:
    assert percentiles_ms(seconds) == found


def test_the_result_of_a_step() -> None:
    begun = Checkpoint(2, NOW, array("f", [0.25, 0.5, 0.25, 1.0]))
    result = to_result(STEP, CARD, PLACE, begun, Memory(2**20, 2**30), NOW)
    assert (result.step, result.weights_sha256) == (STEP, "0" * 64)
    assert (result.node, result.device, result.dtype, result.framework) == (*PLACE.__dict__.values(),)
    assert (result.attempts, result.passes, result.items_per_second) == (2, 4, 8.0)
    assert (result.p50_ms, result.p95_ms, result.p99_ms) == (250, 1000, 1000)
    assert (result.peak_rss_bytes, result.device_memory_bytes) == (2**20, 2**30)


class Predict:
    """A pass takes one second of its own clock."""

    def __init__(self) -> None:
        self.now, self.passes = 0.0, 0

    def __call__(self, batch: np.ndarray) -> None:
        self.passes += 1
        self.now += 1

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "before", "stop_at", "finished", "samples"),
    [
        (5.0, 0, None, True, 5),
        (0.001, 0, None, True, 1),  # one pass at least
        (5.0, 3, None, True, 5),  # goes on
        (5.0, 5, None, True, 5),
        (5.0, 0, 2, False, 0),  # while it warms up
        (5.0, 0, benchmark.WARM_UP_PASSES + 2, False, 2),
        (5.0, 2, benchmark.WARM_UP_PASSES + 2, False, 4),
        (5.0, 0, benchmark.WARM_UP_PASSES + 5, True, 5),  # after the last pass
    ],
)
def test_measure(seconds: float, before: int, stop_at: int | None, finished: bool, samples: int) -> None:
    predict, found = Predict(), array("f", [1.0] * before)
    asked: Iterator[int] = count()
    stopped = lambda: stop_at is not None and next(asked) >= stop_at  # noqa: E731
    assert measure(predict, noise(CARD.input, 1), seconds, found, stopped, predict.clock) is finished
    assert len(found) == samples


def test_noise_is_in_range_and_always_the_same() -> None:
    batch = noise(CARD.input, 3)
    assert (batch.shape, batch.dtype) == ((3, 8, 8), np.float32)
    assert CARD.input.minimum <= batch.min() < batch.max() <= CARD.input.maximum
    assert np.array_equal(batch, noise(CARD.input, 3)) and not np.array_equal(batch[0], batch[1])


def test_the_peak_of_memory_is_that_of_the_step() -> None:
    benchmark.forget_peak_rss()
    before = benchmark.peak_rss()
    block = np.ones(2**23)  # 64 MiB
    assert benchmark.peak_rss() >= before + block.nbytes * 0.9 > 0


def test_rows_become_runs() -> None:
    run = {"run_id": "b", "run_began": NOW, "run_ended": None, "steps": 2, "step_seconds": 5.0}
    begun = Checkpoint(1, NOW, array("f", [0.5]))
    result = to_result(STEP, CARD, PLACE, begun, Memory(1, None), NOW)
    values = {name: getattr(result, name) for name in COLUMNS}
    nothing = dict.fromkeys(COLUMNS)
    rows = [{**run, **values}, {**run, **values, "batch_size": 8}, {**run, "run_id": "a", **nothing}]
    runs = to_runs(rows)
    assert [(each.run, len(each.results)) for each in runs] == [("b", 2), ("a", 0)]
    assert runs[0].results == [result, replace(result, batch_size=8)]


# --- the process, without PostgreSQL ---------------------------------------------------------------------------------


def run(folder: Path, seconds: str = "0.001", **settings: str) -> tuple[int, list[dict], str]:
    """Exit code, lines of the log, and stderr of a benchmark of the models in `folder`."""
    variables = {"GENAI_MODEL_DIR": str(folder), "GENAI_BENCHMARK_SECONDS": "0.05", **settings}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, str(Path(__file__).parent / "support" / "bench_stub.py"), seconds]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_without_a_database_the_results_are_lines_of_the_log(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_card(tmp_path / name, CARD.model_copy(update={"name": name}))
    settings = {"GENAI_MAX_BATCH_SIZE": "8", "GENAI_NODE": "node-1", "GENAI_LOG_LEVEL": "error"}
    code, lines, stderr = run(Path(f"{tmp_path}/a:{tmp_path}/b"), **settings, GENAI_BENCHMARK_BATCH_SIZES="16,4,1")
    assert (code, stderr) == (0, "")
    results = [line for line in lines if line["message"] == "benchmark step"]
    assert [(line["model"], line["batch_size"]) for line in results] == [("a", 1), ("a", 4), ("b", 1), ("b", 4)]
    assert {(line["node"], line["device"], line["dtype"], line["attempts"]) for line in results} == {
        ("node-1", "stub", "float32", 1)
    }
    for line in results:
        assert line["passes"] >= 1 and 1 <= line["p50_ms"] <= line["p95_ms"] <= line["p99_ms"]
        assert 0 < line["items_per_second"] <= line["batch_size"] * 1000
        assert line["peak_rss_bytes"] > 2**20 and line["device_memory_bytes"] is None
    left_out = [(line["model"], line["batch_size"]) for line in lines if "left out" in line["message"]]
    assert left_out == [("a", 16), ("b", 16)]


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"GENAI_BENCHMARK_BATCH_SIZES": "64"}, 2, "GENAI_BENCHMARK_BATCH_SIZES: every size is larger than"),
        ({"GENAI_MODEL_DIR": "/nowhere"}, 3, "/nowhere/model.yaml: no such file or directory"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, settings: dict, code: int, message: str) -> None:
    write_card(tmp_path, CARD)
    found, _, stderr = run(tmp_path, **settings)
    assert found == code
    assert stderr.startswith(f"genai-inference: {message}") and stderr.count("\n") == 1


def test_a_model_that_fails_is_named(tmp_path: Path) -> None:
    write_card(tmp_path, CARD)
    code, lines, stderr = run(tmp_path, seconds="-1")  # time.sleep refuses that
    assert (code, stderr.count("\n")) == (3, 1)
    assert stderr.startswith(f"genai-inference: {tmp_path}: ValueError: ")
    assert "Traceback" in lines[-1]["traceback"]


def test_told_to_end_before_anything_is_imported_it_is_not_done() -> None:
    """Exit code 0 would be a finished benchmark."""
    script = (
        "import os, signal, sys, genai_inference.__main__ as main\n"
        "main._parser = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "main.main(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for command, code in {"benchmark": 5, "serve": 0}.items():
        done = subprocess.run([sys.executable, "-c", script, command], env=environment, timeout=60, check=False)
        assert done.returncode == code, command
