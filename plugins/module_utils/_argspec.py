# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs composed from named pieces, and the one place where errors become `fail_json`."""
from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ._cluster import Cluster
from ._errors import PlatformError
from ._ledger import Ledger

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


def connect(params: dict, workers: int = 16) -> tuple[Cluster, Ledger]:
    """The cluster and the ledger that a module's parameters name. Sends nothing yet."""
    connection = {name: params[name] for name in CONNECTION if params.get(name) is not None}
    cluster = Cluster(connection, params["expected_server"], workers)
    return cluster, Ledger(cluster, params["ledger_namespace"], params["platform"])


def run(module: AnsibleModule, work: t.Callable[[], dict]) -> None:
    """Ends the module with what `work` returns, or with its error as one message and machine-readable facts."""
    try:
        result = work()
    except PlatformError as exc:
        module.fail_json(msg=exc.message, reason=exc.reason, **exc.facts)
    else:
        module.exit_json(**result)
