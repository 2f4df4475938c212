# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A release under traffic, its rollback, and releases that cannot work."""
from __future__ import annotations

import copy

import cluster
import httpx
import pytest
from traffic import Traffic

V2 = ("-e", '{"inference_app_image": "genai-platform/inference:2.0.0", "inference_app_title": "Second model"}')
# A release that cannot work is to be reported within this time, restoring included; where the machine is so busy that a release
# which does work takes as long, within so many times that one's.
LIMIT_SECONDS, LIMIT_TIMES = 30, 3


@pytest.fixture(scope="module")
def first() -> dict:
    """The platform at version 1."""
    return cluster.specs()


def served() -> dict:
    return httpx.get(f"{cluster.URL}/version", timeout=20).json()


@pytest.fixture(scope="module")
def limit() -> dict:
    """`seconds` that a release which cannot work may take."""
    return {"seconds": LIMIT_SECONDS}


def test_version_2_rolls_out_without_a_failed_request(first, limit, figure):
    with Traffic() as traffic:
        run = cluster.play("site.yml", *V2)
    assert run.code == 0, run.output
    assert traffic.failures == []
    assert traffic.answers["1.0.0"] and traffic.answers["2.0.0"], "the client saw the change happen"
    assert cluster.images() == {"genai-platform/inference:2.0.0"}
    assert "Second model" in str(served())
    assert cluster.specs() != first
    limit["seconds"] = max(LIMIT_SECONDS, LIMIT_TIMES * run.seconds)
    figure("version 2 under traffic: failed / sent requests", f"{len(traffic.failures)} / {traffic.sent}")
    figure("version 2 under traffic: seconds, whole command", round(run.seconds, 1))


def test_rollback_preview_writes_nothing():
    before, audit = cluster.specs(), cluster.Audit()
    run = cluster.play("rollback.yml", "--check", "--diff")
    assert run.code == 0, run.output
    assert "genai-platform/inference:1.0.0" in run.output
    assert audit.writes() == [] and cluster.specs() == before


def test_rollback_brings_version_1_back_spec_for_spec(first, figure):
    with Traffic() as traffic:
        run = cluster.play("rollback.yml")
    assert run.code == 0, run.output
    assert traffic.failures == []
    again = cluster.specs()
    assert again == first
    assert "1.0.0" in str(served()) and "Second model" not in str(served())
    figure("rollback under traffic: failed / sent requests", f"{len(traffic.failures)} / {traffic.sent}")
    figure("rollback: objects equal to version 1", f"{sum(again[n] == first[n] for n in first)} of {len(first)}")


BAD = [
    # A real pull from a port where nothing listens, so that it is refused at once.
    ("image that cannot be pulled", "inference_app_image=genai-platform/absent:1.0", ["ErrImagePull", "Pod inference/inference-"], []),
    ("pods that crash", "inference_app_max_batch_size=0", ["CrashLoopBackOff", "Pod inference/inference-"], ["log: ", "GENAI_MAX_BATCH_SIZE"]),
]


@pytest.mark.parametrize(("what", "variable", "said", "logged"), BAD, ids=[row[0] for row in BAD])
def test_a_release_that_cannot_work_is_undone(what, variable, said, logged, first, limit, figure):
    before = cluster.specs()
    with Traffic() as traffic:
        run = cluster.play("site.yml", "-e", variable)
    assert run.code != 0, run.output
    for text in [*said, *logged, "The state before is restored"]:
        assert text in run.output, run.output
    assert "Traceback" not in run.output
    assert cluster.specs() == before == first
    assert traffic.failures == []
    assert run.seconds < limit["seconds"]
    figure(f"{what}: seconds until reported and restored", round(run.seconds, 1))
    figure(f"{what}: failed / sent requests, objects different", f"{len(traffic.failures)} / {traffic.sent}, {_differences(before)}")


def _differences(before: dict) -> int:
    now = cluster.specs()
    return sum(now.get(name) != before.get(name) for name in {*now, *before})


def test_deploying_version_1_again_finds_nothing_to_do():
    audit = cluster.Audit()
    run = cluster.play("site.yml")
    assert run.code == 0 and run.changed == 0, run.output
    assert audit.writes() == []


def test_a_hand_edit_is_named_and_never_overwritten_silently(first, figure):
    patch = '{"data":{"GENAI_LOG_LEVEL":"debug"}}'
    cluster.kubectl("patch", "configmap", "inference", "-n", cluster.NAMESPACE, "--type", "merge", "-p", patch)
    audit = cluster.Audit()
    run = cluster.play("site.yml", "--check", "--diff")
    assert run.code != 0 and "kubectl-patch" in run.output and "GENAI_LOG_LEVEL" in run.output, run.output
    assert audit.writes() == []
    run = cluster.play("site.yml", "-e", "common_force_conflicts=true")
    assert run.code == 0, run.output
    assert cluster.specs() == first
    figure("hand edit: named with its manager, put back when told to", "yes")


def test_a_killed_run_is_repaired_by_the_next(first, figure):
    """SIGKILL for the controller and everything it started, in the middle of the rollout."""
    cluster.play_and_kill("site.yml", "Deployment inference/inference: ", *V2)
    assert cluster.specs() != first
    assert "genai.journal" in cluster.kubectl("get", "secrets", "-n", cluster.LEDGER)
    run = cluster.play("site.yml")
    assert run.code == 0 and "repairing: the run of" in run.output, run.output
    assert cluster.specs() == first
    assert cluster.play("site.yml").changed == 0
    figure("killed in mid rollout: objects different after the next run", _differences(first))


def test_replicas_change_hands_without_a_dip(first, figure):
    """From the autoscaler to a fixed number and back: a field that nobody owns would fall to its default, one pod."""
    fixed = '{"inference_app_autoscaling": {"enabled": false}, "inference_app_replicas": 3}'
    with cluster.Replicas() as replicas:
        preview = cluster.play("site.yml", "--check", "-e", fixed)
        away = cluster.play("site.yml", "-e", fixed)
        back = cluster.play("site.yml")
    assert (preview.code, away.code, back.code) == (0, 0, 0), preview.output + away.output + back.output
    assert replicas.seen[0] == 2 and 3 in replicas.seen and min(replicas.seen) == 2, replicas.seen
    again, before = cluster.specs(), copy.deepcopy(first)
    for specs in (again, before):
        specs["Deployment inference/inference"]["spec"].pop("replicas")  # the autoscaler's, anything from 2 to 4
    assert again == before
    figure("autoscaler off and on again: replicas seen", " ".join(map(str, replicas.seen)))
