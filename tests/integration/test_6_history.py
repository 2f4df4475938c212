# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Going back is exact: whatever versions added, changed or removed, a rollback ends with the very objects of that time; and
the ledger that makes it possible does not grow with the number of releases."""
from __future__ import annotations

import base64
import dataclasses
import json
import random
import typing as t

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_COMPONENT, prepare
from bundles import Platform, obj, pod, workload
from cluster import kubectl, own
from live import Api, Looker, Snapshot

NS = own("history")
PLATFORM, EXTRA = Platform(NS), f"{NS}-extra"
GROUP = f"{NS}.example.com"
RBAC = "rbac.authorization.k8s.io"
FIRST, SECOND, THIRD = range(3)
MADE: list[Snapshot] = []  # what the cluster looked like after each of the releases, until a test needs an empty one
Bundle = dict[str, list[dict]]

KEEP = 10
MEBIBYTE = 1024 * 1024  # what a Secret may hold
RANDOM_BYTES = 350_000  # of each ConfigMap: with three of them a release does not fit into one Secret, however it is packed
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def clean():
    remove()
    yield
    remove()


@pytest.fixture
def empty(looker):
    """For a test with releases of its own."""
    remove()
    MADE.clear()
    looker.forget_kinds()  # the definitions of the test before are gone
    yield
    remove()


def remove() -> None:
    PLATFORM.remove()
    kubectl("delete", "customresourcedefinition", "--ignore-not-found", f"lamps.{GROUP}", f"bulbs.{GROUP}")


@pytest.fixture(scope="module")
def looker() -> Looker:
    return Looker(Api(), [NS, EXTRA], NS)


# --- three versions --------------------------------------------------------------------------------------------------


def definition(kind: str, **properties: dict) -> dict:
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{names['plural']}.{GROUP}", spec={
        "group": GROUP, "scope": "Namespaced", "names": names, "versions": versions,
    })


def lamp(name: str, **spec: str) -> dict:
    return obj(f"{GROUP}/v1", "Lamp", name, NS, spec=spec)


def base(version: int) -> list[dict]:
    """What has to be there before the rest: a schema that every version changes, and rights that come and go."""
    text = {"type": "string"}
    # The second version's default gets into every lamp without anybody having said it, and has to leave it again.
    more = ({}, {"watts": {"type": "integer", "default": 5}}, {"shape": text})[version]
    verbs = (["get"], ["get", "list"], ["watch", "get"])[version]
    names = (("api",), ("api", "job"), ("job",))[version]
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": NS} for name in names]
    accounts = [obj("v1", "ServiceAccount", name, NS, metadata={"annotations": {"version": str(version)}}) for name in names]
    labels = ({"tier": "a"}, {"tier": "b", "extra": "x"}, {})[version]
    role_ref = {"apiGroup": RBAC, "kind": "Role", "name": "reader"}
    return [
        definition("Lamp", colour=text, **more),
        obj("v1", "Namespace", NS, metadata={"labels": labels}),
        *accounts,
        obj(f"{RBAC}/v1", "Role", "reader", NS, rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]),
        obj(f"{RBAC}/v1", "RoleBinding", "reader", NS, roleRef=role_ref, subjects=subjects),
    ]


def data(version: int) -> list[dict]:
    """Data's own: the second version starts the pod, the third does without the Service."""
    secrets = ({"user": "one", "password": "one"}, {"password": "two"}, {"user": "three", "token": "x"})[version]
    template = pod("store", env=[{"name": "LEVEL", "value": str(version)}, *([{"name": "MORE", "value": "x"}] if version == SECOND else [])])
    service = obj("v1", "Service", "store", NS, spec={"clusterIP": "None", "selector": {"app": "store"}, "ports": [{"port": 80 + version}]})
    return [
        obj("v1", "Secret", "key", NS, stringData=secrets),
        workload("StatefulSet", "store", NS, template, replicas=(0, 1, 0)[version]),
        *([service] if version != THIRD else []),
    ]


def app(version: int) -> list[dict]:
    """The rest: an autoscaler that comes with the second version and takes over the replicas, and objects that come and go."""
    settings = ({"level": "info", "colour": "red"}, {"level": "debug", "size": "1"}, {"colour": "green"})[version]
    ports = ([80], [80, 81], [82])[version]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}
    scaler = obj("autoscaling/v2", "HorizontalPodAutoscaler", "api", NS, spec={
        "scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2 + version,
    })
    template = pod("api", resources={"limits": {"memory": f"{64 + version}Mi"}})
    passing = [obj("v1", "ConfigMap", "first-only", NS, data={"a": "b"}), obj("v1", "ConfigMap", "second-only", NS), lamp("third-only")][version]
    return [
        obj("v1", "ConfigMap", "settings", NS, data=settings),
        workload("Deployment", "api", NS, template, replicas=0, **({"minReadySeconds": 1} if version == THIRD else {})),
        *([scaler] if version != FIRST else []),
        obj("v1", "Service", "api", NS, spec={"selector": {"app": "api"}, "ports": [{"name": f"p{port}", "port": port} for port in ports]}),
        *([obj("v1", "Service", "side", NS, spec={"selector": {"app": "api"}, "ports": [{"port": 90}]})] if version == FIRST else []),
        # The third says what only the third schema knows.
        lamp("one", **({"colour": "red"}, {}, {"colour": "blue", "shape": "round"})[version]),
        passing,
    ]


def bundle(version: int) -> Bundle:
    found = {"base": base(version), "data": data(version), "app": app(version)}
    return {**found, "side": [obj("v1", "ConfigMap", "side", NS, data={"x": "y"})]} if version == SECOND else found


@pytest.fixture
def history(looker: Looker) -> list[Snapshot]:
    """What the cluster looked like after each release. It is in the third now; that going there works is the tests' own subject."""
    MADE[:] = MADE or [deployed(looker, version) for version in (FIRST, SECOND, THIRD)]
    roll_back("3")
    now = looker.look()
    assert now.differences(MADE[THIRD]) == []
    return [*MADE[:THIRD], now]  # objects of that time may have other uids by now


def roll_back(to: str, components: list[str] | None = None, **options: t.Any) -> dict:
    """The tests make more releases than a ledger keeps by default."""
    return PLATFORM.roll_back(to, components, **{"keep": 100, **options})


def deployed(looker: Looker, version: int) -> Snapshot:
    PLATFORM.deploy(bundle(version))
    looker.forget_kinds()
    return looker.look()


def ledger_versions() -> dict[str, str]:
    """{name: resourceVersion} of the ledger's Secrets."""
    secrets = json.loads(kubectl("get", "secrets", "-n", PLATFORM.ledger_namespace, "-o", "json"))["items"]
    return {secret["metadata"]["name"]: secret["metadata"]["resourceVersion"] for secret in secrets}


def part(snapshot: Snapshot, component: str, inside: bool) -> Snapshot:
    """A snapshot of one component's objects only, or of all the others; what nobody labelled is in neither."""
    owners = {name: found["metadata"].get("labels", {}).get(LABEL_COMPONENT) for name, found in snapshot.objects.items()}
    chosen = {name for name, owner in owners.items() if owner and (owner == component) is inside}
    return Snapshot({n: snapshot.objects[n] for n in chosen}, {n: snapshot.uids[n] for n in chosen})


# --- the ledger's size -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Size:
    """Of a ledger: how many Secrets, and the bytes of data in all of them and in the largest."""

    secrets: int
    total: int
    largest: int


def ledger_size(api: Api) -> Size:
    answer = api.need("GET", f"/api/v1/namespaces/{PLATFORM.ledger_namespace}/secrets")
    sizes = [sum(len(base64.b64decode(value)) for value in secret["data"].values()) for secret in answer["items"]]
    return Size(len(sizes), sum(sizes), max(sizes))


def heavy(number: int) -> Bundle:
    """A release of more than a megabyte of which nothing can be compressed away, and nothing is like the one before."""
    noise = random.Random(number)
    configs = [
        obj("v1", "ConfigMap", f"noise-{i}", NS, data={"noise": base64.b64encode(noise.randbytes(RANDOM_BYTES)).decode()}) for i in range(3)
    ]
    return {"base": [obj("v1", "Namespace", NS)], "noise": configs}


def described(release: dict) -> list[dict]:
    """What the ledger should hold of the noise of a release: the first release has number 1."""
    found = prepare({"noise": heavy(release["number"])["noise"]}, PLATFORM.name)
    return [item.body for ref, item in sorted(found.items())]


@pytest.mark.usefixtures("empty")
def test_the_ledger_does_not_grow_with_the_releases(looker, figure):
    api, sizes, snapshots = Api(), {}, {}
    for number in range(1, 51):
        assert PLATFORM.deploy(heavy(number), keep=KEEP, wait=False)["release"] == number
        if number in (30, 40, 50):
            sizes[number] = ledger_size(api)
        if number == 41:
            snapshots[number] = looker.look()
    assert sizes[30].secrets == sizes[40].secrets == sizes[50].secrets
    assert sizes[30].total == pytest.approx(sizes[50].total, rel=0.02) == sizes[40].total
    assert sizes[50].total > KEEP * 3 * RANDOM_BYTES, "or it is not the data that was measured"
    assert all(size.largest < MEBIBYTE for size in sizes.values())

    ledger = PLATFORM.releaser().ledger
    kept = ledger.load()[0].releases
    assert [release["number"] for release in kept] == list(range(41, 51))
    for release in kept:
        assert ledger.manifests("noise", release["components"]["noise"]) == described(release)
    PLATFORM.roll_back("41", keep=KEEP)
    assert looker.look().differences(snapshots[41]) == []
    assert ledger_size(api).secrets <= sizes[50].secrets
    end = sizes[50]
    figure(
        "ledger after 50 releases of 1 MB: Secrets, MB, largest Secret in KB",
        f"{end.secrets}, {end.total / 1e6:.2f}, {end.largest / 1e3:.0f}",
    )


# --- rollbacks -------------------------------------------------------------------------------------------------------


def test_back_to_the_first_of_three_is_exact(looker, history, figure):
    assert len(history[FIRST].differences(history[THIRD])) >= 12, "or there is nothing to be undone"
    result = roll_back("1")
    after = looker.look()
    differences = after.differences(history[FIRST])
    assert (result["changed"], result["release"], differences) == (True, result["previous"] + 1, [])
    assert after.born_again(history[FIRST]) == {
        f"ConfigMap {NS}/first-only", f"Service {NS}/side", f"Service {NS}/store", f"ServiceAccount {NS}/api",
    }
    assert not roll_back("1")["changed"] and not PLATFORM.deploy(bundle(FIRST))["changed"]
    figure("history, v1 v2 v3 v1 by rollback: objects different", len(differences))


def test_every_release_can_be_reached_from_every_other(looker, history):
    for target in (SECOND, THIRD, FIRST, THIRD, SECOND, FIRST):
        roll_back(str(target + 1))
        assert looker.look().differences(history[target]) == [], f"after the way to release {target + 1}"


def test_previous_goes_one_back_each_time(looker, history):
    roll_back("previous")
    assert looker.look().differences(history[SECOND]) == []
    roll_back("previous")
    assert looker.look().differences(history[FIRST]) == []
    with pytest.raises(InvalidInput, match="has no predecessor"):
        roll_back("previous")


@pytest.mark.parametrize("component", ["data", "app"])
def test_one_component_goes_back_alone(looker, history, component):
    result = roll_back("1", [component])
    after = looker.look()
    assert {change["component"] for change in result["changes"]} == {component}
    assert part(after, component, True).differences(part(history[FIRST], component, True)) == []
    assert part(after, component, False).differences(part(history[THIRD], component, False)) == []
    roll_back("3", [component])
    assert looker.look().differences(history[THIRD]) == []


@pytest.mark.parametrize("components", [None, ["app"]], ids=["whole", "one component"])
def test_a_preview_writes_nothing_and_says_what_the_rollback_does(looker, history, components):
    before = ledger_versions()
    preview = roll_back("1", components, check=True, diff=True)
    assert looker.look().differences(history[THIRD]) == [] and looker.look().born_again(history[THIRD]) == set()
    assert ledger_versions() == before
    done = roll_back("1", components)
    assert [what_and_which(c) for c in preview["changes"]] == [what_and_which(c) for c in done["changes"]] != []


def what_and_which(change: dict) -> tuple[str, str, str]:
    return change["action"], change["kind"], change["name"]


@pytest.mark.usefixtures("empty")
def test_a_definition_and_a_namespace_go_back_too_when_told_to(looker):
    """They take along what is in them, so a plain rollback leaves them."""
    first = deployed(looker, FIRST)
    more = [definition("Bulb"), obj("v1", "Namespace", EXTRA), obj("v1", "ConfigMap", "inside", EXTRA), obj(f"{GROUP}/v1", "Bulb", "one", NS)]
    PLATFORM.deploy({**bundle(FIRST), "more": more})
    kept = PLATFORM.roll_back("1")["kept"]
    assert sorted(kept) == [f"CustomResourceDefinition bulbs.{GROUP}", f"Namespace {EXTRA}"]
    PLATFORM.roll_back("2")
    PLATFORM.roll_back("1", prune_protected=True)
    kubectl("wait", "--for=delete", f"namespace/{EXTRA}", f"customresourcedefinition/bulbs.{GROUP}", "--timeout=240s")
    looker.forget_kinds()
    assert looker.look().differences(first) == []
