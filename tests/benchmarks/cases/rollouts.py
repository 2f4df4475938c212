# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a rollout is done, and when it never will be."""
from __future__ import annotations

import threading
import time
import typing as t

import cluster
from bundles import obj, pod, workload
from case import LONG, Attempt, Seen, case
from live import until
from living import API, Members, by_hand, deployment, members, settings, there
from operators import certificate, gauges, operator


def status(body: dict) -> dict:
    return (there(body) or {}).get("status", {})


def pods(namespace: str) -> list[dict]:
    return API.need("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]


def shards(namespace: str, revision: str) -> dict:
    template = pod("shard", env=[{"name": "REVISION", "value": revision}])
    return workload("StatefulSet", "shard", namespace, template, replicas=2, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})


@case("01", "a partition holds back one of two members of a StatefulSet", "released: one updated, two ready",
      lambda seen: seen.release.ok and seen.updated == 1 and seen.ready == 2)  # fmt: skip
def partition(a: Attempt) -> Seen:
    a.given(shards(a.namespace, "one"))
    run = a.release(shards(a.namespace, "two"))
    found = status(shards(a.namespace, "two"))
    return Seen(release=run, updated=found.get("updatedReplicas", 0), ready=found.get("readyReplicas", 0))


@case("03", "a release changes a Deployment's pods and pauses its rollout", "released, or an error that says paused",
      lambda seen: seen.paused if seen.release.ok else seen.release.says("paused"))  # fmt: skip
def paused(a: Attempt) -> Seen:
    a.given(deployment(a.namespace))
    changed = deployment(a.namespace, paused=True)
    changed["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "REVISION", "value": "two"}]
    run = a.release(changed)
    return Seen(release=run, paused=bool((there(changed) or {})["spec"].get("paused")))


def migration(namespace: str) -> dict:
    template = pod("migrate", "true")
    template["spec"]["restartPolicy"] = "Never"
    return obj("batch/v1", "Job", "migrate", namespace, spec={"ttlSecondsAfterFinished": 0, "template": template})


def completed(namespace: str) -> int:
    """How many Jobs have done their work, by their own events: the Jobs are gone."""
    events = API.need("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return len({each["involvedObject"]["uid"] for each in events if each["reason"] == "Completed"})


@case("05", "a Job is gone as soon as it is done, beside a Deployment that takes longer; then the same release again", "released twice, the work done once",
      lambda seen: seen.release.ok and seen.again.ok and seen.jobs_done == 1)  # fmt: skip
def job_gone(a: Attempt) -> Seen:
    slow = workload("Deployment", "slow", a.namespace, pod("slow", readinessProbe={"exec": {"command": ["true"]}, "initialDelaySeconds": 20}))
    first = a.release(migration(a.namespace), slow)
    until("the Job is gone", lambda: there(migration(a.namespace)) is None)
    again = a.release(migration(a.namespace), slow)
    until("a second Job is gone as well", lambda: there(migration(a.namespace)) is None)
    return Seen(release=first, again=again, jobs_done=completed(a.namespace))


def fussy(namespace: str) -> dict:
    source = {"valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}}
    return workload("Deployment", "web", namespace, pod("web", 'test "$RATE" = 1 && exec sleep infinity; exit 3', env=[{"name": "RATE", **source}]))


def crashing(namespace: str) -> bool:
    found = [each.get("state", {}).get("waiting", {}).get("reason") for p in pods(namespace) for each in p["status"].get("containerStatuses", [])]
    return "CrashLoopBackOff" in found


@case("06", "pods crash for a setting that the next release puts right", "released, the setting stays right, the pods are ready",
      lambda seen: seen.release.ok and seen.setting == "1" and seen.ready == 1)  # fmt: skip
def repair(a: Attempt) -> Seen:
    a.given(settings(a.namespace, rate="2"), fussy(a.namespace), wait=False)
    until("it crashes", lambda: crashing(a.namespace), 120)
    run = a.release(settings(a.namespace, rate="1"), fussy(a.namespace), timeout=LONG)
    setting = (there(settings(a.namespace)) or {}).get("data", {}).get("rate", "")
    return Seen(release=run, setting=setting, ready=status(fussy(a.namespace)).get("readyReplicas", 0))


def scale_up(namespace: str, node: str) -> None:
    """As an autoscaler does: it says that a node comes, and after a while there is one."""
    until("a pod is there", lambda: pods(namespace), 120)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pods(namespace)[0]["metadata"]["name"]}
    by_hand(obj("v1", "Event", "scale-up", namespace, type="Normal", reason="TriggeredScaleUp", involvedObject=about, message="pod triggered scale-up",
                firstTimestamp=now, lastTimestamp=now, count=1))  # fmt: skip
    time.sleep(25)
    cluster.kubectl("label", "node", node, f"{namespace}=yes", "--overwrite")


@case("07", "pods need a node that an autoscaler is bringing", "waited for and released",
      lambda seen: seen.release.ok and seen.ready == 1)  # fmt: skip
def node_comes(a: Attempt) -> Seen:
    node, template = f"{cluster.NAME}-worker2", pod("web")
    template["spec"]["nodeSelector"] = {a.namespace: "yes"}
    web = workload("Deployment", "web", a.namespace, template)
    scaler = threading.Thread(target=scale_up, args=(a.namespace, node))
    scaler.start()
    try:
        run = a.release(web)
    finally:
        scaler.join()
        cluster.kubectl("label", "node", node, f"{a.namespace}-")
    return Seen(release=run, ready=status(web).get("readyReplicas", 0))


# --- a webhook beside what it judges ---------------------------------------------------------------------------------

def definition(group: str, schema: dict | None = None, versions: t.Sequence[str] = ("v1",)) -> dict:
    """A CustomResourceDefinition of Meters that stores the last of these versions."""
    anything = {"openAPIV3Schema": schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = [{"name": each, "served": True, "storage": each == versions[-1], "schema": anything} for each in versions]
    names = {"kind": "Meter", "listKind": "MeterList", "plural": "meters", "singular": "meter"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": served}
    return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"meters.{group}", spec=spec)


@case("23", "a definition, a webhook, the server behind it and an object that it judges in one release", "one release is enough",
      lambda seen: seen.release.ok and seen.object_there)  # fmt: skip
def webhook(a: Attempt) -> Seen:
    _space, brought, *rest = operator(a.namespace, certificate(f"hook.{a.namespace}.svc"), seconds=20)
    gauge = gauges(a.namespace, 1)[0]
    run = a.release(*rest, gauge, definition=brought)
    is_there = there(gauge) is not None
    judged = is_there and "POST" in cluster.kubectl("logs", "deployment/hook", "-n", a.namespace)
    return Seen(release=run, object_there=is_there, judged=judged)


# --- members that are unready for a while ----------------------------------------------------------------------------

@case("40", "three members of a StatefulSet that are not ready for a while after another one started", "released, never fewer than two there",
      lambda seen: seen.release.ok and seen.fewest_there >= 2 and seen.pods_seen == 6)  # fmt: skip
def forward(a: Attempt) -> Seen:
    a.given(*members(a.namespace, "one"), timeout=LONG)
    with Members(a.namespace, "member") as watched:
        run = a.release(*members(a.namespace, "two"), timeout=LONG)
    return Seen(release=run, fewest_there=watched.fewest, pods_seen=len(watched.uids))
