# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does every pod of a Service answer a request? Only Services are asked that say how, by an annotation. The API server passes the
requests on, as for `kubectl get --raw`: that writes nothing and needs no pod of ours."""
from __future__ import annotations

import json
import time
import typing as t

from ._answers import Silence, service_of
from ._cluster import Cluster
from ._errors import Unreachable
from ._manifest import Ref
from ._request import Request, request_of

ANSWER_SECONDS = 35.0  # the API server tries for 30 to reach a pod, and says so then: that is no silence of the pod's
ROUNDS = 3  # a pod may be about to go, of which the endpoints tell a moment later
PAUSE_SECONDS = 1.0
MAY_NOT = "this identity may not get pods/proxy"
HINT = "its pods say that they are ready, and clients are not served: look at the Service's ports and at the log of the pod"


class End(t.NamedTuple):
    """A pod that is to answer for a Service, on the port that the Service sends its clients to."""

    service: Ref
    pod: str
    port: int
    request: Request

    @property
    def url(self) -> str:
        """Of the API server, which passes it on."""
        name = f"{'https:' if self.request.tls else ''}{self.pod}:{self.port}"
        return f"/api/v1/namespaces/{self.service.namespace}/pods/{name}/proxy{self.request.path}"


class Reply(t.NamedTuple):
    """Why an answer is none. `unseen`: because it could not be asked for. `final`: to ask again would tell nothing more."""

    text: str
    unseen: bool = False
    final: bool = False


class Asked(t.NamedTuple):
    silences: list[Silence]
    unseen: list[str]
    lines: list[str]


def ask(cluster: Cluster, judged: t.Mapping[Ref, dict], slices: t.Callable[[str], list[dict] | None], rounds: int = ROUNDS) -> Asked:
    """Asks every ready pod of those Services among `judged` that say how, and again who did not answer. `slices`: the EndpointSlices of
    a namespace as they are now, None where the identity may not list them."""
    requests = {ref: request for ref, service in judged.items() if ref.builtin == "Service" and (request := request_of(service))}
    spaces = sorted({ref.namespace for ref in requests})
    first: set[End] = set()
    silent: dict[End, Reply] = {}
    for turn in range(rounds):
        found = ends(requests, [each for listed in cluster.each(slices, spaces) for each in listed or ()])
        first = first or found
        asked = sorted(found & {end for end, reply in silent.items() if not reply.final} if turn else found)
        replies = zip(asked, cluster.each(lambda end: _reply(cluster, end), asked))
        silent = {**{end: reply for end, reply in silent.items() if reply.final}, **{end: reply for end, reply in replies if reply}}
        if all(reply.final for reply in silent.values()):
            break
        if turn + 1 < rounds:
            time.sleep(PAUSE_SECONDS)
    return _asked(first, silent)


def ends(requests: t.Mapping[Ref, Request], slices: t.Iterable[dict]) -> set[End]:
    """The ready pods behind the Services, once each, whatever number of addresses they have."""
    services = {(ref.namespace, ref.name): ref for ref in requests}
    found = set()
    for each in slices:
        ref = services.get(service_of(each))
        ports = [port for port in each.get("ports") or [] if ref and (port.get("name") or "") == requests[ref].port]
        for end in each.get("endpoints") or [] if ref and ports else ():
            target = end.get("targetRef") or {}
            if target.get("kind") == "Pod" and (end.get("conditions") or {}).get("ready") is not False:
                found.add(End(ref, target["name"], ports[0]["port"], requests[ref]))
    return found


def _reply(cluster: Cluster, end: End) -> Reply | None:
    """None for an answer that a client can use."""
    try:
        status, text = cluster.ask(end.url, ANSWER_SECONDS)
    except Unreachable:
        cluster.request("GET", "/version")  # raises when it is the API server that does not answer
        return Reply(f"no answer within {ANSWER_SECONDS:.0f} s", final=True)
    if status < 400:
        return None
    refusal = _of_the_server(text)
    if refusal is None:
        return Reply(f"{status} {text.strip().splitlines()[0][:200] if text.strip() else ''}".strip())
    if status == 403:
        return Reply(MAY_NOT, True, True)
    why = refusal.rpartition("error trying to reach service: ")[2]
    if why.startswith("dial ") and "timeout" in why:
        return Reply(f"the API server does not reach its pods ({why}), as where a NetworkPolicy lets nothing in from it", True, True)
    return Reply(why)


def _of_the_server(text: str) -> str | None:
    """What the API server itself says instead of passing on an answer; None for an answer of the pod's."""
    try:
        body = json.loads(text)
    except ValueError:
        return None
    own = isinstance(body, dict) and body.get("kind") == "Status" and body.get("apiVersion") == "v1"
    return str(body.get("message", "")) if own else None


def _asked(every: t.Collection[End], silent: t.Mapping[End, Reply]) -> Asked:
    result = Asked([], [], [])
    for ref, request in sorted({(end.service, end.request) for end in every}):
        pods = [end for end in every if end.service == ref]
        replies = {end: silent[end] for end in sorted(pods) if end in silent}
        bad = {end: reply for end, reply in replies.items() if not reply.unseen}
        result.unseen.extend({reply.text: f"{ref}: {reply.text}" for reply in replies.values() if reply.unseen}.values())
        result.lines.append(f"{len(pods) - len(replies)} of {len(pods)} pods of {ref} answered GET {request.path}")
        if bad:
            end, reply = next(iter(bad.items()))
            said = f"{len(bad)} of {len(pods)} pods do not answer GET {request.path}; {end.pod}, port {end.port}: {reply.text}"
            result.silences.append(Silence(ref, "NoAnswer", said, HINT))
    return result
