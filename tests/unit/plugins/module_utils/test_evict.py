# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which pod is evicted on the way back, when, and what comes of a refusal. The clock is the test's; nothing runs by itself."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils._errors import ApiError, LockLost, Unreachable
from ansible_collections.genai.platform.plugins.module_utils._evict import Evictions, left_by
from ansible_collections.genai.platform.plugins.module_utils._manifest import Ref

REF = Ref("apps", "StatefulSet", "ns", "db")


def statefulset(update="good", observed=2, replicas=3, **spec):
    status = {"observedGeneration": observed, **({"updateRevision": update} if update else {})}
    return {"metadata": {"name": "db", "namespace": "ns", "generation": 2}, "spec": {"replicas": replicas, **spec}, "status": status}


def pod(ordinal, state="bad ready", uid=""):
    """`state`: the revision, then `ready`, `unready`, `crashing` or `terminating`."""
    revision, how = state.split()
    meta = {"name": f"db-{ordinal}", "namespace": "ns", "uid": uid or f"uid-{ordinal}-{revision}", "labels": {"controller-revision-hash": revision}}
    if how == "terminating":
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}} if how == "crashing" else {"running": {}}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(how == "ready")}], "containerStatuses": [{"name": "c", "state": waiting}]}
    return {"metadata": meta, "status": status}


def pods(*states):
    return [pod(ordinal, state) for ordinal, state in enumerate(states) if state]


class Cluster:
    """Answers evictions with what the test says, then with True."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def evict(self, namespace, name, uid):
        self.asked.append(f"{namespace}/{name} {uid}")
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer  # pylint: disable=raising-bad-type
        return answer


class Run:
    def __init__(self, *answers, leaving="bad"):
        self.cluster, self.now, self.lines = Cluster(*answers), 0.0, []
        self.evictions = Evictions(self.cluster, {REF: {leaving}}, self.lines.append, lambda: self.now)

    def at(self, now, *states, of=None):
        """Looks at the clock's `now`, and evicts what is due; its name, or ''."""
        self.now, found = now, states if states and isinstance(states[0], dict) else pods(*states)
        due = self.evictions.due(REF, of or statefulset(), found)
        if due:
            self.evictions.evict(REF, due)
        return due["metadata"]["name"] if due else ""


def named(states, of=None, leaving="bad"):
    return Run(leaving=leaving).at(0, *states, of=of)


@pytest.mark.parametrize(
    ("states", "of", "evicted"),
    [
        (["good ready", "bad crashing", "bad ready"], None, "db-1"),
        (["bad crashing", "bad crashing", "bad crashing"], None, "db-2"),
        (["bad crashing", "bad crashing", "good ready"], None, "db-1"),
        (["bad crashing", "bad crashing", "good unready"], None, ""),  # the replaced one is to be ready first
        (["bad crashing", "bad crashing", "good crashing"], None, ""),
        (["bad crashing", "bad crashing", "bad terminating"], None, ""),
        (["bad crashing", "bad crashing", ""], None, ""),
        (["bad ready", "bad ready", "bad ready"], None, ""),
        (["older crashing", "good ready", "good ready"], None, ""),  # broken before; nothing of this release
        (["good crashing", "good ready", "good ready"], None, ""),
        (["bad crashing", "bad ready", "bad ready"], statefulset(observed=1), ""),
        (["bad crashing", "bad ready", "bad ready"], statefulset(update="bad"), ""),
        (["bad crashing", "bad ready", "bad ready"], statefulset(update=""), ""),
        (["bad crashing", "bad ready", "bad ready"], statefulset(updateStrategy={"type": "OnDelete"}), ""),
        (["bad crashing", "bad ready", "bad ready"], statefulset(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}), ""),
        (["bad ready", "bad crashing", "bad ready"], statefulset(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}), "db-1"),
        (["", "bad crashing", "bad ready"], statefulset(replicas=2, ordinals={"start": 1}), "db-1"),
        (["bad crashing", "bad ready", "bad terminating"], statefulset(replicas=2), "db-0"),  # the third is one too many
        ([], statefulset(replicas=0), ""),
    ],
)
def test_which_pod_is_evicted(states, of, evicted):
    assert named(states, of) == evicted


def test_only_the_revision_that_is_left():
    assert named(["bad crashing", "bad ready", "bad ready"], leaving="worse") == ""


def test_all_broken_ones_go_one_after_another():
    run = Run()
    bad, good, starting = "bad crashing", "good ready", "good unready"
    table = [
        ((bad, bad, bad), "db-2"),
        ((bad, bad, bad), ""),  # no watch has told yet that it goes
        ((bad, bad, "bad terminating"), ""),
        ((bad, bad, ""), ""),
        ((bad, bad, starting), ""),
        ((bad, bad, good), "db-1"),
        ((bad, starting, good), ""),
        ((bad, good, good), "db-0"),
        ((good, good, good), ""),
    ]
    assert [(states, run.at(now, *states)) for now, (states, _evicted) in enumerate(table)] == table
    assert run.cluster.asked == ["ns/db-2 uid-2-bad", "ns/db-1 uid-1-bad", "ns/db-0 uid-0-bad"]
    assert run.lines[0] == "Pod ns/db-2: not ready, phase Running, blocks the rollout; evicted so that it comes back at the new revision"


def test_who_is_only_not_ready_has_ten_seconds_each_time():
    run = Run()
    unready, ready = ("bad ready", "bad unready", "good ready"), ("bad ready", "bad ready", "good ready")
    table = [(0, unready, ""), (9.9, unready, ""), (10, ready, ""), (11, unready, ""), (20.9, unready, ""), (21, unready, "db-1")]
    assert [(now, states, run.at(now, *states)) for now, states, _evicted in table] == table


def test_patience_is_for_one_pod():
    run = Run()
    assert run.at(0, "bad unready", "bad unready", "good ready") == ""
    assert run.at(9, "bad unready", "good ready", "good ready") == ""
    assert run.at(11, "bad unready", "good ready", "good ready") == ""
    assert run.at(19, "bad unready", "good ready", "good ready") == "db-0"


def test_a_probe_that_fails_is_a_suspicion_only():
    suspect = pod(0, "bad unready")
    suspect["spec"] = {"containers": [{"name": "c", "readinessProbe": {}}]}
    suspect["status"]["containerStatuses"][0]["started"] = True
    run = Run()
    found = [suspect, *pods("", "bad ready", "bad ready")]
    assert [run.at(now, *found) for now in (0, 9, 10)] == ["", "", "db-0"]


BROKEN = ("bad crashing", "bad ready", "bad ready")
BUDGET = ApiError("Cannot evict pod as it would violate the pod's disruption budget.", 429)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (BUDGET, "cannot be evicted: a PodDisruptionBudget forbids it now (unhealthyPodEvictionPolicy: AlwaysAllow would not)"),
        (ApiError("pods/eviction is forbidden", 403), "cannot be evicted: pods/eviction is forbidden"),
        (ApiError("webhook down", 500), "cannot be evicted: webhook down"),
        (Unreachable("connection reset"), "cannot be evicted: connection reset"),
    ],
)
def test_a_refusal_is_said_once_and_tried_again(refusal, said):
    run = Run(refusal, refusal)
    assert [run.at(now, *BROKEN) for now in (0, 1, 4.9, 5, 9.9)] == ["db-0", "", "", "db-0", ""]
    assert run.evictions.refused[REF].endswith(said)
    assert len(run.lines) == 1 and said in run.lines[0] and run.lines[0].endswith("; trying again")
    assert run.at(10, *BROKEN) == "db-0" and "evicted so that" in run.lines[-1]
    assert run.evictions.refused == {}


def test_who_has_lost_the_lock_evicts_no_more():
    run = Run(LockLost("another may have taken over"))
    with pytest.raises(LockLost):
        run.at(0, *BROKEN)


def test_a_refusal_is_forgotten_when_the_pod_gets_ready():
    run = Run(BUDGET)
    run.at(0, *BROKEN)
    run.at(1, "bad ready", "bad ready", "bad ready")
    assert run.evictions.refused == {}


def test_what_is_gone_already_is_fine():
    run = Run(False)
    assert [run.at(now, *BROKEN) for now in (0, 6)] == ["db-0", ""]
    assert run.lines == [] and run.evictions.refused == {}


def test_of_several_changes_in_a_row_any_that_was_never_reached_is_left():
    """The pod may have got no further than the one before the last."""
    assert named(["worse crashing", "good ready", "good ready"], leaving="worse") != ""


# --- which revisions a way back leaves -------------------------------------------------------------------------------


def revision(name, number, owner="uid-db"):
    owners = [{"kind": "StatefulSet", "name": "db", "uid": owner}] if owner else None
    return {"metadata": {"name": name, "namespace": "ns", **({"ownerReferences": owners} if owners else {})}, "revision": number}


HISTORY = [revision(f"db-{number}", number) for number in (1, 2, 3, 4)]
OTHERS = [revision("others-9", 9, "uid-others"), revision("nobodys-9", 9, "")]


@pytest.mark.parametrize("reached, newest, left", [
    ("db-3", "db-4", {"db-4"}),
    ("db-2", "db-4", {"db-3", "db-4"}),  # edited twice in a row: pods may have got no further than in between
    ("db-4", "db-4", {"db-4"}),
    ("db-4", "db-2", {"db-2"}),  # an older revision is the newest once more, and its number is raised a moment later
    ("", "db-4", {"db-4"}),
    ("pruned", "db-4", {"db-4"}),  # its revisionHistoryLimit
    ("db-2", "", {"db-3", "db-4"}),
    ("", "", set()),
], ids=str)  # fmt: skip
def test_every_revision_since_the_last_that_all_pods_had_reached_is_left(reached, newest, left):
    status = {name: value for name, value in (("currentRevision", reached), ("updateRevision", newest)) if value}
    body = {"metadata": {"name": "db", "namespace": "ns", "uid": "uid-db"}, "status": status}
    assert left_by(body, [*HISTORY, *OTHERS]) == left
    assert left_by(body, []) == ({newest} if newest else set()), "who may not list revisions leaves the newest"
