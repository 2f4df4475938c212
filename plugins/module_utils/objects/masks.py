# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets in what is shown to people: their keys, never their values. Pure."""
from __future__ import annotations

import base64

HIDDEN, HIDDEN_CHANGED = "(hidden)", "(hidden, changed)"


def masked_pair(old: dict, new: dict) -> tuple[dict, dict]:
    """Both sides with the values of a Secret hidden; a key whose value differs still shows as changed."""
    if "Secret" not in (old.get("kind"), new.get("kind")):
        return old, new
    was, now = old.get("data") or {}, new.get("data") or {}
    if not (isinstance(was, dict) and isinstance(now, dict)):  # of another API group
        was, now = {"": was}, {"": now}
    shown_old = {key: HIDDEN for key in was}
    shown_new = {key: HIDDEN if was.get(key) == value or key not in was else HIDDEN_CHANGED for key, value in now.items()}
    return ({**old, "data": shown_old} if was else old), ({**new, "data": shown_new} if now else new)


def without_secrets(text: str, body: dict) -> str:
    """`text` without the values of a Secret, plain or encoded: a refusal may quote what it refuses."""
    if body.get("kind") != "Secret":
        return text
    for value in _texts(body.get("data")):
        for shown in (value, _decoded(value)):
            text = text.replace(shown, HIDDEN) if len(shown) > 2 else text
    return text


def _texts(value: object) -> list[str]:
    """All texts in a value: a Secret of another API group may have any shape."""
    if isinstance(value, (dict, list)):
        return [text for sub in (value.values() if isinstance(value, dict) else value) for text in _texts(sub)]
    return [value] if isinstance(value, str) else []


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode("utf-8", "replace")
    except ValueError:
        return ""
