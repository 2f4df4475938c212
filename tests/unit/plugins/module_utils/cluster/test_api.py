# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door to the API, against a small HTTP server on loopback that answers what the test wrote."""
from __future__ import annotations

import concurrent.futures
import http.server
import json
import signal
import threading
import time

import pytest
from ansible_collections.genai.platform.plugins.module_utils.cluster import api as _cluster
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import Cluster, normalized_url
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Interrupted, InvalidInput, Unreachable, WrongCluster
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType

PODS = ResourceType("", "v1", "Pod", "pods", True)


class Server(http.server.ThreadingHTTPServer):
    """Answers with `script`, one (status, headers, body) a request; keeps what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict, object]] = []
        self.asked: list[tuple] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path, self.headers))
        status, headers, body = self.server.script.pop(0)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_PATCH = do_POST = do_DELETE = _answer

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Cluster, "_stopped", lambda _self, seconds: bool(naps.append(seconds)))
    monkeypatch.setattr(_cluster, "OUTAGE_SECONDS", 0.0)  # the number of tries decides
    naps.clear()
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


naps: list[float] = []


@pytest.fixture
def cluster(server):
    return Cluster({"host": server.url, "api_key": "token-1"})


def status(code, message="no", **body):
    return code, {}, {"kind": "Status", "message": message, **body}


def test_every_request_carries_the_token_and_our_name(server, cluster):
    server.script = [(200, {}, {"gitVersion": "v1.34.4"})]
    assert cluster.version() == "v1.34.4"
    (_verb, _path, headers), *_rest = server.asked
    assert headers["authorization"] == "Bearer token-1" and headers["User-Agent"].startswith("genai.platform/")
    assert cluster.requests == {"GET": 1}


def test_impersonation_headers(server):
    server.script = [(200, {}, {})]
    Cluster({"host": server.url, "api_key": "x", "impersonate_user": "eve", "impersonate_groups": ["a", "b"]}).request("GET", "/version")
    headers = server.asked[0][2]
    assert headers["Impersonate-User"] == "eve" and headers.get_all("Impersonate-Group") == ["a", "b"]


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [([(429, {"Retry-After": "3"}, {})], [3.0]), ([(503, {}, {}), (503, {}, {})], None), ([(500, {}, {})], None)],
)
def test_hiccups_are_retried_as_long_as_the_server_asks(server, cluster, answers, seconds):
    server.script = [*answers, (200, {}, {"ok": True})]
    assert cluster.request("GET", "/x") == {"ok": True}
    assert len(naps) == len(answers) and (seconds is None or naps == seconds)


def test_patience_ends(server, cluster):
    server.script = [status(429)] * _cluster.ATTEMPTS
    with pytest.raises(ApiError) as caught:
        cluster.request("GET", "/x")
    assert caught.value.status == 429 and len(server.asked) == _cluster.ATTEMPTS


def test_an_outage_is_waited_for_as_long_as_the_lock_survives_it(server, cluster, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_cluster, "OUTAGE_SECONDS", 45.0)
    monkeypatch.setattr(_cluster.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Cluster, "_stopped", lambda _self, _seconds: bool(now.append(now.pop() + 5.0)))
    server.script = [status(503)] * 8 + [(200, {}, {"ok": True})]
    assert cluster.request("GET", "/x") == {"ok": True} and now == [40.0]
    server.script = [status(503)] * 20
    with pytest.raises(ApiError):
        cluster.request("GET", "/x")
    assert 85.0 <= now[0] <= 90.0


def test_a_webhook_that_does_not_answer_is_waited_for_but_not_in_a_preview(server, cluster):
    down = status(500, "Internal error occurred: failed calling webhook \"x\": connection refused")
    server.script = [down] * 4 + [(200, {}, {"ok": True})]
    assert cluster.request("PATCH", "/x", body={}) == {"ok": True}
    server.script = [down] * 2
    with pytest.raises(ApiError, match="failed calling webhook"):
        cluster.request("PATCH", "/x", {"dryRun": "All"}, body={})


def test_a_budget_that_forbids_an_eviction_is_told_at_once(server, cluster):
    server.script = [status(429, "Cannot evict pod", details={"causes": [{"reason": "DisruptionBudget"}]}), status(404), (201, {}, {})]
    with pytest.raises(ApiError) as caught:
        cluster.evict("ns", "p", "u")
    assert caught.value.status == 429 and naps == []
    assert (cluster.evict("ns", "p", "u"), cluster.evict("ns", "p", "u")) == (False, True)


def test_what_an_apply_created_is_known(server, cluster):
    body = {"metadata": {"name": "p", "namespace": "ns"}}
    server.script = [(201, {}, {"metadata": {"uid": "new"}}), (200, {}, {"metadata": {"uid": "old"}}), (201, {}, {"metadata": {"uid": "dry"}})]
    for dry_run in (False, False, True):
        cluster.apply(PODS, body, dry_run=dry_run)
    assert cluster.created == {"new"}


def test_a_failing_webhook_is_a_verdict_not_a_hiccup(server, cluster):
    server.script = [status(500, "webhook denied"), status(500, "webhook denied")]
    with pytest.raises(ApiError, match="webhook denied"):
        cluster.request("GET", "/x")
    assert len(server.asked) == 2


def test_a_store_that_is_busy_is_a_hiccup(server, cluster):
    server.script = [status(500, "etcdserver: request timed out")] * (_cluster.ATTEMPTS - 1) + [(200, {}, {"ok": True})]
    assert cluster.request("PATCH", "/x", body={}) == {"ok": True}


@pytest.mark.parametrize("code", [400, 403, 404, 409, 422])
def test_refusals_are_not_retried(server, cluster, code):
    server.script = [status(code, "because", reason="Why")]
    with pytest.raises(ApiError, match="because") as caught:
        cluster.request("PATCH", "/x", body={})
    assert (caught.value.status, caught.value.body["reason"], naps) == (code, "Why", [])


def test_expired_token_is_said_in_plain_words(server, cluster):
    server.script = [status(401, "Unauthorized")]
    with pytest.raises(ApiError, match="may have expired"):
        cluster.types()


def test_nobody_there_is_said_at_once(server, cluster):
    server.shutdown()
    server.server_close()
    with pytest.raises(Unreachable, match="cannot reach the API server http://127.0.0.1:"):
        cluster.request("GET", "/version")
    assert naps == []


def test_a_controller_that_was_faster_is_no_refusal(server, cluster):
    faster = "Operation cannot be fulfilled on resourcequotas: please apply your changes to the latest version and try again"
    server.script = [status(409, faster, reason="Conflict"), (200, {}, {"ok": True})]
    assert cluster.request("PATCH", "/x", body={}) == {"ok": True}


def test_a_role_made_just_now_is_seen_a_moment_later(server, cluster):
    unseen = status(404, 'rolebindings.rbac.authorization.k8s.io "reader" not found', reason="NotFound")
    server.script = [unseen, (200, {}, {"ok": True})]
    assert cluster.request("PATCH", "/x", body={}) == {"ok": True}
    for method, query in (("PATCH", {"dryRun": "All"}), ("GET", {})):
        server.script = [unseen]
        with pytest.raises(ApiError, match="not found"):
            cluster.request(method, "/x", query)


def test_a_cut_in_mid_conversation_is_retried(server, cluster):
    server.script = [(200, {}, {}), (200, {"Content-Length": "999", "Connection": "close"}, {}), (200, {}, {"ok": True})]
    cluster.request("GET", "/x")
    assert cluster.request("GET", "/x") == {"ok": True}


def test_wrong_cluster_sends_nothing(server):
    with pytest.raises(WrongCluster, match="Nothing was sent"):
        Cluster({"host": server.url, "api_key": "x"}, expected_server="https://other:6443")
    assert server.asked == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a:443/", "https://A", True),
        ("https://a:6443", "a:6443", True),
        ("http://a", "http://a:80", True),
        ("https://a", "http://a", False),
        ("https://a", "https://b", False),
    ],
)
def test_urls_are_compared_by_what_they_mean(one, other, same):
    assert (normalized_url(one) == normalized_url(other)) is same


def test_no_configuration_at_all_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidInput, match="no way to reach a cluster"):
        Cluster({"kubeconfig": str(tmp_path / "absent")})


def test_lists_come_page_by_page_with_kinds_filled_in(server, cluster):
    item = {"metadata": {"name": "p"}}
    server.script = [(200, {}, {"items": [item], "metadata": {"continue": "next"}}), (200, {}, {"items": [item], "metadata": {}})]
    found = cluster.list(PODS, "a=b")
    assert [o["kind"] for o in found] == ["Pod", "Pod"]
    assert "continue=next" in server.asked[1][1] and all("labelSelector=a%3Db" in path for _v, path, _h in server.asked)


def test_absent_is_none_and_forbidden_is_an_error(server, cluster):
    server.script = [status(404), status(403)]
    assert cluster.get(PODS, "ns", "p") is None
    with pytest.raises(ApiError, match="not allowed"):
        cluster.get(PODS, "ns", "p")


def test_watch_yields_events_as_lines(server, cluster):
    events = [{"type": "ADDED", "object": {"n": n}} for n in range(3)]
    server.script = [(200, {}, b"".join(json.dumps(e).encode() + b"\n" for e in events))]
    assert list(cluster.watch("/api/v1/pods", "", 5)) == events


def test_first_error_wins_and_nothing_new_starts(cluster):
    done = []

    def work(n):
        if n == 0:
            raise ApiError("zero", 400)
        done.append(n)

    with pytest.raises(ApiError, match="zero"):
        cluster.each(work, range(1000))
    assert len(done) < 1000


@pytest.mark.parametrize("told", [ApiError("refused", 400), KeyboardInterrupt()], ids=["an error", "a signal"])
def test_what_is_given_up_stops_writing_before_anybody_undoes(cluster, told, monkeypatch):
    """A signal arrives in the thread that waits; an error in one of those that work."""
    started, ended = [], []

    def work(n):
        if n == 0 and isinstance(told, ApiError):
            raise told
        started.append(n)
        time.sleep(0.02)
        ended.append(n)

    if not isinstance(told, ApiError):
        wait, calls = concurrent.futures.wait, []

        def interrupted(futures, **how):
            calls.append(how)
            if len(calls) == 1:
                raise told
            return wait(futures, **how)

        monkeypatch.setattr(_cluster.concurrent.futures, "wait", interrupted)
    with pytest.raises(type(told)):
        cluster.each(work, range(500))
    assert started == ended or sorted(started) == sorted(ended)
    assert len(started) < 400
    count = len(started)
    time.sleep(0.1)
    assert len(started) == count, "nothing goes on behind the back of whoever undoes"


def test_a_signal_that_comes_while_an_error_is_being_waited_out_changes_nothing(cluster):
    """What is under way has ended before it is raised, and what comes next (an undo) tries again as ever."""
    ended, begun = [], threading.Semaphore(0)

    def work(item):
        if item == 0:
            assert begun.acquire(timeout=10) and begun.acquire(timeout=10)
            raise ApiError("refused", 400)
        begun.release()
        time.sleep(0.3)
        ended.append(item)

    def told(*_args):
        raise Interrupted("told to stop")

    handler = signal.signal(signal.SIGALRM, told)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            cluster.each(work, range(3))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert sorted(ended) == [1, 2] and not cluster._cancelled.is_set()


def test_a_signal_that_comes_while_work_is_handed_out_ends_what_was_handed_out(cluster, monkeypatch):
    started, ended, submit = [], [], cluster._executor.submit

    def work(item):
        started.append(item)
        time.sleep(0.02)
        ended.append(item)

    def told(function, item):
        if item == 100:
            raise Interrupted("told to stop")
        return submit(function, item)

    monkeypatch.setattr(cluster._executor, "submit", told)
    with pytest.raises(Interrupted):
        cluster.each(work, range(200))
    assert sorted(started) == sorted(ended) and len(started) < 100
    time.sleep(0.1)
    assert len(started) == len(ended) < 100


AGGREGATED = {
    "kind": "APIGroupDiscoveryList",
    "items": [{
        "metadata": {"name": "apps"},
        "versions": [{"version": "v1", "resources": [
            {"resource": "deployments", "scope": "Namespaced", "responseKind": {"kind": "Deployment"}},
            {"resource": "broken", "scope": "Cluster"},
        ]}],
    }],
}


def test_aggregated_discovery_is_two_requests(server, cluster):
    server.script = [(200, {}, AGGREGATED), (200, {}, {"kind": "APIGroupDiscoveryList", "items": []})]
    assert cluster.types() == {("apps/v1", "Deployment"): ResourceType("apps", "v1", "Deployment", "deployments", True)}
    assert cluster.types() and len(server.asked) == 2 and not cluster.is_openshift()


def test_servers_without_aggregated_discovery(server):
    one = Cluster({"host": server.url, "api_key": "x"}, workers=1)
    routes = {"groupVersion": "route.openshift.io/v1", "resources": [
        {"name": "routes", "kind": "Route", "namespaced": True}, {"name": "routes/status", "kind": "Route", "namespaced": True},
    ]}
    core = {"groupVersion": "v1", "resources": [{"name": "pods", "kind": "Pod", "namespaced": True}]}
    server.script = [
        (200, {}, {"kind": "APIGroupList", "groups": [{"versions": [{"groupVersion": "route.openshift.io/v1"}]}]}), (200, {}, routes),
        (200, {}, {"kind": "APIVersions", "versions": ["v1"]}), (200, {}, core),
    ]
    assert set(one.types()) == {("route.openshift.io/v1", "Route"), ("v1", "Pod")} and one.is_openshift()


# --- what something behind the API server answers --------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"Content-Length": "999"}, {"Content-Encoding": "gzip"}, {"Location": "http://192.0.2.1/"}])
def test_the_body_of_a_good_answer_is_nobodys_concern(server, headers):
    server.script += [(200, headers, b"plain")]
    assert Cluster({"host": server.url, "api_key": "x"}).ask("/proxy/ready", 5) == (200, "")


@pytest.mark.parametrize("length", ["5", "9999"])  # all of it, and one that breaks off
def test_of_a_bad_answer_the_beginning_is_told(server, length):
    server.script += [(500, {"Content-Length": length, "Connection": "close"}, b"wrong"), (503, {}, b"x" * 10_000)]
    cluster = Cluster({"host": server.url, "api_key": "x"})
    assert cluster.ask("/proxy/ready", 2) == (500, "wrong")
    status, text = cluster.ask("/proxy/ready", 2)
    assert status == 503 and text == "x" * 4096


def test_silence_and_a_server_that_is_not_there_are_two_things(server):
    release, ask = threading.Event(), Cluster({"host": server.url, "api_key": "x"}).ask
    Handler.do_GET, before = (lambda _handler: release.wait(30)), Handler.do_GET
    try:
        assert ask("/proxy/ready", 0.2) == (0, "")
    finally:
        release.set()
        Handler.do_GET = before
    server.shutdown()
    server.server_close()
    with pytest.raises(Unreachable):
        ask("/proxy/ready", 0.2)
