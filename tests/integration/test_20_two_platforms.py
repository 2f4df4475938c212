# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two platforms and a stranger in one cluster, each with objects in namespaces of the others: no run of one touches what is not its own."""
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift
from bundles import Platform, obj
from cluster import kubectl, name_of, own
from live import Api, everything
from living import OUR_LABELS, by_hand, deployment, edit, nowhere, secret, settings, settled, space, there

Bundle = dict[str, list[dict]]


class World:
    """`actor`, whose runs are tried, `other`, and `street`: a stranger's Namespace. All three have objects in all namespaces."""

    def __init__(self, order: str) -> None:
        names = own(f"two-{order}")
        self.api, self.prefix = Api(), names
        self.actor, self.other, self.street = Platform(f"{names}-actor"), Platform(f"{names}-other"), f"{names}-street"
        # One namespace for both ledgers, which belongs to neither.
        self.ledger = self.actor.ledger_namespace = self.other.ledger_namespace = f"{names}-books"
        self.spaces = [self.actor.name, self.other.name, self.street]

    def bundle(self, platform: Platform, rate: str = "1") -> Bundle:
        """Objects of a platform in every namespace. Of the Namespaces it names its own, and the actor the stranger's too."""
        named = [platform.name, *([self.street] if platform is self.actor else [])]
        things = [make for where in self.spaces for make in (settings(where, platform.name, rate), secret(where, platform.name))]
        app = deployment(platform.name, replicas=0)
        return {"base": [space(name) for name in named], "app": [*things, app]}

    def stranger(self) -> None:
        for where in self.spaces:
            by_hand(settings(where, "stranger"), secret(where, "stranger"), deployment(where, "stranger", replicas=0))
        for where in self.spaces:
            settled(deployment(where, "stranger"))

    def arrange(self, order: str) -> None:
        by_hand(space(self.ledger), settings(self.ledger, "stranger"), obj("v1", "Namespace", self.street, metadata={"labels": {"team": "operations"}}))
        both = [self.actor, self.other] if order == "first" else [self.other, self.actor]
        for platform in both:  # what the one describes in a namespace of the other's comes when that is there
            platform.deploy({"base": self.bundle(platform)["base"]})
        for platform in both:
            platform.deploy(self.bundle(platform))
        self.stranger()

    def actors(self, body: dict) -> bool:
        """Whether an object is the actor's: by its labels, those of its ledger, or for being named in its bundle."""
        labels = body["metadata"].get("labels", {})
        named = {name_of(each) for manifests in self.bundle(self.actor).values() for each in manifests}
        return self.actor.name in (labels.get("genai.platform/platform"), labels.get("genai.platform/ledger")) or name_of(body) in named

    def others(self) -> dict[str, str]:
        """{object: uid and resourceVersion} of all that is not the actor's in the namespaces, and of the Namespaces themselves.

        Of the stranger's Namespace, which the actor takes over: its uid, and the labels that are not a platform's.
        """

        def inside(meta: dict) -> bool:
            return (meta.get("namespace") or meta["name"]).startswith(self.prefix)

        found = (body for body in everything(self.api) if inside(body["metadata"]) and not self.actors(body))
        versions = {f"{body['apiVersion']} {name_of(body)}": f"{body['metadata']['uid']} {body['metadata']['resourceVersion']}" for body in found}
        street = (there(space(self.street)) or {}).get("metadata", {})
        labels = {key: value for key, value in street.get("labels", {}).items() if key not in OUR_LABELS}
        return {**versions, f"v1 Namespace {self.street}": f"{street.get('uid')} {labels}"}

    def remove(self) -> None:
        kubectl("delete", "--ignore-not-found", "namespace", *self.spaces, self.ledger)


@pytest.fixture(params=["first", "second"])
def world(request):
    """`first`, `second`: when the actor came."""
    made = World(request.param)
    made.remove()
    made.arrange(request.param)
    yield made
    made.remove()


# --- every kind of run -----------------------------------------------------------------------------------------------


def deploy(world: World) -> None:
    assert world.actor.deploy(world.bundle(world.actor, "2"))["changed"]


def deploy_the_same(world: World) -> None:
    assert not world.actor.deploy(world.bundle(world.actor, "2"))["changed"]


def deploy_by_force(world: World) -> None:
    assert world.actor.deploy(world.bundle(world.actor, "3"), force=True)["changed"]


def name_what_the_other_has(world: World) -> None:
    """The other's Namespace and object, also with force."""
    for force in (False, True):
        bundle = world.bundle(world.actor)
        for named in (space(world.other.name), settings(world.actor.name, world.other.name)):
            with pytest.raises(InvalidInput, match=f"belongs to platform {world.other.name}"):
                world.actor.deploy({**bundle, "app": [*bundle["app"], named]}, force=force)


def fail(world: World) -> None:
    bundle = world.bundle(world.actor, "4")
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        world.actor.deploy({**bundle, "app": [*bundle["app"], nowhere(world.actor.name), nowhere(world.street)]})


def prune(world: World) -> None:
    bundle = world.bundle(world.actor, "3")
    assert world.actor.deploy({"base": bundle["base"], "app": bundle["app"][-1:]})["changed"]


def roll_back(world: World) -> None:
    assert world.actor.roll_back()["changed"]


def fix_drift(world: World) -> None:
    mine = settings(world.street, world.actor.name)
    edit(mine, {"data": {"rate": "by hand"}})
    assert drift(world.actor.releaser(), True, None, [])["fixed"] == 1


def prune_the_strangers_namespace(world: World) -> None:
    bundle = world.bundle(world.actor, "5")
    assert world.actor.deploy({"base": bundle["base"][:1], "app": bundle["app"]}, prune_protected=True)["changed"]


def tear_down(world: World) -> None:
    assert world.actor.tear_down()["changed"]


def tear_down_with_data(world: World) -> None:
    world.actor.deploy(world.bundle(world.actor))
    assert world.actor.tear_down(data=True)["changed"]


def come_and_be_forgotten(world: World) -> None:
    """A third platform, whose ledger is where the other's is."""
    guest = Platform(f"{world.prefix}-guest")
    guest.ledger_namespace = world.ledger
    guest.deploy({"app": [settings(where, guest.name) for where in world.spaces]})
    assert guest.tear_down(data=True, forget=True)["kept"] == []
    assert guest.releaser().ledger.load()[0].releases == []


RUNS: list[t.Callable[[World], None]] = [
    deploy, deploy_the_same, deploy_by_force, name_what_the_other_has, fail, prune, roll_back, fix_drift, prune_the_strangers_namespace, roll_back, tear_down,
    roll_back, tear_down_with_data, come_and_be_forgotten,
]


def test_no_run_of_one_touches_what_is_not_its_own(world, figure, request):
    """Red where a run looks at names or namespaces where it should look at who owns an object: then a Namespace goes with what is in it."""
    before = world.others()
    assert len(before) > 20, before
    for run in RUNS:
        run(world)
        after = world.others()
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert not changed, f"{run.__name__}: {sorted(changed)}"
    assert all(there(space(name)) for name in world.spaces), "each holds things of others"
    assert not world.other.deploy(world.bundle(world.other))["changed"] and world.other.drift() == []
    order = request.node.callspec.params["world"]
    figure(f"two platforms and a stranger, runs of the one that came {order}: objects of others changed / compared, runs", f"0 / {len(before)}, {len(RUNS)}")
