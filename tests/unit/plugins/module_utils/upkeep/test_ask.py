# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an answer of a Service's pods means, and what none means."""
from __future__ import annotations

import json

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput, Unreachable
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import Ref, prepare
from ansible_collections.genai.platform.plugins.module_utils.objects.request import ANNOTATION_REQUEST, Request, request_of
from ansible_collections.genai.platform.plugins.module_utils.upkeep import ask as _ask
from fake import FakeCluster
from story import obj

REF = Ref("", "Service", "ns", "web")
HTTP = {"name": "http", "port": 80}


def service(text="http:/ready", ports=(HTTP,)):
    body = obj("Service", "web", spec={"ports": list(ports)})
    body["metadata"]["annotations"] = {ANNOTATION_REQUEST: text}
    return body


def a_slice(*pods, name="web", ports=({"name": "http", "port": 8080},), **conditions):
    found = [{"addresses": ["10.0.0.1"], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}} for pod in pods]
    return {"metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": name}}, "ports": list(ports), "endpoints": found}


class Passing(FakeCluster):
    """An API server that passes requests on. `answers`: {pod: (status, text), None for silence, or an exception}, for all times, or a list."""

    def __init__(self, **answers):
        super().__init__()
        self.answers, self.asked = answers, []

    def ask(self, path, seconds):
        self.asked.append(path)
        answer = self.answers[path.split("/pods/")[1].split(":")[-2]]
        answer = answer.pop(0) if isinstance(answer, list) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer or (0, "")


def refusal(status, message):
    return status, json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": status})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_ask, "PAUSE_SECONDS", 0)


def ask(cluster, *slices, body=None):
    return _ask.ask(cluster, {REF: body or service()}, lambda _space: list(slices))


@pytest.mark.parametrize("text, ports, meant", [
    ("http:/ready", [HTTP], Request("http", "/ready", False)),
    ("80:/a?b=c", [HTTP], Request("http", "/a?b=c", False)),
    ("80:/", [{"port": 80}], Request("", "/", False)),
    ("web:/", [HTTP, {"name": "web", "port": 81, "appProtocol": "https"}], Request("web", "/", True)),
    ("443:/", [{"port": 443}], Request("", "/", True)),
    ("https:/", [{"name": "https", "port": 8443}], Request("https", "/", True)),
    ("https:http:/", [HTTP], Request("http", "/", True)), ("http:443:/", [{"port": 443}], Request("", "/", False)),
    ("web:/", [{"name": "web", "port": 443, "appProtocol": "http"}], Request("web", "/", False)),
    ("web:/", [{"name": "web", "port": 81, "appProtocol": "HTTPS"}], Request("web", "/", True)),
    ("443:/", [{"name": "quic", "port": 443, "protocol": "UDP"}, {"name": "web", "port": 443, "protocol": "TCP"}], Request("web", "/", True)),
    ("53:/", [{"port": 53, "protocol": "UDP"}], None),
    ("ready", [HTTP], None), ("/ready", [HTTP], None), ("http:ready", [HTTP], None), ("other:/", [HTTP], None), ("http:/ready\n", [HTTP], None),
    ("http:/../../../secrets", [HTTP], None), ("http:/a b", [HTTP], None), (7, [HTTP], None), ("http:/", "text", None), ("http:/", ["text"], None),
])
def test_how_a_service_says_that_it_is_asked(text, ports, meant):
    body = {"metadata": {"annotations": {ANNOTATION_REQUEST: text}}, "spec": {"ports": ports}}
    assert request_of(body) == meant


def test_what_is_not_understood_is_refused_before_anything_is_written():
    with pytest.raises(InvalidInput) as caught:
        prepare({"app": [service("ready"), {**service(), "kind": "ConfigMap"}]}, "genai")
    assert str(caught.value).count("such as http:/ready") == 2, caught.value


def test_each_ready_pod_is_asked_once_on_the_port_that_its_clients_reach():
    cluster = Passing(**{name: (200, "") for name in ("one", "two", "three")})
    asked = ask(cluster, a_slice("one", "two"), a_slice("one"), a_slice("gone", ready=False), a_slice("other", name="other"), a_slice("three", ready=None))
    prefix = "/api/v1/namespaces/ns/pods"
    assert sorted(cluster.asked) == [f"{prefix}/one:8080/proxy/ready", f"{prefix}/three:8080/proxy/ready", f"{prefix}/two:8080/proxy/ready"]
    assert asked == ([], [], ["3 of 3 pods of Service ns/web answered GET /ready"])


def test_a_service_with_tls_is_asked_with_tls():
    cluster = Passing(one=(200, ""))
    ask(cluster, a_slice("one", ports=[{"name": "https", "port": 8443}]), body=service("https:/", [{"name": "https", "port": 443}]))
    assert cluster.asked == ["/api/v1/namespaces/ns/pods/https:one:8443/proxy/"]


@pytest.mark.parametrize("answer, said", [
    ((500, "first\nsecond"), "8080: 500 first"), ((404, ""), "8080: 404"), (None, "no answer within 35 s"),
    ((503, '{"kind": "Status"}'), '503 {"kind": "Status"}'), ((503, "[1]"), "503 [1]"), ((502, "<html>"), "502 <html>"),
    (refusal(403, 'cannot get path "/ready"'), '403 cannot get path "/ready"'), (refusal(404, "no such path"), "404 no such path"),
    (refusal(503, "error trying to reach service: tls: first record does not look like a TLS handshake"), "like a TLS handshake"),
    (refusal(503, "error trying to reach service: dial tcp 10.0.0.1:8080: connect: connection refused"), "8080: connect: connection refused"),
    (refusal(503, "error trying to reach service: EOF"), "8080: EOF"),
])
def test_a_pod_that_serves_no_client_is_named(answer, said):
    asked = ask(Passing(one=answer, two=(204, "")), a_slice("one", "two"))
    (silence,) = asked.silences
    assert (silence.ref, silence.reason) == (REF, "NoAnswer") and silence.message.startswith("1 of 2 pods do not answer GET /ready; one, port ")
    assert silence.message.endswith(said) and not asked.unseen and asked.lines == ["1 of 2 pods of Service ns/web answered GET /ready"]


def test_what_is_told_is_short():
    (silence,) = ask(Passing(one=(500, "x" * 4000)), a_slice("one")).silences
    assert len(silence.message) < 300


@pytest.mark.parametrize("answer, said", [
    (refusal(403, 'User "u" cannot get resource "pods/proxy" in API group ""'), "Service ns/web: this identity may not get pods/proxy"),
    *(
        (refusal(503, f"error trying to reach service: {why}"), f"Service ns/web: the API server does not reach its pods ({why}")
        for why in ("dial tcp 10.0.0.1:8080: i/o timeout", "dial tcp: connect: no route to host", "No agent available", "context deadline exceeded")
    ),
])
def test_what_could_not_be_asked_is_no_problem_and_is_told_once(answer, said):
    cluster = Passing(one=answer, two=answer)
    asked = ask(cluster, a_slice("one", "two"))
    assert not asked.silences and len(cluster.asked) == 1, "to ask again, or others, tells nothing more"
    assert len(asked.unseen) == 1 and asked.unseen[0].startswith(said) and asked.lines == ["no pod of Service ns/web could be asked"]


def test_a_pod_that_is_not_reached_behind_a_service_that_was_changed_is_silent():
    cluster = Passing(one=refusal(503, "error trying to reach service: dial tcp 10.0.0.1:9: i/o timeout"))
    (silence,) = _ask.ask(cluster, {REF: service()}, lambda _space: [a_slice("one")], [REF]).silences
    assert "dial tcp 10.0.0.1:9: i/o timeout" in silence.message
    cluster = Passing(one=refusal(403, 'cannot get resource "pods/proxy"'))
    assert not _ask.ask(cluster, {REF: service()}, lambda _space: [a_slice("one")], [REF]).silences


@pytest.mark.parametrize("trouble", [
    Unreachable("connection reset"), refusal(429, "too many requests"), refusal(401, "Unauthorized"), refusal(500, "etcdserver: request timed out"),
])
def test_trouble_with_the_api_server_is_tried_again_and_never_a_pods_fault(trouble):
    asked = ask(Passing(one=[trouble, trouble, (200, "")]), a_slice("one"))
    assert asked == ([], [], ["1 of 1 pods of Service ns/web answered GET /ready"])
    asked = ask(Passing(one=trouble), a_slice("one"))
    assert not asked.silences and len(asked.unseen) == 1


def test_a_refusal_of_the_pods_own_is_its_answer():
    (silence,) = ask(Passing(one=(403, "no key")), a_slice("one")).silences
    assert silence.message.endswith("403 no key")


def test_a_pod_that_was_about_to_go_is_no_problem():
    slices = [[a_slice("one", "two")], [a_slice("two")]]
    cluster = Passing(one=refusal(503, "error trying to reach service: EOF"), two=[(503, "warming up"), (200, "")])
    asked = _ask.ask(cluster, {REF: service()}, lambda _space: slices.pop(0))
    assert not asked.silences and len(cluster.asked) == 3


def test_pods_that_take_the_place_of_those_that_failed_are_asked():
    slices = [[a_slice("one", "two")], [a_slice("three")], [a_slice("three")]]
    cluster = Passing(one=(500, ""), two=(500, ""), three=(500, "no model"))
    (silence,) = _ask.ask(cluster, {REF: service()}, lambda _space: slices.pop(0)).silences
    assert silence.message == "1 of 1 pods do not answer GET /ready; three, port 8080: 500 no model"


def test_what_was_known_stands_when_endpoints_may_not_be_listed_any_more():
    slices = [[a_slice("one")], None]
    assert _ask.ask(Passing(one=(500, "")), {REF: service()}, lambda _space: slices.pop(0)).silences


@pytest.mark.parametrize("ports", [[], [{"name": "other", "port": 1}], [{"name": "http", "protocol": "TCP"}]])
def test_a_pod_without_the_port_of_its_service_serves_nobody(ports):
    cluster = Passing()
    (silence,) = ask(cluster, a_slice("one", "two", ports=ports)).silences
    assert "2 of 2 pods do not answer GET /ready; one, port none: it has no port that the Service's port http leads to" in silence.message
    assert not cluster.asked


def test_an_annotation_that_fits_no_port_any_more_is_told():
    asked = _ask.ask(Passing(), {REF: service(ports=[{"name": "web", "port": 80}])}, lambda _space: [a_slice("one")])
    assert asked == ([], ["Service ns/web: its annotation genai.platform/verify-request fits no port of it"], [])


@pytest.mark.parametrize("target", [
    {}, {"kind": "Pod"}, {"kind": "Node", "name": "one"}, {"kind": "Pod", "name": "one", "namespace": "other"}, {"kind": "Pod", "name": "a..b"},
    {"kind": "Pod", "name": "victim:9090/proxy/-/quit?x="}, {"kind": "Pod", "name": "../../kube-system/services/prometheus:9090/proxy/-/quit?x="},
])
def test_an_endpoint_that_names_no_pod_of_the_namespace_is_not_asked(target):
    endpoints = {**a_slice(), "endpoints": [{"targetRef": target}]}
    cluster = Passing()
    assert ask(cluster, endpoints).lines == ["no pod of Service ns/web could be asked"] and not cluster.asked


def test_of_very_many_pods_some_are_asked():
    names = [f"pod-{number}" for number in range(100)]
    cluster = Passing(**{name: (200, "") for name in names})
    asked = ask(cluster, a_slice(*names))
    assert len(cluster.asked) == _ask.MOST_PODS and asked.lines == ["20 of 20 pods of Service ns/web answered GET /ready"]


def test_pods_that_are_not_ready_are_not_asked_where_their_addresses_are_published_all_the_same():
    assert not Passing().asked and ask(Passing(), a_slice("one", ready=True, serving=False)).lines == ["no pod of Service ns/web could be asked"]


def test_a_namespace_that_may_not_be_looked_at_and_services_that_say_nothing():
    cluster = Passing()
    assert _ask.ask(cluster, {REF: service()}, lambda _space: None) == ([], [], ["no pod of Service ns/web could be asked"])
    asked = _ask.ask(cluster, {REF: obj("Service", "web", spec={"ports": [HTTP]})}, lambda _space: [a_slice("one")])
    assert asked == ([], [], ["no Service says how it is asked, by the annotation genai.platform/verify-request"])
    assert _ask.ask(cluster, {}, lambda _space: []) == ([], [], [])
    assert not cluster.asked
