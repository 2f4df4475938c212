# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of the inference service that need something beside it: an issuer of tokens, a private authority, a collector of spans, a mesh, a
gateway, KEDA. Each is in force on a real one, and one request shows it.

The platform is one of the story's own; at the end nothing of it is left, nor of what it was used with.
"""
from __future__ import annotations

import collections
import contextlib
import json
import secrets
import struct
import threading
import typing as t
import urllib.parse
import zlib

import cluster
import parts
import pytest
from backing import eventually
from bundles import obj
from parts import ask, request
from traffic import samples

VARIABLES = ("-e", "@tests/integration/options_vars.yml")
URL = "http://inference.options.svc"
GATEWAY = f"http://public-istio.{parts.SPACE}.svc"
HOST = "digits.example"
WEIGHT, SENT = 30, 200
FEWEST, MOST = 25, 100  # of 200 with a weight of 30: five standard deviations on each side
WORKER = "inference-worker-standard"
QUEUE = "genai:jobs:standard"
CANARY = {"enabled": True, "image": "genai-platform/inference:2.0.0", "weight": WEIGHT}
BY_GATEWAY = {"inference_app_gateway": f"{parts.SPACE}/public"}
FIRST = {"inference_app_canary": {**CANARY, "by": "gateway"}, **BY_GATEWAY}
BY_ISTIO = {"inference_app_gateway": f"{parts.SPACE}/classic"}


def deploy(**chosen: t.Any) -> cluster.Run:
    run = cluster.play("site.yml", *VARIABLES, "-e", json.dumps({"inference_app_models": models(), **chosen}))
    assert run.code == 0, run.output
    return run


def models() -> list[dict]:
    """The one in the image, and the same as an archive that the private authority's certificate is needed for."""
    digest = cluster.kubectl("exec", "-n", parts.SPACE, "deployment/store", "--", "sha256sum", "/model/model.yaml").split()[0]
    options = {"max_batch_size": 8, "max_queue": 16, "deadline_seconds": 5.0, "dtype": "bfloat16", "device": "cpu", "cache_ttl_seconds": 60.0}
    return [{"name": "digits", "source": "/model", **options}, {"name": "archived", "source": f"{parts.STORE}/model.tar", "sha256": digest}]


class Platform:
    """The service with all of these options at once, and a canary behind the gateway."""

    def __init__(self) -> None:
        self.before = set(cluster.versions())
        self.there = True

    def make(self) -> None:
        authority = parts.install()
        url = f"rediss://:{parts.PASSWORD}@redis.{parts.SPACE}.svc:6379/0"
        parts.apply(
            obj("v1", "Namespace", parts.SERVICE),
            obj("v1", "Secret", "redis", parts.SERVICE, stringData={"address": url, "word": parts.PASSWORD}),
            obj("v1", "ConfigMap", "authorities", parts.SERVICE, data={"all.pem": authority}),
        )
        deploy(**FIRST)

    def remove(self) -> None:
        """The platform while KEDA is there, which has a say in its end; and then what it was used with."""
        cluster.play("teardown.yml", *VARIABLES, "-e", "teardown_data=true", "-e", "teardown_forget=true")
        cluster.kubectl("delete", "namespace", parts.SERVICE, "options-ledger", "--ignore-not-found")
        parts.remove()
        self.there = False


@pytest.fixture(scope="module")
def platform() -> t.Iterator[Platform]:
    made = Platform()
    try:
        made.make()
        yield made
    finally:
        if made.there:
            made.remove()


def test_what_others_keep_is_no_change(platform, figure):
    """KEDA and Istio write into what was released, and beside it."""
    again, found, verdict = deploy(**FIRST), cluster.play("drift.yml", *VARIABLES), cluster.play("verify.yml", *VARIABLES)
    assert again.changed == 0, again.output
    assert found.code == 0, found.output
    assert verdict.code == 0, verdict.output
    figure("options, released again: changed, drift, verdict", "0, none, healthy")


# --- tokens ----------------------------------------------------------------------------------------------------------

# What the issuer writes into their tokens. One that has no scope says itself that it is for access, as Keycloak's do.
PEOPLE: dict[str, dict] = {
    **{name: {"scope": "predict"} for name in ("alice", "bob", "dave", "erin", "frank", "gina", "henry")},
    "carol": {"scope": "read"},
    "ivan": {"typ": "Bearer"},
}


def token(name: str, issuer: str = parts.ISSUER, audience: str = "genai") -> str:
    """Somebody's, by the flow that a browser goes through."""
    there = {"client_id": audience, "redirect_uri": "https://client.example/", "response_type": "code", "scope": "openid"}
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    known = request("PUT", f"{issuer}/users/{name}", json.dumps(PEOPLE[name]), Content_Type="application/json")
    signed_in = request("POST", f"{issuer}/oauth2/authorize?{urllib.parse.urlencode(there)}", f"sub={name}", **form)
    leads_to = ask(known, signed_in)[1]["headers"]["location"]
    code = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(leads_to).query))["code"]
    handed_in = {"grant_type": "authorization_code", "code": code, "client_id": audience, "client_secret": "any", "redirect_uri": there["redirect_uri"]}
    return json.loads(ask(request("POST", f"{issuer}/oauth2/token", urllib.parse.urlencode(handed_in), **form))[0]["body"])["id_token"]


def predict(bearer: str = "", instances: int = 1, **headers: str) -> dict:
    body = json.dumps({"instances": samples()["instances"][:instances]})
    return request("POST", f"{URL}/v1/predict", body, Content_Type="application/json", **_bearer(bearer), **headers)


def _bearer(bearer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}


def test_tokens_of_the_issuer_open(platform, figure):
    """Red where keys are not fetched by the private authority's certificate, or where one of a token's claims is not looked at."""
    shown = {
        "none": "", "good": token("alice"), "another scope": token("carol"), "no scope": token("ivan"),
        "another issuer": token("alice", issuer=parts.ISSUER.replace("issuer", "elsewhere", 1)), "another audience": token("alice", audience="shop"),
    }  # fmt: skip
    found = dict(zip(shown, ask(*(predict(each) for each in shown.values()))))
    statuses = {name: answer["status"] for name, answer in found.items()}
    assert statuses == {"none": 401, "good": 200, "another scope": 403, "no scope": 403, "another issuer": 401, "another audience": 401}, found
    assert "another issuer" in found["another issuer"]["body"] and "another audience" in found["another audience"]["body"], found
    figure("options, oidc: " + " / ".join(statuses), " / ".join(map(str, statuses.values())))


def test_what_a_private_authority_signed_is_trusted(platform, figure):
    """API and init container need it; without the option, both would refuse (tried with the API's own Python)."""
    script = f"import urllib.request; urllib.request.urlopen({parts.ISSUER!r} + '/jwks')"
    tried = ("exec", "-n", parts.SERVICE, "deployment/inference", "--", "env")
    cluster.kubectl(*tried, "python", "-c", script)
    with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
        cluster.kubectl(*tried, "-u", "SSL_CERT_FILE", "python", "-c", script)
    served = {model["name"]: model for model in json.loads(ask(request("GET", f"{URL}/v1/models", **_bearer(token("alice"))))[0]["body"])["models"]}
    assert set(served) == {"digits", "archived"}
    (ready,) = ask(request("GET", f"{URL}/ready"))
    assert ready["status"] == 200 and "degraded" not in json.loads(ready["body"]), ready
    figure("options, ca: keys of the issuer, and a model's archive, by https of a private authority", "fetched, fetched; refused without")


# --- what is given to a request --------------------------------------------------------------------------------------


def test_settings_reach_the_service(platform, figure):
    (version, catalog, many) = ask(request("GET", f"{URL}/version"), request("GET", f"{URL}/v1/models", **_bearer(token("bob"))), predict(token("bob"), 9))
    assert json.loads(version["body"])["title"] == "Every option"
    (first, _archived) = json.loads(catalog["body"])["models"]
    wanted = {"max_batch_size": 8, "max_queue": 16, "deadline_seconds": 5.0, "dtype": "bfloat16", "device": "cpu", "cache_ttl_seconds": 60.0, "default": True}
    assert {name: first[name] for name in wanted} == wanted
    assert many["status"] == 422 and "8" in many["body"], many
    log = cluster.kubectl("logs", "-n", parts.SERVICE, "deployment/inference", "--tail=200")
    assert '"level": "debug"' in log or '"level":"debug"' in log, log[-2000:]
    figure("options, title / log_level / options of a model / an instance too many", "shown / debug / shown / 422")


def test_a_body_above_the_limits_is_refused(platform, figure):
    bearer = token("alice")
    found = {
        "body": request("POST", f"{URL}/v1/predict", "[" * 20_001, Content_Type="application/json", **_bearer(bearer)),
        "fits": predict(bearer),
    }
    statuses = {name: answer["status"] for name, answer in zip(found, ask(*found.values()))}
    assert statuses == {"body": 413, "fits": 200}
    held = json.loads(parts.run(HELD, json.dumps({"bearer": bearer, "png": picture(101, 101).hex(), "small": picture(100, 100).hex()})))
    assert held == {"pixels": 422, "fewer pixels": 200, "in flight": 429, "afterwards": 200, "idle connection": "closed"}, held
    shown = f"413 / {held['pixels']} / {held['in flight']} / {held['idle connection']}"
    figure("options, limits: body / pixels / bodies together / idle connection", shown)


def picture(width: int, height: int) -> bytes:
    """A grey PNG."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# What takes more than a request: two bodies that do not end, and a connection on which nothing comes.
HELD = """
import http.client, json, socket, sys
given, found = json.loads(sys.argv[1]), {}
host, headers = "inference.options.svc", {"Authorization": "Bearer " + given["bearer"]}

def post(body, kind):
    to = http.client.HTTPConnection(host, timeout=30)
    to.request("POST", "/v1/predict", body, {**headers, "Content-Type": kind})
    return to.getresponse().status

found["pixels"] = post(bytes.fromhex(given["png"]), "image/png")
found["fewer pixels"] = post(bytes.fromhex(given["small"]), "image/png")
large = (json.dumps({"instances": [[1] * 64]}) + " " * 15000).encode()
slow = []
for _ in range(2):
    slow.append(socket.create_connection((host, 80), timeout=30))
    head = "POST /v1/predict HTTP/1.1\\r\\nHost: a\\r\\nContent-Type: application/json\\r\\nContent-Length: 20000\\r\\n"
    slow[-1].sendall((head + "Authorization: " + headers["Authorization"] + "\\r\\n\\r\\n").encode() + b" " * 19900)
import time; time.sleep(1)
found["in flight"] = post(large, "application/json")
for each in slow:
    each.close()
time.sleep(1)
found["afterwards"] = post(large, "application/json")
idle = http.client.HTTPConnection(host, timeout=60)
idle.request("GET", "/version")
idle.getresponse().read()
try:
    found["idle connection"] = "closed" if idle.sock is None or idle.sock.recv(1) == b"" else "said something"
except TimeoutError:
    found["idle connection"] = "open"
print(json.dumps(found))
"""


def test_who_calls_too_often_waits_and_nobody_else(platform, figure):
    often, other = (token(name) for name in ("dave", "erin"))
    *answers, last = ask(*[request("GET", f"{URL}/v1/models", **_bearer(often))] * 30, request("GET", f"{URL}/v1/models", **_bearer(other)))
    counted = collections.Counter(answer["status"] for answer in answers)
    assert set(counted) == {200, 429} and counted[200] >= 12 and counted[429] >= 5 and last["status"] == 200, (counted, last)
    refused = next(answer for answer in answers if answer["status"] == 429)
    assert int(refused["headers"]["retry-after"]) >= 1 and refused["headers"]["ratelimit-limit"] == "12", refused
    shown = f"{counted[429]} x 429 / {refused['headers']['retry-after']} s / {last['status']}"
    figure("options, rate 12 at once: of 30 by one / Retry-After / another client", shown)


def test_spans_come_to_the_collector(platform, figure):
    """Those whose caller wants it: the share of all others is none."""
    wanted, unwanted, bearer = secrets.token_hex(16), secrets.token_hex(16), token("alice")
    span = secrets.token_hex(8)
    unsampled, sampled = (f"00-{trace}-{span}-{flag}" for trace, flag in ((unwanted, "00"), (wanted, "01")))
    sent = ask(predict(bearer, traceparent=unsampled), predict(bearer), predict(bearer, cache_control="no-store", traceparent=sampled))
    assert [answer["status"] for answer in sent] == [200, 200, 200]

    def found(trace: str) -> list[dict]:
        (answer,) = ask(request("GET", f"http://jaeger.{parts.SPACE}.svc:16686/api/traces/{trace}"))
        return json.loads(answer["body"])["data"][0]["spans"] if answer["status"] == 200 else []

    spans = {each["operationName"]: each for each in eventually(lambda: found(wanted), "the trace is in Jaeger", 60)}
    assert {"POST /v1/predict", "queue", "batch", "forward"} <= set(spans), spans
    assert spans["POST /v1/predict"]["references"][0]["spanID"] == span, "it continues its caller's"
    assert found(unwanted) == []
    (listed,) = ask(request("GET", f"http://jaeger.{parts.SPACE}.svc:16686/api/traces?service=genai-inference&limit=100"))
    assert {each["traceID"] for each in json.loads(listed["body"])["data"]} == {wanted}
    figure("options, tracing to Jaeger by https: spans of a request that wants it / that does not / ratio 0", f"{len(spans)} / 0 / 0")


# --- workers that KEDA wakes -----------------------------------------------------------------------------------------


def replicas() -> int:
    return int(cluster.kubectl("get", "deployment", WORKER, "-n", parts.SERVICE, "-o", "jsonpath={.spec.replicas}"))


def job(bearer: str) -> dict:
    body = {"input": {"instances": samples()["instances"][:2]}}
    return request("POST", f"{URL}/v1/jobs", json.dumps(body), Content_Type="application/json", **_bearer(bearer))


def state(bearer: str, name: str) -> dict:
    return json.loads(ask(request("GET", f"{URL}/v1/jobs/{name}", **_bearer(bearer)))[0]["body"])


def asleep() -> bool:
    """No worker, and a queue in which none would find anything."""
    group = parts.redis("XINFO", "GROUPS", QUEUE).split("\n")
    about = dict(zip(group[::2], group[1::2]))
    return replicas() == 0 and (about.get("pending"), about.get("lag")) == ("0", "0")


def done(name: str) -> bool:
    """Asked in Redis: a client's rate is limited."""
    found = parts.redis("HGET", f"genai:job:{name}", "status")
    assert found in ("queued", "running", "succeeded"), found
    return found == "succeeded"


def test_jobs_wake_workers_and_a_cancelled_one_keeps_none(platform, figure):
    """Red where a job that was cancelled while it waited stays in the queue, or hides from KEDA those that come after it."""
    eventually(lambda: replicas() == 0, "no worker without a job", 120)
    first, mine, others = (token(name) for name in ("frank", "gina", "henry"))
    (created,) = ask(job(first))
    name = json.loads(created["body"])["id"]
    (cancelled,) = ask(request("DELETE", f"{URL}/v1/jobs/{name}", **_bearer(first)))
    assert (created["status"], cancelled["status"]) == (202, 200), cancelled
    eventually(asleep, "a cancelled job keeps no worker, and no entry in the queue", 180)
    assert state(first, name)["status"] == "cancelled"

    answers = ask(*[job(mine)] * 3, *[job(others)] * 2)
    assert [answer["status"] for answer in answers] == [202, 202, 429, 202, 429], answers
    documents = [json.loads(answer["body"]) for answer in answers if answer["status"] == 202]
    assert {round(each["deadline"] - each["created"]) for each in documents} == {500}
    eventually(lambda: replicas() > 0, "a job wakes a worker", 60)
    eventually(lambda: all(done(document["id"]) for document in documents), "the jobs are done", 120)
    assert [state(bearer, document["id"])["status"] for bearer, document in zip((mine, mine, others), documents)] == ["succeeded"] * 3
    eventually(asleep, "back to none", 120)
    figure("options, jobs: of one client above its share / above what may wait", "429 / 429")
    figure("options, KEDA, workers: no job / one cancelled / 3 more / when they are done", "0 / 0 / 1 or 2 / 0")


def test_jobs_wake_workers_where_redis_lost_everything(platform, figure):
    """Red where nobody makes a queue that is gone while no worker is there: an error to KEDA, until somebody sends a job."""
    parts.redis("FLUSHALL")
    eventually(asleep, "the queue is there again, and empty", 60)
    ready = ("get", "scaledobject", WORKER, "-n", parts.SERVICE, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')
    eventually(lambda: cluster.kubectl(*ready) == "True", "KEDA can look into it", 60)
    (created,) = ask(job(token("alice")))
    assert created["status"] == 202, created
    eventually(lambda: done(json.loads(created["body"])["id"]), "the job is done", 120)
    figure("options, KEDA, Redis lost everything: without a job / the next job", "ready / done")


# --- a second version ------------------------------------------------------------------------------------------------


def answered(url: str, by: str, **headers: str) -> collections.Counter[str]:
    """Who answers, by the version of the image's model: 2.0.0 is the canary."""
    answers = ask(*[request("GET", f"{url}/version", **headers)] * SENT, by=by)
    failed = [answer for answer in answers if answer["status"] != 200]
    assert not failed, (len(failed), failed[0])
    return collections.Counter(json.loads(answer["body"])["model"]["version"] for answer in answers)


class Asking:
    """Requests for as long as the block lasts, by two callers at once; what failed."""

    def __init__(self, url: str, by: str, headers: dict[str, str]) -> None:
        self.sent, self.failures = 0, []
        self._requests, self._by, self._done = [request("GET", f"{url}/version", **headers)] * 40, by, threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        while not self._done.is_set():
            answers = ask(*self._requests, by=self._by)
            self.sent += len(answers)
            self.failures += [answer for answer in answers if answer["status"] != 200]


def reached(url: str, by: str, **headers: str) -> None:
    eventually(lambda: ask(request("GET", f"{url}/version", **headers), by=by)[0]["status"] == 200, f"{url} leads to the service", 60)


def test_a_gateway_splits_the_requests(platform, figure):
    reached(GATEWAY, parts.OUTSIDE, Host=HOST)
    split = answered(GATEWAY, parts.OUTSIDE, Host=HOST)
    assert FEWEST <= split["2.0.0"] <= MOST and split["1.0.0"] + split["2.0.0"] == SENT, split
    assert answered(URL, parts.OUTSIDE)["2.0.0"] == 0, "who asks the Service itself gets the API"
    with Asking(GATEWAY, parts.OUTSIDE, {"Host": HOST}) as asking:
        deploy(**BY_GATEWAY)
    assert not asking.failures, (len(asking.failures), asking.failures[0])
    alone = eventually(lambda: (found := answered(GATEWAY, parts.OUTSIDE, Host=HOST))["2.0.0"] == 0 and found, "all comes to the API", 60)
    figure(f"options, canary by the gateway: of {SENT} with weight {WEIGHT} / off again", f"{split['2.0.0']} / {alone['2.0.0']}")
    figure("options, canary by the gateway goes: failed / sent requests", f"0 / {asking.sent}")


def allowed(origin: str) -> None:
    """From which namespaces the Gateway takes routes."""
    change = [{"op": "replace", "path": "/spec/listeners/0/allowedRoutes/namespaces/from", "value": origin}]
    cluster.kubectl("patch", "gateway.gateway.networking.k8s.io/public", "-n", parts.SPACE, "--type=json", "-p", json.dumps(change))


def test_a_gateway_that_is_not_there_or_refuses_is_named(platform, figure):
    """Red where a release, or verify, is content with a route that leads nobody to the service."""
    run = cluster.play("site.yml", *VARIABLES, "-e", json.dumps({"inference_app_models": models(), "inference_app_gateway": "nowhere/public"}))
    assert run.code != 0 and "names Gateway nowhere/public" in run.output, run.output
    allowed("Same")
    try:
        said = eventually(lambda: (run := cluster.play("verify.yml", *VARIABLES)).code and run.output, "verify finds it", 60)
        assert "RouteRefused: NotAllowedByListeners by Gateway public" in said, said
    finally:
        allowed("All")
    eventually(lambda: cluster.play("verify.yml", *VARIABLES).code == 0, "healthy again", 60)
    figure("options, a Gateway that is not there / that refuses the route", "refused before any write / named by verify")


def test_a_mesh_splits_the_requests(platform, figure):
    deploy(inference_app_canary={**CANARY, "by": "istio"}, **BY_ISTIO)
    ways = {"in the mesh": (URL, parts.INSIDE, {}), "by its gateway": (GATEWAY, parts.OUTSIDE, {"Host": HOST})}
    for url, by, headers in ways.values():
        reached(url, by, **headers)
    eventually(lambda: answered(URL, parts.INSIDE)["2.0.0"], "the mesh has heard of it", 60)
    split = {name: answered(url, by, **headers) for name, (url, by, headers) in ways.items()}
    assert all(FEWEST <= found["2.0.0"] <= MOST for found in split.values()), split
    with contextlib.ExitStack() as stack:
        asking = [stack.enter_context(Asking(*way)) for way in ways.values()]
        deploy(inference_app_canary={"enabled": False, "by": "istio"}, **BY_ISTIO)
    failures = [failure for each in asking for failure in each.failures]
    assert not failures, (len(failures), failures[0])
    for name, (url, by, headers) in ways.items():
        eventually(lambda: answered(url, by, **headers)["2.0.0"] == 0, f"all comes to the API {name}", 60)  # pylint: disable=cell-var-from-loop
    shown = " / ".join(str(found["2.0.0"]) for found in split.values())
    figure(f"options, canary by Istio: of {SENT} with weight {WEIGHT} {' / '.join(ways)} / off again", f"{shown} / 0")
    figure("options, canary by Istio goes: failed / sent requests", f"0 / {sum(each.sent for each in asking)}")


def test_nothing_is_left(platform, figure):
    """Webhooks above all, and definitions: other stories go on in this cluster."""
    platform.remove()
    left = set(cluster.versions()) - platform.before
    assert left == set()
    figure("options, afterwards: objects left", len(left))
