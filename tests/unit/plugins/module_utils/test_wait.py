# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wait loop on a script of watch events, with a clock that the test moves."""
from __future__ import annotations

import collections
import threading

import pytest
from ansible_collections.genai.platform.plugins.module_utils._errors import ApiError, Hopeless, Interrupted, LockLost, TimedOut, Unreachable
from ansible_collections.genai.platform.plugins.module_utils._manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils._types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils._verdict import before
from ansible_collections.genai.platform.plugins.module_utils._wait import NAMESPACES, PODS, Waiter

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
        self.watched: list[str] = []
        self.there: dict[str, dict] = collections.defaultdict(dict)  # by plural and name, as far as a watch has told

    def watch(self, path, selector, seconds):
        events, plural = self.events_by_kind, path.rpartition("/")[2]
        self.watched.append(path)
        scripted, events[plural] = events[plural], (self.later if plural == "deployments" else [])
        for event in scripted:
            if isinstance(event, Exception):
                raise event
            if callable(event):
                event()
                continue
            name = event["object"]["metadata"]["name"]
            self.there[plural].pop(name, None) if event["type"] == "DELETED" else self.there[plural].__setitem__(name, event["object"])
            yield event

    def items(self, rtype, selector="", namespace=""):
        return list(self.there[rtype.plural].values())

    def down(self):
        raise Unreachable("connection refused")

    def get(self, rtype, namespace, name):
        return {"metadata": {"annotations": {"deployment.kubernetes.io/revision": self.revisions[name]}}}

    def log_tail(self, *args, **kwargs):
        return ["no such model"]

    def events(self, *args):
        return [{"type": "Warning", "message": "Back-off restarting"}]


def wait(script, timeout=100, wanted=None, **options):
    ticks = iter(range(10_000))
    lines = []
    Waiter(script, wanted or {REF: DEPLOYMENTS}, "genai", lines.append, clock=lambda: next(ticks) * 0.1, poll=0.005, **options).run(timeout)
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


# --- what was broken before ------------------------------------------------------------------------------------------


def crashing(count, uid="old", ready=False):
    event = pod("" if ready else "CrashLoopBackOff", uid=uid)
    event["object"]["status"]["containerStatuses"][0]["restartCount"] = count
    return event


def crashing_new():
    return pod("CrashLoopBackOff", name="api-new-2", uid="new")


def after_trouble(*events, evict=lambda *_args: True, hoped=(REF,), timeout=20):
    """The waiter and its lines: of a Deployment whose pod `old` had crashed four times before the release."""
    script, lines, ticks = Script([deployment(0)], list(events)), [], iter(range(10_000))
    script.evict = lambda namespace, name, uid: script.evicted.append(uid) or evict()
    script.evicted = []
    reading = before({REF: deployment(0)["object"]}, [crashing(4)["object"]])
    waiter = Waiter(script, {REF: DEPLOYMENTS}, "genai", lines.append, clock=lambda: next(ticks) * 0.1, poll=0.005, hoped=hoped, before=reading)
    waiter.run(timeout)
    return waiter, lines, script.evicted


def test_a_pod_that_crashed_before_is_started_anew_once_and_nothing_fails():
    waiter, lines, evicted = after_trouble(crashing(4), crashing(4))
    assert evicted == ["old"] and any("starts with what is there now" in line for line in lines)
    assert waiter.left == {REF: "Deployment ns/api: 0 of 2 replicas available, still after 20 s"}


def test_a_pod_that_crashes_with_what_was_mended_is_told_with_its_log():
    waiter, _lines, _evicted = after_trouble(crashing(4), crashing(0, uid="new"))
    assert "CrashLoopBackOff" in waiter.left[REF] and "no such model" in waiter.left[REF]


def test_a_pod_that_may_not_be_evicted_is_waited_for():
    def refuse():
        raise ApiError("Cannot evict pod as it would violate the pod's disruption budget.", 429)

    waiter, lines, evicted = after_trouble(crashing(4), evict=refuse)
    assert evicted == ["old"] and "disruption budget" in "".join(lines)
    assert "still after 20 s" in waiter.left[REF], "until its container has been started again"


def test_a_release_that_wrote_the_workload_is_not_failed_by_its_pods_of_before():
    waiter, _lines, evicted = after_trouble(crashing(4), hoped=())
    assert evicted == [] and "still after" in waiter.left[REF]
    assert "CrashLoopBackOff" in after_trouble(crashing(5), hoped=())[0].left[REF]
    with pytest.raises(Hopeless, match="CrashLoopBackOff"):
        after_trouble(crashing(4), crashing_new(), hoped=())


@pytest.mark.parametrize("end", [Interrupted("the run was told to stop (SIGTERM)"), LockLost("another may have taken over")])
def test_a_run_that_has_to_stop_while_it_evicts_stops(end):
    def stopped():
        raise end

    with pytest.raises(type(end)):
        after_trouble(crashing(4), evict=stopped)


def test_a_pod_of_before_does_not_hide_what_the_release_brought():
    """One pod could not pull its image before; another has come with the release, and will crash."""
    old, new = crashing(0), pod("CrashLoopBackOff", name="api-new-2", uid="new")
    old["object"]["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
    starting = pod(name="api-new-2", uid="new")
    reading = before({REF: deployment(0)["object"]}, [old["object"]])
    script, lines, ticks = Script([deployment(0)], [old, starting]), [], iter(range(10_000))
    waiter = Waiter(script, {REF: DEPLOYMENTS}, "genai", lines.append, clock=lambda: next(ticks) * 0.1, poll=0.005, before=reading)
    script.events_by_kind["pods"].append(lambda: waiter._watches._stopped.wait(0.3))
    script.events_by_kind["pods"].append(new)
    with pytest.raises(Hopeless, match="api-new-2: CrashLoopBackOff"):
        waiter.run(10_000)


def test_who_waits_for_many_broken_pods_asks_little():
    old = [crashing(4, uid=f"old-{number}") for number in range(50)]
    for number, event in enumerate(old):
        event["object"]["metadata"]["name"] = f"api-old-{number}"
        event["object"]["metadata"]["ownerReferences"][0]["name"] = "api-old"
        event["object"]["metadata"]["labels"]["pod-template-hash"] = "old"
    script, asked, ticks = Script([deployment(0)], old), [], []
    revision = {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}}
    script.get = lambda rtype, namespace, name: asked.append(name) or revision
    reading = before({REF: deployment(0)["object"]}, [event["object"] for event in old])

    def clock():
        ticks.append(len(ticks))
        return len(ticks) * 0.1

    waiter = Waiter(script, {REF: DEPLOYMENTS}, "genai", print, clock=clock, poll=0.005, hoped=(REF,), before=reading)
    waiter.run(20)
    assert 0 < len(asked) < len(ticks) / 2, "one question a pass, not one for each pod"


def test_events_of_the_pod_that_had_the_name_before_say_nothing():
    script = Script([])
    told = {"Nominated": "before", "FailedScheduling": "now"}
    script.events = lambda *_args: [{"reason": reason, "involvedObject": {"uid": uid}} for reason, uid in told.items()]
    waiter = Waiter(script, {REF: DEPLOYMENTS}, "genai", print)
    subject = Ref("", "Pod", "ns", "db-0")
    waiter.pods[subject] = {"metadata": {"uid": "now"}}
    assert [event["reason"] for event in waiter._events(subject)] == ["FailedScheduling"]


def test_what_gets_ready_after_all_is_not_left():
    ticks, events = iter(range(10_000)), [deployment(0), deployment(2)]
    script = Script(events, [pod("ImagePullBackOff")])
    waiter = Waiter(script, {REF: DEPLOYMENTS}, "genai", print, clock=lambda: next(ticks) * 0.1, poll=0.005, hoped=(REF,))
    waiter.left[REF] = "given up"
    waiter.waiting.clear()
    waiter._handle(DEPLOYMENTS, deployment(0))
    assert waiter.waiting == {} and REF in waiter.left
    waiter._handle(DEPLOYMENTS, deployment(2))
    assert waiter.left == {}


JOB, JOBS = Ref("batch", "Job", "ns", "migrate"), ResourceType("batch", "v1", "Job", "jobs", True)


def job(event, condition=""):
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"type": event, "object": {"metadata": {"name": "migrate", "namespace": "ns"}, "spec": {}, "status": {"conditions": conditions}}}


@pytest.mark.parametrize(("events", "said"), [
    ([job("ADDED"), job("MODIFIED", "Complete"), job("DELETED", "Complete")], ""),
    ([job("ADDED"), job("DELETED", "Complete")], ""),
    ([job("ADDED"), job("DELETED", "Failed")], "JobFailed"),
    ([job("ADDED"), job("DELETED")], "Timeoutit was deleted"),
], ids=["complete, then gone", "gone as it completed", "failed and gone", "deleted by somebody"])  # fmt: skip
def test_a_job_that_is_gone_is_what_it_was(events, said):
    """A time to live of zero takes it away while others are still waited for."""
    script = Script([deployment(0)])
    script.events_by_kind["jobs"] = events
    with pytest.raises((Hopeless, TimedOut)) as caught:
        wait(script, 5, {JOB: JOBS, REF: DEPLOYMENTS})
    about = [problem["reason"] + problem["message"] for problem in caught.value.facts["problems"] if problem["object"] == str(JOB)]
    assert about == ([said] if said else []), caught.value.message


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


# --- a watch that was interrupted ------------------------------------------------------------------------------------


def test_a_pod_that_went_while_its_watch_was_interrupted_is_no_reason_to_give_up():
    """The pod counts only once the second watch on pods has begun, of which it is no part any more."""
    script, again = Script([]), threading.Event()
    script.events_by_kind["deployments"] = [deployment(0, generation=3), lambda: again.wait(10), deployment(0)]
    script.events_by_kind["pods"] = [pod("CrashLoopBackOff"), lambda: script.there["pods"].clear()]  # pylint: disable=unnecessary-lambda
    watch = script.watch

    def watched(path, *args):
        if script.watched.count(path) and path == PODS.path("ns"):
            again.set()
        return watch(path, *args)

    script.watch = watched
    with pytest.raises(TimedOut, match="0 of 2 replicas available"):
        wait(script, timeout=40)


def test_what_was_deleted_while_its_watch_was_interrupted_is_not_ready():
    other = Ref("apps", "Deployment", "ns", "other")
    second = deployment(2)
    second["object"] = {**second["object"], "metadata": {**second["object"]["metadata"], "name": "other"}}
    script = Script([deployment(2), lambda: script.there["deployments"].clear()])  # pylint: disable=unnecessary-lambda
    script.later = [second]
    with pytest.raises(TimedOut, match="Deployment ns/api: it was deleted") as caught:
        wait(script, timeout=20, wanted={REF: DEPLOYMENTS, other: DEPLOYMENTS})
    assert "other" not in caught.value.message


# --- where it watches ------------------------------------------------------------------------------------------------

EVERYWHERE = "/apis/apps/v1/deployments"


@pytest.mark.parametrize(
    ("count", "refused", "everywhere"), [(1, False, 0), (NAMESPACES, False, 0), (NAMESPACES + 1, False, 1), (NAMESPACES + 1, True, 1)]
)
def test_few_namespaces_are_watched_one_by_one_and_many_at_once_if_that_is_allowed(count, refused, everywhere):
    refs = [Ref("apps", "Deployment", f"ns{number}", "api") for number in range(count)]
    watched = set()

    def watch(path, selector, seconds):
        watched.add(path)
        if refused and path == EVERYWHERE:
            raise ApiError("forbidden", 403)
        for ref in refs:
            if path in (EVERYWHERE, DEPLOYMENTS.path(ref.namespace)):
                found = deployment(2)
                found["object"]["metadata"]["namespace"] = ref.namespace
                yield found

    script = Script([])
    script.watch, script.items = watch, lambda *_args: [each["object"] for ref in refs for each in watch(DEPLOYMENTS.path(ref.namespace), "", 1)]
    wait(script, wanted=dict.fromkeys(refs, DEPLOYMENTS))
    assert (EVERYWHERE in watched) == bool(everywhere)
    if refused or not everywhere:
        assert watched - {EVERYWHERE} == {DEPLOYMENTS.path(ref.namespace) for ref in refs}


def test_what_is_in_no_namespace_is_watched_where_it_is():
    rtype, script = ResourceType("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False), Script([])
    conditions = [{"type": "Established", "status": "True"}]
    script.events_by_kind["customresourcedefinitions"] = [{"type": "ADDED", "object": {"metadata": {"name": "a"}, "status": {"conditions": conditions}}}]
    wait(script, wanted={Ref("apiextensions.k8s.io", "CustomResourceDefinition", "", "a"): rtype})
    assert script.watched[0] == "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


# --- claims ----------------------------------------------------------------------------------------------------------

CLAIMS = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)
CLAIM = Ref("", "PersistentVolumeClaim", "ns", "data")


def claims(classes, reasons):
    """A cluster with a pending claim. `reasons`: of its newest event, at each look; the last one stays."""
    script, left = Script([]), list(reasons)
    found = {"metadata": {"name": "data", "namespace": "ns"}, "spec": {"storageClassName": "late"}, "status": {"phase": "Pending"}}
    script.events_by_kind["persistentvolumeclaims"] = [{"type": "ADDED", "object": found}]

    def listed(_rtype):
        if isinstance(classes, Exception):
            raise classes
        return [{"metadata": {"name": "late"}, "volumeBindingMode": mode} for mode in classes]

    script.list = listed
    script.events = lambda *_args: [{"reason": reason, "message": "no such class"} for reason in [left.pop(0) if len(left) > 1 else left[0]] if reason]
    return script


FORBIDDEN = ApiError("storageclasses is forbidden", 403)


@pytest.mark.parametrize(
    ("classes", "reasons"), [(["WaitForFirstConsumer"], [""]), (FORBIDDEN, ["WaitForFirstConsumer"]), (FORBIDDEN, ["", "", "WaitForFirstConsumer"])]
)
def test_a_claim_that_awaits_its_first_pod_is_no_reason_to_wait(classes, reasons):
    assert wait(claims(classes, reasons), wanted={CLAIM: CLAIMS})[-1] == f"{CLAIM}: ready"


@pytest.mark.parametrize(
    ("classes", "reason", "error"),
    [
        (["Immediate"], "WaitForFirstConsumer", TimedOut), (FORBIDDEN, "", TimedOut), (FORBIDDEN, "Provisioning", TimedOut),
        (FORBIDDEN, "ProvisioningFailed", Hopeless), (ApiError("webhook down", 500), "", ApiError),
    ],
)  # fmt: skip
def test_other_claims_are_waited_for(classes, reason, error):
    with pytest.raises(error):
        wait(claims(classes, [reason]), timeout=20, wanted={CLAIM: CLAIMS})


# --- a StatefulSet's way back ----------------------------------------------------------------------------------------

STATEFULSETS = ResourceType("apps", "v1", "StatefulSet", "statefulsets", True)
STORE = Ref("apps", "StatefulSet", "ns", "store")


class Stuck(Script):
    """A StatefulSet of one pod, which crashes at the revision `bad`; once it is evicted, it comes back at `good` and is ready."""

    def __init__(self, *refusals):
        super().__init__([])
        self.refusals, self.asked, self.evicted = list(refusals), 0, threading.Event()
        self.events_by_kind["statefulsets"] = [self.store(0), lambda: self.evicted.wait(10), self.store(1)]
        self.events_by_kind["pods"] = [self.member("bad", "CrashLoopBackOff")]

    def store(self, updated):
        status = {"observedGeneration": 2, "updateRevision": "good", "readyReplicas": updated, "updatedReplicas": updated, "replicas": 1}
        meta = {"name": "store", "namespace": "ns", "generation": 2}
        return {"type": "MODIFIED", "object": {"metadata": meta, "spec": {"replicas": 1}, "status": status}}

    def member(self, revision, reason):
        found = pod(reason, name="store-0", uid=f"of {revision}")
        meta = found["object"]["metadata"]
        meta["labels"], meta["ownerReferences"] = {"controller-revision-hash": revision}, [{"kind": "StatefulSet", "name": "store", "controller": True}]
        return found

    def evict(self, namespace, name, uid):
        self.asked += 1
        if self.refusals:
            refusal = self.refusals[0] if len(self.refusals) == 1 else self.refusals.pop(0)
            if refusal:
                raise refusal
        assert (namespace, name, uid) == ("ns", "store-0", "of bad")
        self.evicted.set()
        return True


def test_a_broken_pod_of_the_failed_revision_is_evicted_on_the_way_back():
    script = Stuck()
    assert wait(script, wanted={STORE: STATEFULSETS}, leaving={STORE: {"bad"}}) == [
        "StatefulSet ns/store: 0 of 1 replicas updated",
        "Pod ns/store-0: not ready, phase unknown, blocks the rollout; evicted so that it comes back at the new revision",
        "StatefulSet ns/store: ready",
    ]
    assert script.asked == 1


@pytest.mark.parametrize("leaving", [None, {}, {STORE: {"other"}}, {Ref("apps", "StatefulSet", "ns", "other"): {"bad"}}])
def test_no_pod_is_evicted_otherwise(leaving):
    script = Stuck()
    with pytest.raises(TimedOut, match="0 of 1 replicas updated"):
        wait(script, timeout=30, wanted={STORE: STATEFULSETS}, leaving=leaving)
    assert script.asked == 0
    script.evicted.set()


def test_an_eviction_that_a_budget_forbids_is_tried_until_it_is_allowed():
    script = Stuck(ApiError("disruption budget", 429), ApiError("disruption budget", 429), None)
    said = wait(script, wanted={STORE: STATEFULSETS}, leaving={STORE: {"bad"}})
    assert script.asked == 3 and sum("PodDisruptionBudget" in line for line in said) == 1


def test_a_refused_eviction_is_named_in_the_end():
    script = Stuck(ApiError("pods/eviction is forbidden", 403))
    with pytest.raises(TimedOut, match="0 of 1 replicas updated; Pod ns/store-0: .*cannot be evicted: pods/eviction is forbidden") as caught:
        wait(script, timeout=30, wanted={STORE: STATEFULSETS}, leaving={STORE: {"bad"}})
    assert "forbidden" in caught.value.facts["problems"][0]["message"]
    script.evicted.set()


# --- patience --------------------------------------------------------------------------------------------------------


def test_trouble_may_last_as_long_as_was_said():
    def patient(ref, reason):
        assert ref == REF
        return {"CrashLoopBackOff": 5.0}.get(reason, 0.0)

    with pytest.raises(TimedOut):
        wait(Script([deployment(0)], [pod("CrashLoopBackOff")]), timeout=3, patience=patient)
    with pytest.raises(Hopeless):
        wait(Script([deployment(0)], [pod("CrashLoopBackOff")]), timeout=20, patience=patient)


@pytest.mark.parametrize("ready, hopeless", [(False, True), (True, False)], ids=["only tried again", "ready in between"])
def test_a_crash_counts_until_the_pod_is_ready(ready, hopeless):
    now = [0.0]
    waiter = Waiter(Script([]), {REF: DEPLOYMENTS}, "genai", lambda _line: None, clock=lambda: now[0], patience=lambda *_: 5.0)
    up = pod()
    up["object"]["status"]["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
    for now[0], rtype, event in ((0, DEPLOYMENTS, deployment(0)), (0, PODS, pod("CrashLoopBackOff")), (4, PODS, up), (6, PODS, pod("CrashLoopBackOff"))):
        waiter._handle(rtype, event)
        found = waiter._beyond_patience()
    assert bool(found) is hopeless


def refused_pods(message):
    event = deployment(0)
    event["object"]["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]
    return event


@pytest.mark.parametrize("message, going, seconds", [
    ("exceeded quota: all", True, None), ("exceeded quota: all", False, 5), ("violates PodSecurity", True, 5),
], ids=["pods make room", "none does", "no question of room"])
def test_a_quota_is_not_judged_while_pods_that_count_in_it_go(message, going, seconds):
    """Users, 11. What goes makes room; and then its controller needs as long again until it tries once more."""
    now = [0.0]
    waiter = Waiter(Script([]), {REF: DEPLOYMENTS}, "genai", lambda _line: None, clock=lambda: now[0])
    old = pod(hash_="old", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}))
    for rtype, event in ((DEPLOYMENTS, refused_pods(message)), (PODS, old)):
        waiter._handle(rtype, event)
    found = {now[0]: bool(waiter._beyond_patience()) for now[0] in range(12)}
    assert next((second for second, hopeless in found.items() if hopeless), None) == seconds
    waiter._handle(PODS, {**old, "type": "DELETED"})
    found = {now[0]: bool(waiter._beyond_patience()) for now[0] in range(12, 60)}
    assert next(second for second, hopeless in found.items() if hopeless) == (12 if seconds else 27)
