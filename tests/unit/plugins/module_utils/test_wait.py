# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wait loop on a script of watch events, with a clock that the test moves."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils._types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils._errors import ApiError, Hopeless, TimedOut, Unreachable
from ansible_collections.genai.platform.plugins.module_utils._manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils._wait import PODS, Waiter

DEPLOYMENTS = ResourceType("apps", "v1", "Deployment", "deployments", True)
REF = Ref("apps", "Deployment", "ns", "api")


def deployment(available, generation=2, revision="2"):
    meta = {"name": "api", "namespace": "ns", "generation": generation, "annotations": {"deployment.kubernetes.io/revision": revision}}
    status = {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": available}
    return {"type": "MODIFIED", "object": {"metadata": meta, "spec": {"replicas": 2}, "status": status}}


def pod(reason="", name="api-new-1", hash_="new", **meta):
    state = {"waiting": {"reason": reason}} if reason else {"running": {}}
    owner = {"kind": "ReplicaSet", "name": f"api-{hash_}", "controller": True}
    metadata = {"name": name, "namespace": "ns", "labels": {"pod-template-hash": hash_}, "ownerReferences": [owner], **meta}
    last = {"terminated": {"exitCode": 3}}
    return {"type": "ADDED", "object": {"metadata": metadata, "status": {"containerStatuses": [{"name": "c", "state": state, "lastState": last}]}}}


class Script:
    """A cluster whose watches deliver what the test wrote."""

    def __init__(self, deployments, pods=()):
        self.events_by_kind = {"deployments": list(deployments), "pods": list(pods)}
        self.later: list[dict] = []  # what the next watch on Deployments delivers
        self.revisions = {"api-new": "2", "api-old": "1"}

    def watch(self, path, selector, seconds):
        events, plural = self.events_by_kind, path.rpartition("/")[2]
        scripted, events[plural] = events[plural], (self.later if plural == "deployments" else [])
        for event in scripted:
            if isinstance(event, Exception):
                raise event
            yield event

    def down(self):
        raise Unreachable("connection refused")

    def get(self, rtype, namespace, name):
        return {"metadata": {"annotations": {"deployment.kubernetes.io/revision": self.revisions[name]}}}

    def log_tail(self, *args, **kwargs):
        return ["no such model"]

    def events(self, *args):
        return [{"type": "Warning", "message": "Back-off restarting"}]


def wait(script, timeout=100):
    ticks = iter(range(10_000))
    lines = []
    Waiter(script, {REF: DEPLOYMENTS}, "genai", lines.append, clock=lambda: next(ticks) * 0.1, poll=0.005).run(timeout)
    return lines


def test_ready_at_last():
    assert wait(Script([deployment(0), deployment(1), deployment(2)])) == [
        "Deployment ns/api: 0 of 2 replicas available",
        "Deployment ns/api: 1 of 2 replicas available",
        "Deployment ns/api: ready",
    ]


@pytest.mark.parametrize(("at", "said"), [("2026-01-01T00:00:05Z", "FailedCreate: exceeded quota: q"), ("2026-01-01T00:00:01Z", "not ready after 20 s")])
def test_a_refusal_from_before_the_release_says_nothing_about_it(at, said):
    """The release raised the quota; the controller, which was refused before, tries again only after a while."""
    ref, rtype = Ref("apps", "StatefulSet", "ns", "store"), ResourceType("apps", "v1", "StatefulSet", "statefulsets", True)
    store = {"metadata": {"name": "store", "namespace": "ns", "generation": 1}, "spec": {"replicas": 1}, "status": {"observedGeneration": 1}}
    script = Script([])
    script.events_by_kind["statefulsets"] = [{"type": "ADDED", "object": {"apiVersion": "apps/v1", "kind": "StatefulSet", **store}}]
    script.events = lambda *_args: [{"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: q", "lastTimestamp": at}]
    ticks = iter(range(10_000))
    with pytest.raises((Hopeless, TimedOut)) as caught:
        Waiter(script, {ref: rtype}, "genai", print, clock=lambda: next(ticks) * 0.1, poll=0.005, after="2026-01-01T00:00:04Z").run(20)
    assert said in caught.value.message


def test_nothing_to_wait_for_asks_nothing():
    Waiter(None, {}, "genai", print).run(1)


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CrashLoopBackOff", "CreateContainerConfigError"])
def test_hopeless_pod_ends_the_wait_with_everything_known(reason):
    with pytest.raises(Hopeless) as caught:
        wait(Script([deployment(0)], [pod(reason)]))
    (problem,) = caught.value.facts["problems"]
    assert (problem["object"], problem["pod"], problem["reason"]) == ("Deployment ns/api", "api-new-1", reason)
    assert problem["event"] == "Back-off restarting" and problem["hint"]
    assert problem["log"] == (["no such model"] if reason == "CrashLoopBackOff" else [])


@pytest.mark.parametrize(
    "bystander",
    [
        pod("CrashLoopBackOff", hash_="old"),
        pod("CrashLoopBackOff", deletionTimestamp="2026-01-01T00:00:00Z"),
        {"type": "ADDED", "object": {"metadata": {"name": "other", "namespace": "ns"}, "status": pod("ImagePullBackOff")["object"]["status"]}},
        {**pod("CrashLoopBackOff"), "type": "DELETED"},
    ],
    ids=["of the version on its way out", "being deleted", "of somebody else", "gone"],
)
def test_trouble_that_is_not_ours_does_not_end_the_wait(bystander):
    with pytest.raises(TimedOut, match="Deployment ns/api: 0 of 2 replicas available"):
        wait(Script([deployment(0)], [bystander]), timeout=8)


def test_trouble_that_passes_in_time_is_forgiven():
    assert wait(Script([deployment(0), deployment(2)], [pod("ErrImagePull"), pod()]))[-1] == "Deployment ns/api: ready"


def test_no_verdict_on_pods_before_the_controller_has_seen_the_new_spec():
    with pytest.raises(TimedOut, match="not yet seen"):
        wait(Script([deployment(2, generation=3)], [pod("CrashLoopBackOff")]), timeout=8)


def test_an_error_of_the_watch_is_not_swallowed():
    with pytest.raises(ApiError, match="no"):
        wait(Script([ApiError("no", 403)]))


@pytest.mark.parametrize("hiccup", [Unreachable("connection reset"), ApiError("slow down", 429), ApiError("too old", 410)])
def test_a_watch_that_is_cut_is_taken_up_again(hiccup):
    script = Script([hiccup])
    script.later = [deployment(2)]
    assert wait(script)[-1] == "Deployment ns/api: ready"


def test_an_api_server_that_stays_away_is_an_error():
    script = Script([])
    script.watch = lambda *_args: script.down()
    with pytest.raises(Unreachable):
        wait(script, timeout=1000)


def test_pods_type():
    assert PODS.path("ns") == "/api/v1/namespaces/ns/pods"
