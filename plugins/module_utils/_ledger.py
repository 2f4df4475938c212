# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: releases, the manifests of every component revision, and the journal of a run under way.

All of it is Secrets in one namespace, because manifests may hold Secrets. Per platform:

- `<platform>.state`: the history and, for each owned object, what was applied (fingerprints only)
- `<platform>.<component>.r<revision>`: the manifests of one revision, immutable
- `<platform>.journal`: before-images while a run writes; its existence is the lock

Payloads are gzipped JSON, cut into as many Secrets as their size needs.
"""
from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import json
import typing as t

from ._cluster import Cluster
from ._errors import ApiError, Busy, Interrupted, InvalidInput, PlatformError, TimedOut
from ._fields import fingerprint
from ._manifest import Ref
from ._occupied import occupied
from ._plan import Record
from ._types import ResourceType

LABEL_LEDGER = "genai.platform/ledger"
LABEL_PART = "genai.platform/part"
LABEL_COMPONENT_OF = "genai.platform/revision-of"
# Of the journal: when its holder was last seen alive, and where it runs.
ANNOTATION_RENEWED, ANNOTATION_HOLDER = "genai.platform/renewed", "genai.platform/holder"
SECRET_TYPE = "genai.platform/ledger"
PART_BYTES = 900_000  # a Secret takes 1 MiB
SECRETS = ResourceType("", "v1", "Secret", "secrets", True)
NAMESPACES = ResourceType("", "v1", "Namespace", "namespaces", False)

DEPLOYED, FAILED = "deployed", "failed"
FORMAT = 2  # of the state. 1 (which did not say so): nothing was ever taken over


@dataclasses.dataclass
class State:
    """What the ledger knows. `releases`: oldest first, each {number, status, at, by, why, components: {name: revision}, ...}."""

    releases: list[dict] = dataclasses.field(default_factory=list)
    record: Record = dataclasses.field(default_factory=dict)
    # Fingerprint of the manifests of every kept revision: {component: {revision: fingerprint}}; JSON keys are strings
    revisions: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    resource_version: str = ""

    @staticmethod
    def revision_print(manifests: list[dict]) -> str:
        return fingerprint(manifests)

    def revision_for(self, component: str, manifests: list[dict]) -> tuple[int, bool]:
        """(the revision these manifests are or will be, whether it is new)."""
        kept, wanted = self.revisions.get(component, {}), self.revision_print(manifests)
        for number, print_ in kept.items():
            if print_ == wanted:
                return int(number), False
        # Not one that a release still names although its fingerprint is gone.
        named = [release["components"].get(component, 0) for release in self.releases]
        return max([*map(int, kept), *named, 0]) + 1, True

    @property
    def current(self) -> dict | None:
        """The last release that is deployed; None on an empty platform."""
        return next((r for r in reversed(self.releases) if r["status"] == DEPLOYED), None)

    @property
    def deployed(self) -> dict:
        """As `current`, but an error where nothing is deployed."""
        current = self.current
        if current is None:
            raise InvalidInput("there is nothing to look at: nothing has been deployed here yet")
        if not current["components"]:
            raise InvalidInput(f"there is nothing to look at: release {current['number']} removed the platform at {current['at']}")
        return current

    @property
    def next_number(self) -> int:
        return self.releases[-1]["number"] + 1 if self.releases else 1

    def one_way_since(self, target: dict, components: t.Collection[str]) -> list[str]:
        """One-way changes of these components that were deployed after `target` and are not in it."""
        later = [r for r in self.releases if r["status"] == DEPLOYED and r["number"] > target["number"]]
        here = {(name, mark) for name, marks in target.get("one_way", {}).items() for mark in marks}
        since = {(name, mark) for release in later for name, marks in release.get("one_way", {}).items() for mark in marks}
        return [f"{name}: {mark}" for name, mark in sorted(since - here) if name in components]

    def find(self, to: str) -> dict:
        """The release `to` names: a number, or `previous` (the deployed one before the current, different from it)."""
        deployed = [r for r in self.releases if r["status"] == DEPLOYED]
        if not deployed:
            raise InvalidInput("there is no release to return to: nothing has been deployed here yet")
        if to == "previous":
            # One that removed the platform is nothing to return to.
            older = [r for r in deployed[:-1] if r["components"] and r["components"] != deployed[-1]["components"]]
            # After a rollback "previous" is what came before the release rolled back to, not the one just undone; nor does a drift fix,
            # which is a return to the current one, come between.
            limit, goals = deployed[-1]["number"], {r["number"]: r.get("rolled_back_to") for r in deployed}
            while goals.get(limit):
                limit = goals[limit]
            older = [r for r in older if r["number"] < limit]
            if not older:
                same = ", ".join(str(r["number"]) for r in deployed[:-1] if r["number"] < limit)
                kept = f"those kept before it hold the same: {same}" if same else "none before it is kept"
                raise InvalidInput(f"release {deployed[-1]['number']} has no predecessor in the ledger: {kept}")
            return older[-1]
        found = [r for r in deployed if str(r["number"]) == str(to)]
        if not found:
            kept = ", ".join(str(r["number"]) for r in deployed)
            raise InvalidInput(f"release {to} is not in the ledger; kept and deployed releases: {kept}")
        if not found[0]["components"]:
            raise InvalidInput(f"release {to} removed the platform; teardown.yml does that, a rollback does not")
        return found[0]


class Ledger:
    """Reads and writes one platform's ledger."""

    def __init__(self, cluster: Cluster, namespace: str, platform: str) -> None:
        self.cluster, self.namespace, self.platform = cluster, namespace, platform
        self._state_parts: list[str] = []

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self) -> tuple[State, dict | None]:
        """(state, journal of a run that did not end or None): one request."""
        selector = f"{LABEL_LEDGER}={self.platform},{LABEL_PART} in (state,journal)"
        found = {s["metadata"]["labels"][LABEL_PART]: s for s in self.cluster.list(SECRETS, selector, self.namespace)}
        journal = self._journal(found["journal"]) if "journal" in found else None
        if "state" not in found:
            return State(), journal
        self._state_parts = _more(found["state"])
        data = self._payload(found["state"])
        self._refuse_newer(data.get("format", 1))
        state = State(data["releases"], data["record"], data["revisions"], found["state"]["metadata"]["resourceVersion"])
        return state, journal

    def _refuse_newer(self, found: int) -> None:
        if found > FORMAT:
            raise InvalidInput(
                f"the ledger {self.namespace}/{self.platform} is written in format {found}, by a newer version of this collection, and this one"
                f" reads up to {FORMAT}. Use that version"
            )

    def _journal(self, secret: dict) -> dict:
        meta, payload = secret["metadata"], self._payload(secret)
        self._refuse_newer(payload.get("format", 1))
        notes = meta.get("annotations") or {}
        seen = {"uid": meta["uid"], "version": meta["resourceVersion"], "holder": json.loads(notes.get(ANNOTATION_HOLDER, "{}"))}
        # When the server stored the last renewal, by its own clock: what the holder writes there is the time of an earlier answer.
        times = [entry["time"] for entry in meta.get("managedFields") or [] if "time" in entry]
        return {**payload, **seen, "renewed": max(meta["creationTimestamp"], notes.get(ANNOTATION_RENEWED, ""), *times)}

    def manifests(self, component: str, revision: int) -> list[dict]:
        name = self._revision_name(component, revision)
        secret = self.cluster.get(SECRETS, self.namespace, name)
        if secret is None:
            raise InvalidInput(f"the ledger has lost {component} revision {revision}: Secret {self.namespace}/{name} is missing")
        return self._payload(secret)

    def _payload(self, secret: dict) -> t.Any:
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        blob = data["payload"]
        for name in _more(secret):
            part = self.cluster.get(SECRETS, self.namespace, name)
            if part is None:
                raise InvalidInput(f"the ledger is damaged: Secret {self.namespace}/{name} is missing")
            blob += base64.b64decode(part["data"]["payload"])
        return json.loads(gzip.decompress(blob))

    # --- writing -----------------------------------------------------------------------------------------------------

    def ensure_namespace(self) -> bool:
        """True when it had to be created."""
        found = self.cluster.get(NAMESPACES, "", self.namespace)
        if found and not found["metadata"].get("deletionTimestamp"):
            return False
        if found and self._until_gone():
            raise TimedOut(f"Namespace {self.namespace}, which the ledger is to be in, is still being deleted. Nothing was written; run again when it is gone")
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.namespace,
                "labels": {LABEL_LEDGER: self.platform, "pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
        self.cluster.apply(NAMESPACES, body)
        return True

    def remove_namespace(self) -> str:
        """Removes the namespace if a platform made it and nothing else is in it. Returns why it stays, '' when it went."""
        found, why = self.cluster.get(NAMESPACES, "", self.namespace), self.namespace_stays()
        if found and not why:
            self.cluster.delete(NAMESPACES, "", self.namespace, found["metadata"]["uid"])
            self._until_gone()
        return why

    def namespace_stays(self) -> str:
        """Why the ledger's namespace would stay when the ledger goes; '' when it would go."""
        found = self.cluster.get(NAMESPACES, "", self.namespace)
        if found is None:
            return ""
        if LABEL_LEDGER not in (found["metadata"].get("labels") or {}):
            return "it was there before the platform"
        return occupied(self.cluster, self.namespace, self.platform, {Ref("", "Secret", self.namespace, name) for name in self._mine()})

    def forget(self) -> str:
        """Removes this platform's ledger, and its namespace unless that was there before or holds anything else. Returns why it stays."""
        names = self._mine()
        why = self.namespace_stays()
        # The state first: without it there is no ledger any more, whatever is left of it.
        for group in ([n for n in names if n == f"{self.platform}.state"], [n for n in names if n != f"{self.platform}.state"]):
            self.cluster.each(lambda name: self.cluster.delete(SECRETS, self.namespace, name), group)
        return why or self.remove_namespace()

    def _mine(self) -> list[str]:
        return [s["metadata"]["name"] for s in self.cluster.list(SECRETS, f"{LABEL_LEDGER}={self.platform}", self.namespace, metadata=True)]

    def _until_gone(self) -> list[Ref]:
        return self.cluster.gone([(NAMESPACES, Ref("", "Namespace", "", self.namespace))])

    @property
    def journal_name(self) -> str:
        return f"{self.platform}.journal"

    def open_journal(self, journal: dict, holder: dict) -> dict:
        """Writes the journal and returns it as stored: {uid, version}. Raises Busy when another run has one."""
        main, parts = self._secrets("journal", self.journal_name, {"format": FORMAT, **journal})
        main["metadata"]["annotations"] = {ANNOTATION_HOLDER: json.dumps(holder)}
        for part in parts:
            self.cluster.apply(SECRETS, part, force=True)
        try:
            meta = self.cluster.create(SECRETS, main)["metadata"]
            return {"uid": meta["uid"], "version": meta["resourceVersion"]}
        except ApiError as exc:
            if exc.status != 409:
                raise
            holder = (self.load()[1] or {}) if exc.body.get("reason") == "AlreadyExists" else {}
            if holder.get("run") == journal["run"]:
                return holder  # our own create, repeated after a lost answer
            raise busy(holder) from exc

    def close_journal(self, uid: str) -> None:
        """Deletes this very journal, and never another run's."""
        secret = self.cluster.get(SECRETS, self.namespace, self.journal_name)
        if secret and secret["metadata"]["uid"] == uid:
            self._delete_with_parts(secret)

    def state_version(self) -> str:
        secret = self.cluster.get(SECRETS, self.namespace, f"{self.platform}.state")
        return secret["metadata"]["resourceVersion"] if secret else ""

    def save_revision(self, component: str, revision: int, manifests: list[dict]) -> None:
        main, parts = self._secrets("revision", self._revision_name(component, revision), manifests)
        for secret in [*parts, main]:
            secret["metadata"]["labels"][LABEL_COMPONENT_OF] = component
            self.cluster.apply(SECRETS, secret, force=True)

    def save(self, state: State, keep: int) -> None:
        """Writes the state, then forgets the releases beyond `keep` and the revisions only they used."""
        before = _used(state.releases)
        state.releases = _kept(state.releases, keep)
        used = _used(state.releases)
        state.revisions = {
            name: {number: p for number, p in prints.items() if (name, int(number)) in used} for name, prints in state.revisions.items()
        }
        data = {"format": FORMAT, "releases": state.releases, "record": state.record, "revisions": state.revisions}
        main, parts = self._secrets("state", f"{self.platform}.state", data)
        for secret in [*parts, main]:
            self.cluster.apply(SECRETS, secret, force=True)
        # It is recorded: what is left over now, or to be told to stop now, is no reason to undo anything.
        with contextlib.suppress(PlatformError, Interrupted):
            for name in set(self._state_parts) - set(_more(main)):
                self.cluster.delete(SECRETS, self.namespace, name)
            for component, revision in before - used:
                self._delete_with_parts(self.cluster.get(SECRETS, self.namespace, self._revision_name(component, revision)))

    def planned_secrets(self, components: t.Mapping[str, int], first: bool) -> list[str]:
        """Names of the Secrets that a release with these new revisions creates, for the preview."""
        names = [self._revision_name(component, revision) for component, revision in components.items()]
        return [f"{self.platform}.state", *names] if first else names

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _revision_name(self, component: str, revision: int) -> str:
        return f"{self.platform}.{component.replace('_', '-')}.r{revision}"

    def _secrets(self, part: str, name: str, payload: t.Any) -> tuple[dict, list[dict]]:
        """(the Secret that makes the payload real, the parts to be written before it)."""
        blob = gzip.compress(json.dumps(payload, separators=(",", ":")).encode(), mtime=0)
        pieces = [blob[i : i + PART_BYTES] for i in range(0, len(blob), PART_BYTES)]
        token = fingerprint(blob.hex())[:8]
        more = [f"{name}.{token}.{i}" for i in range(1, len(pieces))]
        parts = [self._secret("part", n, {"payload": p}) for n, p in zip(more, pieces[1:])]
        return self._secret(part, name, {"payload": pieces[0], "more": json.dumps(more).encode()}), parts

    def _secret(self, part: str, name: str, data: dict[str, bytes]) -> dict:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {LABEL_LEDGER: self.platform, LABEL_PART: part},
            },
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }

    def _delete_with_parts(self, secret: dict | None) -> None:
        if secret is None:
            return
        # The Secret that makes the payload real goes first: what is left behind by a kill is then only unused parts.
        self.cluster.delete(SECRETS, self.namespace, secret["metadata"]["name"], secret["metadata"]["uid"])
        for name in _more(secret):
            self.cluster.delete(SECRETS, self.namespace, name)


def _more(secret: dict) -> list[str]:
    """Names of the Secrets that hold the rest of this one's payload."""
    return json.loads(base64.b64decode(secret["data"]["more"]))


def busy(journal: dict) -> Busy:
    who, since = journal.get("by", "somebody"), journal.get("at", "an unknown time")
    return Busy(f"another run is writing to this platform: {who}, since {since}. Wait for it to end, then run again", by=who, since=since)


def _used(releases: list[dict]) -> set[tuple[str, int]]:
    return {pair for release in releases for pair in release["components"].items()}


def _kept(releases: list[dict], keep: int) -> list[dict]:
    """The newest `keep` that were deployed, and the newest `keep` that failed: failures push out no release to return to."""
    kept = [release for status in (DEPLOYED, FAILED) for release in [r for r in releases if r["status"] == status][-keep:]]
    return [release for release in releases if release in kept]
