# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long what looks like trouble may last before it fails a release: data, by reason and by component. Pure."""
from __future__ import annotations

import difflib
import typing as t

from ..errors import InvalidInput

# What may be the way to being ready: a program that ends until what it needs is there, nodes that are still to come, a model that is loaded.
SUSPECT = (
    "CrashLoopBackOff", "OOMKilled", "ProbeFailing", "Unschedulable", "ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError", "FailedMount", "FailedCreate", "ClaimNotBound",
)

DEFAULT_PATIENCE = {"ProbeFailing": 200}  # a start of three minutes, without a startup probe

Patience = t.Callable[[str, str], float]  # (component, reason) to seconds, 0 where nothing was said


def patience(given: dict | None) -> Patience:
    """Reads how long trouble may last before it fails a release: `{reason: seconds, component: {reason: seconds}}`. What is said of a component counts for it
    instead of what is said of all.

    Returns a function from (component, reason) to seconds, 0 for what was not named. Raises InvalidInput that names each wrong key.
    """
    every = {reason: value for reason, value in (given or {}).items() if not isinstance(value, dict)}
    own = {component: value for component, value in (given or {}).items() if isinstance(value, dict)}
    errors = [text for where, table in (("", every), *((f"{name}.", value) for name, value in own.items())) for text in _wrong(where, table)]
    if errors:
        raise InvalidInput("patience is not valid, nothing was written:\n- " + "\n- ".join(errors), errors=errors)
    return lambda component, reason: float({**every, **own.get(component, {})}.get(reason, 0))


def _wrong(where: str, table: dict) -> t.Iterator[str]:
    for reason, seconds in table.items():
        if reason not in SUSPECT:
            close = difflib.get_close_matches(str(reason), SUSPECT, 1)
            yield f"{where}{reason} is no reason{f'; did you mean {close[0]}?' if close else ''}. Known: {', '.join(SUSPECT)}"
        elif not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds < 0:
            yield f"{where}{reason} is {seconds!r}, it must be a number of seconds, at least 0"
