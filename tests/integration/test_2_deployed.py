# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After the first deployment: what was announced is there, it predicts, and deploying again does nothing."""
from __future__ import annotations

import json

import cluster
import httpx
from traffic import predict, samples


def test_exactly_what_the_preview_announced_was_created(figure):
    announced = set(json.loads((cluster.REPOSITORY / "build" / "announced.json").read_text(encoding="utf-8")))
    created = cluster.ours()
    assert created == announced
    figure("first release: objects created / announced", f"{len(created)} / {len(announced)}")


def test_held_out_digits_through_the_service(figure):
    held_out = samples()
    right = 0
    with httpx.Client(timeout=30) as client:
        for instance, label in list(zip(held_out["instances"], held_out["labels"]))[:100]:
            right += predict(client, [instance])["predictions"][0]["label"] == label
    figure("held-out digits right, through the Service", f"{right} of 100")
    assert right >= 97


def test_a_second_run_changes_nothing_and_writes_nothing(figure):
    before, audit = cluster.versions(), cluster.Audit()
    run = cluster.play("site.yml")
    assert run.code == 0, run.output
    assert run.changed == 0
    assert audit.writes() == []
    figure("second site.yml: changed / write requests / requests", f"{run.changed} / {len(audit.writes())} / {len(audit.requests())}")
    figure("second site.yml: seconds, whole command", round(run.seconds, 1))
    after = cluster.versions()
    assert {name for name in after if after[name] != before.get(name) and "inference" in name} <= _moving(after)


def _moving(names: dict[str, str]) -> set[str]:
    """Objects whose status a controller may touch at any time."""
    return {name for name in names if "HorizontalPodAutoscaler" in name or "ResourceQuota" in name}
