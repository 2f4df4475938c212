# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back: from a release that failed, and from one that was a mistake."""
from __future__ import annotations

import threading
import typing as t

from bundles import IMAGE, obj, pod, workload
from case import SHORT, Attempt, Seen, case
from live import until
from living import by_hand, deployment, newer, nowhere, older, settings, there
from rollouts import definition
from tools import PREVIEW, RECORDS, UNDO


def state(body: dict) -> str:
    """`rate`, and whether the ConfigMap is immutable."""
    live = there(body) or {}
    return f"{live.get('data', {}).get('rate', 'gone')}{', immutable' if live.get('immutable') else ''}"


@case("08", "a release makes a ConfigMap immutable, and fails for an image; then the release before again", "as before, and not blocked",
      lambda seen: not seen.release.ok and seen.setting == "1" and seen.next.ok, [UNDO])  # fmt: skip
def immutable(a: Attempt) -> Seen:
    first, second = settings(a.namespace), settings(a.namespace, rate="2", immutable=True)
    a.given(first)
    run = a.release(second, nowhere(a.namespace), timeout=SHORT)
    left = state(first)
    return Seen(release=run, setting=left, next=a.release(first))


@case("08, rollback", "the same ConfigMap after a release that succeeded", "rolled back: as before",
      lambda seen: seen.rollback.ok and seen.setting == "1", [RECORDS])  # fmt: skip
def immutable_back(a: Attempt) -> Seen:
    first, second = settings(a.namespace), settings(a.namespace, rate="2", immutable=True)
    a.given(first)
    a.given(second)
    run = a.roll_back()
    return Seen(rollback=run, setting=state(first))


def versions(body: dict) -> list[str]:
    return [each["name"] for each in (there(body) or {})["spec"]["versions"]]


@case("09", "a release makes a definition store another version, and fails for an image; then the release before again",
      "as before, or refused; not blocked", lambda seen: not seen.release.ok and seen.versions == ["v1alpha1"] and seen.next.ok, [UNDO])  # fmt: skip
def stored_version(a: Attempt) -> Seen:
    group = f"{a.namespace}.example.com"
    old, new = definition(group, versions=["v1alpha1"]), definition(group, versions=["v1alpha1", "v1"])
    meter = obj(f"{group}/v1alpha1", "Meter", "one", a.namespace, spec={"unit": "kWh"})
    a.given(old)
    a.given(old, meter)
    run = a.release(new, meter, nowhere(a.namespace), timeout=SHORT)
    left = versions(old)
    return Seen(release=run, versions=left, next=a.release(old, meter))


def scaled(namespace: str) -> list[dict]:
    """What the autoscalers scale; the number is theirs."""
    made = [deployment(namespace, name) for name in ("older", "newer")]
    for body in made:
        del body["spec"]["replicas"]
    return made


def specs(bodies: t.Iterable[dict]) -> list[t.Any]:
    return [(there(body) or {}).get("spec") for body in bodies]


@case("11", "two autoscalers in two versions of their API; the same again; then a release that fails for an image", "nothing changed, then as before",
      lambda seen: seen.again.ok and not seen.again.changed and not seen.specs_differ and not seen.release.ok and seen.percent == 35, [UNDO])  # fmt: skip
def two_versions(a: Attempt) -> Seen:
    both = [older(a.namespace, 35), newer(a.namespace)]
    a.given(*scaled(a.namespace), *both)
    before = specs(both)
    again = a.release(*scaled(a.namespace), *both)
    specs_differ = specs(both) != before
    run = a.release(*scaled(a.namespace), older(a.namespace, 55), newer(a.namespace), nowhere(a.namespace), timeout=SHORT)
    return Seen(again=again, specs_differ=specs_differ, release=run, percent=(there(both[0]) or {}).get("spec", {}).get("targetCPUUtilizationPercentage"))


@case("42", "a first release is not ready in time; meanwhile somebody else deploys into its new Namespace", "undone, what is theirs stays",
      lambda seen: not seen.release.ok and seen.theirs_there and not seen.ours_there, [UNDO])  # fmt: skip
def foreign_workload(a: Attempt) -> Seen:
    slow = workload("Deployment", "slow", a.namespace, pod("slow", readinessProbe={"exec": {"command": ["false"]}}))
    theirs = deployment(a.namespace, "theirs")

    def somebody() -> None:
        until("the release has begun", lambda: there(slow))
        by_hand(theirs)

    other = threading.Thread(target=somebody)
    other.start()
    run = a.release(slow, timeout=SHORT)
    other.join()
    return Seen(release=run, theirs_there=there(theirs) is not None, ours_there=there(slow) is not None)


FAILURES = 10


@case("43", f"two good releases, then {FAILURES} that fail; then back to the first", "rolled back",
      lambda seen: seen.setting == "1" and (seen.to_the_one_before.ok or seen.by_number.ok), [RECORDS])  # fmt: skip
def failures(a: Attempt) -> Seen:
    refused = obj("v1", "ConfigMap", "refused", a.namespace, data={"not a key": "b"})
    for rate in "12":
        a.given(settings(a.namespace, rate=rate))
    for _number in range(FAILURES):
        a.release(settings(a.namespace, rate="3"), refused)
    before, numbered = a.roll_back(), a.roll_back(1)
    return Seen(to_the_one_before=before, by_number=numbered, setting=state(settings(a.namespace)))


# --- fields that cannot be changed -----------------------------------------------------------------------------------


def job(namespace: str, image: str = IMAGE) -> dict:
    template = pod("migrate", "true", image=image)
    template["spec"]["restartPolicy"] = "Never"
    return obj("batch/v1", "Job", "migrate", namespace, spec={"template": template})


def store(namespace: str, size: str = "1Mi") -> dict:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}
    return workload("StatefulSet", "store", namespace, pod("store"), replicas=0, volumeClaimTemplates=[claim])


def fixed_field(a: Attempt, changed: list[dict], field: str) -> Seen:
    """A change of a field that is fixed, beside one of a setting: previewed, done, and then the release before again."""
    before = [settings(a.namespace), job(a.namespace), store(a.namespace)]
    a.given(*before)
    preview = a.release(settings(a.namespace, rate="2"), *changed, check=True)
    run = a.release(settings(a.namespace, rate="2"), *changed, timeout=SHORT)
    left = state(settings(a.namespace))
    return Seen(preview=preview, release=run, named=run.says(field), setting=left, next=a.release(*before))


def refused_and_as_before(seen: t.Any) -> bool:
    return not seen.preview.ok and not seen.release.ok and seen.named and seen.setting == "1" and seen.next.ok


@case("45, Job", "another image for a Job that is done, beside another setting", "refused in a preview too, the field named; as before, not blocked",
      refused_and_as_before, [PREVIEW, UNDO])  # fmt: skip
def job_image(a: Attempt) -> Seen:
    return fixed_field(a, [job(a.namespace, "genai-platform/inference:1.0.1"), store(a.namespace)], "spec.template")


@case("45, claim", "a larger claim template for a StatefulSet, beside another setting", "refused in a preview too, the field named; as before, not blocked",
      refused_and_as_before, [PREVIEW, UNDO])  # fmt: skip
def larger_claim(a: Attempt) -> Seen:
    return fixed_field(a, [job(a.namespace), store(a.namespace, "2Mi")], "volumeClaimTemplates")
