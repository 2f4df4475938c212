# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Amounts as Kubernetes writes them: `100m`, `1Gi`, `2e3`. Pure."""
from __future__ import annotations

import fractions
import re
import typing as t

_SUFFIXES = {"": 1, "n": fractions.Fraction(1, 10**9), "u": fractions.Fraction(1, 10**6), "m": fractions.Fraction(1, 1000)}
_SUFFIXES |= {suffix: 1000**power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)}
_SUFFIXES |= {f"{suffix}i": 1024**power for power, suffix in enumerate(("K", "M", "G", "T", "P", "E"), 1)}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)([numkMGTPE]?|[KMGTPE]i)")


def quantity(value: t.Any) -> fractions.Fraction | None:
    """The amount that a quantity of Kubernetes says (`100m`, `1Gi`, `2e3`, or a number); None for what is no quantity."""
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    return fractions.Fraction(match[1]) * _SUFFIXES[match[2]] if match else None


def quantity_text(amount: fractions.Fraction) -> str:
    """An amount as a quantity: in the largest binary unit that divides it, in thousandths below one (`12Gi`, `4`, `250m`)."""
    for power, suffix in ((4, "Ti"), (3, "Gi"), (2, "Mi")):
        if amount and amount % 1024**power == 0:
            return f"{amount / 1024**power}{suffix}"
    return str(amount) if amount.denominator == 1 else f"{float(amount * 1000):g}m"
