# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter genai.platform.network_policies."""
from __future__ import annotations

DOCUMENTATION = r"""
name: network_policies
short_description: NetworkPolicies out of one matrix of allowed flows
version_added: 0.3.0
author: genai.platform authors (@genai-platform)
description:
  - Every namespace gets a policy that denies everything in and out but name resolution, and each component in it that a flow begins or
    ends at a policy of its own. A flow between two such namespaces is allowed at both ends.
  - What is wrong with the matrix (an unknown component, a port that is none) is no error here but a note on the first policy, the
    annotation C(genai.platform/finding). M(genai.platform.release) refuses it, together with everything else that is wrong.
positional: _input, components, flows, distribution
options:
  _input:
    description: Namespaces, each with C(name) and optionally C(default_deny). Those with C(default_deny=false) get no policies.
    type: list
    elements: dict
    required: true
  components:
    description:
      - Components by name. Each has exactly one of C(namespace) (a name), C(namespace_labels) (of any number of namespaces) and C(cidr) (with
        C(except), a list, left out of it); C(pods), their labels, or all pods where there is none; and C(ports),
        numbers by names, such as C(8080) or C(53/UDP).
      - C(anyone) is everybody, inside and outside of the cluster. What is not in one namespace by name gets no policy of its own; a flow from
        or to it is allowed at its other end only. C(dns), C(ingress) and C(monitoring) are those of the distribution
        unless they are among the components.
    type: dict
    required: true
  flows:
    description:
      - What is allowed. C(from) and C(to) name a component or a list of them. C(ports) are names of ports of C(to), or numbers; all ports
        that C(to) has by name when there is none.
    type: list
    elements: dict
    required: true
  distribution:
    description: Whose name servers, router and monitoring are meant.
    type: str
    choices: [kubernetes, openshift]
    default: kubernetes
"""

EXAMPLES = r"""
# [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: default-deny, namespace: shop}, ...}, ...]
policies: >-
  {{ [{'name': 'shop'}] | genai.platform.network_policies(
       {'web': {'namespace': 'shop', 'pods': {'app': 'web'}, 'ports': {'http': 8080}}},
       [{'from': 'ingress', 'to': 'web', 'ports': 'http'}]) }}
"""

RETURN = r"""
_value:
  description: NetworkPolicy manifests.
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.genai.platform.plugins.plugin_utils.network import network_policies


class FilterModule:
    def filters(self) -> dict[str, t.Callable]:
        return {"network_policies": network_policies}
