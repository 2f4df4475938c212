#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.gpu_nodes_info."""
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_nodes_info
short_description: Count the GPUs of a cluster, and those that are free
version_added: 0.3.0
author: genai.platform authors (@genai-platform)
description:
  - Counts GPUs by vendor, product, pool and resource, from two lists, that of the nodes and that of the pods on them, page by page.
  - The pool is that of M(genai.platform.gpu_nodes). Shared GPUs and parts of one (MIG, partitions) are resources of their own.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.attributes
attributes:
  diff_mode:
    support: N/A
seealso:
  - module: genai.platform.gpu_nodes
"""

EXAMPLES = r"""
- name: Which GPUs are free
  genai.platform.gpu_nodes_info:
    kubeconfig: ~/.kube/config
  register: fleet

- name: At least four in the pool of inference
  ansible.builtin.assert:
    that: fleet.gpus | selectattr('pool', 'eq', 'mi355x') | sum(attribute='free') >= 4
"""

RETURN = r"""
gpus:
  description:
    - A row for each vendor, product, pool (empty where there is none) and resource. RV(gpus[].requested) is what pods hold,
      RV(gpus[].free) what is left of RV(gpus[].allocatable) on nodes that are ready and not cordoned.
  returned: success
  type: list
  elements: dict
  contains:
    vendor:
      description: V(nvidia) or V(amd).
      type: str
    product:
      description: Product, as the node's labels have it.
      type: str
    pool:
      description: Pool.
      type: str
    resource:
      description: Extended resource.
      type: str
    nodes:
      description: Number of nodes.
      type: int
    capacity:
      description: Number of GPUs, or parts.
      type: int
    allocatable:
      description: Number of those that pods can have.
      type: int
    requested:
      description: Number of those that pods hold.
      type: int
    free:
      description: Number of those that a pod could get now.
      type: int
  sample:
    - {vendor: amd, product: AMD_Instinct_MI300X_OAM, pool: mi300x, resource: amd.com/gpu,
       nodes: 4, capacity: 32, allocatable: 32, requested: 8, free: 24}
requests:
  description: Number of API requests by verb.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils.fleet.fleet import gpus
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Call, Module, connect


def counted(call: Call) -> dict:
    cluster, _ledger = connect(call.params)
    return {"changed": False, "gpus": gpus(cluster), "requests": dict(cluster.requests)}


MODULE = Module(counted, {**CONNECTION, **PLATFORM})


def main() -> None:
    MODULE.run_as_module(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
