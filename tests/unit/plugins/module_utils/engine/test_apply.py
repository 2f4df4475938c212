# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal's lines, and what is undone of them on a cluster where others have been meanwhile."""
from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine import apply as _apply, undo as _undo
from ansible_collections.genai.platform.plugins.module_utils.engine.apply import let_go
from ansible_collections.genai.platform.plugins.module_utils.engine.undo import Entry, restore
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Interrupted, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_PLATFORM, Ref
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from fake import FakeCluster
from story import STATE, config, configmap, deploy, fail_when, just_before, kill_at, managers, obj, owner, releaser

SPACE = obj("Namespace", "ns", None)
CONFIGMAPS = ResourceType("", "v1", "ConfigMap", "configmaps", True)
WEB = Ref("apps", "Deployment", "ns", "web")
OLD = {
    "verb": "update", "group": "", "version": "v1", "kind": "ConfigMap", "plural": "configmaps", "namespaced": True, "namespace": "ns",
    "name": "one", "wave": 2, "before": {**config("one", a="1")},
}


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.mark.parametrize(
    "line",
    [OLD, {**OLD, "replicas": None, "others": []}, {**OLD, "uid": "u", "one_way": True, "forced": True, "from_the_future": 1}],
    ids=["the oldest", "an older one", "a newer one"],
)
def test_a_line_of_another_versions_journal_can_be_undone(cluster, line):
    cluster.make(SPACE)
    cluster.make(config("one", a="2"), "genai.platform")
    entry = Entry.read(line)
    assert (entry.ref, entry.before) == (configmap("one"), OLD["before"])
    report = restore(cluster, [entry], "genai")
    assert report.errors == [] and cluster.objects[configmap("one")]["data"] == {"a": "1"}


def test_a_line_comes_back_as_it_was_written():
    entry = Entry.read({**OLD, "uid": "u", "forced": True})
    assert Entry.read(dataclasses.asdict(entry)) == entry


@pytest.mark.parametrize(("one_way", "kept", "errors"), [(True, 1, 0), (False, 0, 1)])
def test_what_was_announced_as_one_way_is_kept_and_no_error(cluster, monkeypatch, one_way, kept, errors):
    cluster.make(SPACE)

    def refuse(*_args, **_options):
        raise ApiError("status.storedVersions[0]: must have v2", 422)

    monkeypatch.setattr(cluster, "apply", refuse)
    definition = {**OLD, "kind": "CustomResourceDefinition", "one_way": one_way}
    report = restore(cluster, [Entry.read(definition)], "genai")
    assert (len(report.kept), len(report.errors)) == (kept, errors)


@pytest.mark.parametrize("bundle", [{"app": [SPACE, config("kept")]}, {"app": [SPACE, config("kept"), config("one", a="2")]}], ids=["deleted", "changed"])
def test_what_is_another_platforms_by_now_is_not_put_back(cluster, bundle, monkeypatch):
    """A killed run is repaired hours later: what it had deleted may have been made again by somebody else."""
    deploy(cluster, {"app": [SPACE, config("kept"), config("one", a="1")]})
    kill_at(cluster, monkeypatch, STATE, bundle)
    cluster.objects.pop(configmap("one"), None)
    cluster.make(config("one", labels={LABEL_PLATFORM: "other"}, theirs="x"))
    assert deploy(cluster, {"app": [SPACE, config("kept")]})["repaired"]
    one = cluster.objects[configmap("one")]
    assert (one["data"], one["metadata"]["labels"]) == ({"theirs": "x"}, {LABEL_PLATFORM: "other"})


def workload(**spec):
    return {**obj("Deployment", "web"), "apiVersion": "apps/v1", "spec": {"image": "web:1", **spec}}


def autoscaler():
    target = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 90}
    return {**obj("HorizontalPodAutoscaler", "web"), "apiVersion": "autoscaling/v2", "spec": target}


def test_an_autoscaled_workload_that_was_deleted_comes_back_with_its_number(cluster):
    """Nobody's field begins with one replica, however many there were."""
    deploy(cluster, {"app": [SPACE, workload(), autoscaler()]}, wait=False)
    cluster.edit(WEB, {"spec": {"replicas": 40}}, "kube-controller-manager", "scale")
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        deploy(cluster, {"app": [SPACE]}, wait=False, max_deleted="100%")
    assert cluster.objects[WEB]["spec"] == {"image": "web:1", "replicas": 40}


def test_a_workload_that_somebody_deleted_during_the_run_is_made_again(cluster):
    """Its replicas are not held before it is there: the server would take that for a Deployment without a template."""
    deploy(cluster, {"app": [SPACE, workload(replicas=2)]}, wait=False)
    uid = cluster.objects[WEB]["metadata"]["uid"]
    hold, held = cluster.hold_replicas, []

    def checked(rtype, namespace, name, replicas):
        held.append(Ref(rtype.group, rtype.kind, namespace, name) in cluster.objects)
        hold(rtype, namespace, name, replicas)

    cluster.hold_replicas = checked
    fail_when(cluster, STATE)
    just_before(cluster, STATE, lambda: cluster.objects.pop(WEB))
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        deploy(cluster, {"app": [SPACE, workload(), autoscaler()]}, wait=False)
    assert cluster.objects[WEB]["spec"] == {"image": "web:1", "replicas": 2} and cluster.objects[WEB]["metadata"]["uid"] != uid
    assert all(held)


def test_to_be_told_to_stop_while_restoring_does_not_end_it(cluster, monkeypatch):
    deploy(cluster, {"app": [SPACE, config("one", a="1")]})
    before, until, told = cluster.contents(), _undo._until_served, []

    def stopped(*args):
        if not told:
            told.append(True)
            raise Interrupted("told to stop")
        return until(*args)

    monkeypatch.setattr(_undo, "_until_served", stopped)
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        deploy(cluster, {"app": [SPACE, config("one", a="2"), config("two")]})
    assert told and cluster.contents() == before


def test_only_the_very_object_is_let_go(cluster):
    cluster.make(SPACE)
    cluster.make(config("one", labels={LABEL_PLATFORM: "other"}))
    with pytest.raises(ApiError):
        let_go(cluster, CONFIGMAPS, configmap("one"), "the uid of one that is gone")
    assert cluster.objects[configmap("one")]["metadata"]["labels"] == {LABEL_PLATFORM: "other"}


# --- who made it -----------------------------------------------------------------------------------------------------


def test_clocks_that_differ_leave_nothing_of_a_failed_first_release():
    cluster = FakeCluster(skews=(0, -3))
    fail_when(cluster, STATE)
    with pytest.raises(ReleaseFailed, match="is restored"):
        deploy(cluster, {"app": [SPACE, *(config(f"c{n}") for n in range(6))]})
    assert cluster.objects == {}


@pytest.mark.parametrize("killed", [False, True])
def test_what_somebody_made_after_planning_loses_our_fields_only(cluster, killed, monkeypatch):
    cluster.make(SPACE)
    just_before(cluster, "apply ConfigMap ns/one", lambda: cluster.make(config("one", theirs="x")))
    bundle = {"app": [config("one", ours="y"), config("two")]}
    if killed:
        kill_at(cluster, monkeypatch, STATE, bundle)
        assert deploy(cluster, {"app": [config("three")]})["repaired"]
    else:
        fail_when(cluster, STATE)
        with pytest.raises(ReleaseFailed, match="is restored"):
            deploy(cluster, bundle)
    assert cluster.objects[configmap("one")]["data"] == {"theirs": "x"} and owner(cluster, configmap("one")) is None
    assert configmap("two") not in cluster.objects


@pytest.mark.parametrize("killed", [False, True])
def test_what_somebody_made_and_changed_meanwhile_is_not_taken_for_ours(cluster, killed, monkeypatch):
    """Their entry says when they changed it last, which is after it was made; ours says that it was there before us."""
    cluster.make(SPACE)

    def make():
        cluster.make(config("one", theirs="x"))
        cluster.seconds += 5
        cluster.edit(configmap("one"), {"data": {"theirs": "z"}}, "kubectl-create")

    just_before(cluster, "apply ConfigMap ns/one", make)
    if killed:
        kill_at(cluster, monkeypatch, STATE, {"app": [config("one", ours="y")]})
        assert deploy(cluster, {"app": [config("three")]})["repaired"]
    else:
        fail_when(cluster, STATE)
        with pytest.raises(ReleaseFailed):
            deploy(cluster, {"app": [config("one", ours="y")]})
    assert cluster.objects[configmap("one")]["data"] == {"theirs": "z"}


def test_what_the_server_said_it_created_is_ours_whoever_else_wrote_to_it_at_once(cluster):
    cluster.make(SPACE)
    before, cluster.tick = cluster.contents(), 0
    fail_when(cluster, STATE)
    just_before(cluster, STATE, lambda: cluster.edit(configmap("one"), {"metadata": {"annotations": {"seen": "yes"}}}, "an-operator"))
    with pytest.raises(ReleaseFailed, match="is restored"):
        deploy(cluster, {"app": [config("one", ours="y")]})
    assert cluster.contents() == before


@pytest.mark.parametrize("tick", [0, 1], ids=["all within a second", "over time"])
def test_what_a_killed_run_made_is_removed_by_the_next(cluster, tick, monkeypatch):
    cluster.tick = tick
    cluster.make(SPACE)
    deploy(cluster, {"app": [config("kept")]})
    kill_at(cluster, monkeypatch, STATE, {"app": [config("kept"), config("one"), workload()]}, wait=False)
    assert configmap("one") in cluster.objects and WEB in cluster.objects
    assert deploy(cluster, {"app": [config("kept")]})["repaired"]
    assert configmap("one") not in cluster.objects and WEB not in cluster.objects


@pytest.mark.parametrize(
    ("at", "managed_by"),
    [
        ("delete ConfigMap ns/one", ["genai.platform", "kubectl-patch"]),
        (STATE, ["genai.platform", "kubectl-patch"]),
    ],
    ids=["before it was deleted", "after it was deleted"],
)
def test_a_hand_edit_is_there_once_after_a_repair(cluster, at, managed_by, monkeypatch):
    """Within one second no clock tells whether the object was deleted and made again; its uid does."""
    deploy(cluster, {"app": [SPACE, config("one", a="1"), config("two")]})
    cluster.edit(configmap("one"), {"data": {"z": "by hand"}})
    cluster.tick = 0
    kill_at(cluster, monkeypatch, at, {"app": [SPACE, config("two")]})
    deploy(cluster, {"app": [SPACE, config("one", a="1"), config("two")]})
    assert cluster.objects[configmap("one")]["data"] == {"a": "1", "z": "by hand"}
    assert managers(cluster, configmap("one")) == managed_by


# --- what a webhook of the same release judges --------------------------------------------------------------------------
SILENT = (
    'Internal error occurred: failed calling webhook "hook.example.com": failed to call webhook: Post'
    ' "https://hook.ns.svc:443/?timeout=10s": dial tcp 10.0.0.1:443: connect: connection refused'
)


def silent(cluster, monkeypatch, refusals, message=SILENT):
    """The first writes of ConfigMap judged are refused for a webhook that does not answer; returns what was tried."""
    apply, tried = cluster.apply, []

    def judged(rtype, body, force=True, dry_run=False):
        if body["metadata"]["name"] == "judged" and not dry_run:
            tried.append(len(cluster.writes))
            if len(tried) <= refusals:
                raise ApiError(message, 500)
        return apply(rtype, body, force, dry_run=dry_run)

    monkeypatch.setattr(cluster, "apply", judged)
    monkeypatch.setattr(_apply.time, "sleep", lambda _seconds: None)
    return tried


BUNDLE = {"app": [SPACE, obj("Service", "hook", "ns"), config("judged"), config("other")]}


def test_what_its_webhook_does_not_answer_for_comes_last(cluster, monkeypatch):
    lines: list[str] = []
    tried = silent(cluster, monkeypatch, 3)
    result = releaser(cluster, lines.append, complete=True).deploy(BUNDLE)
    assert len(tried) == 4 and configmap("judged") in cluster.objects and {c["name"] for c in result["changes"]} == {"ns", "hook", "judged", "other"}
    assert any(line.startswith("ConfigMap ns/judged: tried again when the workloads are ready: app: ConfigMap ns/judged: Internal") for line in lines)
    assert deploy(cluster, BUNDLE)["changes"] == []


@pytest.mark.parametrize("bundle, message, tries", [
    ({"app": [SPACE, config("judged")]}, SILENT, 1),  # whose webhook it is, nobody in this bundle
    (BUNDLE, SILENT.replace("failed calling webhook", "failed calling"), 1),
    (BUNDLE, SILENT, 3),
], ids=["another's webhook", "no webhook", "never"])
def test_what_no_waiting_helps_fails_the_release(cluster, monkeypatch, bundle, message, tries):
    tried = silent(cluster, monkeypatch, 10**9, message)
    monkeypatch.setattr(_apply, "WEBHOOK_SECONDS", 0.0 if tries == 1 else 0.2)
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        deploy(cluster, bundle)
    assert cluster.contents() == {} and (len(tried) == 1 if tries == 1 else len(tried) > 2)


def test_what_comes_late_comes_in_its_order(cluster, monkeypatch):
    """A repair that is refused a Namespace at first makes it, and then what is in it."""
    bundle = {"app": [SPACE, *(config(f"c{number}") for number in range(6))]}
    deploy(cluster, bundle)
    for ref in [ref for ref in cluster.objects if "ns" in (ref.namespace, ref.name)]:
        del cluster.objects[ref]
    fail_when(cluster, "apply Namespace ns", ApiError("not now", 403))
    assert drift(releaser(cluster), True, None, [])["fixed"] == 7
    assert sum(ref.namespace == "ns" for ref in cluster.objects) == 6


# --- routes ----------------------------------------------------------------------------------------------------------


def service(name):
    return obj("Service", name, spec={"selector": {"app": name}, "ports": [{"port": 80}]})


def ingress(name):
    backend = {"service": {"name": name, "port": {"number": 80}}}
    return {**obj("Ingress", "front"), "apiVersion": "networking.k8s.io/v1", "spec": {"defaultBackend": backend}}


@pytest.mark.parametrize("after, waits", [([service("api"), ingress("api")], True), ([service("api"), ingress("canary"), config("more")], False)])
def test_a_service_goes_only_a_moment_after_the_route_that_led_to_it(cluster, monkeypatch, after, waits):
    cluster.served.append(ResourceType("networking.k8s.io", "v1", "Ingress", "ingresses", True))
    deploy(cluster, {"app": [SPACE, service("api"), service("canary"), ingress("canary")]}, wait=False)
    slept = []
    monkeypatch.setattr(_apply.time, "sleep", lambda seconds: slept.append((seconds, Ref("", "Service", "ns", "canary") in cluster.objects)))
    deploy(cluster, {"app": [SPACE, *after, *([] if waits else [service("canary")])]}, wait=False)
    assert ((_apply.ROUTE_SECONDS, True) in slept) == waits
    assert (Ref("", "Service", "ns", "canary") in cluster.objects) != waits
