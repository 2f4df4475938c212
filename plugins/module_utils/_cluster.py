# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one door to the API server.

Authentication is kubernetes.core's (every option and K8S_AUTH_* variable its users know); requests go straight over the
client's kept-alive connections as JSON, because building the client's model objects costs more than the request.
"""
from __future__ import annotations

import collections
import concurrent.futures
import email.utils
import itertools
import json
import random
import re
import threading
import time
import typing as t
import urllib.parse

from ._client import api_client
from ._errors import ApiError, Unreachable, WrongCluster
from ._fields import MANAGER, REPLICAS_MANAGER
from ._login import log_in
from ._manifest import Ref
from ._types import ResourceType, aggregated_types, listed_types

USER_AGENT = "genai.platform/0.1"
PAGE = 500
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
TIMEOUT_CONNECT, TIMEOUT_READ = 10.0, 60.0
ATTEMPTS = 6
# How long an API server may stay away (a control plane's restart takes 20 to 60 s) before a request, a watch or the lock gives up. A
# request is tried ATTEMPTS times at least.
OUTAGE_SECONDS = 45.0
RETRIED = (429, 500, 502, 503, 504)
ETCD = "etcdserver: "  # begins what a busy store says, such as `request timed out` or `leader changed`: a hiccup
_AGGREGATED = ", ".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
) + ", application/json"

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json"
AGAIN, ONCE_MORE = "again", "once more"

T = t.TypeVar("T")
R = t.TypeVar("R")


class Cluster:
    """A conversation with one API server. Thread-safe; counts its requests by verb in `requests`."""

    def __init__(self, connection: dict, expected_server: str | None = None, workers: int = 16) -> None:
        self._client = api_client(connection, workers)
        self.server: str = self._client.configuration.host.rstrip("/")
        self._pool, self._base = _connections(self._client.pool, self.server)
        self.requests: collections.Counter[str] = collections.Counter()
        self._count = threading.Lock()
        self.created: set[str] = set()  # uids of the objects that an apply of this conversation has created
        self.fence: t.Callable[[], None] | None = None  # asked before every write, and every try of it; raises when it must not be
        self._answered = False
        self._cancelled = threading.Event()
        self._date = email.utils.formatdate(usegmt=True)
        self._executor = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="api")
        self._types: dict[tuple[str, str], ResourceType] | None = None
        _assert_expected(self.server, expected_server)
        log_in(self._client)  # only now: no other server gets a password

    # --- requests ----------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        query: dict | None = None,
        body: t.Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> t.Any:
        """One request with retries; returns the decoded JSON (text for `text/plain`). Errors: ApiError, Unreachable."""
        return _decode(self._exchange(method, path, query, body, content_type, accept))

    def _exchange(self, method: str, path: str, query: dict | None, body: t.Any, content_type: str, accept: str) -> t.Any:
        """As `request`; returns the response."""
        since = time.monotonic()
        for attempt in itertools.count(1):
            if self.fence and method != "GET" and "dryRun" not in (query or {}):
                self.fence()
            spent = attempt >= ATTEMPTS and time.monotonic() - since >= OUTAGE_SECONDS
            try:
                response = self._send(method, path, query, body, content_type, accept)
            except Unreachable:
                # Before the first answer this is a wrong address, not a hiccup: say so at once. Every request here may
                # be repeated: apply, delete and get are idempotent, and a create that did arrive answers 409.
                if not self._answered or spent or self._stopped(_backoff(attempt)):
                    raise
                continue
            if response.status < 400:
                return response
            error = _api_error(method, path, response)
            worth = _worth_trying(error, method, query or {}, body, "retry-after" in response.headers)
            if attempt >= 2 and worth == ONCE_MORE or not worth or spent:
                raise error
            if self._stopped(_backoff(attempt, response.headers.get("retry-after"))):
                raise error
        raise AssertionError("unreachable: the loop returns or raises")

    def _stopped(self, seconds: float) -> bool:
        """Waits before another try; whether that is not to be made, because the work is being given up."""
        return self._cancelled.wait(seconds)

    def _send(self, method: str, path: str, query: dict | None, body: t.Any, content_type: str, accept: str) -> t.Any:
        import urllib3

        with self._count:
            self.requests[method] += 1
        try:
            response = self._pool.request(
                method,
                self._url(path, query),
                body=None if body is None else _encoded(body),
                headers=self._headers(content_type, accept),
                timeout=urllib3.Timeout(connect=TIMEOUT_CONNECT, read=TIMEOUT_READ),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as exc:
            raise _unreachable(self.server, exc) from exc
        self._answered = True
        self._date = response.headers.get("date", self._date)
        return response

    def ask(self, path: str, seconds: float) -> tuple[int, str]:
        """One GET without another try, of what something behind the API server answers: (status, the beginning of what an error says).
        The status is 0 when nothing came within `seconds`. Errors: Unreachable."""
        import urllib3

        with self._count:
            self.requests["GET"] += 1
        try:
            response = self._pool.request(
                "GET", self._url(path, None), headers=self._headers("application/json", "*/*"), redirect=False, decode_content=False,
                timeout=urllib3.Timeout(connect=TIMEOUT_CONNECT, read=seconds), retries=False, preload_content=False,
            )
        except urllib3.exceptions.ReadTimeoutError:
            return 0, ""
        except urllib3.exceptions.HTTPError as exc:
            raise _unreachable(self.server, exc) from exc
        try:
            return response.status, _beginning(response, seconds) if response.status >= 400 else ""
        finally:
            response.close()  # what else would come is nobody's concern

    @property
    def server_time(self) -> str:
        """The server's clock at its last answer, RFC 3339 in UTC like `creationTimestamp`."""
        return email.utils.parsedate_to_datetime(self._date).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _url(self, path: str, query: dict | None) -> str:
        return f"{self._base}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")

    def _headers(self, content_type: str, accept: str) -> t.Any:
        import urllib3

        headers: dict[str, t.Any] = {"Accept": accept, "Content-Type": content_type, "User-Agent": USER_AGENT}
        # Asked for on every request: an exec plugin's token may have been renewed since the last one. Not through the
        # client's update_params_for_auth, whose parameters differ between its versions.
        for setting in self._client.configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        headers.update(self._client.headers)
        if not self._client.more_headers:
            return headers
        result = urllib3.HTTPHeaderDict(headers)
        for name, values in self._client.more_headers.items():
            for value in values:
                result.add(name, value)
        return result

    def each(self, function: t.Callable[[T], R], items: t.Iterable[T]) -> list[R]:
        """Runs `function` over `items` many at a time. After the first error, or a signal, nothing new starts and nothing is tried
        again; the error is raised when everything under way has ended, so that whoever undoes is alone.

        Not to be called from inside `function`: it would wait for a free thread of the pool that it holds one of.
        """
        futures: list[concurrent.futures.Future[R]] = []
        done: t.Collection[concurrent.futures.Future[R]] = ()
        try:
            for item in items:
                futures.append(self._executor.submit(function, item))  # one by one: a signal may come between two
            done, left = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
            if left:
                self._cancelled.set()
        except BaseException:
            self._cancelled.set()
            raise
        finally:
            self._end(futures)
        # The cause before what ended only because of it.
        errors = [f.exception() for f in sorted(futures, key=lambda f: f not in done) if not f.cancelled() and f.exception()]
        if errors:
            raise t.cast(BaseException, errors[0])
        return [future.result() for future in futures]

    def _end(self, futures: list[concurrent.futures.Future]) -> None:
        """Returns when nothing of `futures` is under way any more; a signal that comes meanwhile is raised then, and not before."""
        told: BaseException | None = None
        while True:
            try:
                for future in futures:
                    future.cancel()
                concurrent.futures.wait(futures)
                break
            except BaseException as exc:  # pylint: disable=broad-exception-caught
                self._cancelled.set()
                told = exc
        self._cancelled.clear()
        if told:
            raise told

    # --- discovery ---------------------------------------------------------------------------------------------------

    def types(self) -> dict[tuple[str, str], ResourceType]:
        """{(apiVersion, kind): ResourceType} of everything the server offers: two requests (aggregated discovery)."""
        if self._types is None:
            # /apis first and alone: the first answer decides whether the address and the credentials are right.
            found = self._discover("/apis")
            found.update(self._discover("/api"))
            self._types = found
        return self._types

    def _discover(self, path: str) -> dict[tuple[str, str], ResourceType]:
        answer = self.request("GET", path, accept=_AGGREGATED)
        if answer.get("kind") == "APIGroupDiscoveryList":
            return {(rt.api_version, rt.kind): rt for rt in aggregated_types(answer)}
        if path == "/api":
            versions = list(answer.get("versions", []))
        else:
            versions = [v["groupVersion"] for group in answer.get("groups", []) for v in group["versions"]]
        prefix = "/api" if path == "/api" else "/apis"
        lists = self.each(lambda version: self.request("GET", f"{prefix}/{version}"), versions)
        return {(rt.api_version, rt.kind): rt for answer in lists for rt in listed_types(answer)}

    def is_openshift(self) -> bool:
        return any(version.startswith("route.openshift.io/") for version, _kind in self.types())

    def version(self) -> str:
        return str(self.request("GET", "/version").get("gitVersion", ""))

    # --- objects -----------------------------------------------------------------------------------------------------

    def list(self, rtype: ResourceType, selector: str = "", namespace: str = "", metadata: bool = False) -> list[dict]:
        """All objects of a type, with apiVersion and kind filled in (lists leave them out). `metadata`: nothing else of them."""
        found = self.items(rtype, selector, namespace, metadata=metadata)
        return [{**item, "apiVersion": rtype.api_version, "kind": rtype.kind} for item in found]

    def items(
        self, rtype: ResourceType, selector: str = "", namespace: str = "", fields: str = "", metadata: bool = False
    ) -> t.Iterator[dict]:
        """All objects of a type, of which there are never more than a page in memory. `fields`: a field selector."""
        accept = _METADATA if metadata else "application/json"
        query = {"limit": str(PAGE), "labelSelector": selector, "fieldSelector": fields}
        query = {name: value for name, value in query.items() if value}
        while True:
            answer = self.request("GET", rtype.path(namespace), query, accept=accept)
            yield from answer.get("items") or []
            token = answer.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    def get(self, rtype: ResourceType, namespace: str, name: str) -> dict | None:
        try:
            return self.request("GET", rtype.path(namespace, name))
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise

    def apply(self, rtype: ResourceType, body: dict, force: bool = False, dry_run: bool = False, manager: str = MANAGER) -> dict:
        """Server-side apply; unknown fields are an error, not a warning."""
        meta = body["metadata"]
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = rtype.path(meta.get("namespace", ""), meta["name"])
        response = self._exchange("PATCH", path, query, body, "application/apply-patch+yaml", "application/json")
        after = _decode(response)
        if response.status == 201 and not dry_run:
            self.created.add(after["metadata"]["uid"])
        return after

    def create(self, rtype: ResourceType, body: dict) -> dict:
        """Plain create: answers 409 when the object exists, which is what makes it usable as a lock."""
        return self.request("POST", rtype.path(body["metadata"].get("namespace", "")), {"fieldManager": MANAGER}, body)

    def patch(self, rtype: ResourceType, namespace: str, name: str, body: dict | list, manager: str = MANAGER) -> dict:
        """JSON Merge Patch (a dict, RFC 7386) or JSON Patch (a list, RFC 6902)."""
        kind = "json-patch" if isinstance(body, list) else "merge-patch"
        return self.request("PATCH", rtype.path(namespace, name), {"fieldManager": manager}, body, f"application/{kind}+json")

    def hold_replicas(self, rtype: ResourceType, namespace: str, name: str, replicas: int) -> None:
        """Sets a workload's replicas under a manager of their own, from which an autoscaler takes over."""
        meta = {"name": name, "namespace": namespace}
        body = {"apiVersion": rtype.api_version, "kind": rtype.kind, "metadata": meta, "spec": {"replicas": replicas}}
        self.apply(rtype, body, force=True, manager=REPLICAS_MANAGER)

    def delete(self, rtype: ResourceType, namespace: str, name: str, uid: str | None = None, foreground: bool = False) -> bool:
        """Deletes; False when it was gone already. With `uid`, only that very object. `foreground`: the object is there until what it
        owns, such as its pods, is gone."""
        policy = "Foreground" if foreground else "Background"
        options: dict[str, t.Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", rtype.path(namespace, name), body=options)
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
        return True

    def evict(self, namespace: str, name: str, uid: str) -> bool:
        """Asks that this very pod goes, as a drain would; False when it was gone already. A PodDisruptionBudget that forbids it is an
        ApiError 429, which is not tried again here."""
        body = {
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            self.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body=body)
        except ApiError as exc:
            if exc.status in (404, 409):  # 409: another pod has its name by now
                return False
            raise
        return True

    def rules(self, namespace: str) -> list[dict]:
        """What the identity may do in a namespace, as rules of a role; they may not be all."""
        status = self._review("SelfSubjectRulesReview", {"namespace": namespace})
        return [*(status.get("resourceRules") or []), *(status.get("nonResourceRules") or [])]

    def may(self, verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
        """Whether the identity may do one thing; `resource` is `pods`, `pods/log` or the path of a URL."""
        if resource.startswith("/"):
            return self._review("SelfSubjectAccessReview", {"nonResourceAttributes": {"verb": verb, "path": resource}})["allowed"]
        kind, _slash, sub = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": kind, "subresource": sub, "namespace": namespace, "name": name}
        return self._review("SelfSubjectAccessReview", {"resourceAttributes": asked})["allowed"]

    def _review(self, kind: str, spec: dict) -> dict:
        """Writes nothing, although it is a POST: the answer is its status."""
        group = "authorization.k8s.io/v1"
        return self.request("POST", f"/apis/{group}/{kind.lower()}s", body={"apiVersion": group, "kind": kind, "spec": spec})["status"]

    def gone(
        self, objects: t.Iterable[tuple[ResourceType, Ref]], seconds: float = 120.0, uids: t.Mapping[Ref, str] | None = None
    ) -> list[Ref]:
        """Waits until objects that are being deleted are really gone; returns those that are still there. `uids`: of the very objects
        that go; what somebody makes anew under the same name is another one."""
        left, deadline, pause = list(objects), time.monotonic() + seconds, 0.25
        while left:
            alive = self.each(lambda item: self.get(item[0], item[1].namespace, item[1].name), left)
            left = [item for item, obj in zip(left, alive) if obj is not None and _same(obj, (uids or {}).get(item[1]))]
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)  # many objects that take their time are not to be asked after all the while
        return [ref for _rtype, ref in left]

    def events(self, namespace: str, kind: str, name: str) -> list[dict]:
        """Events about one object, oldest first."""
        query = {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={name}"}
        items = self.request("GET", f"/api/v1/namespaces/{namespace}/events", query).get("items") or []
        return sorted(items, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")

    def log_tail(self, namespace: str, pod: str, container: str, previous: bool, lines: int = 20) -> list[str]:
        """The last lines of a container's log; [] when there is none to be had."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": "16384", "previous": str(previous).lower()}
        try:
            text = self.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query, accept="text/plain, */*")
        except ApiError:
            return []
        return text.splitlines() if isinstance(text, str) else []

    def watch(self, path: str, selector: str, seconds: int) -> t.Iterator[dict]:
        """Events of a watch that starts with everything there is (as ADDED); ends when the server ends it."""
        import urllib3

        query = {"watch": "true", "timeoutSeconds": str(seconds), **({"labelSelector": selector} if selector else {})}
        with self._count:
            self.requests["WATCH"] += 1
        try:
            response = self._pool.request(
                "GET",
                self._url(path, query),
                headers=self._headers("application/json", "application/json"),
                timeout=urllib3.Timeout(connect=TIMEOUT_CONNECT, read=seconds + 30.0),
                retries=False,
                preload_content=False,
            )
            if response.status >= 400:
                response.read()
                raise _api_error("WATCH", path, response)
            yield from _json_lines(response)
        except urllib3.exceptions.HTTPError as exc:
            raise _unreachable(self.server, exc) from exc


# --- helpers ---------------------------------------------------------------------------------------------------------


def normalized_url(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of an API URL, so that `https://X/` equals `https://x:443`."""
    parts = urllib.parse.urlsplit(url if "://" in url else f"https://{url}")
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (80 if parts.scheme == "http" else 443)


def _assert_expected(server: str, expected: str | None) -> None:
    if expected and normalized_url(server) != normalized_url(expected):
        raise WrongCluster(
            f"wrong cluster: the connection leads to {server}, but the inventory names {expected}. "
            "Nothing was sent. Fix kubeconfig/context, or expected_server in the inventory",
            server=server,
            expected_server=expected,
        )


def _connections(manager: t.Any, server: str) -> tuple[t.Any, str]:
    """(what sends requests to the server, what their URLs begin with). Without a proxy it is the one pool of connections that the
    manager would look up anew for every request."""
    if getattr(manager, "proxy", None):
        return manager, server
    return manager.connection_from_url(server), urllib.parse.urlsplit(server).path


def _encoded(body: t.Any) -> bytes:
    """JSON that is YAML, too: the API server reads an apply patch as that. YAML has no pairs of surrogates, and takes some characters
    only when they are escaped."""
    return _UNPRINTABLE.sub(lambda hit: f"\\u{ord(hit[0]):04x}", json.dumps(body, ensure_ascii=False)).encode(errors="backslashreplace")


def _unreachable(server: str, exc: Exception) -> Unreachable:
    reason = getattr(exc, "reason", None) or exc
    text = str(reason).rpartition(": ")[2] or type(exc).__name__
    return Unreachable(f"cannot reach the API server {server}: {text}", server=server)


def _decode(response: t.Any) -> t.Any:
    if "json" in response.headers.get("content-type", ""):
        return json.loads(response.data)
    return response.data.decode("utf-8", "replace")


def _api_error(method: str, path: str, response: t.Any) -> ApiError:
    try:
        body = json.loads(response.data)
        message = str(body.get("message", "")) or response.reason
    except ValueError:
        body, message = {}, response.data.decode("utf-8", "replace")[:300] or str(response.reason)
    hint = ""
    if response.status == 401:
        message = "the API server refused the credentials (401)"
        hint = ". The token may have expired: log in again, or fix api_key / kubeconfig"
    elif response.status == 403 and "being terminated" not in message:  # a namespace that is going takes nothing new, from nobody
        hint = ". The identity used is not allowed to do this"
    return ApiError(f"{message}{hint}", response.status, body, request=f"{method} {path}")


def _worth_trying(error: ApiError, method: str, query: dict, body: t.Any, told_when: bool) -> str:
    """How long a request is worth repeating that is answered with `error`: AGAIN for as long as an outage may last, ONCE_MORE, or ''.
    `told_when`: the server said when to come again."""
    if _budget_forbids(error):
        return ""
    if error.status == 500 and not told_when and ETCD not in error.message:
        # Usually a verdict, not a hiccup; but a webhook's pods may be about to move. A preview does not wait for them.
        return AGAIN if "failed calling webhook" in error.message and "dryRun" not in query else ONCE_MORE
    passing = (
        error.status in RETRIED,
        _overtaken(error) and not _of_one_version(body),
        _role_unseen(error) and method == "PATCH" and "dryRun" not in query,
    )
    return AGAIN if any(passing) else ""


def _budget_forbids(error: ApiError) -> bool:
    """Whether an eviction was refused by a PodDisruptionBudget, which is answered 429 as if the server were busy."""
    causes = (error.body.get("details") or {}).get("causes") or []
    return error.status == 429 and any(cause.get("reason") == "DisruptionBudget" for cause in causes)


def _same(obj: dict, uid: str | None) -> bool:
    return uid is None or obj["metadata"].get("uid") == uid


def _overtaken(error: ApiError) -> bool:
    """Whether somebody (often a controller writing a status) was faster: the same request succeeds a moment later. A conflict
    of field managers is no such thing."""
    return error.status == 409 and "apply your changes to the latest version" in error.message


def _role_unseen(error: ApiError) -> bool:
    """Whether a binding was refused whose role was made only just now: the authorizer looks up what it grants, and sees it a moment later."""
    return error.status == 404 and 'rolebindings.rbac.authorization.k8s.io "' in error.message


def _of_one_version(body: t.Any) -> bool:
    """Whether a patch is for one version of its object: once that is gone, it will never succeed."""
    return isinstance(body, dict) and "resourceVersion" in (body.get("metadata") or {})


def _backoff(attempt: int, retry_after: str | None = None) -> float:
    """Seconds to wait: what the server asked for (at most 30), else doubling from 0.2 to 5, with jitter."""
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), 30.0)
    return min(0.2 * 2**attempt, 5.0) * random.uniform(0.5, 1.0)


def _beginning(response: t.Any, seconds: float, most: int = 4096) -> str:
    """What comes of a body within `seconds`, or a little more; a body that breaks off is as good as one that ends."""
    import urllib3

    text, deadline = b"", time.monotonic() + seconds
    try:
        while len(text) < most and time.monotonic() < deadline and (chunk := response.read1(most)):
            text += chunk
    except urllib3.exceptions.HTTPError:
        pass
    return text[:most].decode("utf-8", "replace")


def _json_lines(response: t.Any) -> t.Iterator[dict]:
    rest = b""
    # read1: hand over what has arrived; `stream` would wait for a full buffer.
    while chunk := response.read1(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())
