#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.release_info."""
from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: Read the ledger of releases, and what kind of cluster it is on
version_added: 0.1.0
author: genai.platform authors (@genai-platform)
description:
  - Returns the kept releases of a platform, the current one, and the objects it owns.
  - Also says whether the cluster is Kubernetes or OpenShift, so that it serves as the preflight of a playbook. It fails when
    the cluster is the wrong one, cannot be reached, or refuses the credentials.
  - Never returns manifests, because they may hold Secrets.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.attributes
attributes:
  diff_mode:
    support: N/A
seealso:
  - module: genai.platform.release
"""

EXAMPLES = r"""
- name: What is deployed here
  genai.platform.release_info:
    kubeconfig: ~/.kube/config
  register: platform

- name: Show the history
  ansible.builtin.debug:
    msg: "{{ platform.releases }}"
"""

RETURN = r"""
releases:
  description: Kept releases, oldest first, with number, status, time, who, why and the revision of each component.
  returned: success
  type: list
  elements: dict
lines:
  description: The kept releases for people, the newest first, each with what it changed.
  returned: success
  type: list
  elements: str
  sample: ['*    2  2026-01-02T00:00:00Z  deployed  by ada: more pods  inference_app +0 ~1 -0']
current:
  description: The release that is deployed; null on an empty platform.
  returned: success
  type: dict
objects:
  description: Objects owned, by component.
  returned: success
  type: dict
interrupted:
  description: The run that did not end and that the next release repairs first; null when there is none.
  returned: success
  type: dict
distribution:
  description: V(kubernetes) or V(openshift).
  returned: success
  type: str
server:
  description: API URL reached.
  returned: success
  type: str
server_version:
  description: Version of the API server.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Module, connect
from ansible_collections.genai.platform.plugins.module_utils.upkeep.history import release_info

MODULE = Module(lambda call: release_info(*connect(call.params)), {**CONNECTION, **PLATFORM})


def main() -> None:
    MODULE.run_as_module(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
