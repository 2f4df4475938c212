# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody else scales, edits, deletes and holds what is released, or owns the place."""
from __future__ import annotations

import json
import typing as t

import cluster
import connection
from bundles import obj
from case import SHORT, Attempt, Seen, case
from live import until
from living import API, autoscaler, by_hand, delete, deployment, hold, let_go, path, scaled, settings, space, there
from tools import RECORDS, Run


@case("12", "an autoscaler that is not in the manifests has set three replicas, they say one; the same release again",
      "three all the time; released, or an error about the replicas",
      lambda seen: seen.replicas == [3] and (seen.again.ok or seen.again.says("replicas")))  # fmt: skip
def autoscaled(a: Attempt) -> Seen:
    web = deployment(a.namespace)
    a.given(web)
    by_hand(autoscaler(a.namespace, "somebodys", target="web"))
    scaled(web, 3)
    with cluster.Replicas(a.namespace, "web") as watched:
        run = a.release(web)
    return Seen(again=run, replicas=watched.seen)


def done_or_said(run: Run, is_there: bool) -> bool:
    """A release that succeeded has its objects; one that failed says that something is being deleted."""
    return is_there if run.ok else run.says("being deleted", "terminat")


@case("13", "the Namespace is being deleted, held by a finalizer; the same release, then one with an object more",
      "both say so, or what they released is there afterwards",
      lambda seen: done_or_said(seen.same, seen.there_afterwards) and done_or_said(seen.more, seen.there_afterwards))  # fmt: skip
def namespace_going(a: Attempt) -> Seen:
    held, more = settings(a.namespace), settings(a.namespace, "more")
    a.given(held)
    hold(held)
    delete(space(a.namespace))
    try:
        runs = {"same": a.release(held, timeout=SHORT), "more": a.release(held, more, timeout=SHORT)}
    finally:
        let_go(held)
    return Seen(**runs, there_afterwards=outlives_its_namespace(held))


def outlives_its_namespace(body: dict) -> bool:
    """Whether the object is there once its Namespace is no longer on its way out."""
    place = path(space(body["metadata"]["namespace"]))
    until("the Namespace is gone, or back", lambda: "deletionTimestamp" not in API.request("GET", place)[1].get("metadata", {}), 120)
    return there(body) is not None


@case("14", "an object is being deleted, held by a finalizer; the same release again; then the finalizer goes",
      "it is there afterwards, or the release says so", lambda seen: done_or_said(seen.again, seen.there_afterwards))  # fmt: skip
def object_going(a: Attempt) -> Seen:
    kept, held = settings(a.namespace, "kept"), settings(a.namespace, "held")
    a.given(kept, held)
    hold(held)
    delete(held)
    try:
        run = a.release(kept, held, timeout=SHORT)
    finally:
        let_go(held)
    return Seen(again=run, there_afterwards=there(held) is not None)


# --- a name twice in a list that is keyed by it ----------------------------------------------------------------------


def with_env(namespace: str, *values: str) -> dict:
    web = deployment(namespace)
    web["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "TARGET", "value": each} for each in values]
    return web


def values(web: dict) -> list[str]:
    live: t.Any = there(web)
    return [each["value"] for each in live["spec"]["template"]["spec"]["containers"][0]["env"]] if live else []


@case("21", "somebody adds a variable a second time to a Deployment; it is to be put back", "put back",
      lambda seen: seen.put_back.ok and seen.values == ["production"])  # fmt: skip
def added_twice(a: Attempt) -> Seen:
    web = with_env(a.namespace, "production")
    a.given(web)
    change = [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "TARGET", "value": "elsewhere"}}]
    cluster.kubectl("patch", "deployment", "web", "-n", a.namespace, "--type=json", "-p", json.dumps(change))
    run = a.put_back(web)
    return Seen(put_back=run, values=values(web))


@case("21, described", "the manifest has a variable twice", "stored as it stands, or an error that names object and variable and leaves nothing",
      lambda seen: seen.values == ["a", "b"] if seen.release.ok else seen.release.says("TARGET") and seen.release.says("web") and not seen.values)  # fmt: skip
def described_twice(a: Attempt) -> Seen:
    web = with_env(a.namespace, "a", "b")
    run = a.release(web)
    return Seen(release=run, values=values(web))


# --- whose place it is -----------------------------------------------------------------------------------------------


@case("41", "what the tool keeps of a release is in a namespace that others use; all is removed", "ours and the records gone, what is theirs stays",
      lambda seen: seen.removal.ok and not seen.ours_there and seen.theirs_there and not seen.records, [RECORDS])  # fmt: skip
def foreign_records(a: Attempt) -> Seen:
    a.records = f"{a.namespace}-theirs"
    ours, theirs = settings(a.namespace), settings(a.records, "theirs")
    by_hand(space(a.namespace), space(a.records), theirs)
    a.given(ours, space=False)
    run = a.remove(ours)
    secrets = API.need("GET", f"/api/v1/namespaces/{a.records}/secrets")["items"]
    return Seen(removal=run, ours_there=there(ours) is not None, theirs_there=there(theirs) is not None, records=len(secrets))


def team(namespaces: t.Iterable[str]) -> None:
    """An account that is admin of these namespaces, and of nothing else."""
    first, *_rest = spaces = list(namespaces)
    account = {"kind": "ServiceAccount", "name": "team", "namespace": first}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}
    by_hand(*map(space, spaces), obj("v1", "ServiceAccount", "team", first))
    by_hand(*(obj("rbac.authorization.k8s.io/v1", "RoleBinding", "team", each, roleRef=role, subjects=[account]) for each in spaces))


@case("46", "who releases is admin of the namespace (and of that for the tool's records), and of nothing else", "released",
      lambda seen: seen.release.ok and seen.there == 2)  # fmt: skip
def namespace_admin(a: Attempt) -> Seen:
    team(dict.fromkeys([a.namespace, a.tool.records(a.namespace) or a.namespace]))
    both = [settings(a.namespace, name) for name in ("one", "two")]
    with connection.as_account(a.namespace, "team") as kubeconfig:
        a.kubeconfig = kubeconfig
        run = a.release(*both, space=False)
    return Seen(release=run, there=sum(there(body) is not None for body in both))


# --- the API is away for a while -------------------------------------------------------------------------------------

MANY, FEW = 100, 5
AWAY_SECONDS = 15


def revisions(namespace: str) -> dict[str, int]:
    """{revision: ConfigMaps}."""
    found = [each["data"]["rate"] for each in API.need("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"] if "rate" in each["data"]]
    return {each: found.count(each) for each in sorted(set(found))}


@case("47", f"the API does not answer for {AWAY_SECONDS} s once a few of {MANY} objects are written; then the same release again",
      "all released, or all as before; the next one works",
      lambda seen: seen.rates == {"2" if seen.release.ok else "1": MANY} and seen.next.ok)  # fmt: skip
def away(a: Attempt) -> Seen:
    def bundle(rate: str) -> list[dict]:
        return [settings(a.namespace, f"settings-{number:03}", rate) for number in range(MANY)]

    with connection.Door() as door:
        a.kubeconfig = door.kubeconfig
        a.given(*bundle("1"))
        closing = door.close_when(lambda: revisions(a.namespace).get("2", 0) >= FEW, AWAY_SECONDS)
        run = a.release(*bundle("2"))
        closing.join()
        rates = revisions(a.namespace)
        return Seen(release=run, rates=rates, next=a.release(*bundle("2")))
