# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what was drawn to what the API server accepts: names, fields that have to fit each other, and without what a dry run refuses."""
from __future__ import annotations

import copy
import json
import re
import typing as t
import urllib.parse

import urllib3
from forms import NOBODY
from live import Api, Kind

ROUNDS = 8  # of dropping what the server names, until an object counts as refused
KEPT = ([], ["spec"], ["metadata"], ["metadata", "name"], ["metadata", "namespace"])  # an object without is another one, or none
STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


class Place(t.NamedTuple):
    """Where the random objects go. Quotas and limits have a namespace of their own: in it they judge nobody."""

    name: str
    quotas: str
    owner: dict  # an ownerReference to what stays as long as they do

    def of(self, kind: Kind) -> str:
        return "" if not kind.namespaced else self.quotas if kind.kind in ("ResourceQuota", "LimitRange") else self.name


def path(kind: Kind, body: dict) -> str:
    """Where the API has an object."""
    return kind.path(body["metadata"].get("namespace", ""), urllib.parse.quote(body["metadata"]["name"]))


# --- names, and what has to fit them ---------------------------------------------------------------------------------


def named(drawn: dict, kind: Kind, number: int, place: Place) -> dict:
    """What was drawn, as an object with a name of its own that harms nobody."""
    body = copy.deepcopy(drawn)
    meta = body["metadata"] = body.get("metadata") or {}
    group, _slash, version = kind.api_version.rpartition("/")
    meta["name"] = "-".join(filter(None, (place.name, kind.kind.lower(), group.partition(".")[0], version, str(number))))
    if kind.namespaced:
        meta["namespace"] = place.of(kind)
    if meta.get("ownerReferences"):
        meta["ownerReferences"] = [place.owner]
    if kind.kind in FITTING:
        FITTING[kind.kind](body, number)
    return body


def _workload(body: dict, _number: int) -> None:
    """Its pods are its own, and there are none."""
    chosen, spec = {"app": body["metadata"]["name"]}, body["spec"]
    spec["selector"] = chosen if body["kind"] == "ReplicationController" else {"matchLabels": chosen}
    meta = spec["template"]["metadata"] = spec["template"].get("metadata") or {}
    meta["labels"] = {**(meta.get("labels") or {}), **chosen}
    spec["template"]["spec"]["nodeSelector"] = {NOBODY: "true"}
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or []):
        claim["metadata"] = {**(claim.get("metadata") or {}), "name": f"claim-{index}"}


def _job(body: dict, _number: int) -> None:
    spec = body["spec"]["jobTemplate"]["spec"] if body["kind"] == "CronJob" else body["spec"]
    spec["template"]["spec"]["restartPolicy"] = "Never"


def _pod(body: dict, _number: int) -> None:
    """Classes have to be there for a pod; for a template they need not."""
    for field in ("priorityClassName", "runtimeClassName", "resourceClaims"):
        body["spec"].pop(field, None)


def _definition(body: dict, number: int) -> None:
    spec, group = body["spec"], f"{body['metadata']['name'].partition('-')[0]}.example.com"
    plural = f"randoms{number}"
    spec.update(group=group, names={"plural": plural, "singular": f"random{number}", "kind": f"Random{number}", "listKind": f"Random{number}List"})
    for index, version in enumerate(spec["versions"]):
        version.update(name=f"v{index + 1}", served=True, storage=index == 0)
    body["metadata"]["name"] = f"{plural}.{group}"


def _rbac(body: dict, number: int) -> None:
    """Its names may hold almost anything. A controller writes the rules of roles that are aggregated."""
    body["metadata"]["name"] += ("", ":B", "_b", " b", "é")[number % 5]
    if body.get("aggregationRule"):
        body.pop("rules", None)


def _event(body: dict, _number: int) -> None:
    for field in ("involvedObject", "regarding"):
        if field in body:
            body[field]["namespace"] = body["metadata"]["namespace"]


def _address(body: dict, number: int) -> None:
    body["metadata"]["name"] = f"192.0.2.{number + 1}"


def _addresses(body: dict, number: int) -> None:
    """Of a family that the cluster has not: no Service gets one of them."""
    body["spec"]["cidrs"] = [f"2001:db8:{number}::/64"]


FITTING: dict[str, t.Callable[[dict, int], None]] = {
    **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"), _workload),
    **dict.fromkeys(("Job", "CronJob"), _job), "Pod": _pod, "CustomResourceDefinition": _definition, "Event": _event,
    **dict.fromkeys(("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"), _rbac), "IPAddress": _address, "ServiceCIDR": _addresses,
}  # fmt: skip


# --- what the server refuses -----------------------------------------------------------------------------------------


def accepted(api: Api, kind: Kind, body: dict) -> dict | None:
    """The object without what a dry run of the API server refuses; None where too much of it is refused."""
    body = copy.deepcopy(body)
    for _round in range(ROUNDS):
        status, answer = _dry_run(api, path(kind, body), body)
        if status < 300:
            return body
        fields = {cause["field"] for cause in (answer.get("details") or {}).get("causes") or [] if cause.get("field")}
        dropped = [_drop(body, steps) for steps in sorted(map(_steps, fields), key=_order, reverse=True)]
        if not any(dropped):
            return None
    return None


def _dry_run(api: Api, at: str, body: dict) -> tuple[int, dict]:
    """Text as it is: the server reads YAML, to which the two escapes of JSON for one character mean nothing."""
    query = urllib.parse.urlencode({"fieldManager": "kinds", "force": "true", "fieldValidation": "Strict", "dryRun": "All"})
    data, headers = json.dumps(body, ensure_ascii=False).encode(), {"Content-Type": "application/apply-patch+yaml"}
    try:
        answer = api.pool.request("PATCH", f"{at}?{query}", body=data, headers=headers, retries=False, timeout=60)
    except urllib3.exceptions.ProtocolError:  # its validation panicked
        return 500, {}
    return answer.status, json.loads(answer.data)


def _steps(field: str) -> list[str | int]:
    """`spec.ports[1].name` -> ["spec", "ports", 1, "name"]."""
    return [int(index) if index.isdigit() else index or name for index, name in STEP.findall(field)]


def _order(steps: list[str | int]) -> list[str]:
    """So that the last element of a list comes after the first."""
    return [f"{step:06}" if isinstance(step, int) else step for step in steps]


def _drop(body: dict, steps: list[str | int]) -> bool:
    """Removes what is at `steps`, or the last thing on the way that is there; whether anything was."""
    at: t.Any = body
    found: list[tuple[t.Any, str | int]] = []
    for step in steps:
        if not (step in at if isinstance(at, dict) else isinstance(at, list) and isinstance(step, int) and step < len(at)):
            break
        found.append((at, step))
        at = at[step]
    if [step for _at, step in found] in KEPT:
        return False
    holder, last = found[-1]
    del holder[last]
    return True
