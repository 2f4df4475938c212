# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured to what is printed."""
from __future__ import annotations

import pytest
import table
from peers import LOOP, OURS, PEERS, TASK

SIZES = {"few": 300, "many": 1000, "most": 5000, "sample": 15}


@pytest.fixture(name="samples")
def made_up():
    samples = table.Samples()
    singles = ("start.debug.seconds", "start.ping.seconds", "floor.seconds", "site.seconds", "wait.ms", "unchanged.engine.seconds", "one.engine.seconds")
    scales = [f"scale.{name}.engine.{what}" for name in ("few", "many", "most") for what in ("seconds", "peak_mb")]
    whole = [f"{case}.{peer}.seconds" for case in ("first", "unchanged", "many", "rollback", "one", "second") for peer in PEERS]
    for key in (*singles, "one.engine.peak_mb", *scales, *whole):
        samples.values[key] = [2.0, 4.0, 3.0]
    samples.values["start.ping.seconds"] = [1.0, 1.0, 1.0]
    samples.requests = {key.removesuffix(".seconds"): {"GET": 12} for key in whole}
    samples.requests["one.writes"] = {"objects": 1, "ledger": 5}
    return samples


def test_the_loop_is_scaled_without_its_start(samples):
    samples.values.update({"start.debug.seconds": [1.0], "first.loop.seconds": [16.0]})
    assert table.whole(samples, "first", LOOP, SIZES) == [301.0]


def test_the_engine_is_without_the_start(samples):
    samples.values.update({"start.ping.seconds": [1.5, 1.0, 9.0], "first.ours.seconds": [5.0, 6.0], "first.helm.seconds": [5.0, 6.0]})
    assert table.engine(samples, "first", OURS, SIZES) == [3.5, 4.5]
    assert table.engine(samples, "first", "helm", SIZES) == [5.0, 6.0]


def test_a_goal_is_met_on_the_right_side(samples):
    samples.values[f"first.{TASK}.seconds"] = [9.0] * 3
    samples.values[f"first.{OURS}.seconds"] = [3.0] * 3
    by_about = {goal.about: goal for goal in table.goals(samples, SIZES)}
    twice = next(goal for goal in table.goals(samples, SIZES) if goal.about == "faster than one task of `k8s`")
    assert (twice.figure, twice.met) == (3.0, True)
    assert by_about["requests per object"].met and by_about["writes"].met
    assert twice.bound == pytest.approx(9 / (3 + 3))  # the start of a playbook, and the bare loop
    assert not table.Goal("", "", 1.9, 2, at_least=True).met and table.Goal("", "", 1.9, 2).met


def test_every_case_has_its_lines(samples):
    text = table.markdown(samples, SIZES, 3)
    assert "| first apply, 300 |" in text and "Median of 3 runs" in text and "3.0 (2.0-4.0)" in text
    assert all(line.count("|") >= 6 for line in text.splitlines() if line.startswith("|"))


def test_samples_keep_the_spread(samples):
    assert samples.as_json()["figures"]["wait.ms"] == {"min": 2.0, "median": 3.0, "max": 4.0, "values": [2.0, 4.0, 3.0]}
