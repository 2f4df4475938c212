# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a Service says that it is asked whether it answers: `genai.platform/verify-request: http:/ready`. Pure."""
from __future__ import annotations

import re
import typing as t

from .fields import spec_of

ANNOTATION_REQUEST = "genai.platform/verify-request"
_WRITTEN = re.compile(r"(?:(https?):)?([a-z0-9-]+):(/[!-~]*)")


class Request(t.NamedTuple):
    """`port`: its name, '' where the Service has but one, without a name."""

    port: str
    path: str
    tls: bool


def request_of(service: dict) -> Request | None:
    """What a Service's annotation asks for: one of its TCP ports, by name or number, and a path. None without the annotation, and where
    it is not understood. With TLS where it says `https:` before the port, else where the port's appProtocol, its name or 443 say so."""
    text = (service["metadata"].get("annotations") or {}).get(ANNOTATION_REQUEST)
    written = _WRITTEN.fullmatch(text) if isinstance(text, str) and ".." not in text else None
    ports = spec_of(service).get("ports")
    for port in ports if written and isinstance(ports, list) else ():
        if isinstance(port, dict) and port.get("protocol") in (None, "TCP") and written[2] in (port.get("name"), str(port.get("port"))):
            return Request(port.get("name") or "", written[3], _with_tls(written[1], port))
    return None


def _with_tls(scheme: str | None, port: dict) -> bool:
    said = scheme or port.get("appProtocol")
    return str(said).lower() == "https" if said else port.get("name") == "https" or port.get("port") == 443
