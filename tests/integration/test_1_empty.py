# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Before the first deployment: the preview is complete and writes nothing."""
from __future__ import annotations

import json

import cluster


def test_preview_on_an_empty_cluster(tmp_path, figure):
    assert cluster.ours() == set(), "this test needs a cluster that nothing was deployed to"
    before, audit = cluster.versions(), cluster.Audit()
    report = tmp_path / "plan.json"
    run = cluster.play("site.yml", "--check", "--diff", "-e", f"report={report}")
    assert run.code == 0, run.output
    announced = _announced(run.output)
    assert _reported(json.loads(report.read_text(encoding="utf-8"))) == announced, "machines are told what people are told"
    assert len(announced) > 10
    for name in announced:
        assert name in run.output, f"{name} is not shown to people"
    (cluster.REPOSITORY / "build").mkdir(exist_ok=True)
    (cluster.REPOSITORY / "build" / "announced.json").write_text(json.dumps(sorted(announced)), encoding="utf-8")
    after = cluster.versions()
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert not changed, f"the preview touched {changed}"
    assert audit.writes() == []
    figure("preview, empty cluster: objects announced", len(announced))
    figure("preview, empty cluster: resource versions changed", len(changed))


def _announced(output: str) -> set[str]:
    """Objects named in the diff's headers, and the ledger's own in the summary."""
    diffs = {line.split(": ", 2)[2].split(" (pending")[0] for line in output.splitlines() if line.startswith("+++ after: ")}
    ledger = {line.split("ledger: ", 1)[1].strip(" '\"") for line in output.splitlines() if "ledger: " in line}
    return diffs | ledger


def _reported(plan: dict) -> set[str]:
    changes = {f"{c['kind']} {c['namespace']}{'/' if c['namespace'] else ''}{c['name']}" for c in plan["changes"]}
    return changes | set(plan["ledger"])
