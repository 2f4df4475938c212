# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as they stand in YAML, and documents that hold nothing. Each tool gets the same text."""
from __future__ import annotations

import base64
import typing as t

import kind
from bundles import obj
from case import Attempt, Seen, case
from living import settings, there
from rollouts import definition

SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: options, namespace: NAMESPACE}
stringData:
  enabled: yes
  window: 22:30
  pin: 0123
  hosts: [a, b]
"""


@case("16", "stringData with values that YAML does not take for text", "refused, named, nothing stored",
      lambda seen: not seen.release.ok and seen.named and not seen.stored)  # fmt: skip
def not_text(a: Attempt) -> Seen:
    run = a.release(text=SECRET.replace("NAMESPACE", a.namespace))
    stored = (there(obj("v1", "Secret", "options", a.namespace)) or {}).get("data", {})
    return Seen(release=run, named=run.says("stringData", "enabled"), stored={key: base64.b64decode(value).decode() for key, value in stored.items()})


MOMENT = "2031-05-04T21:07:09Z"
TIMES = f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: certificate, namespace: NAMESPACE, annotations: {{example.com/expires: {MOMENT}}}}}
data: {{since: {MOMENT}}}
"""


@case("18", "a time without quotes, as a value and as an annotation", "stored as it stands, or an error that says to quote it",
      lambda seen: seen.stored == [MOMENT] * 2 if seen.release.ok else seen.release.says("quote") and not seen.stored)  # fmt: skip
def times(a: Attempt) -> Seen:
    run = a.release(text=TIMES.replace("NAMESPACE", a.namespace))
    live: t.Any = there(settings(a.namespace, "certificate"))
    return Seen(release=run, stored=[live["data"].get("since"), live["metadata"].get("annotations", {}).get("example.com/expires")] if live else [])


NULLS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME, namespace: NAMESPACE}
data: {TOKEN: null, MODE: fast}
---
apiVersion: GROUP/v1
kind: Meter
metadata: {name: NAME, namespace: NAMESPACE}
spec: {retries: null}
"""
TRIES = {"type": "integer", "nullable": True, "default": 5}
SCHEMA = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"retries": TRIES}}}}


def stored(namespace: str, group: str, name: str) -> list[t.Any]:
    config, meter = (there(body) or {} for body in (settings(namespace, name), obj(f"{group}/v1", "Meter", name, namespace)))
    return [config.get("data"), meter.get("spec")]


@case("20", "null for a field that has a default, and for a key of a ConfigMap", "stored as by kubectl apply --server-side, or an error that names a field",
      lambda seen: seen.stored == seen.by_kubectl if seen.release.ok else seen.release.says("retries", "TOKEN"))  # fmt: skip
def nulls(a: Attempt) -> Seen:
    group = f"{a.namespace}.example.com"

    def text(name: str) -> str:
        return NULLS.replace("NAMESPACE", a.namespace).replace("GROUP", group).replace("NAME", name)

    run = a.release(text=text("one"), definition=definition(group, SCHEMA))
    kind.kubectl("apply", "--server-side", "-f", "-", text=text("other"))
    return Seen(release=run, stored=stored(a.namespace, group, "one"), by_kubectl=stored(a.namespace, group, "other"))


EMPTY = """\
# What a chart renders for a part that is switched off.
---
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: one, namespace: NAMESPACE}, data: {rate: "1"}}
---
# As the API writes a list of one kind.
apiVersion: v1
kind: ConfigMapList
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: two, namespace: NAMESPACE}, data: {rate: "2"}}
---
"""


@case("26", "documents that hold nothing, a List, and a list of one kind", "all that is in them is released",
      lambda seen: seen.release.ok and seen.there == ["one", "two"])  # fmt: skip
def empty(a: Attempt) -> Seen:
    run = a.release(text=EMPTY.replace("NAMESPACE", a.namespace))
    return Seen(release=run, there=[name for name in ("one", "two") if there(settings(a.namespace, name))])
