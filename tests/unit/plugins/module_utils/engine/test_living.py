# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases on a cluster that lives: people, autoscalers, other platforms and other versions of an API are at it, too."""
from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import apply as _apply, undo as _undo
from ansible_collections.genai.platform.plugins.module_utils.engine.lock import alive
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Releaser
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Interrupted, InvalidInput, ReleaseFailed, TimedOut
from ansible_collections.genai.platform.plugins.module_utils.module.signals import STOPPING, stop_on_signals
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_PLATFORM, Ref
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from fake import FakeCluster, Refused, _at
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from story import STATE, config, configmap, deploy, fail_when, just_before, obj, owner, releaser, roll_back, state, tear_down

SPACE = obj("Namespace", "ns", None)
WEB = Ref("apps", "Deployment", "ns", "web")
SCALER = ("kube-controller-manager", "scale")


def workload(image="web:1", replicas=2):
    spec = {"template": {"spec": {"image": image}}, **({"replicas": replicas} if replicas is not None else {})}
    return {**obj("Deployment", "web"), "apiVersion": "apps/v1", "spec": spec}


def autoscaler(version="v2", **spec):
    target = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9}
    return {**obj("HorizontalPodAutoscaler", "web"), "apiVersion": f"autoscaling/{version}", "spec": {**target, **spec}}


@pytest.fixture
def cluster():
    return FakeCluster()


# --- how much a run may take away ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bundle", "components", "said"),
    [
        ({}, None, "the bundle is empty"),
        ({}, ["base", "app"], "not described in this run: base, app"),
        ({"app": [config("one")]}, ["base", "app"], "not described in this run: base"),
    ],
)
def test_what_was_not_described_is_not_pruned(cluster, bundle, components, said):
    """A play that was started in the middle hands over too little."""
    deploy(cluster, {"base": [SPACE], "app": [config("one")]})
    before = list(cluster.writes)
    with pytest.raises(InvalidInput, match=said):
        releaser(cluster, complete=True).deploy(bundle, components)
    assert cluster.writes == before


@pytest.mark.parametrize(
    ("owned", "leaving", "most", "refused"),
    [
        (40, 10, "25%", False),
        (40, 11, "25%", True),
        (8, 5, "25%", False),
        (8, 6, "25%", True),
        (8, 6, "75%", False),
        (8, 2, "1", True),
        (3, 3, "25%", True),
        (3, 3, "10", True),
        (3, 3, "100%", False),
    ],
)
def test_a_release_deletes_no_more_than_it_is_told(cluster, owned, leaving, most, refused):
    cluster.make(SPACE)
    names = [config(f"c{number}") for number in range(owned)]
    deploy(cluster, {"app": names})
    before = list(cluster.writes)
    bundle = {"app": names[leaving:], "more": [config("new")]}
    if refused:
        with pytest.raises(InvalidInput, match=f"{leaving} of the {owned} objects .* would be deleted"):
            deploy(cluster, bundle, max_deleted=most)
        assert cluster.writes == before
    else:
        assert deploy(cluster, bundle, max_deleted=most)["summary"]["app"]["delete"] == leaving


@pytest.mark.parametrize(
    "bundle",
    [{"app": []}, {"app": [None]}, {"app": [], "other": []}, {"other": [obj("Namespace", "new", None)]}],
    ids=["no object", "an empty document", "components of nothing", "all of it new"],
)
@pytest.mark.parametrize("vanished", [0, 30])
def test_a_release_never_deletes_all_but_what_is_kept(cluster, bundle, vanished):
    """A handful is allowed, but not when no more is left: a Namespace, or a claim, that is kept for what is in it is no platform."""
    names = [config(f"c{number}") for number in range(4 + vanished)]
    deploy(cluster, {"app": [SPACE, *names]})
    for body in names[4:]:
        del cluster.objects[Ref.of(body)]
    before = list(cluster.writes)
    with pytest.raises(InvalidInput, match="nothing that it owns would be described any more"):
        deploy(cluster, bundle)
    if "new" not in str(bundle):
        with pytest.raises(InvalidInput, match="the bundle is empty"):
            deploy(cluster, bundle, max_deleted="100%")
    assert cluster.writes == before


def test_a_component_may_become_empty_beside_others(cluster):
    cluster.make(SPACE)
    deploy(cluster, {"app": [config("one")], "more": [config("two")]})
    assert deploy(cluster, {"more": []}, complete=False)["summary"]["more"]["delete"] == 1
    with pytest.raises(InvalidInput, match="nothing that it owns would be described any more"):
        deploy(cluster, {"app": []}, complete=False)
    assert deploy(cluster, {"app": []}, complete=False, max_deleted="100%")["summary"]["app"]["delete"] == 1


def test_ways_back_are_not_limited(cluster):
    deploy(cluster, {"app": [SPACE, config("one")]})
    deploy(cluster, {"app": [SPACE, config("one"), *(config(f"c{n}") for n in range(30))]})
    assert roll_back(cluster)["summary"]["app"]["delete"] == 30
    assert tear_down(cluster)["summary"]["app"]["delete"] == 2


def test_previous_is_never_a_release_that_removed_the_platform(cluster):
    deploy(cluster, {"app": [SPACE, config("one", a="1")]})
    tear_down(cluster)
    deploy(cluster, {"app": [SPACE, config("one", a="3")]})
    with pytest.raises(InvalidInput, match="release 2 removed the platform"):
        roll_back(cluster, "2")
    assert roll_back(cluster)["release"] == 4
    assert cluster.objects[configmap("one")]["data"] == {"a": "1"}


# --- replicas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("manager", ["kube-controller-manager", "some-autoscaler"])
def test_replicas_of_an_autoscaler_that_is_not_in_the_bundle_stay(cluster, manager, force):
    deploy(cluster, {"app": [SPACE, workload()]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 40}}, manager, "scale")
    same = deploy(cluster, {"app": [SPACE, workload()]}, wait=False, force=force)
    assert (same["changed"], same["scaled"]) == (False, ["Deployment ns/web"])
    assert drift(releaser(cluster), False, None, [])["drift_lines"] == []
    changed = deploy(cluster, {"app": [SPACE, workload("web:2")]}, wait=False, force=force)
    assert changed["changed"] and cluster.objects[WEB]["spec"] == {"replicas": 40, "template": {"spec": {"image": "web:2"}}}
    assert deploy(cluster, {"app": [SPACE, workload("web:2")]}, wait=False, force=force)["changed"] is False


def test_a_person_who_scales_is_a_conflict(cluster):
    deploy(cluster, {"app": [SPACE, workload()]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 5}}, "kubectl", "scale")
    with pytest.raises(InvalidInput, match="spec.replicas: conflict with kubectl"):
        deploy(cluster, {"app": [SPACE, workload()]}, wait=False, check=True)
    assert [line.partition(", by ")[2].split()[0] for line in drift(releaser(cluster), False, None, [])["drift_lines"]] == ["kubectl"]


@pytest.mark.parametrize("then", [6, None], ids=["writes once more", "is silent"])
def test_replicas_come_back_from_our_own_autoscaler_when_it_is_removed(cluster, then, monkeypatch):
    """It goes before the workload is written; what it was just about to write is taken back once more."""
    deploy(cluster, {"app": [SPACE, workload(replicas=None), autoscaler()]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 7}}, *SCALER)
    seen = len(cluster.writes)
    monkeypatch.setattr(Releaser, "_wait", lambda *_args: then and cluster.edit(WEB, {"spec": {"replicas": then}}, *SCALER))
    deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)
    writes = cluster.writes[seen:]
    assert writes.index("delete HorizontalPodAutoscaler ns/web") < writes.index("apply Deployment ns/web")
    assert cluster.objects[WEB]["spec"]["replicas"] == 3
    assert deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)["changed"] is False


@pytest.mark.parametrize("kind", [{}, {"kind": "Deployment", "apiVersion": "apps/v1"}], ids=["by name", "by kind"])
def test_replicas_come_back_from_an_autoscaler_of_another_kind(cluster, kind):
    """KEDA's make a HorizontalPodAutoscaler of their own, which goes with them."""
    cluster.served.append(ResourceType("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", True))
    keda = {**obj("ScaledObject", "web"), "apiVersion": "keda.sh/v1alpha1", "spec": {"scaleTargetRef": {"name": "web", **kind}, "minReplicaCount": 2}}
    deploy(cluster, {"app": [SPACE, workload(replicas=None), keda]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 7}}, *SCALER)
    seen = len(cluster.writes)
    deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)
    writes = cluster.writes[seen:]
    assert writes.index("delete ScaledObject ns/web") < writes.index("apply Deployment ns/web")
    assert cluster.objects[WEB]["spec"]["replicas"] == 3
    assert deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)["scaled"] == []


def test_an_autoscaler_that_writes_between_plan_and_removal_loses_all_the_same(cluster):
    """When the run was planned its number was the wanted one."""
    deploy(cluster, {"app": [SPACE, workload(replicas=None), autoscaler()]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 3}}, *SCALER)
    just_before(cluster, "delete HorizontalPodAutoscaler ns/web", lambda: cluster.edit(WEB, {"spec": {"replicas": 5}}, *SCALER))
    deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)
    assert cluster.objects[WEB]["spec"]["replicas"] == 3
    assert deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)["changed"] is False


def test_an_undo_brings_the_autoscaler_and_its_number_back(cluster):
    deploy(cluster, {"app": [SPACE, workload(replicas=None), autoscaler()]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 7}}, *SCALER)
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        deploy(cluster, {"app": [SPACE, workload(replicas=3)]}, wait=False)
    assert cluster.objects[WEB]["spec"]["replicas"] == 7
    assert Ref("autoscaling", "HorizontalPodAutoscaler", "ns", "web") in cluster.objects


# --- whose an object is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_another_platforms_object_is_refused_by_name(cluster, force):
    cluster.make(SPACE)
    cluster.make(config("one", labels={LABEL_PLATFORM: "other"}, theirs="x"))
    with pytest.raises(InvalidInput, match="ConfigMap ns/one belongs to platform other"):
        deploy(cluster, {"app": [config("one", ours="y"), config("two")]}, force=force)
    assert cluster.writes == []


@pytest.fixture
def taken(cluster):
    """A cluster with a release of an object that was there before the platform."""
    cluster.make(SPACE)
    cluster.make(config("one", theirs="x"))
    deploy(cluster, {"app": [config("one", ours="y"), config("two")]})
    return cluster


def mark(cluster):
    return state(cluster).record["app"]["/ConfigMap/ns/one"][2:]


def test_what_was_there_before_is_taken_over_and_said_to_be(cluster):
    cluster.make(SPACE)
    cluster.make(config("one", theirs="x"))
    bundle = {"app": [config("one", ours="y"), config("two")]}
    shown = deploy(cluster, bundle, check=True, diff=True)
    assert shown["taken_over"] == ["ConfigMap ns/one"]
    assert any("taken over: made by kubectl-create; never deleted" in part["after_header"] for part in shown["diff"])
    assert [change["name"] for change in shown["changes"] if change["taken_over"]] == ["one"]
    assert deploy(cluster, bundle)["taken_over"] == ["ConfigMap ns/one"]
    assert mark(cluster) == ["taken over"] and owner(cluster, configmap("one")) == "genai"


def test_the_mark_outlives_later_releases(taken):
    assert deploy(taken, {"app": [config("one", ours="z"), config("two")]})["taken_over"] == []
    assert mark(taken) == ["taken over"]
    deploy(taken, {"app": [config("one", ours="z"), config("two", a="b")]})
    roll_back(taken, "1")
    assert mark(taken) == ["taken over"]


@pytest.mark.parametrize(
    "remove",
    [
        lambda c: deploy(c, {"app": [config("two")]}),
        tear_down,
        lambda c: tear_down(c, data=True),
        lambda c: tear_down(c, data=True, forget=True),
    ],
    ids=["prune", "teardown", "teardown with data", "teardown, forgotten"],
)
def test_what_was_taken_over_is_let_go_and_never_deleted(taken, remove):
    remove(taken)
    assert taken.objects[configmap("one")]["data"] == {"theirs": "x", "ours": "y"}
    assert owner(taken, configmap("one")) is None
    assert "delete ConfigMap ns/one" not in taken.writes


def test_an_undo_leaves_what_was_there_as_it_was(cluster):
    cluster.make(SPACE)
    cluster.make(config("one", theirs="x"))
    before = cluster.contents()
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="is restored"):
        deploy(cluster, {"app": [config("one", ours="y"), config("two")]})
    assert cluster.contents() == before


def test_an_undo_takes_back_what_was_let_go(taken):
    before = taken.contents()
    fail_when(taken, STATE)
    with pytest.raises(ReleaseFailed, match="is restored"):
        deploy(taken, {"app": [config("two")]})
    assert taken.contents() == before and mark(taken) == ["taken over"]


def test_a_leftover_that_another_platform_has_labelled_is_not_deleted(cluster):
    deploy(cluster, {"app": [SPACE, config("one"), config("two")]})
    cluster.edit(configmap("one"), {"metadata": {"labels": {LABEL_PLATFORM: "other"}}})
    assert deploy(cluster, {"app": [SPACE, config("two")]})["summary"]["app"]["delete"] == 0
    tear_down(cluster, data=True)
    assert owner(cluster, configmap("one")) == "other"


@pytest.mark.parametrize("data", [False, True])
def test_a_namespace_of_ours_stays_for_what_was_taken_over_in_it(cluster, data):
    """It carries our label until it is let go, and would go with the namespace."""
    deploy(cluster, {"app": [SPACE, config("two")]})
    cluster.make(config("one", theirs="x"))
    deploy(cluster, {"app": [SPACE, config("one", ours="y"), config("two")]})
    result = tear_down(cluster, data=data)
    assert "Namespace ns: it holds ConfigMap ns/one, which is not ours to delete" in result["kept"]
    assert cluster.objects[configmap("one")]["data"] == {"theirs": "x", "ours": "y"} and owner(cluster, configmap("one")) is None
    assert configmap("two") not in cluster.objects


# --- what is being deleted -------------------------------------------------------------------------------------------


def hold(cluster, *refs):
    for ref in refs:
        cluster.objects[ref]["metadata"]["finalizers"] = ["example.com/slow"]


def delete(cluster, ref):
    """Somebody else's deletion."""
    with cluster._storing:
        cluster._delete(ref, None)
    cluster.writes.pop()


@pytest.mark.parametrize("space", [False, True], ids=["an object", "its namespace"])
def test_what_is_being_deleted_is_waited_for_and_made_anew(cluster, space):
    bundle = {"app": [SPACE, config("one", a="1")]}
    deploy(cluster, bundle)
    hold(cluster, configmap("one"))
    delete(cluster, Ref("", "Namespace", "", "ns") if space else configmap("one"))
    shown = deploy(cluster, bundle, check=True)
    assert [(c["action"], "has to be gone first" in c["pending"]) for c in shown["changes"]] == (1 + space) * [("create", True)]
    uid = cluster.objects[configmap("one")]["metadata"]["uid"]
    timer = threading.Timer(0.3, cluster.let_go, [configmap("one")])
    timer.start()
    assert deploy(cluster, bundle)["changed"]
    timer.join()
    assert cluster.objects[configmap("one")]["metadata"]["uid"] != uid and "deletionTimestamp" not in cluster.objects[configmap("one")]["metadata"]


def test_what_does_not_go_is_named_with_its_finalizers_and_nothing_is_written(cluster):
    bundle = {"app": [SPACE, config("one", a="1"), config("two")]}
    deploy(cluster, bundle)
    hold(cluster, configmap("one"))
    delete(cluster, configmap("one"))
    before = list(cluster.writes)

    def meanwhile(line):
        """Another holder joins: what is said in the end is what is so then."""
        if "waiting until it is gone" in line:
            cluster.objects[configmap("one")]["metadata"]["finalizers"].append("example.com/slower")

    with pytest.raises(TimedOut, match="ConfigMap ns/one: it is being deleted since .*, held by example.com/slow, example.com/slower"):
        deploy(cluster, bundle, wait_timeout=0.1, progress=meanwhile)
    assert cluster.writes == before


def test_a_leftover_that_is_going_already_is_not_touched(cluster):
    deploy(cluster, {"app": [SPACE, config("one"), config("two")]})
    hold(cluster, configmap("one"))
    delete(cluster, configmap("one"))
    assert deploy(cluster, {"app": [SPACE, config("two", a="b")]})["summary"]["app"]["delete"] == 0
    assert "delete ConfigMap ns/one" not in cluster.writes


@pytest.mark.parametrize("workers", [1, 4])
def test_an_undo_waits_for_many_that_are_still_going(workers, monkeypatch):
    """More of them than there are threads: waiting takes no thread of the pool that it would need itself."""
    monkeypatch.setattr(_undo, "UNDO_SECONDS", 10)
    cluster, many = FakeCluster(workers=workers), [config(f"c{n}", a=str(n)) for n in range(17)]
    deploy(cluster, {"app": [SPACE, *many]})
    hold(cluster, *(Ref.of(one) for one in many))
    fail_when(cluster, STATE)
    failed: list[BaseException] = []

    def release():
        try:
            deploy(cluster, {"app": [SPACE]}, max_deleted="100%")
        except ReleaseFailed as exc:
            failed.append(exc)

    run = threading.Thread(target=release, daemon=True)
    run.start()
    while run.is_alive() and STATE not in cluster.writes[-1:] and not any("deletionTimestamp" in cluster.objects[Ref.of(one)]["metadata"] for one in many):
        time.sleep(0.01)
    time.sleep(0.3)
    cluster.let_go(*(Ref.of(one) for one in many))
    run.join(20)
    assert not run.is_alive() and "The state before is restored" in str(failed)
    assert [cluster.objects[Ref.of(one)]["data"] for one in many] == [one["data"] for one in many]


# --- what the server takes no change of ------------------------------------------------------------------------------


def frozen(**data):
    return {**config("one", **data), "immutable": True}


def test_an_undo_makes_an_immutable_configmap_anew(cluster):
    deploy(cluster, {"app": [SPACE, config("one", a="1")]})
    cluster.edit(configmap("one"), {"metadata": {"labels": {"team": "x"}}})
    before = cluster.contents()
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        deploy(cluster, {"app": [SPACE, frozen(a="2")]})
    assert cluster.contents() == before


def test_a_rollback_makes_it_anew_and_says_so_before(cluster):
    deploy(cluster, {"app": [SPACE, config("one", a="1")]})
    deploy(cluster, {"app": [SPACE, frozen(a="2")]})
    (change,) = roll_back(cluster, check=True)["changes"]
    assert change["pending"] == "it is immutable: it is deleted and made anew"
    roll_back(cluster)
    assert cluster.objects[configmap("one")]["data"] == {"a": "1"} and "immutable" not in cluster.objects[configmap("one")]


@pytest.mark.parametrize("refusals, left", [(2, "is back as it was found"), (9, "could not be put back")])
def test_a_repair_that_may_not_make_an_object_anew_leaves_it_as_it_was_found(cluster, refusals, left):
    deploy(cluster, {"app": [SPACE, config("one", a="1")]})
    cluster.edit(configmap("one"), {"data": {"a": "by hand"}, "immutable": True})
    for _time in range(refusals):
        fail_when(cluster, "apply ConfigMap ns/one", ApiError("frozen", 403))
    with pytest.raises(ReleaseFailed, match=f"frozen.* It was deleted to be made anew, and {left}"):
        drift(releaser(cluster), True, None, [])
    found = cluster.objects.get(configmap("one"))
    assert found is None if refusals == 9 else (found["data"], found["immutable"]) == ({"a": "by hand"}, True)
    assert len(drift(releaser(cluster), False, None, [])["drift"]) == 1, "and it is drift still"


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Service", "Secret"])
def test_forward_the_change_of_what_cannot_be_changed_is_refused_before_the_first_write(cluster, kind, check):
    """By the server, which is asked about it first."""
    bodies = {
        "ConfigMap": (frozen(a="1"), frozen(a="2")),
        "Deployment": [{**workload(), "spec": {**workload()["spec"], "selector": {"matchLabels": {"app": app}}}} for app in ("one", "two")],
        "Service": [obj("Service", "one", spec={"clusterIP": address, "selector": {"app": "one"}}) for address in ("10.0.0.1", "10.0.0.2")],
        "Secret": [obj("Secret", "one", type=name, data={"a": "Yg=="}) for name in ("Opaque", "example.com/other")],
    }
    was, wanted = bodies[kind]
    deploy(cluster, {"app": [SPACE, was, config("zero")]}, wait=False)
    before, refuse = list(cluster.writes), cluster._refuse_immutable

    def judge(live, mine):
        fixed = [("type",), ("spec", "clusterIP"), ("spec", "selector", "matchLabels", "app")]
        if live["kind"] == kind and kind != "ConfigMap" and any(path in mine and mine[path] != _at(live, path) for path in fixed if _at(live, path)):
            raise Refused(422, "field is immutable", reason="Invalid")
        refuse(live, mine)

    cluster._refuse_immutable = judge
    with pytest.raises(InvalidInput, match="field is immutable"):
        deploy(cluster, {"app": [SPACE, wanted, config("zero", a="1")]}, check=check, wait=False)
    assert cluster.writes == before


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("v1", "v2"), ("v2", "v1")])
def test_an_object_is_read_in_the_version_it_was_applied_in(cluster, first, second):
    one, two = ({"app": [SPACE, workload(replicas=None), autoscaler(version, maxReplicas=high)]} for version, high in ((first, 4), (second, 5)))
    deploy(cluster, one, wait=False)
    before = cluster.contents()
    assert deploy(cluster, one, wait=False)["changed"] is False
    assert deploy(cluster, two, wait=False)["changed"] is True
    assert deploy(cluster, two, wait=False)["changed"] is False
    roll_back(cluster, wait=False)
    assert cluster.contents() == before
    assert deploy(cluster, one, wait=False)["changed"] is False


def test_a_definition_that_could_not_come_back_is_refused_before_anything_is_written(cluster):
    def definition(*versions, **rest):
        names = {"kind": "Thing", "plural": "things"}
        spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [{"name": v, "storage": v == versions[-1]} for v in versions]}
        return {**obj("CustomResourceDefinition", "things.example.com", None), "apiVersion": "apiextensions.k8s.io/v1", "spec": spec, **rest}

    cluster.make(definition("v1", status={"storedVersions": ["v1"]}))
    with pytest.raises(InvalidInput, match="cannot be undone, nothing was written"):
        deploy(cluster, {"app": [definition("v1", "v2")]})
    assert cluster.writes == []


def test_failures_push_out_no_release_to_return_to(cluster):
    deploy(cluster, {"app": [SPACE, config("one", a="1")]}, keep=3)
    deploy(cluster, {"app": [SPACE, config("one", a="2")]}, keep=3)
    for number in range(12):
        cluster.fail_at = len(cluster.writes) + 1
        with pytest.raises(ReleaseFailed):
            deploy(cluster, {"app": [SPACE, config("one", a=f"bad {number}")]}, keep=3)
    assert [r["number"] for r in state(cluster).releases] == [1, 2, 12, 13, 14]
    roll_back(cluster)
    assert cluster.objects[configmap("one")]["data"] == {"a": "1"}


# --- being told to stop ----------------------------------------------------------------------------------------------


def test_nothing_is_written_between_a_signal_and_the_undo(cluster):
    """Only the writes that were under way when it came may still arrive, and they have before the undo begins."""
    deploy(cluster, {"app": [SPACE, config("kept")]})
    before, handlers = cluster.contents(), {number: signal.getsignal(number) for number in STOPPING}
    write, seen = cluster._write, []

    def slow(line):
        seen.append(line)
        write(line)
        if line.startswith("apply ConfigMap ns/c"):
            if sum(entry.startswith("apply ConfigMap ns/c") for entry in seen) == 8:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    cluster._write = slow
    try:
        stop_on_signals()
        with pytest.raises(ReleaseFailed, match="told to stop .SIGTERM."):
            deploy(cluster, {"app": [SPACE, config("kept"), *(config(f"c{n}", a="b") for n in range(60))]})
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    made = [index for index, line in enumerate(seen) if line.startswith("apply ConfigMap ns/c")]
    undone = [index for index, line in enumerate(seen) if line.startswith("delete ConfigMap ns/c")]
    assert len(made) <= 8 + 4 and made[-1] < undone[0] and len(undone) == len(made)
    assert cluster.contents() == before


# --- what is pruned although it is protected, and a run that gives up --------------------------------------------------


@pytest.mark.parametrize("stranger", [True, False])
@pytest.mark.parametrize("way", ["deploy", "rollback"])
def test_a_namespace_that_others_use_is_not_pruned(cluster, way, stranger):
    """Not even when namespaces are pruned on demand."""
    more = obj("Namespace", "more", None)
    if way == "rollback":
        deploy(cluster, {"base": [SPACE], "app": [config("one")]})
    deploy(cluster, {"base": [SPACE, more], "app": [config("one"), config("two", namespace="more")]})
    if stranger:
        cluster.make(config("theirs", namespace="more", a="b"))
    options = {"prune_protected": True, "max_deleted": "100%"}
    if way == "rollback":
        result = roll_back(cluster, **options)
    else:
        result = deploy(cluster, {"base": [SPACE], "app": [config("one")]}, **options)
    assert (Ref("", "Namespace", "", "more") in cluster.objects) is stranger
    assert result["kept"] == (["Namespace more: it holds ConfigMap more/theirs, which is not ours"] if stranger else [])


def test_a_run_that_gives_up_says_so(cluster):
    """The next run need not wait until it may be taken for dead: it goes on with the repair at once."""
    deploy(cluster, {"base": [SPACE], "app": [config("one", a="1")]})
    write, failed = cluster._write, []

    def refuse(what):
        if what == "apply Secret genai-ledger/genai.state" or (failed and what == "apply ConfigMap ns/one"):
            failed.append(what)
            raise ApiError("refused", 403)
        write(what)

    cluster._write = refuse
    with pytest.raises(ReleaseFailed, match="NOT everything could be restored"):
        deploy(cluster, {"base": [SPACE], "app": [config("one", a="2")]})
    journal = releaser(cluster).ledger.load()[1]
    assert journal["holder"] == {"ended": True} and not alive(journal, journal["renewed"], cluster.server_time)
    cluster._write = write
    after = deploy(cluster, {"base": [SPACE], "app": [config("one", a="1")]})
    assert (after["changes"], after["repaired"]["by"]) == ([], "tester")


# --- what a review found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["prune", "teardown", "teardown with data", "released again, then teardown"])
def test_what_somebody_else_made_anew_under_our_name_is_theirs(cluster, way):
    """Ours was deleted; what has its name by now was made without us."""
    deploy(cluster, {"base": [SPACE], "app": [config("one", a="1"), config("two")]})
    del cluster.objects[configmap("one")]
    cluster.make(config("one", secret="theirs"))
    if way == "prune":
        deploy(cluster, {"base": [SPACE], "app": [config("two")]})
    elif way == "released again, then teardown":
        again = deploy(cluster, {"base": [SPACE], "app": [config("one", a="1"), config("two")]})
        assert again["taken_over"] == ["ConfigMap ns/one"]
        tear_down(cluster)
    else:
        tear_down(cluster, data="data" in way)
    assert cluster.objects[configmap("one")]["data"]["secret"] == "theirs"
    assert owner(cluster, configmap("one")) is None


@pytest.mark.parametrize("scope", ["the whole platform", "one component"])
def test_a_namespace_in_which_the_platform_still_runs_is_not_pruned(cluster, scope):
    """It left the list of namespaces; what another component has in it did not leave."""
    more = obj("Namespace", "more", None)
    deploy(cluster, {"spaces": [SPACE, more], "app": [config("one"), config("two", namespace="more")]})
    bundle = {"spaces": [SPACE], **({"app": [config("one"), config("two", namespace="more")]} if scope == "the whole platform" else {})}
    result = deploy(cluster, bundle, complete=scope == "the whole platform", prune_protected=True)
    assert result["kept"] == ["Namespace more: component app still has something in it"]
    assert configmap("two", "more") in cluster.objects


def test_the_number_of_a_revision_is_used_once(cluster):
    """Also when the state could not be written: a release that is kept still names the revision whose fingerprint was to go."""
    spaces, other = {"base": [SPACE]}, {"other": [config("other")]}
    for k in "12":
        deploy(cluster, {**spaces, "app": [config("one", k=k)]}, keep=3)
    roll_back(cluster, "1", keep=3)
    deploy(cluster, {**spaces, "app": [config("one", k="1")], **other}, keep=3)
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed):
        roll_back(cluster, "3", keep=3)
    deploy(cluster, {**spaces, "app": [config("one", k="new")], **other}, keep=9)
    roll_back(cluster, "2", keep=9)
    assert cluster.objects[configmap("one")]["data"] == {"k": "2"}


STATEFULSET = ResourceType("apps", "v1", "StatefulSet", "statefulsets", True)


@pytest.mark.parametrize("taken_over", [True, False])
def test_claims_go_with_statefulsets_of_ours_only(cluster, taken_over):
    """One that was there before the platform stays, and so does its data."""
    cluster.served.append(STATEFULSET)
    cluster.make(SPACE)
    database = {**obj("StatefulSet", "db"), "apiVersion": "apps/v1", "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}
    if taken_over:
        cluster.make(database)
    deploy(cluster, {"app": [database, config("one")]}, wait=False)
    cluster.make(obj("PersistentVolumeClaim", "data-db-0", spec={"x": "y"}), "kube-controller-manager")
    preview = tear_down(cluster, data=True, check=True)["changes"]
    assert any(change["name"] == "data-db-0" for change in preview) is not taken_over
    tear_down(cluster, data=True)
    for ref in (Ref("apps", "StatefulSet", "ns", "db"), Ref("", "PersistentVolumeClaim", "ns", "data-db-0")):
        assert (ref in cluster.objects) is taken_over


# --- what no way back may do ------------------------------------------------------------------------------------------


def takes_back_no(cluster, field, why):
    """The server refuses to take a field out again, or to make it less."""
    refuse = cluster._refuse_immutable

    def judge(live, mine):
        if (live.get("spec") or {}).get(field, 0) > mine.get(("spec", field), 0):
            raise Refused(422, why, reason="Invalid")
        refuse(live, mine)

    cluster._refuse_immutable = judge


def test_an_undo_never_makes_a_custom_resource_anew(cluster):
    """Its operator would take what it describes along, such as a database."""
    rtype, ref = ResourceType("example.com", "v1", "Database", "databases", True), Ref("example.com", "Database", "ns", "db")
    cluster.served.append(rtype)
    database = {**obj("Database", "db"), "apiVersion": "example.com/v1", "spec": {"size": 1}}
    deploy(cluster, {"app": [SPACE, database]})
    uid = cluster.objects[ref]["metadata"]["uid"]
    takes_back_no(cluster, "shards", "spec.shards: Invalid value: shards is immutable")
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="NOT everything could be restored.*shards is immutable"):
        deploy(cluster, {"app": [SPACE, {**database, "spec": {"size": 1, "shards": 3}}]})
    assert cluster.objects[ref]["metadata"]["uid"] == uid and "delete Database ns/db" not in cluster.writes


def test_a_claim_that_was_made_larger_stays_so_and_blocks_nothing(cluster):
    def claim(size):
        return obj("PersistentVolumeClaim", "data", spec={"size": size})

    deploy(cluster, {"app": [SPACE, claim(1), config("one", a="1")]}, wait=False)
    takes_back_no(cluster, "size", "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity")
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="The state before is restored .*1 kept: PersistentVolumeClaim ns/data: a claim .* does not get smaller"):
        deploy(cluster, {"app": [SPACE, claim(2), config("one", a="2")]}, wait=False)
    assert cluster.objects[configmap("one")]["data"] == {"a": "1"}
    assert deploy(cluster, {"app": [SPACE, claim(2), config("one", a="2")]}, wait=False)["repaired"] is None


def test_an_undo_waits_for_everything_together_no_longer_than_for_one(monkeypatch):
    """The lock is held for so long, and nobody can take it over."""
    monkeypatch.setattr(_undo, "UNDO_SECONDS", 10)
    waited: list[float] = []

    def never(_cluster, _rtype, ref, seconds):
        waited.append(seconds)
        now[0] += seconds
        raise TimedOut(f"{ref}: still there")

    now, many = [0.0], [config(f"c{n}") for n in range(12)]
    monkeypatch.setattr(_undo, "wait_until_gone", never)
    monkeypatch.setattr(_undo.time, "monotonic", lambda: now[0])
    cluster = FakeCluster(workers=1)
    deploy(cluster, {"app": [SPACE, *many]})
    hold(cluster, *map(Ref.of, many))
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="NOT everything could be restored"):
        deploy(cluster, {"app": [SPACE]}, max_deleted="100%")
    assert waited == [10, *[1] * 11]


@pytest.mark.parametrize("way", ["deploy", "rollback"])
def test_a_namespace_into_which_others_moved_while_the_run_waited_is_not_pruned(cluster, way, monkeypatch):
    more, wait = obj("Namespace", "more", None), Releaser._wait
    small, large = {"base": [SPACE], "app": [config("one")]}, {"base": [SPACE, more], "app": [config("one"), config("two", namespace="more")]}
    deploy(cluster, small)
    deploy(cluster, large)
    monkeypatch.setattr(Releaser, "_wait", lambda *args: (cluster.make(config("theirs", namespace="more")), wait(*args)))
    options = {"prune_protected": True, "max_deleted": "100%"}
    result = roll_back(cluster, **options) if way == "rollback" else deploy(cluster, small, **options)
    assert configmap("theirs", "more") in cluster.objects and configmap("two", "more") not in cluster.objects
    assert result["kept"] == ["Namespace more: it holds ConfigMap more/theirs, which is not ours"] and result["summary"]["base"]["delete"] == 0
    assert "/Namespace//more" in state(cluster).record["base"], "it is ours still"


# --- what goes while a run plans, or beside it ------------------------------------------------------------------------


@pytest.mark.parametrize("goes", [True, False])
def test_what_somebody_deletes_in_mid_run_is_made_anew_or_fails_the_run(cluster, goes, monkeypatch):
    monkeypatch.setattr(_apply, "GONE_SECONDS", 30 if goes else 0)
    deploy(cluster, {"app": [SPACE, config("one", a="1"), config("two", a="1")]})
    hold(cluster, configmap("one"))
    just_before(cluster, "apply ConfigMap ns/one", lambda: delete(cluster, configmap("one")))
    timer = threading.Timer(0.3, cluster.let_go, [configmap("one")])
    bundle = {"app": [SPACE, config("one", a="2"), config("two", a="2")]}
    if goes:
        timer.start()
        deploy(cluster, bundle)
        timer.join()
        assert cluster.objects[configmap("one")]["data"] == {"a": "2"} and "deletionTimestamp" not in cluster.objects[configmap("one")]["metadata"]
    else:
        monkeypatch.setattr(_undo, "UNDO_SECONDS", 0)
        with pytest.raises(ReleaseFailed, match="ConfigMap ns/one: it is being deleted since .*, held by example.com/slow"):
            deploy(cluster, bundle)
        assert cluster.objects[configmap("two")]["data"] == {"a": "1"}


@pytest.mark.parametrize("more", [[], [config("two")]], ids=["the same", "one more"])
@pytest.mark.parametrize("check", [False, True])
def test_what_is_in_a_namespace_of_others_that_goes_is_refused(cluster, check, more):
    """Its controller has not come to what is in it, which looks as if it were there."""
    cluster.make(SPACE)
    deploy(cluster, {"app": [config("one", a="1")]})
    before = list(cluster.writes)
    cluster.objects[Ref("", "Namespace", "", "ns")]["metadata"] |= {"deletionTimestamp": "2026-01-01T00:01:00Z", "finalizers": ["example.com/slow"]}
    with pytest.raises(InvalidInput, match="Namespace ns: it is being deleted since .*, held by example.com/slow"):
        deploy(cluster, {"app": [config("one", a="1"), *more]}, check=check)
    assert cluster.writes == before


def test_a_ledgers_namespace_that_does_not_go_is_named(cluster, monkeypatch):
    cluster.make(obj("Namespace", "genai-ledger", None))
    cluster.objects[Ref("", "Namespace", "", "genai-ledger")]["metadata"] |= {"deletionTimestamp": "2026-01-01T00:01:00Z", "finalizers": ["example.com/slow"]}
    monkeypatch.setattr(cluster, "gone", lambda objects, *_args: [ref for _rtype, ref in objects])
    with pytest.raises(TimedOut, match="Namespace genai-ledger, which the ledger is to be in, is still being deleted"):
        deploy(cluster, {"app": [SPACE]})
    assert cluster.writes == []


def test_a_namespace_that_goes_is_no_question_of_permissions(cluster):
    cluster.make(SPACE)
    deploy(cluster, {"app": [config("one")]})
    space = cluster.objects[Ref("", "Namespace", "", "ns")]["metadata"]
    just_before(cluster, "apply ConfigMap ns/two", lambda: space.update(deletionTimestamp="2026-01-01T00:01:00Z", finalizers=["example.com/slow"]))
    with pytest.raises(ReleaseFailed, match="because it is being terminated$"):
        deploy(cluster, {"app": [config("one"), config("two")]})


# --- copies by hand ---------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(cluster):
    """A cluster with a release, of which somebody has copied an object, labels and all."""
    deploy(cluster, {"app": [SPACE, config("one", a="1")]})
    cluster.make(config("copy", labels={LABEL_PLATFORM: "genai"}, theirs="x"), "kubectl-client-side-apply")
    return cluster


@pytest.mark.parametrize("data", [False, True])
def test_a_copy_of_an_object_of_ours_keeps_its_namespace(copied, data):
    assert tear_down(copied, data=data)["kept"] == ["Namespace ns: it holds ConfigMap ns/copy, which is not ours"]
    assert copied.objects[configmap("copy")]["data"] == {"theirs": "x"}


def test_a_copy_of_an_object_of_ours_is_taken_over(copied):
    bundle = {"app": [SPACE, config("one", a="1"), config("copy", ours="y")]}
    assert deploy(copied, bundle, check=True)["taken_over"] == ["ConfigMap ns/copy"]
    deploy(copied, bundle)
    deploy(copied, {"app": [SPACE, config("one", a="1")]})
    assert copied.objects[configmap("copy")]["data"] == {"theirs": "x", "ours": "y"} and owner(copied, configmap("copy")) is None


@pytest.mark.parametrize("labels", [None, {LABEL_PLATFORM: "other"}], ids=["nobody's", "another platform's"])
def test_a_namespace_that_somebody_makes_while_a_run_plans_is_theirs(cluster, labels):
    theirs = obj("Namespace", "more", None)
    theirs["metadata"] |= {"labels": labels} if labels else {}
    just_before(cluster, "apply Secret genai-ledger/genai.journal", lambda: cluster.make(theirs, "genai.platform"))
    with pytest.raises(ReleaseFailed, match="Namespace more: it was made by somebody else while this run was planning; run again"):
        deploy(cluster, {"app": [SPACE, obj("Namespace", "more", None), config("one")]})
    assert owner(cluster, Ref("", "Namespace", "", "more")) == (labels or {}).get(LABEL_PLATFORM) and "delete Namespace more" not in cluster.writes


def test_the_ledger_may_be_in_a_namespace_of_the_platform(cluster):
    books = obj("Namespace", "genai-ledger", None)
    assert deploy(cluster, {"app": [books, config("one", namespace="genai-ledger")]})["changed"]
    assert not deploy(cluster, {"app": [books, config("one", namespace="genai-ledger")]})["changed"]


def test_what_somebody_makes_while_a_run_plans_is_taken_over(cluster):
    cluster.make(SPACE)
    just_before(cluster, "apply Secret genai-ledger/genai.journal", lambda: cluster.make(config("one", theirs="x")))
    assert deploy(cluster, {"app": [config("one", ours="y"), config("two")]})["taken_over"] == ["ConfigMap ns/one"]
    assert mark(cluster) == ["taken over"] and state(cluster).record["app"]["/ConfigMap/ns/two"][2:] == []
    tear_down(cluster, data=True)
    assert cluster.objects[configmap("one")]["data"] == {"theirs": "x", "ours": "y"} and configmap("two") not in cluster.objects


def test_to_be_told_to_stop_when_all_is_recorded_undoes_nothing(cluster, monkeypatch):
    """Revisions that only forgotten releases used are being deleted; an undo would name them again."""
    for number in "1234":
        deploy(cluster, {"app": [SPACE, config("one", a=number)]}, keep=3)
    cleared = Ledger._delete_with_parts
    told = [Interrupted("told to stop")]

    def clear(ledger, secret):
        cleared(ledger, secret)
        if told and "journal" not in secret["metadata"]["name"]:
            raise told.pop()

    monkeypatch.setattr(Ledger, "_delete_with_parts", clear)
    assert deploy(cluster, {"app": [SPACE, config("one", a="5")]}, keep=3)["release"] == 5 and told == []
    for number in (3, 4):
        roll_back(cluster, str(number), keep=9)
        assert cluster.objects[configmap("one")]["data"] == {"a": str(number)}
