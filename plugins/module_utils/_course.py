# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the components of a plan in their order: each once those before it are ready."""
from __future__ import annotations

import dataclasses
import typing as t

from ._answers import serves
from ._apply import Check, apply_early, apply_plan
from ._cluster import Cluster
from ._errors import ApiError, Hopeless
from ._manifest import Ref
from ._order import Order
from ._plan import DELETE, WRITES, Action, Plan
from ._refusals import unanswered

FOUNDATIONS = 0  # the last wave of what everything else lives in: namespaces and definitions are held back by nothing


@dataclasses.dataclass
class Course:
    """How far a run has come. `tolerant`: whether a refusal ends nothing, and is only noted in `refused`."""

    cluster: Cluster
    plan: Plan
    order: Order
    platform: str
    force: bool
    progress: t.Callable[[str], None]
    check: Check
    tolerant: bool = False
    afters: dict[Action, dict] = dataclasses.field(default_factory=dict)  # {what was written: the object as the server had it then}
    refused: dict[Action, ApiError] = dataclasses.field(default_factory=dict)
    _early: dict[Action, ApiError] = dataclasses.field(default_factory=dict)  # to be tried again, and why
    _written: set[str] = dataclasses.field(default_factory=set)

    def go_on(self, unready: t.Collection[Ref]) -> list[Action]:
        """Writes what may be written by now, given what is not ready. Returns the actions of the components that are new, and of what was
        tried again; nothing when all has to wait. Raises ApiError naming the object that is refused."""
        again = [action for action in self._early if self._is_served(action, unready)]
        if again:
            self._try_again(again)
        opened = self.order.open(self._written, self._unready(unready))
        found = [action for action in self.plan.actions if action.component in opened]
        if opened:
            self._write(found)
            self._written |= opened
        return [*again, *found]

    def finish(self, left: t.Mapping[Ref, str]) -> None:
        """Tries again what was refused, when all else is ready. Raises Hopeless when a component was held back to the end. `left`: {what is
        not ready, and is not waited for any longer: why}."""
        held = sorted(self.order.before.keys() - self._written)
        if held:
            why = "; ".join(left[ref] for ref in sorted(left)) or "; ".join(exc.message for exc in self._early.values())
            ahead = sorted(self.order.ahead(held) & self._unready(left) or self.order.ahead(held))
            raise Hopeless(f"{', '.join(held)}: held back, because {', '.join(ahead)} did not get ready: {why}")
        if self._early:
            self._try_again([*self._early])

    def is_there(self, action: Action) -> bool:
        """Whether an action has been carried out, or had nothing to do."""
        return action in self.afters or action.verb not in WRITES

    def _write(self, found: list[Action]) -> None:
        known = self.afters.keys() | self._early.keys()
        grounds = [] if self._written else [action for action in self.plan.actions if action.wave <= FOUNDATIONS]
        removed = [action for action in self.plan.actions if action.verb == DELETE]
        chosen = {action for action in (*grounds, *found, *removed) if action not in known}
        part = Plan([action for action in self.plan.actions if action in chosen])
        afters, early = apply_plan(self.cluster, part, self.platform, self.force, self.progress, self.check, self._is_early)
        self.afters.update(afters)
        self._early.update(early)

    def _is_early(self, exc: ApiError) -> bool:
        return self.tolerant or unanswered(exc) in self._services

    @property
    def _services(self) -> dict[Ref, Action]:
        return {action.ref: action for action in self.plan.actions if action.desired and action.ref.builtin == "Service"}

    def _is_served(self, early: Action, unready: t.Collection[Ref]) -> bool:
        """Whether the pods behind the Service that did not answer are ready. What was refused for another reason waits for nothing."""
        service = self._services.get(t.cast(Ref, unanswered(self._early[early])))
        behind = [action for action in self.plan.actions if serves(action, service)] if service else []
        return all(action.component in self._written and action.ref not in unready for action in behind)

    def _try_again(self, again: list[Action]) -> None:
        more, refused = apply_early(self.cluster, again, self.force, self.progress, self.check)
        if refused and not self.tolerant:
            raise next(iter(refused.values()))
        self.afters.update(more)
        self.refused.update(refused)
        self._early = {action: why for action, why in self._early.items() if action not in again}

    def _unready(self, refs: t.Collection[Ref]) -> set[str]:
        """The components of what is not ready, and of what was refused."""
        return {action.component for action in self.plan.actions if action.ref in refs or action in self._early}
