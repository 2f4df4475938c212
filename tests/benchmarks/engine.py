# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our engine in a process of its own, as the module runs it but without Ansible around it.

    engine.py '{"kubeconfig": ..., "bundle_file": ...}'     prints {"seconds", "peak_mb", "requests", "changed"}
    engine.py --wait '{"kubeconfig": ..., "body": ...}'     prints `applied`, then the time when the wait returned
    engine.py --fleet '{"kubeconfig": ..., "pools": ...}'     as the first, of gpu_nodes
"""
from __future__ import annotations

import json
import pathlib
import re
import sys
import time

from ansible_collections.genai.platform.plugins.module_utils.engine.wait import Waiter
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM, RECORDING, WORKING
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Call, connect
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_PLATFORM, Ref
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType
from ansible_collections.genai.platform.plugins.modules import gpu_nodes, release

DEPLOYMENTS = ResourceType("apps", "v1", "Deployment", "deployments", True)
WAIT_SECONDS = 180


def parameters(given: dict) -> dict:
    """A module's parameters: what is given, defaults for the rest."""
    specs = {**CONNECTION, **PLATFORM, **WORKING, **RECORDING, **release.OPTIONS}
    return {**{name: spec.get("default") for name, spec in specs.items()}, "references": False, **given}


def peak_mb() -> float:
    """The most memory this process ever had, in MB. Not getrusage: that would count its parent's, from before the exec."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000


def run(given: dict) -> dict:
    start = time.monotonic()
    result = release.release(Call(parameters(given), False, False, lambda _line: None))
    return {
        "seconds": time.monotonic() - start,
        "peak_mb": peak_mb(),
        "requests": result["requests"],
        "changed": len(result["changes"]),
    }


def fleet(given: dict) -> dict:
    start = time.monotonic()
    params = {**{name: spec.get("default") for name, spec in gpu_nodes.MODULE.options.items()}, **given}
    result = gpu_nodes.gpu_nodes(Call(params, False, False, lambda _line: None))
    changed = sum(len(change["nodes"]) for change in result["changes"])
    return {"seconds": time.monotonic() - start, "peak_mb": peak_mb(), "requests": result["requests"], "changed": changed}


def wait(given: dict) -> None:
    """Applies the Deployment `body` and waits as a release does."""
    body = given["body"]
    cluster, _ledger = connect(parameters({"kubeconfig": given["kubeconfig"]}))
    cluster.apply(DEPLOYMENTS, body, force=True)
    print("applied", flush=True)
    Waiter(cluster, {Ref.of(body): DEPLOYMENTS}, body["metadata"]["labels"][LABEL_PLATFORM], lambda _line: None).run(WAIT_SECONDS)
    print(time.time(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--wait":
        wait(json.loads(sys.argv[2]))
    elif sys.argv[1] == "--fleet":
        print(json.dumps(fleet(json.loads(sys.argv[2]))))
    else:
        print(json.dumps(run(json.loads(sys.argv[1]))))
