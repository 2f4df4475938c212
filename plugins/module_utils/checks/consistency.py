# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the objects of one bundle can be true together: quotas, Pod Security levels, and what the describing roles have found. Pure.

Only objects of the bundle are compared: where the namespace's quota or labels are not in it, nothing is said.
What a namespace needs is what has to run: every workload at its replicas (its autoscaler's minimum, a pod per DaemonSet), and beside
them the largest Job or CronJob. Whatever depends on the moment (a rolling update's surge, several Jobs at once) is left to the cluster.
"""
from __future__ import annotations

import fractions
import typing as t

from ..errors import InvalidInput
from ..objects.kinds import COUNTED, PASSING, POD_SPECS, SCALED
from ..objects.manifest import ANNOTATION_FINDING, Desired, Ref, hpa_targets
from ..objects.quantities import quantity, quantity_text
from ..objects.shapes import mapping_at, mappings_at, text_at
from .pod_security import violations

ENFORCE = "pod-security.kubernetes.io/enforce"
Amounts = t.Dict[str, fractions.Fraction]  # {resource: amount}, such as `requests.cpu` in cores and `requests.memory` in bytes
# Where a quota counts one of these, the API server refuses every container that does not set it.
_MUST_SET = {f"{kind}.{resource}" for kind in ("requests", "limits") for resource in ("cpu", "memory")}


def refuse_contradictions(objects: dict[Ref, Desired]) -> None:
    """Raises one InvalidInput that lists everything about the objects that cannot be true together."""
    errors = contradictions(list(objects.values()))
    if errors:
        raise InvalidInput("the description contradicts itself, nothing was written:\n- " + "\n- ".join(errors), errors=errors)


def contradictions(items: list[Desired]) -> list[str]:
    """One line each: object, field, fix."""
    return [*_declared(items), *_quotas(items), *_pod_security(items)]


def _declared(items: list[Desired]) -> t.Iterator[str]:
    for item in items:
        noted = mapping_at(item.body, "metadata", "annotations").get(ANNOTATION_FINDING)
        yield from (f"{item.where.rpartition(': ')[0]}: {line}" for line in (noted or "").splitlines())


# --- Pod Security ----------------------------------------------------------------------------------------------------


def _pod_security(items: list[Desired]) -> t.Iterator[str]:
    levels = {item.ref.name: mapping_at(item.body, "metadata", "labels").get(ENFORCE) for item in items if (item.ref.group, item.ref.kind) == ("", "Namespace")}
    for item in items:
        path, level = POD_SPECS.get((item.ref.group, item.ref.kind)), levels.get(item.ref.namespace)
        if path and level:
            prefix = "".join(f"{key}." for key in path[:-1])
            for field, breaks, fix in violations(mapping_at(item.body, *path[:-1]), level):
                yield f"{item.where}: {prefix}{field} is against Pod Security {breaks}, and Namespace {item.ref.namespace} enforces {level}; {fix}"


# --- quotas ----------------------------------------------------------------------------------------------------------


class Share(t.NamedTuple):
    """What one object takes of a quota: `amounts` for each of `count`. `passing`: for a while, and not all that do at once. `what`: in an
    error, where it is not the object itself."""

    item: Desired
    count: int
    amounts: Amounts
    passing: bool
    what: str = ""


def _quotas(items: list[Desired]) -> t.Iterator[str]:
    minimums = hpa_targets(item.body for item in items)
    for quota in (item for item in items if (item.ref.group, item.ref.kind) == ("", "ResourceQuota")):
        if {"scopes", "scopeSelector"} & set(mapping_at(quota.body, "spec")):
            continue  # it counts some of the pods only
        inside = [item for item in items if item.ref.namespace == quota.ref.namespace]
        defaults = _defaults(inside)
        hard = {normal(name): quantity(amount) for name, amount in mapping_at(quota.body, "spec", "hard").items()}
        yield from _unset(quota, hard, inside, defaults)
        shares = [share for item in inside for share in _shares(item, minimums, defaults)]
        for name, limit in hard.items():
            needed, lines = _needed(name, shares)
            if limit is not None and needed > limit:
                yield (
                    f"{quota.where}: spec.hard.{name} is {quantity_text(limit)}, and the bundle's objects need {quantity_text(needed)} ({', '.join(lines)});"
                    " raise it, or ask for less"
                )


def _needed(name: str, shares: list[Share]) -> tuple[fractions.Fraction, list[str]]:
    """(what has to fit into the quota at once, how it adds up)."""
    wanted = [(share, share.count * share.amounts.get(name, 0)) for share in shares]
    staying = [pair for pair in wanted if pair[1] and not pair[0].passing]
    largest = sorted((pair for pair in wanted if pair[1] and pair[0].passing), key=lambda pair: pair[1])[-1:]
    lines = [f"{share.what or f'{share.item.ref.kind} {share.item.ref.name}'} {quantity_text(amount)}" for share, amount in staying + largest]
    return fractions.Fraction(sum(amount for _share, amount in staying + largest)), lines


def _unset(quota: Desired, hard: t.Iterable[str], inside: list[Desired], defaults: dict[str, Amounts]) -> t.Iterator[str]:
    """Containers that the quota keeps from being made, whatever is free."""
    for item in inside:
        path = POD_SPECS.get((item.ref.group, item.ref.kind), ())
        spec = mapping_at(item.body, *path) if path else {}
        for field in ("initContainers", "containers"):
            for index, container in mappings_at(spec, field):
                lacking = sorted(_MUST_SET.intersection(hard) - set(_of_container(container, defaults))) if "resources" not in spec else []
                if lacking:
                    yield (
                        f"{item.where}: {'.'.join(path)}.{field}[{index}].resources lacks {', '.join(lacking)}, which {quota.ref} counts;"
                        " set it, or a default in the LimitRange"
                    )


def _shares(item: Desired, minimums: dict[tuple[str, str, str], int], defaults: dict[str, Amounts]) -> t.Iterator[Share]:
    key, spec = (item.ref.group, item.ref.kind), mapping_at(item.body, "spec")
    if key in POD_SPECS:
        count = _count(item, spec, minimums)
        amounts = {**of_pod(mapping_at(item.body, *POD_SPECS[key]), defaults), "pods": fractions.Fraction(1)}
        yield Share(item, count, amounts, item.ref.kind in PASSING)
        if item.ref.kind == "Deployment" and _needs_surge(spec, count):
            yield Share(item, 1, amounts, True, f"one more pod of Deployment {item.ref.name} while it is updated")
        yield from (Share(item, count, _of_claim(claim), False) for _index, claim in mappings_at(spec, "volumeClaimTemplates"))
    elif not item.ref.group and item.ref.kind in COUNTED:
        yield Share(item, 1, _of_claim(item.body) if item.ref.kind == "PersistentVolumeClaim" else {"services": fractions.Fraction(1)}, False)


def _needs_surge(spec: dict, count: int) -> bool:
    """Whether an update of a Deployment has to begin with a pod more: none may be lacking (apps/v1: the default is 25 %, rounded down)."""
    strategy = mapping_at(spec, "strategy")
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return False
    rolling = mapping_at(strategy, "rollingUpdate")
    if rolling.get("maxSurge") in (0, "0", "0%"):
        return False
    lacking = rolling.get("maxUnavailable", "25%")
    share = quantity(lacking[:-1]) if isinstance(lacking, str) and lacking.endswith("%") else None
    return count > 0 and (lacking == 0 or (share is not None and count * share < 100))


def _count(item: Desired, spec: dict, minimums: dict[tuple[str, str, str], int]) -> int:
    """How many pods have to run at least."""
    if item.ref.kind in SCALED:
        return minimums.get((item.ref.namespace, item.ref.kind, item.ref.name), spec.get("replicas", 1))
    return 0 if spec.get("suspend") is True else 1


def _of_claim(claim: dict) -> Amounts:
    storage = quantity(mapping_at(claim, "spec", "resources", "requests").get("storage"))
    return {"persistentvolumeclaims": fractions.Fraction(1), "requests.storage": storage or fractions.Fraction(0)}


# --- what a pod asks for ---------------------------------------------------------------------------------------------


def of_pod(spec: dict, defaults: dict[str, Amounts]) -> Amounts:
    """What the scheduler and quotas count for a pod: its containers and sidecars together, or one init container with the sidecars that
    were started before it, whichever is more; then the overhead. What is set for the pod as a whole counts instead."""
    sidecars, peak = {}, {}
    for _index, container in mappings_at(spec, "initContainers"):
        amounts = _sum(sidecars, _of_container(container, defaults))
        if container.get("restartPolicy") == "Always":
            sidecars = amounts
        peak = _largest(peak, amounts)
    running = sidecars
    for _index, container in mappings_at(spec, "containers"):
        running = _sum(running, _of_container(container, defaults))
    overhead = _amounts(mapping_at(spec, "overhead"))
    total = _sum(_largest(peak, running), {f"{kind}.{name}": amount for name, amount in overhead.items() for kind in ("requests", "limits")})
    return {**total, **_flat(_amounts(mapping_at(spec, "resources", "requests")), _amounts(mapping_at(spec, "resources", "limits")))}


def _of_container(container: dict, defaults: dict[str, Amounts]) -> Amounts:
    """With the defaults in the API server's order: a limit is also the request where none is set, then the LimitRange's defaults."""
    limits = _amounts(mapping_at(container, "resources", "limits"))
    requests = {**defaults["requests"], **limits, **_amounts(mapping_at(container, "resources", "requests"))}
    return _flat(requests, {**defaults["limits"], **limits})


def _defaults(inside: list[Desired]) -> dict[str, Amounts]:
    """{requests, limits} that LimitRanges give a container; what they leave out follows from their max, default and min."""
    found: dict[str, Amounts] = {"requests": {}, "limits": {}}
    for item in (item for item in inside if (item.ref.group, item.ref.kind) == ("", "LimitRange")):
        for _index, limit in mappings_at(item.body, "spec", "limits"):
            if text_at(limit, "type") == "Container":
                given = {name: _amounts(mapping_at(limit, name)) for name in ("max", "min", "default", "defaultRequest")}
                limits = {**given["max"], **given["default"]}
                found["limits"] |= limits
                found["requests"] |= {**given["min"], **limits, **given["defaultRequest"]}
    return found


def _flat(requests: Amounts, limits: Amounts) -> Amounts:
    return {**{f"requests.{name}": amount for name, amount in requests.items()}, **{f"limits.{name}": amount for name, amount in limits.items()}}


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, fractions.Fraction(0)) + other.get(name, fractions.Fraction(0)) for name in {**one, **other}}


def _largest(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, fractions.Fraction(0)), other.get(name, fractions.Fraction(0))) for name in {**one, **other}}


def _amounts(described: dict) -> Amounts:
    """What is no quantity is left out; the API server will say so."""
    return {name: amount for name, amount in ((name, quantity(value)) for name, value in described.items()) if amount is not None}


# --- names in a quota -------------------------------------------------------------------------------------------------


def normal(name: str) -> str:
    """A quota's resource by its full name: `cpu` is `requests.cpu`."""
    if name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-"):
        return f"requests.{name}"
    return {f"count/{counted}": counted for counted in ("pods", *COUNTED.values())}.get(name, name)
