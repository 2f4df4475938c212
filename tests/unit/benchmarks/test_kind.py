# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting what the audit log has."""
from __future__ import annotations

import kind


def entry(verb: str, uri: str) -> dict:
    return {"verb": verb, "requestURI": uri}


def test_requests_by_verb():
    entries = [entry("list", "/api/v1/pods"), entry("get", "/version"), entry("watch", "/api/v1/pods"), entry("create", "/x"), entry("patch", "/x")]
    entries.append(entry("create", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"))  # a question
    assert kind.by_verb(entries) == {"GET": 3, "WATCH": 1, "POST": 1, "PATCH": 1}


def test_writes_outside_of_a_namespace():
    entries = [
        entry("patch", "/api/v1/namespaces/ledger?fieldManager=x"), entry("create", "/api/v1/namespaces/ledger/secrets"),
        entry("patch", "/api/v1/namespaces/ledger-2/configmaps/a?force=false"), entry("get", "/api/v1/namespaces/app/configmaps/a"),
        entry("patch", "/api/v1/namespaces/app/configmaps/a?dryRun=All"),
    ]
    assert kind.writes_outside(entries, "ledger") == 1
