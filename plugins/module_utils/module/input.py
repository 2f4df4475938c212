# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the engine beside a module's parameters: the bundle, and who runs this."""
from __future__ import annotations

import getpass
import json
import os
import socket

from ..errors import InvalidInput


def read_bundle(bundle: dict | None, path: str | None) -> dict:
    """The bundle, from the parameter or from the file the action plugin wrote."""
    if path is None:
        return bundle or {}
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"bundle_file {path}: {exc}") from exc


def who() -> str:
    """user@host of this controller, for the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
