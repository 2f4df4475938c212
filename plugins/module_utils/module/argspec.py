# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs, composed from named pieces."""
from __future__ import annotations

from ..engine.patience import DEFAULT_PATIENCE

# kubernetes.core's connection options; its names, types and aliases (see its `k8s_auth_options` fragment).
CONNECTION: dict[str, dict] = {
    "kubeconfig": {"type": "raw", "no_log": True},
    "context": {"type": "str"},
    "host": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "aliases": ["verify_ssl"]},
    "ca_cert": {"type": "path", "aliases": ["ssl_ca_cert"]},
    "client_cert": {"type": "path", "aliases": ["cert_file"]},
    "client_key": {"type": "path", "aliases": ["key_file"], "no_log": False},
    "proxy": {"type": "str"},
    "no_proxy": {"type": "str"},
    "proxy_headers": {
        "type": "dict",
        "options": {
            "proxy_basic_auth": {"type": "str", "no_log": True},
            "basic_auth": {"type": "str", "no_log": True},
            "user_agent": {"type": "str"},
        },
    },
    "persist_config": {"type": "bool"},
    "impersonate_user": {"type": "str"},
    "impersonate_groups": {"type": "list", "elements": "str"},
}
PLATFORM: dict[str, dict] = {
    "platform": {"type": "str", "default": "genai"},
    "ledger_namespace": {"type": "str", "default": "genai-ledger"},
    "expected_server": {"type": "str"},
}
# What takes its time, and what makes a release.
WORKING: dict[str, dict] = {"workers": {"type": "int", "default": 16}}
RECORDING: dict[str, dict] = {
    "wait_timeout": {"type": "int", "default": 600},
    "patience": {"type": "dict", "default": DEFAULT_PATIENCE},
    "keep": {"type": "int", "default": 10},
    "by": {"type": "str"},
}
