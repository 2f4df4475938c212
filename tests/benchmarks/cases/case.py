# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A case: a situation, what must hold in it, and one rule that judges every tool by what was seen."""
from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import types
import typing as t

import cluster
from tools import DIVIDER, Lacks, Order, Run, Tool

RIGHT, WRONG, CANNOT_SAY = "right", "wrong", "cannot say"
TIMEOUT, LONG, SHORT = 120, 300, 40  # seconds, the same for each tool; the short one where it has to wait in vain


class NotBroughtAbout(Exception):
    """The tool could not do what comes before the situation."""


class Seen(types.SimpleNamespace):
    """What was seen, in the order in which it is told. A name is told as words."""


@dataclasses.dataclass
class Attempt:
    """One case with one tool: a namespace of its own, and the tool's commands on manifests."""

    tool: Tool
    namespace: str
    kubeconfig: pathlib.Path = cluster.KUBECONFIG
    records: str = ""
    seconds: float = 0  # of the tool's commands

    def _order(self, manifests: t.Iterable[dict], text: str = "", definition: dict | None = None, **options: t.Any) -> Order:
        documents = DIVIDER.join([*map(json.dumps, manifests), *([text] if text else [])])
        records = self.records or self.tool.records(self.namespace)
        chosen = {"timeout": TIMEOUT, "definition": json.dumps(definition) if definition else "", **options}
        return Order(self.namespace, records, self.kubeconfig, documents, **chosen)

    def _timed(self, run: Run) -> Run:
        self.seconds += run.seconds
        return run

    def release(self, *manifests: dict, text: str = "", **options: t.Any) -> Run:
        return self._timed(self.tool.release(self._order(manifests, text, **options)))

    def given(self, *manifests: dict, **options: t.Any) -> None:
        """A release that has to succeed, so that there is a situation."""
        run = self.release(*manifests, **options)
        if not run.ok:
            raise NotBroughtAbout("a release " + outcome(run, self.namespace))

    def put_back(self, *manifests: dict) -> Run:
        """What a user does who suspects that somebody has changed something."""
        return self._timed(self.tool.put_back(self._order(manifests)))

    def roll_back(self, to: int | None = None) -> Run:
        return self._timed(self.tool.roll_back(self._order(()), to))

    def remove(self, *manifests: dict) -> Run:
        return self._timed(self.tool.remove(self._order(manifests, space=False)))


@dataclasses.dataclass(frozen=True)
class Case:
    number: str
    situation: str
    must: str
    bring_about: t.Callable[[Attempt], Seen]
    right: t.Callable[[t.Any], bool]
    needs: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Verdict:
    word: str
    seen: str
    seconds: float


CASES: list[Case] = []


def case(number: str, situation: str, must: str, right: t.Callable[[t.Any], bool], needs: t.Iterable[str] = ()) -> t.Callable:
    """Adds a case. `right` is the rule; `needs`: what a tool has to have for the case to be about it."""

    def add(bring_about: t.Callable[[Attempt], Seen]) -> t.Callable[[Attempt], Seen]:
        CASES.append(Case(number, situation, must, bring_about, right, frozenset(needs)))
        return bring_about

    return add


def judge(case: Case, attempt: Attempt) -> Verdict:
    """Brings the situation about and applies the rule. A tool that lacks what the case is about is tried all the same, but not judged."""
    lacks = f"has no {', '.join(sorted(case.needs - attempt.tool.has))}" if case.needs - attempt.tool.has else ""
    try:
        seen = case.bring_about(attempt)
    except Lacks:
        return Verdict(CANNOT_SAY, lacks, attempt.seconds)
    except (NotBroughtAbout, AssertionError) as exc:  # the latter of `until`
        return Verdict(CANNOT_SAY, f"not brought about: {exc}", attempt.seconds)
    told = words(seen, attempt.namespace)
    if lacks:
        return Verdict(CANNOT_SAY, f"{lacks}; {told}", attempt.seconds)
    return Verdict(RIGHT if case.right(seen) else WRONG, told, attempt.seconds)


# --- what was seen, in words -----------------------------------------------------------------------------------------


def words(seen: Seen, namespace: str) -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {_word(value, namespace)}" for name, value in vars(seen).items())


def _word(value: t.Any, namespace: str) -> str:
    if isinstance(value, Run):
        return outcome(value, namespace)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def outcome(run: Run, namespace: str) -> str:
    if run.ok:
        return "ok" if run.changed is None else "ok, changed" if run.changed else "ok, not changed"
    said = shortened(" ".join(message(run.said, namespace).split()))
    return f'failed, "{said}"'


def message(said: str, namespace: str) -> str:
    """The same for each tool: of an answer of the API server that is quoted whole, its message; the namespace is N; whose a certificate is does not matter."""
    found = re.search(r'"message":("(?:[^"\\]|\\.)*")', said)
    text = json.loads(found[1]) if found else said
    return re.sub("(certificate is valid for) .*?, not", r"\1 others, not", text.replace(namespace, "N"))


def shortened(text: str, most: int = 120) -> str:
    """The beginning of a message, and where it is long its end, which has the cause."""
    return text if len(text) <= most else f"{text[:most // 3]} … {text[-most * 2 // 3:]}"
