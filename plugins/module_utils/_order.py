# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which component comes after which: nothing of one is written until those before it are ready. Pure."""
from __future__ import annotations

import dataclasses
import graphlib
import typing as t

from ._errors import InvalidInput

After = t.Mapping[str, t.Collection[str]]  # {component: those that must be ready first}


def after(given: t.Any) -> After:
    """Checks the option of that name. Raises InvalidInput."""
    for name, others in given.items():
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise InvalidInput(f"after: {name}: a list of components is expected, such as [postgresql]")
    return given


@dataclasses.dataclass(frozen=True)
class Order:
    """The components of a run and what each comes after: {component: those of the run that must be ready first}."""

    before: t.Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, after: After, components: t.Iterable[str]) -> Order:
        """The order of some components. A component that is not among them holds nobody back, but what it comes after does.

        Raises InvalidInput, naming the circle, when components wait for each other.
        """
        reached = _reached(after)
        chosen = set(components)
        return cls({name: frozenset(reached.get(name, frozenset()) & chosen) for name in sorted(chosen)})

    def open(self, written: t.Collection[str], unready: t.Collection[str]) -> set[str]:
        """The components that may be written now: not `written` yet, and all before them are, and none of these is `unready`."""
        ready = set(written) - set(unready)
        return {name for name, others in self.before.items() if name not in written and others <= ready}

    def ahead(self, components: t.Iterable[str]) -> set[str]:
        """Everything that some of these components come after."""
        return set().union(*(self.before.get(name, frozenset()) for name in components))

    def stages(self) -> list[list[str]]:
        """The components in lists: those of one list come after some of the list before it. One list where nothing comes after anything."""
        found: list[list[str]] = []
        written: set[str] = set()
        while len(written) < len(self.before):
            found.append(sorted(self.open(written, ())))
            written.update(found[-1])
        return found


def _reached(after: After) -> dict[str, set[str]]:
    """{component: everything before it, however far}."""
    try:
        order = list(graphlib.TopologicalSorter(after).static_order())
    except graphlib.CycleError as exc:
        circle = " after ".join(exc.args[1][::-1])
        raise InvalidInput(f"components wait for each other: {circle}. Nothing was written; take one of these out of `after`") from None
    reached: dict[str, set[str]] = {}
    for name in order:
        direct = after.get(name, ())
        reached[name] = set(direct).union(*(reached[other] for other in direct))
    return reached
