# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says of its component to all others, in meta/component.yml."""
from __future__ import annotations

import pathlib

import yaml

from ansible_collections.genai.platform.plugins.plugin_utils._spelling import hint

FILE = pathlib.Path("meta", "component.yml")
KEYS = ("after",)


class Malformed(Exception):
    """A descriptor that cannot be right; the text names file, key and what to do."""


def descriptor(role: pathlib.Path) -> dict:
    """{after: [components that must be ready before anything of this one is written]}; empty lists where the role has no descriptor.

    Raises Malformed.
    """
    file = role / FILE
    if not file.exists():
        return {"after": []}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as exc:
        raise Malformed(f"{file}: no YAML: {exc}") from None
    if not isinstance(found, dict):
        raise Malformed(f"{file}: a mapping is expected; known keys: {', '.join(KEYS)}")
    for key in found:
        if key not in KEYS:
            raise Malformed(f"{file}: unknown key {key}; {hint(str(key), KEYS)}")
    after = found.get("after", [])
    if not isinstance(after, list) or not all(isinstance(name, str) and name for name in after):
        raise Malformed(f"{file}: after: a list of components is expected, such as [postgresql]")
    return {"after": after}
