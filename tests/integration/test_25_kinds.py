# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random objects of every built-in kind: what a release stores of a file is what `kubectl apply --server-side` of that file stores."""
from __future__ import annotations

import collections
import concurrent.futures
import json
import pathlib
import subprocess
import typing as t

import pytest
import yaml
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import Cluster
from bundles import Platform, obj
from cluster import CACHE, KUBECONFIG, name_of, own
from live import Api, Kind, normalised, until
from living import OUR_LABELS
from schemas import Schemas
from valid import Place, accepted, named, path

API = Api()
NAME = own("kinds")
# Objects of each kind at most and at least, and how many are drawn for them; objects of all kinds at least.
EACH, FEW, DRAWN, ALL = 6, 3, 12, 300

# {kind: {field, at any depth: why it is another one each time}}: it is not in the manifest
ALLOCATED = {
    "Service": dict.fromkeys(("clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort"), "the API server takes the next free one"),
    "HorizontalPodAutoscaler": {"autoscaling.alpha.kubernetes.io/conditions": "version 1 shows its status as an annotation"},
    "ServiceCIDR": {"finalizers": "a controller adds its own"},
}

# Kinds whose objects get the labels of their pods from the server when they have none. Those of a release have some: its own.
LABELLED = ("Job", "ReplicationController")

FILE = "random.yaml"
ABSENT = ...  # which is not null
AS_IT_IS: dict[str, t.Any] = {"wait": False, "references": False}  # random objects name what is nowhere, and are not ready

Manifests = t.List[t.Tuple[Kind, dict]]


@pytest.fixture(scope="module")
def place() -> t.Iterator[Place]:
    """Two namespaces of the test's own, for as long as it runs."""
    platform = Platform(NAME)
    platform.remove()
    spaces = [API.need("PATCH", f"/api/v1/namespaces/{NAME}-{name}", obj("v1", "Namespace", f"{NAME}-{name}")) for name in ("all", "quotas")]
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": f"{NAME}-all", "uid": spaces[0]["metadata"]["uid"]}
    yield Place(*(space["metadata"]["name"] for space in spaces), owner)
    platform.remove(wait=False)


@pytest.fixture(scope="module")
def drawn(place: Place) -> t.Iterator[Manifests]:
    """(kind, manifest) of all that was drawn; nothing of it is there, before and after."""
    schemas = Schemas(API)
    found = [(kind, named(each, kind, number, place)) for kind in schemas.kinds for number, each in enumerate(schemas.drawn(kind, DRAWN))]
    remove(found)
    yield found
    remove(found, wait=False)


@pytest.fixture(scope="module")
def valid(drawn: Manifests) -> Manifests:
    """What the API server accepts of what was drawn."""
    return [(kind, body) for (kind, _drawn), body in zip(drawn, everywhere(lambda item: accepted(API, *item), drawn)) if body]


@pytest.fixture(scope="module")
def manifests(drawn: Manifests, valid: Manifests) -> Manifests:
    """The first few of each kind."""
    by_kind: dict[Kind, Manifests] = {kind: [] for kind, _body in drawn}
    for item in valid:
        by_kind[item[0]].append(item)
    few = {kind.kind: len(found) for kind, found in by_kind.items() if len(found) < FEW}
    assert not few, f"too few of these are valid: {few}"
    return [item for found in by_kind.values() for item in found[:EACH]]


def test_what_is_stored_is_what_kubectl_stores(drawn, valid, manifests, tmp_path, figure):
    platform = Platform(NAME)
    assert len(manifests) >= ALL
    told = by_both(manifests, tmp_path, platform)
    assert not told, "\n".join(told)
    again = platform.deploy(read(tmp_path / FILE), **AS_IT_IS)
    assert not again["changed"], again["summary_lines"]
    kinds = {kind for kind, _body in manifests}
    fields, unlike, nulls = count(manifests)
    figure("kinds: random objects", f"{len(manifests)} of {len(kinds)} kinds; {len(drawn)} drawn, {len(valid)} of them valid")
    figure("kinds: their fields", f"{fields:.1f} set per object, {unlike} different ones, {nulls} nulls")
    figure("kinds: stored as kubectl stores them", f"{len(manifests)} of {len(manifests)}, and a second release writes nothing")


def test_a_wrong_engine_is_noticed(manifests, tmp_path, monkeypatch):
    """One that loses a field of some objects."""
    some = [(kind, body) for kind, body in manifests if kind.kind == "ConfigMap"]
    lost = [f"v1 {name_of(body)}.data: kubectl stores" for _kind, body in some if body.get("data")]
    real = Cluster.apply

    def lossy(self: Cluster, rtype: t.Any, body: dict, *args: t.Any, **how: t.Any) -> dict:
        return real(self, rtype, without(body, ["data"]) if body["kind"] == "ConfigMap" else body, *args, **how)

    monkeypatch.setattr(Cluster, "apply", lossy)
    told = by_both(some, tmp_path, Platform(f"{NAME}-wrong"))
    assert lost and [line.partition(" {")[0] for line in told] == lost


def by_both(manifests: Manifests, folder: pathlib.Path, platform: Platform) -> list[str]:
    """Where what a release stores differs from what kubectl stores of the same file. What the release stores stays."""
    write(folder / FILE, [body for _kind, body in manifests])
    remove(manifests)
    kubectl_apply(folder / FILE)
    wanted = stored(manifests)
    remove(manifests)
    platform.deploy(read(folder / FILE), **AS_IT_IS)
    found = stored(manifests)
    return [line for name, one in wanted.items() for line in different(one, found[name], name)]


# --- the file --------------------------------------------------------------------------------------------------------


class Quoted(yaml.CSafeDumper):
    """Text in quotes: no reader of YAML takes it for anything else."""


Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def write(file: pathlib.Path, bodies: list[dict]) -> None:
    file.write_text(yaml.dump_all(bodies, Dumper=Quoted, sort_keys=False), encoding="utf-8")


def read(file: pathlib.Path) -> dict[str, list[dict]]:
    """The bundle: a component per API group."""
    bundle: dict[str, list[dict]] = collections.defaultdict(list)
    for body in yaml.load_all(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader):  # a safe loader
        group = body["apiVersion"].rpartition("/")[0] or "core"
        bundle[group.replace(".", "_").replace("-", "_")].append(body)
    return dict(bundle)


def kubectl_apply(file: pathlib.Path) -> None:
    command = [CACHE / "bin" / "kubectl", f"--kubeconfig={KUBECONFIG}", "apply", "--server-side", "--field-manager=kubectl", f"--filename={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


# --- what is there ---------------------------------------------------------------------------------------------------


def everywhere(function: t.Callable, items: t.Iterable) -> list:
    """What the function returns for each item, many at a time."""
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        return [*executor.map(function, items)]


def stored(manifests: Manifests) -> dict[str, dict]:
    """{object: what is stored of it} without what the server keeps for itself or chooses, and without a platform's labels."""
    found = everywhere(lambda item: API.need("GET", path(*item)), manifests)
    return {f"{body['apiVersion']} {name_of(body)}": comparable(live, body) for (_kind, body), live in zip(manifests, found)}


def comparable(live: dict, manifest: dict) -> dict:
    """What of a live object has to be the same whoever applied the manifest."""
    own_uid = live["metadata"]["uid"]
    body = json.loads(json.dumps(normalised(live)).replace(own_uid, "its own uid"))  # in a Job's labels
    body = without(body, ALLOCATED.get(body["kind"], {}))
    given = body["kind"] not in LABELLED or manifest["metadata"].get("labels")
    labels = {key: value for key, value in body["metadata"].pop("labels", {}).items() if given and key not in OUR_LABELS}
    return {**body, "metadata": {key: value for key, value in {**body["metadata"], "labels": labels}.items() if value}}


def without(value: t.Any, fields: t.Collection[str]) -> t.Any:
    """A copy without these fields at any depth."""
    if isinstance(value, dict):
        return {key: without(sub, fields) for key, sub in value.items() if key not in fields}
    return [without(sub, fields) for sub in value] if isinstance(value, list) else value


def different(wanted: t.Any, found: t.Any, at: str) -> t.Iterator[str]:
    """A line for each place at which two objects differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted({*wanted, *found}):
            yield from different(wanted.get(key, ABSENT), found.get(key, ABSENT), f"{at}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found)):
            yield from different(one, other, f"{at}[{index}]")
    elif wanted != found or type(wanted) is not type(found):
        yield f"{at}: kubectl stores {wanted!r}, the release {found!r}"


def remove(manifests: Manifests, wait: bool = True) -> None:
    """Deletes what is there of them. `wait`: until it is gone."""
    answers = everywhere(lambda item: API.request("DELETE", path(*item), {"propagationPolicy": "Background"})[0], manifests)
    for item in [item for item, status in zip(manifests, answers) if wait and status != 404]:
        until(f"{name_of(item[1])} is gone", lambda item=item: API.request("GET", path(*item))[0] == 404, 120)


# --- figures ---------------------------------------------------------------------------------------------------------


def count(manifests: Manifests) -> tuple[float, int, int]:
    """(fields set per object, different fields of all kinds, nulls)."""
    fields = [[*leaves(body, kind.kind)] for kind, body in manifests]
    nulls = sum(json.dumps(body).count(": null") for _kind, body in manifests)
    return sum(map(len, fields)) / len(fields), len({each for found in fields for each in found}), nulls


def leaves(value: t.Any, at: str) -> t.Iterator[str]:
    """The fields that are set, without the numbers of list items."""
    if isinstance(value, dict) and value:
        for key, sub in value.items():
            yield from leaves(sub, f"{at}.{key}")
    elif isinstance(value, list) and value:
        for sub in value:
            yield from leaves(sub, at)
    else:
        yield at
