# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured on the inference service to what is printed; and the client that measures."""
from __future__ import annotations

import asyncio
import os
import pathlib
import sys
import threading
import time

import pytest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "app"))

import app_pairs
import bench_app
import client
import overload
import report
from table import Samples

SIZES = [1, 16]
OWN = pathlib.Path(f"/proc/{os.getpid()}")
FACTS = {
    "runs": 3, "busy": 0.1, "batch": 16, "connections": 48, "share": 0.7, "peers": "a==1", "missing": {report.RAY: "could not be installed"},
    "device": "cpu", "cores": "0",
}


@pytest.fixture(name="samples")
def made_up():
    samples = Samples()
    figures = {"m.bare.1": 0.010, "m.bare.16": 0.080, "m.ours.no_op.per_second": 5000.0, "m.ours.steady.p95": 100.0}
    figures |= {"m.ours.of_allowed": 0.97, "m.ours.cached_local.p95": 2.0, "m.ours.cached_redis.p95": 3.5}
    for server, per_second, latency in (("ours", 190.0, 10.0), ("litserve", 100.0, 40.0), ("fastapi", 90.0, 9.5)):
        figures[f"m.{server}.full.per_second"] = per_second
        for case in ("full", "even", "alone"):
            figures.update({f"m.{server}.{case}.{what}": latency for what in ("p50", "p95", "p99")})
    for key, figure in figures.items():
        samples.values[key] = [figure] * 3
    return samples


def test_what_is_possible():
    assert report.allowed(200.0, 0.0) == 200
    assert report.allowed(200.0, 0.005) == 100  # as long for HTTP as for the model
    assert report.allowed(200.0, 0.001, "cuda:0") == 200  # while the GPU computes, the core does HTTP
    assert report.allowed(200.0, 0.010, "cuda:0") == pytest.approx(100)


def test_the_best_batch_size(samples):
    assert report.best(samples, "m", SIZES) == (16, 200)


def test_goals(samples):
    share, steady, local, redis, faster, latency, lone = report.goals(samples, "m", SIZES)
    assert (share.figure, share.met) == (97, True)
    assert "what is possible (192/s; T_raw 200/s in batches of 16" in share.about
    assert (steady.limit, steady.met) == (165, True)
    assert (local.met, redis.met) == (True, False)
    assert (faster.figure, faster.met) == (1.9, True)
    assert (latency.figure, latency.met) == (0.25, True)
    assert (lone.figure, lone.met) == (0.5, True)


def test_a_goal_that_is_missed(samples):
    samples.values["m.ours.full.per_second"] = [110.0] * 3
    samples.values["m.ours.of_allowed"] = [0.96, 0.94, 0.93]
    goals = {goal.about: goal for goal in report.goals(samples, "m", SIZES)}
    assert [goal.met for about, goal in goals.items() if about.startswith("throughput")] == [False, False]


def test_without_redis_and_peers_their_goals_are_left_out(samples):
    for key in [key for key in samples.values if "redis" in key or "litserve" in key or "fastapi" in key]:
        del samples.values[key]
    assert len(report.goals(samples, "m", SIZES)) == 3


def overloaded(factor: float) -> dict[str, dict]:
    """One run, in which all that is accepted takes `factor` times as long as at capacity."""
    calm = {"per_second": 200.0, "p50": 50.0, "p95": 100.0, "p99": 110.0, "refused": 0, "refused_p95": float("nan"), "forward": 80.0}
    busy = {**calm, "per_second": 200.0 / factor, "p95": 100.0 * factor, "refused": 9000, "refused_p95": 8.0, "memory_growth": 0.01}
    return {"capacity": calm, "half": calm, "overload": busy, "recovery": calm}


def test_overload_is_judged_by_the_median_of_the_runs():
    goals = overload.goals([overloaded(1.1), overloaded(1.2), overloaded(9.0)])
    assert [goal.figure for goal in goals] == [pytest.approx(figure) for figure in (1.2, 100 / 1.2, 0.1, 1.0, 1.0)]
    assert all(goal.met for goal in goals)
    assert [goal.met for goal in overload.goals([overloaded(1.3)])] == [False, False, True, True, True]


def test_the_report_of_overload():
    facts = {"runs": 1, "model": "m", "batch": 16, "queue": 32, "busy": 0.1, "times": 5, "seconds": 60, "sent": 10, "refused": 9, "recovery": 2, "share": 0.2}
    text = overload.markdown([overloaded(1.1)], facts)
    assert "| at capacity | 200 | 50.0 | 100.0 | 110.0 | 0 |  |" in text
    assert "| overloaded | 182 | 50.0 | 110.0 | 110.0 | 9,000 | 8.0 |" in text


def test_memory_that_the_first_seconds_take_is_no_leak():
    assert overload.growth([10, 100, 100, 100, 101] * 2) == pytest.approx(101 / 100 - 1)


def test_the_report_says_what_computed(samples):
    assert "have one core and one thread" in report.markdown(samples, ["m"], SIZES, FACTS)
    on_gpu = report.markdown(samples, ["m"], SIZES, {**FACTS, "device": "cuda:0", "cores": "2-7"})
    assert "have cuda:0, the cores 2-7 and one thread" in on_gpu
    assert "T_raw or 1 / c" in on_gpu


def test_the_report_says_where_the_time_goes(samples):
    assert "CPU ms of a request" not in report.markdown(samples, ["m"], SIZES, FACTS)
    samples.values |= {"m.ours.cpu.event_loop": [0.4], "m.ours.cpu.others": [6.0]}
    assert "| m | 0.40 | 0.20 | 6.00 | 5.00 |" in report.markdown(samples, ["m"], SIZES, FACTS)


def test_the_cpu_time_of_a_thread_and_of_all():
    def spin() -> None:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass

    before, process = bench_app.cpu_seconds(OWN / f"task/{os.getpid()}/stat"), bench_app.cpu_seconds(OWN / "stat")
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
    assert bench_app.cpu_seconds(OWN / "stat") - process >= 0.25
    assert bench_app.cpu_seconds(OWN / f"task/{os.getpid()}/stat") - before < 0.2


def test_the_report_names_a_peer_that_is_missing(samples):
    text = report.markdown(samples, ["m"], SIZES, FACTS)
    assert "| m | this service | 190 | 95% | 10.0 |" in text
    assert "|  | Ray Serve | could not be installed |" in text
    assert "|  | BentoML | not measured |" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and ("service" in line or "Serve" in line)]
    assert {line.count("|") for line in rows if "goal" not in line and "times" not in line} == {14}


def serve(answer: bytes, started: threading.Event, ports: list[int], stop: threading.Event) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n") and await reader.readexactly(2):
            writer.write(answer)

    async def main() -> None:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            started.set()
            while not stop.is_set():
                await asyncio.sleep(0.01)

    asyncio.run(main())


@pytest.mark.parametrize("rate", [None, 50.0])
@pytest.mark.parametrize("rest", [b"Content-Length: 2\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"], ids=["length", "chunks"])
def test_the_client_counts_what_is_answered(rest, rate):
    answer = b"HTTP/1.1 200 OK\r\n" + rest
    started, stop, ports = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=serve, args=(answer, started, ports, stop), daemon=True)
    thread.start()
    started.wait(30)
    spec = {"port": ports[0], "path": "/", "content_type": "x", "bodies": ["YWI="], "connections": 2, "seconds": 0.4, "rate": rate, "warm_up": 0.1}
    seen = asyncio.run(client.run(spec))
    stop.set()
    thread.join(30)
    assert set(seen["statuses"]) == {"200"}
    assert 0 < seen["p50"] <= seen["p95"] <= seen["p99"]
    if rate:  # no more than were due
        assert seen["statuses"]["200"] <= rate * 0.5 + 2


def test_a_pair_is_slower_when_it_does_less_a_second_or_takes_longer():
    assert app_pairs.slower([100.0, 200.0, 300.0], [50.0, 100.0, 300.0], more_is_better=True) == 2.0
    assert app_pairs.slower([10.0, 20.0, 30.0], [11.0, 22.0, 90.0], more_is_better=False) == pytest.approx(1.1)


def test_pairs_leave_out_what_was_not_measured():
    sides = {"before": Samples({"throughput": [100.0], "one at a time, p50": [2.0]}), "after": Samples({"throughput": [80.0], "one at a time, p50": [1.0]})}
    assert app_pairs.table({"digits": sides}).splitlines()[2:] == [
        "| digits | throughput | 100.00 | 80.00 | requests/s | 1.25 x |",
        "| digits | one at a time, p50 | 2.00 | 1.00 | ms | 0.50 x |",
    ]
