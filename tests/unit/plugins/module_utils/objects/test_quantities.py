# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Amounts as Kubernetes writes them."""
from __future__ import annotations

from fractions import Fraction

import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects.quantities import quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1), (2, 2), (0.5, Fraction(1, 2)), ("100m", Fraction(1, 10)), ("1Ki", 1024), ("1.5Gi", 3 * 2**29), ("1e3", 1000), ("2E", 2 * 10**18),
        (".5", Fraction(1, 2)), ("1k", 1000), ("10n", Fraction(1, 10**8)), ("", None), ("1GB", None), ("lots", None), (None, None), (True, None),
        ("1e9999999", None),
    ],
)  # fmt: skip
def test_quantities(text, amount):
    assert quantity(text) == amount
