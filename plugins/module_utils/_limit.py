# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much one run may change or delete of what is there already. Pure."""
from __future__ import annotations

import re
import typing as t

from ._errors import InvalidInput

FEW = 5  # a percentage never means fewer: of a handful it would forbid everything
NAMED = 10  # in a line for people


def limit(most: str, known: int, option: str = "max_deleted") -> int:
    """How many of `known` may be touched. `most`: a number, or a percentage, which is rounded up and never means fewer than FEW."""
    hit = re.fullmatch(r"(\d+)(%?)", most)
    if not hit:
        raise InvalidInput(f"{option}={most!r} is neither a number nor a percentage")
    return max(FEW, -(-known * int(hit[1]) // 100)) if hit[2] else int(hit[1])


def named(names: t.Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
