# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what may have any shape: what is wrong about it, the API server says. Pure."""
from __future__ import annotations

import typing as t


def mapping_at(value: t.Any, *keys: str) -> dict:
    """The mapping below `keys`; {} where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def mappings_at(value: t.Any, *keys: str) -> t.Iterator[tuple[int, dict]]:
    """The mappings in the list below `keys`, with their positions. Anything else in the list is left out."""
    items = mapping_at(value, *keys[:-1]).get(keys[-1])
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield index, item


def text_at(value: dict, key: str) -> str:
    """The text under a key; '' where there is none."""
    found = value.get(key)
    return found if isinstance(found, str) else ""
