# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's API without the code under test: plain requests, and what is there in a form that can be compared."""
from __future__ import annotations

import base64
import concurrent.futures
import copy
import dataclasses
import itertools
import json
import pathlib
import ssl
import tempfile
import time
import typing as t
import urllib.parse

import cluster
import urllib3
import yaml

# Written by the API server for itself. `generation` counts changes of a spec, and going back is one more change.
SERVERS_OWN = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields")
# Kept by the Deployment controller: it counts rollouts, and going back is one more.
REVISION = "deployment.kubernetes.io/revision"


class Api:
    """Requests with the kubeconfig's client certificate. Thread-safe."""

    def __init__(self, connections: int = 100) -> None:
        config = yaml.safe_load(cluster.KUBECONFIG.read_text(encoding="utf-8"))
        server = urllib.parse.urlsplit(config["clusters"][0]["cluster"]["server"])
        context = _tls(config["clusters"][0]["cluster"], config["users"][0]["user"])
        self.pool = urllib3.HTTPSConnectionPool(str(server.hostname), server.port, maxsize=connections, ssl_context=context)

    def request(self, method: str, path: str, body: t.Any = None, content_type: str = "application/json", **query: str) -> tuple[int, t.Any]:
        """(HTTP status, decoded answer)."""
        url = path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        while True:
            answer = self.pool.request(method, url, body=data, headers={"Content-Type": content_type}, retries=False, timeout=60)
            if answer.status != 429:
                # A path that is not served at all is answered in plain text.
                is_json = answer.headers.get("content-type", "").startswith("application/json")
                return answer.status, json.loads(answer.data or b"{}") if is_json else {}
            time.sleep(0.05)  # a definition has just changed, and its resources are not served yet

    def apply(self, path: str, body: dict, **query: str) -> tuple[int, t.Any]:
        """Server-side apply as a manager that is nobody of the test."""
        query = {"fieldManager": "arrangement", "force": "true", **query}
        return self.request("PATCH", path, body, "application/apply-patch+yaml", **query)

    def need(self, method: str, path: str, body: t.Any = None, **query: str) -> t.Any:
        """The answer to a request that has to work."""
        if method == "PATCH":
            status, answer = self.apply(path, body, **query)
        else:
            status, answer = self.request(method, path, body, **query)
        assert status < 300, f"{method} {path}: {answer.get('message')}"
        return answer


def _tls(server: dict, user: dict) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
    with tempfile.TemporaryDirectory() as folder:  # ssl reads a client's certificate from files only
        files = [pathlib.Path(folder, name) for name in ("crt", "key")]
        for file, name in zip(files, ("client-certificate-data", "client-key-data")):
            file.write_bytes(base64.b64decode(user[name]))
        context.load_cert_chain(*map(str, files))
    return context


@dataclasses.dataclass(frozen=True)
class Kind:
    """Where a kind is listed."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool

    @property
    def base(self) -> str:
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        where = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{self.base}{where}/{self.plural}" + (f"/{name}" if name else "")


def kinds(api: Api) -> list[Kind]:
    """Every kind that can be listed, each in the server's preferred version, but those a cluster derives from others."""
    groups = api.need("GET", "/apis")["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    found = []
    for version in versions:
        for entry in api.need("GET", f"/apis/{version}" if "/" in version else f"/api/{version}")["resources"]:
            group = version.rpartition("/")[0]
            name = f"{entry['name']}.{group}" if group else entry["name"]
            if "list" in entry["verbs"] and "/" not in entry["name"] and name not in cluster.DERIVED:
                found.append(Kind(entry["kind"], version, entry["name"], entry["namespaced"]))
    return found


def listed(api: Api, kind: Kind) -> list[dict]:
    """The objects of a kind, with apiVersion and kind filled in (lists leave them out)."""
    status, answer = api.request("GET", kind.path())
    assert status in (200, 404), answer  # 404: somebody's definition has just gone
    return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in answer.get("items") or []]


def everything(api: Api) -> list[dict]:
    """Every object of the cluster but what it derives itself."""
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        return list(itertools.chain.from_iterable(executor.map(lambda kind: listed(api, kind), kinds(api))))


@dataclasses.dataclass
class Snapshot:
    """{`Kind namespace/name`: the object as it can be compared}; its uid; and who owns which of its fields."""

    objects: dict[str, dict]
    uids: dict[str, str]
    owners: dict[str, dict[str, list[str]]] = dataclasses.field(default_factory=dict)

    def differences(self, other: Snapshot) -> list[str]:
        """Names of the objects that are not the same in both; a uid that changed is no difference here."""
        names = sorted({*self.objects, *other.objects})
        born_again = self.born_again(other)
        return [n for n in names if _comparable(self.objects.get(n), n in born_again) != _comparable(other.objects.get(n), n in born_again)]

    def owned_otherwise(self, other: Snapshot) -> list[str]:
        """Names of the objects in both whose fields do not belong to the same managers in both."""
        return [name for name in sorted({*self.owners} & {*other.owners}) if self.owners[name] != other.owners[name]]

    def born_again(self, other: Snapshot) -> set[str]:
        """Names of objects that are in both, but were deleted and created in between."""
        return {name for name in {*self.uids} & {*other.uids} if self.uids[name] != other.uids[name]}


def owners(obj: dict) -> dict[str, list[str]]:
    """{manager: what it owns}, the status aside. How it came to own it (apply or update) does not matter."""
    found: dict[str, list[str]] = {}
    for entry in obj["metadata"].get("managedFields") or []:
        if entry.get("subresource") != "status":
            # `.` stands for a container that was made by an update; an apply owns it without saying so.
            fields = json.dumps(entry.get("fieldsV1"), sort_keys=True).replace('".": {}, ', "")
            found.setdefault(entry["manager"], []).append(fields)
    return {manager: sorted(fields) for manager, fields in found.items()}


def _comparable(obj: dict | None, born_again: bool) -> dict | None:
    """Where a Service had to be created again, its address is the API server's new choice: nobody applied the old one."""
    if obj is None or not born_again or obj["kind"] != "Service":
        return obj
    return {**obj, "spec": {key: value for key, value in obj["spec"].items() if key not in ("clusterIP", "clusterIPs")}}


def normalised(obj: dict) -> dict:
    obj = copy.deepcopy(obj)
    obj.pop("status", None)
    for field in SERVERS_OWN:
        obj["metadata"].pop(field, None)
    obj["metadata"].get("annotations", {}).pop(REVISION, None)
    return obj


class Looker:
    """Takes snapshots of some namespaces and of the cluster-scoped objects that a prefix names."""

    def __init__(self, api: Api, namespaces: t.Collection[str], prefix: str) -> None:
        self._api, self._namespaces, self._prefix = api, namespaces, prefix
        self._kinds: list[Kind] = []
        self._held: list[Kind] = []
        self._executor = concurrent.futures.ThreadPoolExecutor(4)

    def look(self, everywhere: bool = True) -> Snapshot:
        """`everywhere`: at every kind the server has; else only at those of which the last look everywhere found something."""
        if everywhere:
            self._kinds = self._held = self._kinds or kinds(self._api)
        found = list(zip(self._held, self._executor.map(self._mine, self._held)))
        self._held = [kind for kind, some in found if some] if everywhere else self._held
        mine = {cluster.name_of(o): o for _kind, some in found for o in some}
        return Snapshot(
            {n: normalised(o) for n, o in mine.items()}, {n: o["metadata"]["uid"] for n, o in mine.items()}, {n: owners(o) for n, o in mine.items()}
        )

    def forget_kinds(self) -> None:
        """For after a CustomResourceDefinition came or went."""
        self._kinds = []

    def _mine(self, kind: Kind) -> list[dict]:
        return [found for found in listed(self._api, kind) if self._is_mine(found["metadata"])]

    def _is_mine(self, meta: dict) -> bool:
        if meta.get("namespace"):
            return meta["namespace"] in self._namespaces
        return meta["name"] in self._namespaces or self._prefix in meta["name"]


def until(what: str, condition: t.Callable[[], object], seconds: float = 60) -> None:
    """Looks until the condition holds; the time is only there to end a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so: {what}"
        time.sleep(0.02)


def remove(api: Api, paths: t.Collection[str], wait: bool = True) -> None:
    """Deletes what is there of `paths`, and returns when all of it is gone."""
    for path in paths:
        status, answer = api.request("DELETE", path)
        assert status in (200, 202, 404, 409), answer
    for path in paths if wait else ():
        until(f"{path} is gone", lambda path=path: api.request("GET", path)[0] == 404, 120)
