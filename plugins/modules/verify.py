#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.verify."""
from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Wait until everything that was released is there, ready and answering, and say at once what never will be
version_added: 0.2.0
author: genai.platform authors (@genai-platform)
description:
  - Compares the ledger's list of objects with the cluster, one list request per kind, and waits by watch for those that are
    not ready, all of them at the same time.
  - Ends as soon as something cannot get better by itself. That is an image that cannot be pulled, a container that crashes or runs
    out of memory, a pod that quota, Pod Security or a webhook refuses or that no node fits, a claim that is not bound,
    a readiness probe that keeps failing, a failed Job, a missing Secret or ConfigMap, a deleted object or kind.
  - A Service of the platform is not healthy when a workload of the platform should answer for it and no endpoint is ready, or when it
    was changed so that no workload does. Nor is a HorizontalPodAutoscaler whose workload has no replicas, for there it does nothing.
  - Nor is a webhook configuration of the platform whose Service no pod answers for, one of others without whose answer every new pod in the
    platform's namespaces is refused, a ResourceQuota that others have made or changed so that no pod can start again, and a node whose label or
    taint of its pool is gone or was changed by a person. Nodes are looked at only where the release has pools.
  - Names, beside the verdict, what others have changed since it was released, and policies, quotas, limits and autoscalers in its
    namespaces that are no platform's.
  - A readiness probe is given three times what it allows itself, at least 10 seconds. A container that starts slowly needs a
    startup probe, which is waited for as long as it says.
  - Fails when the platform is not healthy. When it could not be looked at, the host counts as unreachable instead, so that
    C(ansible-playbook) ends with 2 in the first case and with 4 in the second.
options:
  components:
    description:
      - Only these components. All that are deployed when not given.
    type: list
    elements: str
  timeout:
    description:
      - Seconds to wait for what may still get ready.
    type: int
    default: 300
  ask:
    description:
      - Ask the Services that say how, each of their ready pods (20 of a Service at most), through the API server. A Service says how by the
        annotation C(genai.platform/verify-request), one of its ports and a path, such as V(http:/ready). With TLS, where C(https:) stands before
        the port, or else where the port's C(appProtocol), its name C(https) or its number 443 say so. Certificates are not checked.
      - Not healthy is a Service of which a pod answers with 400 or more, within 35 seconds not at all, or has not the port that clients are led to.
        What the API server does not reach, as where a NetworkPolicy lets nothing in from it, is named in RV(not_checked); where others have changed
        the Service, that counts as not answered, too. It takes a minute or two at most, beside O(timeout).
      - It is not quite a client's request. It comes from the API server, to the pod and not by the Service's address, with the API server's name as
        C(Host). An application that answers to certain hosts only, and a mesh that demands mTLS, refuse it.
      - Needs the right to C(get) C(pods/proxy) in the namespaces of these Services.
    type: bool
    default: false
    version_added: 0.3.0
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.working
  - genai.platform.platform.attributes
attributes:
  diff_mode:
    support: N/A
seealso:
  - module: genai.platform.release
  - module: genai.platform.drift
"""

EXAMPLES = r"""
- name: Is the platform healthy
  genai.platform.verify:
    kubeconfig: ~/.kube/config
    timeout: 120
  register: verdict

- name: Only one component, and go on when it is not healthy
  genai.platform.verify:
    components: [inference_app]
  register: verdict
  failed_when: false
"""

RETURN = r"""
verdict:
  description: V(healthy), V(failed) or V(timed_out).
  returned: when the cluster could be looked at
  type: str
checked:
  description: Number of objects released.
  returned: when the cluster could be looked at
  type: int
ready:
  description: Number of those that are there and ready.
  returned: when the cluster could be looked at
  type: int
problems:
  description: What is wrong, with object, pod, container, reason, message, newest event, last log lines and a hint.
  returned: when the cluster could be looked at
  type: list
  elements: dict
  sample:
    - object: Deployment inference/inference
      pod: inference-77b659564c-wd46d
      container: api
      reason: CrashLoopBackOff
      message: the container exits with code 2
      event: Back-off restarting failed container api
      log: ["GENAI_MAX_BATCH_SIZE='0': Input should be greater than or equal to 1"]
      hint: the container starts and ends again; its last log lines say why
changed_by_others:
  description: >-
    Released objects in which others have changed what was applied, with who wrote to them last and when. M(genai.platform.drift) shows the
    fields.
  returned: when the cluster could be looked at
  type: list
  elements: str
  sample: ['ConfigMap inference/inference (kubectl-edit, 2026-01-01T00:00:00Z)']
strangers:
  description: >-
    NetworkPolicies, ResourceQuotas, LimitRanges and HorizontalPodAutoscalers in the platform's namespaces that are no platform's, with who
    wrote to them last and when.
  returned: when the cluster could be looked at
  type: list
  elements: str
  sample: ['NetworkPolicy inference/emergency-lockdown (kubectl-create, 2026-01-01T00:00:00Z)']
not_checked:
  description: What this identity may not look at, so that nothing is said of it.
  returned: when the cluster could be looked at
  type: list
  elements: str
asked:
  description: For each Service that was asked how many of its pods answered. Empty without O(ask).
  returned: when the cluster could be looked at
  type: list
  elements: str
  sample: ['2 of 2 pods of Service inference/inference answered GET /ready']
lines:
  description: The verdict for people.
  returned: when the cluster could be looked at
  type: list
  elements: str
release:
  description: Number of the release that is deployed.
  returned: when the cluster could be looked at
  type: int
interrupted:
  description: The run that did not end and that the next release repairs first; null when there is none.
  returned: when the cluster could be looked at
  type: dict
seconds:
  description: How long it took.
  returned: when the cluster could be looked at
  type: float
requests:
  description: Number of API requests by verb.
  returned: when the cluster could be looked at
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM, WORKING
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Call, Module, connect
from ansible_collections.genai.platform.plugins.module_utils.upkeep.verify import HEALTHY, verdict_lines, verify

OPTIONS = {
    "components": {"type": "list", "elements": "str"},
    "timeout": {"type": "int", "default": 300},
    "ask": {"type": "bool", "default": False},
}


def judged(call: Call) -> dict:
    params = call.params
    verdict = verify(*connect(params, params["workers"]), params["components"], params["timeout"], call.progress, params["ask"])
    verdict["lines"] = verdict_lines(verdict)
    return verdict if verdict["verdict"] == HEALTHY else {**verdict, "failed": True, "msg": "\n".join(verdict["lines"])}


MODULE = Module(judged, {**CONNECTION, **PLATFORM, **WORKING, **OPTIONS}, looking=lambda _params: True)


def main() -> None:
    MODULE.run_as_module(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
