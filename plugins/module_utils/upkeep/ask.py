# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the pods of a Service answer a request? Only Services are asked that say how, by an annotation. The API server passes the requests
on, as for `kubectl get --raw`: that writes nothing and needs no pod of ours."""
from __future__ import annotations

import json
import re
import time
import typing as t

from ..cluster.api import Cluster
from ..errors import Unreachable
from ..objects.manifest import Ref
from ..objects.request import ANNOTATION_REQUEST, Request, request_of
from .answers import Silence, service_of

ANSWER_SECONDS = 35.0  # the API server tries for 30 to reach a pod, and says so then: that is no silence of the pod's
ROUNDS = 3  # a pod may be about to go, of which the endpoints tell a moment later
PAUSE_SECONDS = 1.0
MOST_PODS = 20  # of one Service
MAY_NOT = "this identity may not get pods/proxy"
PROXY = "error trying to reach service: "  # begins what the API server says of a pod that gave it no answer
# What a pod that was reached is to blame for. Anything else (no route, a timeout, no agent) is the API server's way to it.
POD_FAULTS = ("connection refused", "connection reset", "broken pipe", "EOF", "malformed HTTP", "tls: ", "x509: ", "HTTP response to HTTPS client")
HINT = "its pods say that they are ready, and clients are not served: look at the Service's ports and at the log of the pod"
_POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9]|\.(?!\.))*")


class End(t.NamedTuple):
    """A pod that is to answer for a Service, on the port that the Service sends its clients to; 0 where it has none."""

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


Slices = t.Callable[[str], t.Optional[t.List[dict]]]


def ask(cluster: Cluster, judged: t.Mapping[Ref, dict], slices: Slices, touched: t.Container[Ref] = (), rounds: int = ROUNDS) -> Asked:
    """Asks the ready pods of those Services among `judged` that say how, and again who did not answer. `slices`: the EndpointSlices of a
    namespace as they are now, None where the identity may not list them. `touched`: Services that are not what was released: a pod of
    such a one that cannot be reached is asked on a wrong port, as far as anybody knows."""
    if not judged:
        return Asked([], [], [])
    annotated = {ref: obj for ref, obj in judged.items() if ref.builtin == "Service" and ANNOTATION_REQUEST in (obj["metadata"].get("annotations") or {})}
    requests = {ref: request for ref, service in annotated.items() if (request := request_of(service))}
    spaces = sorted({ref.namespace for ref in requests})
    found: set[End] = set()
    told: dict[End, Reply | None] = {}
    for turn in range(rounds):
        listed = cluster.each(slices, spaces)
        if turn and None in listed:
            break  # what was known before stands
        found = ends(requests, [each for known in listed for each in known or ()])
        _ask_each(cluster, [end for end in sorted(found) if end not in told or not _settled(told[end])], told)
        if all(_settled(told[end]) for end in found):
            break
        if turn + 1 < rounds:
            time.sleep(PAUSE_SECONDS)
    result = _asked_end(requests, {end: _judged(told[end], end.service in touched) for end in found})
    if not annotated:
        result.lines.append(f"no Service says how it is asked, by the annotation {ANNOTATION_REQUEST}")
    result.unseen.extend(f"{ref}: its annotation {ANNOTATION_REQUEST} fits no port of it" for ref in sorted(annotated.keys() - requests.keys()))
    return result


def ends(requests: t.Mapping[Ref, Request], slices: t.Iterable[dict]) -> set[End]:
    """The ready pods behind the Services, once each, whatever number of addresses they have; MOST_PODS of a Service."""
    services = {(ref.namespace, ref.name): ref for ref in requests}
    found: dict[Ref, set[End]] = {ref: set() for ref in requests}
    for each in slices:
        ref = services.get(service_of(each))
        for end in each.get("endpoints") or [] if ref else ():
            pod, ready = _pod(end, ref.namespace), end.get("conditions") or {}
            if pod and ready.get("ready") is not False and ready.get("serving") is not False:
                found[ref].add(End(ref, pod, _port(each, requests[ref].port), requests[ref]))
    return {end for some in found.values() for end in sorted(some)[:MOST_PODS]}


def _pod(end: dict, namespace: str) -> str:
    """'' for what is no pod of the namespace: whoever may write an EndpointSlice must not choose what is asked in our name."""
    target = end.get("targetRef") or {}
    name = str(target.get("name", ""))
    ours = target.get("kind") == "Pod" and target.get("namespace", namespace) == namespace
    return name if ours and _POD_NAME.fullmatch(name) else ""


def _port(endpoints: dict, name: str) -> int:
    return next((port.get("port") or 0 for port in endpoints.get("ports") or [] if (port.get("name") or "") == name), 0)


def _settled(reply: Reply | None) -> bool:
    return reply is None or reply.final


def _ask_each(cluster: Cluster, asked: list[End], told: dict[End, Reply | None]) -> None:
    """One pod of each Service first: where that cannot be asked, the others are not tried."""
    first = list({end.service: end for end in reversed(asked)}.values())
    told.update(zip(first, cluster.each(lambda end: _reply(cluster, end), first)))
    blind = {end.service: reply for end in first if (reply := told[end]) and reply.unseen and reply.final}
    rest = [end for end in asked if end not in first]
    told.update({end: blind[end.service] for end in rest if end.service in blind})
    left = [end for end in rest if end.service not in blind]
    told.update(zip(left, cluster.each(lambda end: _reply(cluster, end), left)))


def _reply(cluster: Cluster, end: End) -> Reply | None:
    """None for an answer that a client can use."""
    if not end.port:
        return Reply(f"it has no port that the Service's port {end.request.port or 'without a name'} leads to", final=True)
    try:
        status, text = cluster.ask(end.url, ANSWER_SECONDS)
    except Unreachable as exc:
        return Reply(exc.message, unseen=True)
    if not status:
        return Reply(f"no answer within {ANSWER_SECONDS:.0f} s", final=True)
    return None if status < 400 else refused(status, text)


def refused(status: int, text: str) -> Reply:
    """What an answer of 400 or more means: the pod's own, or the API server's in its place."""
    said = _of_the_server(text)
    own = Reply(f"{status} {(text if said is None else said).strip().splitlines()[0][:200] if text.strip() else ''}".strip())
    if said is None:
        return own
    if PROXY in said:
        why = said.rpartition(PROXY)[2]
        if any(fault in why for fault in POD_FAULTS):
            return Reply(why)
        return Reply(f"the API server does not reach its pods ({why}), as where a NetworkPolicy lets nothing in from it", unseen=True, final=True)
    if status == 403:
        return Reply(MAY_NOT, unseen=True, final=True) if "pods/proxy" in said else own
    return Reply(f"the API server says {own.text}", unseen=True) if status in (401, 429) or status >= 500 or 'pods "' in said else own


def _of_the_server(text: str) -> str | None:
    """The message of a Status of Kubernetes; None for anything else."""
    try:
        body = json.loads(text)
    except ValueError:
        return None
    own = isinstance(body, dict) and body.get("kind") == "Status" and body.get("apiVersion") == "v1"
    return str(body.get("message", "")) if own else None


def _judged(reply: Reply | None, touched: bool) -> Reply | None:
    unreached = reply is not None and reply.unseen and reply.final and reply.text != MAY_NOT
    return reply._replace(unseen=False) if reply and touched and unreached else reply


def _asked_end(requests: t.Mapping[Ref, Request], replies: t.Mapping[End, Reply | None]) -> Asked:
    result = Asked([], [], [])
    for ref, request in sorted(requests.items()):
        pods = {end: reply for end, reply in sorted(replies.items(), key=lambda item: item[0]) if end.service == ref}
        unseen = [reply.text for reply in pods.values() if reply and reply.unseen]
        bad = {end: reply for end, reply in pods.items() if reply and not reply.unseen}
        result.unseen.extend(f"{ref}: {text}" for text in sorted(set(unseen)))
        asked = len(pods) - len(unseen)
        result.lines.append(f"{asked - len(bad)} of {asked} pods of {ref} answered GET {request.path}" if asked else f"no pod of {ref} could be asked")
        for end, reply in [*bad.items()][:1]:
            said = f"{len(bad)} of {asked} pods do not answer GET {request.path}; {end.pod}, port {end.port or 'none'}: {reply.text}"
            result.silences.append(Silence(ref, "NoAnswer", said, HINT))
    return result
