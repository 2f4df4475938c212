# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which component comes after which: the order itself, random graphs of components, and whole releases that wait at gates."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.course import Course
from ansible_collections.genai.platform.plugins.module_utils.errors import Hopeless, InvalidInput, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.module_utils.plan.order import Order, after
from ansible_collections.genai.platform.plugins.module_utils.plan.plan import CREATE, Action, Plan
from fake import TYPES, FakeCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from story import config, deploy, obj, releaser, roll_back, state, tear_down

THREE = {"app": ["migration"], "migration": ["database"]}
DEPLOYMENTS = next(rtype for rtype in TYPES if rtype.kind == "Deployment")
MOST = 40  # components of a random graph


# --- the order by itself ---------------------------------------------------------------------------------------------


def test_what_comes_after_nothing_comes_first():
    order = Order.of(THREE, ["app", "database", "migration", "policy"])
    assert order.stages() == [["database", "policy"], ["migration"], ["app"]]
    assert order.open((), ()) == {"database", "policy"}
    assert order.open({"database", "policy"}, {"database"}) == set()
    assert order.open({"database", "policy"}, ()) == {"migration"}


def test_a_component_that_is_not_there_hands_on_what_it_comes_after():
    assert Order.of(THREE, ["app", "database"]).stages() == [["database"], ["app"]]
    assert Order.of(THREE, ["app"]).stages() == [["app"]]


def test_a_circle_is_one_error_that_names_it():
    with pytest.raises(InvalidInput) as caught:
        Order.of({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}, "abcd")
    circle = caught.value.message.split(": ")[1].split(".")[0].split(" after ")
    assert circle[0] == circle[-1] and set(circle) == {"a", "b", "c"}
    assert all(other in {"a": "b", "b": "c", "c": "a"}[name] for name, other in zip(circle, circle[1:]))


@pytest.mark.parametrize("wrong", [{"app": "database"}, {"app": [7]}, {"app": None}])
def test_only_lists_of_names_are_an_order(wrong):
    with pytest.raises(InvalidInput, match="after: app: a list of components is expected"):
        after(wrong)


# --- random graphs against a model -----------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """{component: those before it}, without a circle: each comes after some of the earlier ones."""
    names = [f"c{number:02}" for number in range(draw(st.integers(2, MOST)))]
    return {name: draw(st.sets(st.sampled_from(names[:number]), max_size=4)) if number else set() for number, name in enumerate(names)}


class Recording(Course):
    """Writes nothing: only who is written when is of interest."""

    def _write(self, found):
        self.afters.update({action: {} for action in found})


def course(graph, kind=Recording):
    rtype = ResourceType("apps", "v1", "Deployment", "deployments", True)
    plan = Plan([Action(CREATE, Ref("apps", "Deployment", "ns", name), name, rtype, 3) for name in graph])
    return kind(None, plan, Order.of(graph, graph), "genai", False, lambda _line: None, lambda: None)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs(), data=st.data())
def test_every_edge_is_kept_and_nothing_waits_for_anything_else(graph, data):
    """The model: a component is written at the very moment at which all that it comes after are ready, in whatever order these get so."""
    run, written, ready = course(graph), set(), set()
    while len(ready) < len(graph):
        unready = [Ref("apps", "Deployment", "ns", name) for name in sorted(written - ready)]
        fresh = {action.component for action in run.go_on(unready)}
        assert fresh == {name for name, others in graph.items() if name not in written and others <= ready}
        written |= fresh
        getting = data.draw(st.sets(st.sampled_from(sorted(written - ready)), min_size=1))
        ready |= getting
    assert run.go_on([]) == [] and written == set(graph)
    run.finish({})


@settings(max_examples=50, deadline=None)
@given(graph=graphs())
def test_stages_keep_every_edge(graph):
    stage = {name: number for number, names in enumerate(Order.of(graph, graph).stages()) for name in names}
    assert all(stage[other] < stage[name] for name, others in graph.items() for other in others)
    assert sorted(stage) == sorted(graph)


def test_what_is_held_back_to_the_end_is_named_with_the_reason():
    run = course({"app": {"database"}, "database": set()})
    database = Ref("apps", "Deployment", "ns", "database")
    run.go_on([])
    with pytest.raises(Hopeless, match=r"^app: held back, because database did not get ready: Deployment ns/database: no image"):
        run.finish({database: "Deployment ns/database: no image"})


# --- whole releases --------------------------------------------------------------------------------------------------


class Living(FakeCluster):
    """Its Deployments get ready when they have been watched `looks` times since they were written, but for the `sick`. `log`: what is
    written and what gets ready, in order."""

    def __init__(self, looks=1, sick=()):
        super().__init__()
        self.looks, self.sick, self.log, self.seen = looks, set(sick), [], {}

    def _write(self, what):
        super()._write(what)
        if "ns/" in what:
            self.log.append(what.replace("Deployment ns/", "").replace("ConfigMap ns/", ""))

    def watch(self, path, selector, seconds):
        for obj_ in self.items(DEPLOYMENTS) if path.endswith("deployments") else ():
            self._look(Ref("apps", "Deployment", "ns", obj_["metadata"]["name"]), obj_["metadata"].get("generation", 1))
        yield from super().watch(path, selector, seconds)

    def _look(self, ref, generation):
        self.seen[ref, generation] = self.seen.get((ref, generation), 0) + 1
        if self.seen[ref, generation] == self.looks and ref.name not in self.sick:
            self.log.append(f"ready {ref.name}")
            status = {"updatedReplicas": 1, "replicas": 1, "availableReplicas": 1, "observedGeneration": 99}
            self.edit(ref, {"status": status}, "kube-controller-manager", "status")


def bundle(version="1", names=("database", "migration", "app")):
    found = {name: [workload(name, version), config(f"{name}-settings", version=version)] for name in names}
    return {"base": [obj("Namespace", "ns", None)], **found}


def workload(name, version):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": f"image:{version}"}]}}
    return {**obj("Deployment", name), "apiVersion": "apps/v1", "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}}


def positions(log, *lines):
    return [log.index(line) for line in lines]


def test_each_tier_is_written_when_the_one_before_is_ready():
    cluster = Living()
    result = deploy(cluster, bundle(), after=THREE)
    assert result["order"] == [["base", "database"], ["migration"], ["app"]]
    places = positions(cluster.log, "apply database", "ready database", "apply migration-settings", "apply migration", "ready migration", "apply app")
    assert places == sorted(places)
    assert state(cluster).current["after"] == {"app": ["migration"], "migration": ["database"]}


def test_an_update_waits_at_the_same_gates_and_a_rollback_too():
    cluster = Living()
    deploy(cluster, bundle(), after=THREE)
    for act in (lambda: deploy(cluster, bundle("2"), after=THREE), lambda: roll_back(cluster, "1")):
        cluster.log.clear()
        act()
        places = positions(cluster.log, "apply database", "apply migration", "apply app")
        assert places == sorted(places) and cluster.log.index("apply app-settings") > cluster.log.index("apply migration")


def test_nothing_of_a_component_is_written_when_the_one_before_does_not_get_ready():
    cluster = Living(sick=["migration"])
    with pytest.raises(ReleaseFailed, match="not ready after 1 s: Deployment ns/migration"):
        deploy(cluster, bundle(), after=THREE, wait_timeout=1)
    assert "apply migration" in cluster.log and "apply app" not in cluster.log and "apply app-settings" not in cluster.log
    assert not cluster.contents()


def test_what_comes_after_something_that_was_sick_before_is_held_back():
    cluster = Living()
    deploy(cluster, bundle(), after=THREE)
    status = {"updatedReplicas": 1, "replicas": 1, "availableReplicas": 0, "observedGeneration": 99}
    cluster.edit(Ref("apps", "Deployment", "ns", "database"), {"status": status}, "kube-controller-manager", "status")
    changed = {**bundle(), "app": bundle("2")["app"]}
    before = cluster.contents()
    with pytest.raises(ReleaseFailed, match="app, migration: held back, because database did not get ready: Deployment ns/database: 0 of 1"):
        deploy(cluster, changed, after=THREE, wait_timeout=1)
    assert cluster.contents() == before


def test_a_way_back_is_not_held_up_by_what_was_sick_before():
    cluster = Living()
    deploy(cluster, bundle(), after=THREE)
    deploy(cluster, {**bundle(), "app": bundle("2")["app"]}, after=THREE)
    status = {"updatedReplicas": 1, "replicas": 1, "availableReplicas": 0, "observedGeneration": 99}
    cluster.edit(Ref("apps", "Deployment", "ns", "database"), {"status": status}, "kube-controller-manager", "status")
    assert roll_back(cluster, "1", wait_timeout=1)["changed"]


def test_without_waiting_the_order_is_kept():
    cluster = Living(sick=["database", "migration", "app"])
    deploy(cluster, bundle(), after=THREE, wait=False)
    places = positions(cluster.log, "apply database", "apply migration", "apply app")
    assert places == sorted(places)


def test_removal_goes_backwards_and_waits_for_the_pods():
    cluster = Living()
    deploy(cluster, bundle(), after=THREE)
    cluster.log.clear()
    tear_down(cluster)
    places = positions(cluster.log, "delete app", "delete migration", "delete database")
    assert places == sorted(places)
    assert not cluster.contents()


def test_a_dropped_component_goes_before_what_it_came_after():
    cluster = Living()
    deploy(cluster, bundle(), after=THREE, max_deleted="100%")
    cluster.log.clear()
    deploy(cluster, bundle(names=()), max_deleted="100%")
    places = positions(cluster.log, "delete app", "delete migration", "delete database")
    assert places == sorted(places)


def test_a_component_that_is_left_out_of_a_run_holds_nobody_back():
    cluster = Living()
    deploy(cluster, bundle(), after=THREE)
    only = {"app": bundle("2")["app"]}
    assert deploy(cluster, only, after=THREE, complete=False)["changed"]
    assert state(cluster).current["after"] == {"app": ["migration"], "migration": ["database"]}


def test_a_circle_is_refused_before_anything_is_asked():
    cluster = FakeCluster()
    with pytest.raises(InvalidInput, match="components wait for each other"):
        releaser(cluster, after={"app": ["base"], "base": ["app"]}).deploy(bundle(names=("app",)))
    assert not cluster.writes
