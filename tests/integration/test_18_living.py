# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A living cluster: others scale, delete, hold and own things while releases are made, and fields cannot always be set back."""
from __future__ import annotations

import json

import cluster
import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput, PlatformError, ReleaseFailed
from bundles import IMAGE, Platform, obj, pod, workload
from cluster import Audit, Replicas, kubectl, own
from live import until
from living import (
    API, HOLD, Members, autoscaler, by_hand, delete, deployment, hold, is_ours, let_go, members, newer, nowhere, older, release_once, replicas, scaled,
    secret, settings, space, there, uid, versions,
)

SHORT = 3  # seconds to wait for what will not happen


@pytest.fixture
def held():
    """A list of objects that a finalizer holds, to be let go when the test ends."""
    bodies: list[dict] = []
    yield bodies
    let_go(*bodies)


# --- fields that cannot be set back -----------------------------------------------------------------------------------


def test_a_configmap_that_became_immutable_is_set_back(living, figure):
    """Case 08. Red where the way back is an apply alone: the API server refuses it, and the platform is blocked."""
    platform = living("08")
    name = platform.name
    first, second = settings(name), settings(name, rate="2", immutable=True)
    platform.deploy({"app": [space(name), first]})
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        platform.deploy({"app": [space(name), second, nowhere(name)]})
    assert seen(first) == ("1", None)
    assert not platform.deploy({"app": [space(name), first]})["changed"], "what was restored is what was released"
    platform.deploy({"app": [space(name), second]})
    assert seen(first) == ("2", True)
    platform.roll_back()
    assert seen(first) == ("1", None)
    figure("case 08, a ConfigMap that became immutable: undone / rolled back", "yes / yes")


def seen(body: dict) -> tuple[str, bool | None]:
    live = there(body)
    assert live, "the ConfigMap is gone"
    return live["data"]["rate"], live.get("immutable")


def definition(group: str, *names: str) -> dict:
    """A CustomResourceDefinition that stores the last of these versions."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = [{"name": n, "served": True, "storage": n == names[-1], "schema": schema} for n in names]
    kind = {"kind": "Meter", "listKind": "MeterList", "plural": "meters", "singular": "meter"}
    spec = {"group": group, "scope": "Namespaced", "names": kind, "versions": served}
    return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"meters.{group}", spec=spec)


def test_a_definition_that_would_store_another_version_is_refused(living, figure):
    """Case 09. Red where the release begins: once an object may be stored in v1, the definition cannot go back to v1alpha1."""
    platform = living("09")
    name, group = platform.name, f"{platform.name}.example.com"
    old, new = definition(group, "v1alpha1"), definition(group, "v1alpha1", "v1")
    meter = obj(f"{group}/v1alpha1", "Meter", "one", name, spec={"unit": "kWh"})
    try:
        platform.deploy({"operator": [space(name), old, meter]})
        before, audit = versions([old, meter]), Audit()
        for check in (True, False):
            with pytest.raises(InvalidInput, match="cannot be undone") as caught:
                platform.deploy({"operator": [space(name), new, meter, nowhere(name)]}, check=check)
            assert f"CustomResourceDefinition meters.{group}" in caught.value.message
        assert audit.writes(name) == [] and versions([old, meter]) == before
        assert not platform.deploy({"operator": [space(name), old, meter]})["changed"], "the platform is not blocked"
    finally:
        kubectl("delete", "--ignore-not-found", "crd", f"meters.{group}")
    figure("case 09, a definition with another stored version: refused / written", "yes / 0")


def job(namespace: str, image: str = IMAGE) -> dict:
    template = pod("migrate", "true", image=image)
    template["spec"]["restartPolicy"] = "Never"
    return obj("batch/v1", "Job", "migrate", namespace, spec={"template": template})


def store(namespace: str, size: str = "1Mi") -> dict:
    """A StatefulSet with a claim template, and no member."""
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}
    return workload("StatefulSet", "store", namespace, pod("store"), replicas=0, volumeClaimTemplates=[claim])


IMMUTABLE = {
    "spec.template": lambda namespace: [job(namespace, "genai-platform/inference:1.0.1"), store(namespace)],
    "volumeClaimTemplates": lambda namespace: [job(namespace), store(namespace, "2Mi")],
}


@pytest.mark.parametrize("field", IMMUTABLE)
def test_a_field_that_cannot_be_changed_is_named_before_the_first_write(living, figure, field):
    """Case 45. Red where the message is the API server's own (a dump of a pod template, or what else may be changed), or where something is written first."""
    platform = living(f"45{field[0]}")
    name = platform.name
    bundle, changed = {"app": [space(name), job(name), store(name)]}, {"app": [space(name), *IMMUTABLE[field](name)]}
    platform.deploy(bundle)
    audit, said = Audit(), []
    for check in (True, False):
        with pytest.raises(PlatformError) as caught:
            platform.deploy(changed, check=check)
        said.append(caught.value.message)
    assert audit.writes(name) == []
    assert all(field in each and "hint" in each.lower() and len(each) < 600 for each in said), [each[:1000] for each in said]
    assert not platform.deploy(bundle)["changed"]
    figure(f"case 45, {field} changed: characters of the refusal / written", f"{max(map(len, said))} / 0")


# --- two versions of one API ------------------------------------------------------------------------------------------


def test_two_versions_of_one_kind_in_a_bundle(living, figure):
    """Case 11. Red where all objects of a kind are read in one version: what was applied in the other looks removed."""
    platform = living("11")
    name = platform.name
    bundle = {"app": [space(name), older(name, 35), newer(name)]}
    platform.deploy(bundle, references=False)
    again, found = platform.deploy(bundle, references=False)["changed"], platform.drift()
    assert (again, found) == (False, [])
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        platform.deploy({"app": [space(name), older(name, 55), newer(name), nowhere(name)]}, references=False)
    live = there(older(name, 35))
    assert live and live["spec"]["targetCPUUtilizationPercentage"] == 35
    assert not platform.deploy(bundle, references=False)["changed"], "the platform is not blocked"
    figure("case 11, autoscaling/v1 and v2 in one bundle: changed again / drift / restored", "no / 0 / yes")


# --- autoscalers ------------------------------------------------------------------------------------------------------


def test_the_replicas_of_a_foreign_autoscaler_stay(living, figure):
    """Case 12. Red where a number in the bundle is taken for more than the one that an autoscaler has set since."""
    platform = living("12")
    name = platform.name

    def bundle(*more: dict, **spec) -> dict:
        return {"app": [space(name), deployment(name, **spec), *more]}

    platform.deploy(bundle())
    by_hand(autoscaler(name, "somebodys", target="web"))
    scaled(deployment(name), 3)
    with Replicas(name, "web") as watched:
        again = platform.deploy(bundle())["changed"]
        platform.deploy(bundle(minReadySeconds=1))
        platform.deploy(bundle(minReadySeconds=2), force=True)
        with pytest.raises(ReleaseFailed, match="The state before is restored"):
            platform.deploy(bundle(nowhere(name), minReadySeconds=3))
    live = there(deployment(name))
    assert live and live["spec"]["minReadySeconds"] == 2, "what is not the autoscaler's was released, and restored"
    assert (again, watched.seen) == (False, [3])
    figure("case 12, an autoscaler that is not in the bundle: changed again / replicas seen", f"no / {watched.seen}")


def test_replicas_that_come_with_the_end_of_an_autoscaler_hold(living, figure):
    """Users, 10. Red where the autoscaler goes last: the release lasts longer than its period, so it sets all ten back to three."""
    platform = living("u10")
    name, names = platform.name, [f"web-{n}" for n in range(10)]
    slow = workload("Deployment", "slow", name, pod("slow", readinessProbe={"exec": {"command": ["true"]}, "initialDelaySeconds": 20}))
    left = [deployment(name, each) for each in names]
    for each in left:
        del each["spec"]["replicas"]
    platform.deploy({"app": [space(name), *left, *(autoscaler(name, each) for each in names)]})
    for each in names:
        scaled(deployment(name, each), 3)
    given = [deployment(name, each, replicas=2) for each in names]
    platform.deploy({"app": [space(name), slow, *given]})
    numbers = [replicas(each) for each in given]
    assert numbers == [2] * 10
    assert not platform.deploy({"app": [space(name), slow, *given]})["changed"]
    figure("users 10, replicas given as the autoscaler goes: right / tried", f"{numbers.count(2)} / {len(numbers)}")


# --- what is being deleted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["object", "namespace"])
def test_a_namespace_that_is_being_deleted_is_waited_for(living, held, figure, holder):
    """Case 13. Red where an object on its way out counts as there: the release changes nothing, and then everything is gone."""
    platform = living(f"13{holder[0]}")
    name = platform.name
    bundle = {"app": [space(name), settings(name), secret(name, "key")]}
    platform.deploy(bundle)
    held.append(settings(name) if holder == "object" else space(name))
    hold(held[0])
    before = uid(space(name))
    delete(space(name))
    with pytest.raises(PlatformError, match="being deleted"):  # its controller has not come to what is in it yet
        platform.deploy(bundle, wait_timeout=1)
    until("the Namespace is being deleted, and its controller says what is left", lambda: is_leaving(name, holder))
    pending = {each["pending"] for each in platform.deploy(bundle, check=True)["changes"]}
    audit = Audit()
    with pytest.raises(PlatformError) as caught:
        platform.deploy(bundle, wait_timeout=SHORT)
    said = caught.value.message
    assert "being deleted" in said and f"Namespace {name}" in said and HOLD in said, said
    assert not any(word in said.lower() for word in ("permi", "not allowed", "forbidden")), said
    assert audit.writes(name) == []
    assert pending and all("being deleted" in each for each in pending), pending
    result = release_once(platform, bundle, lambda: let_go(held[0]))
    assert result["changed"] and all(map(there, bundle["app"])) and uid(space(name)) != before
    assert not platform.deploy(bundle)["changed"]
    figure(f"case 13, a Namespace being deleted, held by a finalizer of its {holder}: written / made anew", "0 / yes")


def is_leaving(name: str, holder: str) -> bool:
    """Whether all has gone from the Namespace but what is held, and its status says so."""
    if there(space(name)) or there(secret(name, "key")):
        return False
    conditions = API.need("GET", f"/api/v1/namespaces/{name}")["status"].get("conditions", [])
    held = {each["type"] for each in conditions if each["status"] == "True" and HOLD in each.get("message", "")}
    return holder == "namespace" or "NamespaceFinalizersRemaining" in held


def test_an_object_that_comes_back_while_it_is_being_deleted(living, held, figure):
    """Case 14. Red where applying an object that is being deleted counts as success: it is gone a moment later."""
    platform = living("14")
    name = platform.name
    lock = settings(name, "held", metadata={"finalizers": [HOLD]})
    held.append(lock)
    full, less = {"app": [space(name), settings(name), lock]}, {"app": [space(name), settings(name)]}
    platform.deploy(full)
    platform.deploy(less)
    assert there(lock) is None, "it is on its way out"
    with pytest.raises(PlatformError, match=f"(?s)ConfigMap {name}/held.*being deleted.*{HOLD}"):
        platform.deploy(full, wait_timeout=SHORT)
    result = release_once(platform, full, lambda: let_go(lock))
    assert result["changed"] and there(lock)
    figure("case 14, an object that comes back while it is being deleted: there after the release", "yes")


# --- a forward rollout ------------------------------------------------------------------------------------------------

def test_a_forward_rollout_leaves_members_alone_that_are_not_ready_for_a_while(living, figure):
    """Case 40. Red where a pod of the old revision counts as stuck for being unready: two of three members are deleted at once."""
    platform = living("40")
    name = platform.name
    platform.deploy({"app": [space(name), *members(name, "one")]})
    audit = Audit()
    with Members(name, "member") as watched:
        platform.deploy({"app": [space(name), *members(name, "two")]})
    assert audit.ended_pods(name) == [] and watched.fewest >= 2
    assert len(watched.uids) == 6, "each of the three was replaced"
    figure("case 40, a rollout of three members that are unready for a while: deleted by us / fewest there", f"0 / {watched.fewest}")


# --- what belongs to others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["theirs", "ours with theirs in it", "ours"])
def test_forget_takes_the_ledgers_secrets_and_no_more(living, figure, whose):
    """Case 41. Red where the namespace goes as soon as no other platform's ledger is in it, or stays although nobody uses it."""
    platform = living(f"41{('theirs', 'ours with theirs in it', 'ours').index(whose)}")
    name, ledger = platform.name, platform.ledger_namespace
    foreign = settings(ledger, "theirs")
    if whose == "theirs":
        by_hand(space(ledger), foreign)
    platform.deploy({"app": [space(name), settings(name)]})
    if whose == "ours with theirs in it":
        by_hand(foreign)
    before = uid(space(ledger)), uid(foreign)
    preview = platform.tear_down(forget=True, check=True)
    assert (uid(space(ledger)), uid(foreign)) == before, "a preview changes nothing"
    platform.tear_down(forget=True)
    assert there(space(name)) is None
    assert (uid(space(ledger)), uid(foreign)) == (before if whose != "ours" else ("", ""))
    assert API.need("GET", f"/api/v1/namespaces/{ledger}/secrets")["items"] == []
    if whose != "ours":
        assert any(ledger in line for line in [*preview["kept"], *preview["ledger"]]), "the preview says that the ledger's namespace stays"
    figure(f"case 41, forget, the ledger's namespace {whose}: there / Secrets in it", f"{'no' if whose == 'ours' else 'yes'} / 0")


FOREIGN = {
    "Deployment": lambda namespace: deployment(namespace, "theirs", replicas=0),
    "Secret": lambda namespace: secret(namespace, "theirs"),
    "ConfigMap": lambda namespace: settings(namespace, "theirs"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_undo_of_a_first_release_keeps_a_namespace_that_others_use(living, figure, kind):
    """Case 42. Red where the undo looks for claims alone: the Namespace is deleted, and the other team's object with it."""
    platform = living(f"42{kind[0].lower()}")
    name = platform.name
    foreign = FOREIGN[kind](name)

    def meanwhile(line: str) -> None:
        if "applying" in line and "Deployment" in line:
            by_hand(foreign)

    with pytest.raises(ReleaseFailed, match="The state before is restored") as caught:
        platform.deploy({"app": [space(name), settings(name), nowhere(name)]}, progress=meanwhile)
    assert there(space(name)) and there(foreign), "the other team's work is there"
    kept = caught.value.facts["restored"]["kept"]
    assert any(line.startswith(f"Namespace {name}") for line in kept), kept
    assert there(settings(name)) is None and there(nowhere(name)) is None and not is_ours(space(name))
    assert platform.deploy({"app": [settings(name)]})["changed"], "the platform is not blocked"
    figure(f"case 42, undo of a first release, {kind} of others in its Namespace: kept", "yes")


def test_a_namespace_of_ours_with_things_of_others_outlives_teardown(living, figure):
    """Users, 6. Red where a Secret or ConfigMap does not count as use: what was put there for the platform goes with it."""
    platform = living("u6")
    spaces = {kind: f"{platform.name}-{kind.lower()}" for kind in ("Secret", "ConfigMap")}
    foreign = [FOREIGN[kind](namespace) for kind, namespace in spaces.items()]
    platform.deploy({"app": [item for namespace in spaces.values() for item in (space(namespace), settings(namespace))]})
    by_hand(*foreign)
    before = versions(foreign)
    preview = platform.tear_down(check=True)
    result = platform.tear_down()
    assert preview["kept"] == result["kept"]
    for kind, namespace in spaces.items():
        said = [line for line in result["kept"] if line.startswith(f"Namespace {namespace}")]
        assert len(said) == 1 and f"{kind} {namespace}/theirs" in said[0], result["kept"]
        assert there(settings(namespace)) is None, "what is ours went"
    assert versions(foreign) == before
    for body in foreign:
        delete(body)
    assert platform.tear_down(data=True)["kept"] == []
    assert not any(there(space(namespace)) for namespace in spaces.values())
    figure("users 6, teardown, Secret and ConfigMap of others in namespaces of ours: kept and named", "2 of 2")


@pytest.mark.parametrize("force", [False, True])
def test_what_belongs_to_another_platform_is_refused(living, figure, force):
    """Users, 3. Red where a second platform takes an object over by naming it: its teardown deletes it."""
    first, second = living(f"3a{int(force)}"), living(f"3b{int(force)}")
    owned = [space(first.name), settings(first.name)]
    first.deploy({"app": owned})
    before, audit = versions(owned), Audit()
    for named in owned:
        for check in (True, False):
            with pytest.raises(InvalidInput, match=f"belongs to platform {first.name}") as caught:
                second.deploy({"app": [space(second.name), named]}, force=force, check=check)
            assert cluster.name_of(named) in caught.value.message
    assert audit.writes(second.name) == [] and versions(owned) == before
    assert not first.deploy({"app": owned})["changed"]
    figure(f"users 3, objects of another platform named{' with force' if force else ''}: refused / written", f"{2 * len(owned)} of {2 * len(owned)} / 0")


def test_what_was_there_before_is_previewed_as_taken_over(living, figure):
    """Users, 3. Red where an object that nobody owns is shown as created, or is taken over without a word."""
    platform = living("3v")
    name = f"{platform.name}-theirs"
    theirs = [space(name), settings(name)]
    by_hand(*theirs)
    before, bundle = versions(theirs), {"app": [*theirs, settings(name, "ours")]}
    preview = platform.deploy(bundle, check=True)
    assert versions(theirs) == before
    assert {change["action"] for change in preview["changes"] if change["name"] in (name, "settings")} == {"update"}
    assert all(any(line.startswith(cluster.name_of(body)) for line in preview["taken_over"]) for body in theirs), preview["taken_over"]
    assert len(preview["taken_over"]) == len(theirs)
    assert platform.deploy(bundle)["taken_over"] == preview["taken_over"]
    assert platform.deploy(bundle, check=True)["taken_over"] == [], "the second time it is ours"
    figure("users 3, a Namespace and a ConfigMap of nobody: previewed as taken over", f"{len(theirs)} of {len(theirs)}")


WAYS = {
    "a release that fails": lambda platform, bundle: _failing(platform, bundle),
    "prune": lambda platform, bundle: platform.deploy({"app": bundle["app"][2:]}, prune_protected=True),
    "teardown": lambda platform, _bundle: platform.tear_down(),
    "teardown with data": lambda platform, _bundle: platform.tear_down(data=True),
}


def _failing(platform: Platform, bundle: dict[str, list[dict]]) -> None:
    """Takes a second ConfigMap over, fails, and so gives it back; what was taken over before stays ours."""
    name = bundle["app"][0]["metadata"]["name"]
    extra = settings(name, "more")
    by_hand(extra)
    before = uid(extra)
    with pytest.raises(ReleaseFailed, match="The state before is restored"):
        platform.deploy({"app": [*bundle["app"], extra, nowhere(name)]})
    assert uid(extra) == before and not is_ours(extra)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_there_before_is_never_deleted(living, figure, way):
    """Users, 3. Red where whatever carries our label is ours to delete."""
    platform = living(f"3w{[*WAYS].index(way)}")
    name = f"{platform.name}-theirs"
    theirs = [space(name), settings(name)]
    by_hand(*theirs)
    before, bundle = [uid(body) for body in theirs], {"app": [*theirs, settings(name, "ours")]}
    platform.deploy(bundle)
    assert all(map(is_ours, theirs))
    WAYS[way](platform, bundle)
    assert [uid(body) for body in theirs] == before
    still_ours = way == "a release that fails"
    assert [is_ours(body) for body in theirs] == [still_ours] * len(theirs)
    assert bool(there(settings(name, "ours"))) == (not way.startswith("teardown"))
    figure(f"users 3, a Namespace and a ConfigMap of nobody taken over, then {way}: deleted", "0 of 2")


# --- the ledger, rights, and how much may go --------------------------------------------------------------------------


def test_failures_do_not_push_good_releases_out_of_the_ledger(living, figure):
    """Case 43. Red where the newest releases are kept whatever became of them; and where all of them are."""
    platform, keep, failures = living("43"), 3, 12
    name = platform.name
    broken = workload("Deployment", "broken", name, pod("broken", image="genai-platform/nowhere:1"))
    platform.deploy({"app": [space(name), settings(name)]}, keep=keep)
    platform.deploy({"app": [space(name), settings(name, rate="2")]}, keep=keep)
    for _ in range(failures):
        with pytest.raises(ReleaseFailed):
            platform.deploy({"app": [space(name), settings(name, rate="3"), broken]}, keep=keep, wait_timeout=1)
    kept = platform.releaser().ledger.load()[0].releases
    platform.roll_back(keep=keep)
    live = there(settings(name))
    assert live and live["data"]["rate"] == "1"
    assert len(kept) <= 2 * keep
    figure("case 43, two good releases, then 12 that failed: rolled back / releases kept", f"yes / {len(kept)}")


def test_an_admin_of_two_namespaces_is_enough(living, figure):
    """Case 46. Red where objects are looked for in all namespaces: the team may not, and should not, list every Secret."""
    platform, team = living("46"), own("living-46-team")
    name, ledger, rbac = platform.name, platform.ledger_namespace, "rbac.authorization.k8s.io"
    admin = {"apiGroup": rbac, "kind": "ClusterRole", "name": "admin"}
    subjects = [{"apiGroup": rbac, "kind": "User", "name": team}]
    for namespace in (name, ledger):
        by_hand(space(namespace), obj(f"{rbac}/v1", "RoleBinding", "team", namespace, roleRef=admin, subjects=subjects))
    platform.connection["impersonate_user"] = team
    bundle, audit = {"app": [settings(name, "one"), settings(name, "two"), secret(name, "key")]}, Audit()
    preview = platform.deploy(bundle, check=True)
    assert len(preview["changes"]) == 3 and not any(map(there, bundle["app"]))
    assert platform.deploy(bundle)["changed"] and all(map(there, bundle["app"]))
    assert not platform.deploy(bundle)["changed"] and platform.drift() == []
    platform.tear_down()
    assert not any(map(there, bundle["app"]))
    asked = [r["requestURI"] for r in audit.requests() if r.get("impersonatedUser", {}).get("username") == team]
    everywhere = [uri for uri in asked if uri.startswith(("/api/v1/secrets", "/api/v1/configmaps"))]
    assert asked and everywhere == []
    figure("case 46, an admin of two namespaces: released / cluster-wide lists / requests", f"yes / 0 / {len(asked)}")


def test_a_release_that_would_delete_too_much_is_refused(living, figure):
    """Red where a bundle that lost most of its objects is taken at its word."""
    platform = living("most")
    name = platform.name
    everything = [space(name), *(settings(name, f"settings-{n}") for n in range(8))]
    platform.deploy({"app": everything})
    audit = Audit()
    for check in (True, False):
        with pytest.raises(InvalidInput, match="max_deleted") as caught:
            platform.deploy({"app": everything[:2]}, max_deleted="25%", check=check)
        assert len(caught.value.facts["would_delete"]) == 7
    assert audit.writes(name) == [] and all(map(there, everything))
    platform.deploy({"app": everything[:2]}, max_deleted="100%")
    assert [bool(there(body)) for body in everything] == [True, True, *[False] * 7]
    figure("7 of 9 objects would be deleted, a quarter may: refused / deleted", "yes / 0")


# --- nodes ------------------------------------------------------------------------------------------------------------

PRODUCT, POOL = "nvidia.com/gpu.product", "living"
POOLS = [{
    "name": POOL, "match": {"products": ["LIVING-29"]}, "labels": {POOL: "inference"}, "taints": [{"key": POOL, "effect": "PreferNoSchedule"}],
}]  # fmt: skip
WORKERS = [f"{cluster.NAME}-worker", f"{cluster.NAME}-worker2"]


def gpu_nodes(folder, **options) -> cluster.Run:
    task = {"genai.platform.gpu_nodes": {"kubeconfig": "{{ common_kubeconfig }}", **options}}
    (folder / "nodes.yml").write_text(json.dumps([{"hosts": "platforms", "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
    return cluster.play(str(folder / "nodes.yml"))


def marks() -> list[tuple[dict, list]]:
    """(labels, taints) of the workers; the controllers' own taints aside."""
    found = [API.need("GET", f"/api/v1/nodes/{name}") for name in WORKERS]
    return [(node["metadata"]["labels"], [t for t in node["spec"].get("taints", []) if not t["key"].startswith("node.kubernetes.io/")]) for node in found]


def test_a_pool_that_loses_all_its_nodes_at_once_keeps_them(tmp_path, figure):
    """Case 29. Red where labels that feature discovery takes off for a moment are taken for nodes that left: other pods move in."""
    before = marks()
    try:
        kubectl("label", "nodes", *WORKERS, "--overwrite", f"{PRODUCT}=LIVING-29")
        assert gpu_nodes(tmp_path, pools=POOLS).code == 0
        pooled = marks()
        assert all(labels.get(POOL) == "inference" and POOL in [t["key"] for t in taints] for labels, taints in pooled)
        kubectl("label", "nodes", *WORKERS, f"{PRODUCT}-")
        away = gpu_nodes(tmp_path, pools=POOLS)
        bare = [({k: v for k, v in labels.items() if k != PRODUCT}, taints) for labels, taints in pooled]
        assert marks() == bare, away.output
        assert POOL in away.output and (away.code != 0 or "WARNING" in away.output), away.output
        kubectl("label", "nodes", *WORKERS, f"{PRODUCT}=LIVING-29")
        back = gpu_nodes(tmp_path, pools=POOLS)
        assert (back.code, back.changed) == (0, 0), back.output
    finally:
        kubectl("label", "nodes", *WORKERS, f"{PRODUCT}-")
        assert gpu_nodes(tmp_path, state="absent", max_changed="100%").code == 0
    assert marks() == before
    figure("case 29, both nodes of a pool lose the label it goes by: taken off / left at the end", "0 / 0")
