# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured on fleets to what is printed."""
from __future__ import annotations

import fleet
import pytest
from table import Samples

SIZES = fleet.Sizes()


@pytest.fixture(name="samples")
def made_up():
    samples = Samples()
    for count in (SIZES.few, SIZES.most):
        for case, tools in (("first", fleet.TOOLS), ("again", (fleet.OURS, fleet.ENGINE))):
            for tool in tools:
                samples.values[f"{count}.{case}.{tool}.seconds"] = [2.0, 4.0, 3.0]
                samples.requests[f"{count}.{case}.{tool}"] = {"GET": 3}
    samples.values.update({"start.debug.seconds": [1.0], "loop.seconds": [101.0, 101.0, 201.0]})
    return samples


def test_the_loop_is_scaled_to_the_nodes_that_are_labelled(samples):
    assert fleet.whole_loop(samples, SIZES) == [1801.0, 1801.0, 3601.0]
    assert fleet.goals(samples, SIZES)[0].figure == pytest.approx(1801 / 3)


def test_goals_on_their_right_side(samples):
    samples.values["1000.first.kubectl.seconds"], samples.values["1000.first.floor.seconds"] = [9.0], [1.0]
    _loop, kubectl, floor, writes, *_rest = fleet.goals(samples, SIZES)
    assert (kubectl.figure, kubectl.met, floor.figure, floor.met) == (3.0, True, 3.0, False)
    assert (writes.figure, writes.met) == (0, True)


def test_a_benchmark_that_was_cut_short(samples):
    samples.values = {key: found for key, found in samples.values.items() if not key.startswith(str(SIZES.most))}
    assert len(fleet.goals(samples, SIZES)) == 5


def test_the_report(samples, monkeypatch, tmp_path):
    monkeypatch.setattr(fleet, "BUILD", tmp_path)
    text = fleet.report(samples, SIZES, 3)
    assert "| first run, 1,000 | `kubectl label`, one command for each pool | 3.0 (2.0-4.0) |" in text and "Median of 3 runs" in text
    assert (tmp_path / "bench-fleet.md").read_text(encoding="utf-8") == text


def test_every_gpu_node_has_its_labels():
    nodes = [{"metadata": {"name": f"fleet-{product.name}-7"}} for product in fleet.kwok.PRODUCTS]
    assert [m["metadata"]["labels"]["gpu-type"] for m in fleet.manifests(nodes)] == ["a100", "h100", "l4", "mi300x", "mi355x"]
    assert fleet.labelled(1000) == 900
