#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.gpu_nodes."""
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_nodes
short_description: Give all GPU nodes of a cluster the labels and taints of their pools
version_added: 0.3.0
author: genai.platform authors (@genai-platform)
description:
  - Lists the nodes once, page by page, finds the pool of each by what the node says of its GPUs, and patches only the nodes that
    differ from their pool, many at a time. A second run lists and writes nothing.
  - Every patch is for the very version of the node that was looked at. When somebody else was faster, the node is read and planned
    for anew. A node that is deleted meanwhile is named in the result and is no failure.
  - Owns only what it has written itself. A label is its own when its field manager, C(genai.platform-gpu), alone owns it. Which
    taints it added is kept in the annotation C(genai.platform/gpu-taints), because to field managers all taints of a node are one
    field. What is its own and no pool asks for any more is removed, on nodes that left their pool, too.
  - Several platforms on one cluster share its nodes. A node belongs to the platform that first writes to it, which the annotation
    C(genai.platform/gpu-platform) names until nothing of that platform is left on it. To all others it is taken, and they leave it
    alone, with RV(other_platforms) naming it where a pool matches it. A node that an older version has written has no such annotation.
    It is taken for the platform's own, and gets the annotation with the next write that is needed anyway.
  - Where a pool asks for a label or taint that somebody else has set to another value, that stays as it is and is reported as a
    conflict with that field manager.
  - Errors in the description, nodes in two pools, a pool that would lose all or most of its nodes (O(emptied_pools), O(max_changed)) and a
    run that would change more than O(max_changed) end it before any write, in check mode, too.
  - A node whose pool ceases to match it while the run writes is left as it is and named in the result. A later run sees whether that lasts.
  - When there is something to write, it takes the lock of the platform's releases first, the journal in O(ledger_namespace), and looks at the
    nodes again under it. While another run holds that, a release or one of this module, it fails with the reason V(busy) before any write.
    Check mode, and a run that finds nothing to do, neither take nor need it.
  - Where the ledger's namespace does not exist yet there is nothing to lock, and it is not made. A journal that a killed run of this
    module has left is cleared away. That of a killed release stays for the next release, which restores from it, and the nodes are written
    without the lock, with a warning.
  - When some nodes cannot be written, the others are written all the same; then the task fails and names those.
options:
  state:
    description:
      - V(present) brings every node to its pool.
      - V(absent) removes everything that is its own from all nodes of this platform. Where the identity may not list nodes and no release
        in the ledger ever had pools, there is nothing to remove and that is no failure.
    type: str
    choices: [present, absent]
    default: present
  pools:
    description:
      - The pools. A node may be in one of them at most; nodes in none get nothing.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the pool. Its nodes get it as the label C(genai.platform/gpu-pool).
        type: str
        required: true
      vendor:
        description:
          - Whose GPUs the nodes have, by any of the labels of NVIDIA's GPU feature discovery, AMD's node labeller or node feature
            discovery (PCI vendor 10de or 1002), or by the capacity that a device plugin reports.
          - Like everything in O(pools[].match), it has to hold where it is given. Leave it out for nodes that say nothing of themselves.
        type: str
        choices: [nvidia, amd]
      match:
        description:
          - What a node has to match. All that is given has to hold; of a list, one item. Patterns are those of a shell.
        type: dict
        suboptions:
          products:
            description:
              - Patterns of the product, in C(nvidia.com/gpu.product), C(amd.com/gpu.product-name) or C(beta.amd.com/gpu.product-name).
            type: list
            elements: str
          pci:
            description:
              - Ids in a label C(feature.node.kubernetes.io/pci-<ids>.present), a single one or all of them, such as V(1002), V(0302_10de)
                or V(1002_74a1).
            type: list
            elements: str
          instance_types:
            description:
              - Patterns of the label C(node.kubernetes.io/instance-type).
            type: list
            elements: str
          resources:
            description:
              - Extended resources of which the node has any, such as V(amd.com/gpu).
            type: list
            elements: str
          nodes:
            description:
              - Patterns of the node's name.
            type: list
            elements: str
          labels:
            description:
              - Labels that the node has.
            type: dict
      labels:
        description:
          - Labels that the nodes get. Booleans and numbers are written as Kubernetes has them, as text.
        type: dict
      taints:
        description:
          - Taints that the nodes get.
        type: list
        elements: dict
        suboptions:
          key:
            description: Key of the taint.
            type: str
            required: true
          value:
            description: Value of the taint.
            type: str
            default: ""
          effect:
            description: What happens to pods that do not tolerate it. V(NoExecute) evicts those that run.
            type: str
            choices: [NoSchedule, PreferNoSchedule, NoExecute]
            required: true
      spot:
        description:
          - Whether the nodes may be taken away at any time. They get the label C(genai.platform/spot=true).
        type: bool
        default: false
  release:
    description:
      - Take the pools from a release in the ledger instead, where the role P(genai.platform.gpu_nodes#role) has put them. That is V(current),
        V(previous) or a number, the last two as with O(genai.platform.release#module:to). Does nothing when no kept release has pools.
    type: str
  max_changed:
    description:
      - How many of the nodes that already have labels or taints of ours may change, a number, or a percentage of them, rounded up.
        More is an error before any write. A node that gets its first ones does not count, so that neither a first run nor a growing
        fleet is held up.
      - A percentage never means fewer than 5 nodes. But less than V(100%), it lets no single pool lose more than half of its nodes (or the
        percentage, where that is more) to no pool at all, however few they are.
    type: str
    default: 25%
  emptied_pools:
    description:
      - What to do when a pool of the description has nodes, and no node at all matches it any more. What a pool matches are mostly labels of
        others, which may be away for a moment. Node feature discovery takes all of its own off every node when its master is restarted.
      - V(refuse) is an error that names the pool and its nodes, before any write.
      - V(keep) leaves those nodes as they are, with a warning, and writes to the others.
      - V(allow) takes labels and taints off them, for a pool that is meant to be empty.
      - A pool that is not in the description any more, O(state=absent), nodes that were deleted and nodes that go over to another pool are
        meant, and never refused.
    type: str
    choices: [refuse, keep, allow]
    default: refuse
notes:
  - Needs the rights to list, get and patch nodes and to get the ledger's namespace, and where that exists to list, get, create, patch and
    delete Secrets in it.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.working
  - genai.platform.platform.attributes
seealso:
  - module: genai.platform.gpu_nodes_info
  - module: genai.platform.release
"""

EXAMPLES = r"""
- name: Three pools
  genai.platform.gpu_nodes:
    kubeconfig: ~/.kube/config
    pools:
      - name: mi355x
        vendor: amd
        match: {products: ["*MI355X*"]}
        labels: {gpu-type: mi355x, workload-type: inference}
      - name: h100
        vendor: nvidia
        match: {products: [NVIDIA-H100-80GB-HBM3], instance_types: ["p5.*"]}
        labels: {gpu-type: h100}
        taints: [{key: nvidia.com/gpu, effect: NoSchedule}]
        spot: true
      - name: bare
        match: {nodes: [rack-7-*]}
        labels: {gpu-type: l4}
  register: fleet

- name: Return to what the release before has said
  genai.platform.gpu_nodes:
    release: previous
    max_changed: 100%

- name: Whatever discovery has lost for the moment, no node loses its pool for it
  genai.platform.gpu_nodes:
    pools: "{{ pools }}"
    emptied_pools: keep

- name: Take all of it off again
  genai.platform.gpu_nodes:
    state: absent
    max_changed: 100%
"""

RETURN = r"""
nodes:
  description: The pool of each node that is in one.
  returned: when the nodes were listed
  type: dict
  sample: {gpu-0001: h100}
unmatched:
  description: Nodes with GPUs that no pool matches.
  returned: when the nodes were listed
  type: list
  elements: dict
  sample: [{node: gpu-0007, vendor: nvidia, product: NVIDIA-L4}]
empty_pools:
  description: Pools that no node matches, not even one of another platform. Each of them is a warning, too.
  returned: when the nodes were listed
  type: list
  elements: str
kept:
  description: Nodes that were left as they are although their pool, the value, matches them no more.
  returned: when the nodes were listed
  type: dict
  sample: {gpu-0002: h100}
other_platforms:
  description: Nodes that a pool matches and that are left alone because another platform, the value, has them.
  returned: when the nodes were listed
  type: dict
  sample: {gpu-0004: acme}
conflicts:
  description: Labels and taints of others in the place of ours, which stay as they are.
  returned: when the nodes were listed
  type: list
  elements: dict
  sample: [{node: gpu-0003, field: label, key: gpu-type, wanted: h100, found: h200, manager: kubectl-label}]
changes:
  description: What was changed, or would be in check mode, the same change of many nodes once.
  returned: when the nodes were listed
  type: list
  elements: dict
  sample:
    - pool: h100
      nodes: [gpu-0001, gpu-0002]
      before: {labels: {}, taints: []}
      after: {labels: {gpu-type: h100, genai.platform/gpu-pool: h100}, taints: ["nvidia.com/gpu:NoSchedule"]}
gone:
  description: Nodes that were deleted while the module worked.
  returned: when the nodes were listed
  type: list
  elements: str
failed_nodes:
  description: Nodes that could not be written, and why.
  returned: when the nodes were listed
  type: dict
emptied_pools:
  description: The pools that would have lost all of their nodes, and those nodes.
  returned: when the task failed for it
  type: dict
  sample: {h100: [gpu-0001, gpu-0002]}
thinned_pools:
  description: The pools that would have lost most of their nodes, and those nodes.
  returned: when the task failed for it
  type: dict
  sample: {h100: [gpu-0001, gpu-0002]}
lines:
  description: The result for people.
  returned: success
  type: list
  elements: str
reason:
  description: Stable word for the kind of failure, such as V(busy), V(invalid_input), V(nodes_failed).
  returned: failure
  type: str
requests:
  description: Number of API requests by verb.
  returned: when the nodes were listed
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils.fleet.fleet import Fleet, ever_released, nodes_diff, released_pools
from ansible_collections.genai.platform.plugins.module_utils.fleet.gpu import Pool
from ansible_collections.genai.platform.plugins.module_utils.fleet.guard import ALLOW, KEEP, REFUSE
from ansible_collections.genai.platform.plugins.module_utils.fleet.platform_lock import PlatformLock
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM, WORKING
from ansible_collections.genai.platform.plugins.module_utils.module.input import who
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Call, Module, connect
from ansible_collections.genai.platform.plugins.module_utils.module.signals import stop_on_signals

LISTS = ("products", "pci", "instance_types", "resources", "nodes")
MATCH = {**{name: {"type": "list", "elements": "str"} for name in LISTS}, "labels": {"type": "dict"}}
TAINT = {
    "key": {"type": "str", "required": True, "no_log": False},
    "value": {"type": "str", "default": ""},
    "effect": {"type": "str", "choices": ["NoSchedule", "PreferNoSchedule", "NoExecute"], "required": True},
}
POOL = {
    "name": {"type": "str", "required": True},
    "vendor": {"type": "str", "choices": ["nvidia", "amd"]},
    "match": {"type": "dict", "options": MATCH},
    "labels": {"type": "dict"},
    "taints": {"type": "list", "elements": "dict", "options": TAINT},
    "spot": {"type": "bool", "default": False},
}
OPTIONS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "pools": {"type": "list", "elements": "dict", "options": POOL},
    "release": {"type": "str"},
    "max_changed": {"type": "str", "default": "25%"},
    "emptied_pools": {"type": "str", "choices": [REFUSE, KEEP, ALLOW], "default": REFUSE},
}


def gpu_nodes(call: Call) -> dict:
    params = call.params
    cluster, ledger = connect(params, params["workers"])

    def wanted() -> list[Pool] | None:
        if params["state"] == "absent":
            return []
        given = released_pools(ledger, params["release"]) if params["release"] else params["pools"]
        return None if given is None else list(map(Pool.of, given))

    pools = wanted()
    if pools is None:
        return {"changed": False, "lines": ["no release has pools of GPU nodes"], "requests": dict(cluster.requests)}
    lock = PlatformLock(cluster, ledger, who())
    fleet = Fleet(
        cluster, pools, params["max_changed"], call.check_mode, call.progress, params["emptied_pools"], lock, wanted,
        platform=params["platform"], needless=lambda: params["state"] == "absent" and not ever_released(ledger),
    )
    stop_on_signals()
    result = fleet.apply()
    return {**result, "diff": [nodes_diff(change) for change in result.get("changes", ())]} if call.diff else result


MODULE = Module(
    gpu_nodes,
    {**CONNECTION, **PLATFORM, **WORKING, **OPTIONS},
    {"mutually_exclusive": [("pools", "release")], "required_if": [("state", "present", ("pools", "release"), True)]},
)


def main() -> None:
    MODULE.run_as_module(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
