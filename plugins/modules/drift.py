#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.drift."""
from __future__ import annotations

DOCUMENTATION = r"""
module: drift
short_description: Find what was changed by hand since the last release, and put it back
version_added: 0.2.0
author: genai.platform authors (@genai-platform)
description:
  - Compares the live objects with the ledger, one list request per kind, and names every object and field that differs, who
    changed it and when, as far as Kubernetes knows (C(metadata.managedFields)).
  - Finds objects that were deleted, fields that were changed or removed, and fields that people or other tools added.
  - Does not report defaults, status, an autoscaler's replicas, finalizers and owner references, or what the cluster's own parts add.
  - An item that somebody added to a list under a name that is in it already is a difference, for a container may get the other one.
  - Where the release has pools of GPU nodes, labels and taints of their nodes that are gone, or that a person has changed, are differences,
    too. What M(genai.platform.gpu_nodes) has left to another manager is none.
  - What differs is asked of the server (a dry run of the released description), so normalised values are no drift.
  - When the cluster could not be looked at, the host counts as unreachable, so that C(ansible-playbook) ends with 4.
options:
  fix:
    description:
      - Put everything back as a release of its own. What was added is removed.
      - A repair is never undone. Where an object is refused, the others are put back all the same; then the task fails and names what stays
        as it was, and the ledger has it as failed, so that it pushes out no release to return to.
    type: bool
    default: false
  components:
    description:
      - Only these components. All that are deployed when not given.
    type: list
    elements: str
  ignore_managers:
    description:
      - Field managers whose additions are no drift, as shell patterns. Fields that were released are reported whoever changes them.
    type: list
    elements: str
    default: []
  why:
    description:
      - Reason for the release that puts things back, kept in the ledger.
    type: str
    default: drift put back
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.working
  - genai.platform.platform.recording
  - genai.platform.platform.attributes
seealso:
  - module: genai.platform.release
  - module: genai.platform.verify
"""

EXAMPLES = r"""
- name: What was changed by hand
  genai.platform.drift:
    kubeconfig: ~/.kube/config
  register: found

- name: Put it back
  genai.platform.drift:
    fix: true
    ignore_managers: ["cert-manager-*"]
"""

RETURN = r"""
drift:
  description: Every difference, with object, field, kind of change, who and when. Values of Secrets are hidden.
  returned: when the cluster could be looked at
  type: list
  elements: dict
  sample:
    - object: ConfigMap inference/inference
      component: inference_app
      kind: ConfigMap
      namespace: inference
      name: inference
      change: changed
      field: data.GENAI_LOG_LEVEL
      expected: info
      found: debug
      by: kubectl-edit
      at: '2026-01-01T00:00:00Z'
drift_lines:
  description: The same for people, a line per difference.
  returned: when the cluster could be looked at
  type: list
  elements: str
checked:
  description: Number of objects compared.
  returned: when the cluster could be looked at
  type: int
fixed:
  description: Number of differences put back.
  returned: when the cluster could be looked at
  type: int
not_ready:
  description: With O(fix=true), what is not ready when the run ends. That undoes nothing; M(genai.platform.verify) says why.
  returned: when the cluster could be looked at
  type: list
  elements: str
release:
  description: Number of the release compared with; with O(fix=true), of the one that put things back.
  returned: when the cluster could be looked at
  type: int
interrupted:
  description: The run that did not end and that the next release repairs first; null when there is none.
  returned: when the cluster could be looked at
  type: dict
requests:
  description: Number of API requests by verb.
  returned: when the cluster could be looked at
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils.engine.patience import patience
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM, RECORDING, WORKING
from ansible_collections.genai.platform.plugins.module_utils.module.input import who
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Call, Module, connect
from ansible_collections.genai.platform.plugins.module_utils.module.signals import stop_on_signals
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift

OPTIONS = {
    "fix": {"type": "bool", "default": False},
    "components": {"type": "list", "elements": "str"},
    "ignore_managers": {"type": "list", "elements": "str", "default": []},
    "why": {"type": "str", "default": "drift put back"},
}


def compared(call: Call) -> dict:
    params = call.params
    facts = {"by": params["by"] or who(), "why": params["why"], "commit": "", "profile": ""}
    options = Options(
        params["platform"], check=call.check_mode, diff=call.diff, wait_timeout=params["wait_timeout"],
        patience=patience(params["patience"]), keep=params["keep"], facts=facts
    )
    releaser = Releaser(*connect(params, params["workers"]), options, call.progress)
    stop_on_signals()
    return drift(releaser, params["fix"], params["components"], params["ignore_managers"])


# A repair that fails is a failure like that of any release.
MODULE = Module(compared, {**CONNECTION, **PLATFORM, **WORKING, **RECORDING, **OPTIONS}, looking=lambda params: not params["fix"])


def main() -> None:
    MODULE.run_as_module(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
