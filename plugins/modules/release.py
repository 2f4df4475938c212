#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.release."""
from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Deploy a platform as one transaction, or return to an earlier release of it
version_added: 0.1.0
author: genai.platform authors (@genai-platform)
description:
  - Makes the cluster hold exactly the objects of a bundle of components, with one preview, one wait and one record.
  - Order of work. Validate everything, observe the cluster with one list request per kind, plan, write a journal of
    before-images, apply in waves by server-side apply, wait by watch, prune what the ledger owns and the bundle no longer
    has, record the release.
  - When anything fails after the first write, the state before is restored. Changed objects get their fields back, new
    objects go, claims and namespaces that hold data stay.
  - A run that was killed leaves its journal; the next run restores the state before it and then goes on.
options:
  state:
    description:
      - V(present) deploys O(bundle).
      - V(rolled_back) returns to release O(to) from the ledger, as a new release.
    type: str
    choices: [present, rolled_back]
    default: present
  bundle:
    description:
      - "Components and their manifests, C({component: [manifest, ...]}). A component name is a role name."
      - Handed over by the action plugin in a private file, so that Secrets do not appear in the task's invocation.
    type: dict
  bundle_file:
    description:
      - JSON file that holds the bundle, in place of O(bundle).
    type: path
  complete:
    description:
      - Whether the bundle is the whole platform. Components that the ledger has and the bundle has not are then pruned.
    type: bool
    default: false
  to:
    description:
      - Release to return to with O(state=rolled_back), a number or V(previous).
    type: str
    default: previous
  components:
    description:
      - With O(state=rolled_back), return only these components. All of them when not given.
    type: list
    elements: str
  prune:
    description:
      - Delete objects that the ledger says were released by these components and that the bundle no longer has.
    type: bool
    default: true
  prune_protected:
    description:
      - Also prune PersistentVolumeClaims, PersistentVolumes, Namespaces and CustomResourceDefinitions.
    type: bool
    default: false
  force_conflicts:
    description:
      - Take over fields that another field manager owns. Without it such a conflict is an error that names the manager.
    type: bool
    default: false
  wait:
    description:
      - Wait until every workload of the bundle is ready. Ends early on what cannot get better, with events and log lines.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait.
    type: int
    default: 600
  keep:
    description:
      - Number of releases to keep in the ledger.
    type: int
    default: 10
  workers:
    description:
      - Number of requests under way at a time.
    type: int
    default: 16
  why:
    description:
      - Reason for the release, kept in the ledger.
    type: str
    default: ''
  by:
    description:
      - Who makes the release, kept in the ledger. The user and host that run the module when not given.
    type: str
  commit:
    description:
      - Source revision of the platform's description, kept in the ledger.
    type: str
    default: ''
  profile:
    description:
      - Inventory profile, kept in the ledger.
    type: str
    default: ''
  progress_file:
    description:
      - File that progress lines are appended to while the module works. The action plugin reads it and prints them.
    type: path
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.attributes
seealso:
  - module: genai.platform.release_info
"""

EXAMPLES = r"""
- name: Deploy two components, see the changes first with --check --diff
  genai.platform.release:
    kubeconfig: ~/.kube/config
    expected_server: https://api.example.com:6443
    bundle:
      namespaces:
        - apiVersion: v1
          kind: Namespace
          metadata: {name: inference}
      settings:
        - apiVersion: v1
          kind: ConfigMap
          metadata: {name: model, namespace: inference}
          data: {name: digits}
    why: first deployment

- name: Undo the last release
  genai.platform.release:
    state: rolled_back

- name: Return one component to what it was in release 7
  genai.platform.release:
    state: rolled_back
    to: 7
    components: [inference_app]
"""

RETURN = r"""
release:
  description: Number of the release that the platform is at now.
  returned: success
  type: int
previous:
  description: Number of the release before this task; null on an empty platform.
  returned: success
  type: int
summary:
  description: Number of objects by component and kind of change.
  returned: success
  type: dict
  sample: {inference_app: {create: 0, update: 2, delete: 0, unchanged: 7}}
summary_lines:
  description: The same for people, a line per component.
  returned: success
  type: list
  elements: str
changes:
  description: Every object created, updated or deleted (or to be, in check mode).
  returned: success
  type: list
  elements: dict
  sample:
    - {component: inference_app, action: update, kind: ConfigMap, namespace: inference, name: inference, fields: [data.title], pending: ''}
ledger:
  description: In check mode, the ledger's own objects that the real run would create.
  returned: success
  type: list
  elements: str
repaired:
  description: Who started the killed run whose state before was restored first, and when; null when there was none.
  returned: success
  type: dict
kept:
  description: Objects no longer described that are kept because they hold data.
  returned: success
  type: list
  elements: str
requests:
  description: Number of API requests by verb.
  returned: success
  type: dict
  sample: {GET: 12, PATCH: 2}
reason:
  description: Stable word for the kind of failure, such as V(invalid_input), V(wrong_cluster), V(release_failed).
  returned: failure
  type: str
problems:
  description: What could not get better, with object, pod, event, last log lines and a hint.
  returned: failure
  type: list
  elements: dict
restored:
  description: Objects put back, removed and kept when the state before was restored.
  returned: failure after the first write
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils._argspec import CONNECTION, PLATFORM, connect, run
from ansible_collections.genai.platform.plugins.module_utils._input import progress_to, read_bundle
from ansible_collections.genai.platform.plugins.module_utils._release import Options, Releaser, who

OPTIONS = {
    "state": {"type": "str", "choices": ["present", "rolled_back"], "default": "present"},
    "bundle": {"type": "dict"},
    "bundle_file": {"type": "path"},
    "complete": {"type": "bool", "default": False},
    "to": {"type": "str", "default": "previous"},
    "components": {"type": "list", "elements": "str"},
    "prune": {"type": "bool", "default": True},
    "prune_protected": {"type": "bool", "default": False},
    "force_conflicts": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 600},
    "keep": {"type": "int", "default": 10},
    "workers": {"type": "int", "default": 16},
    "why": {"type": "str", "default": ""},
    "by": {"type": "str"},
    "commit": {"type": "str", "default": ""},
    "profile": {"type": "str", "default": ""},
    "progress_file": {"type": "path"},
}


def release(module: AnsibleModule) -> dict:
    params = module.params
    cluster, ledger = connect(params, params["workers"])
    facts = {"by": params["by"] or who(), **{name: params[name] for name in ("why", "commit", "profile")}}
    options = Options(
        platform=params["platform"],
        check=module.check_mode,
        diff=module._diff,
        force=params["force_conflicts"],
        facts=facts,
        **{name: params[name] for name in ("wait", "wait_timeout", "prune", "prune_protected", "complete", "keep")},
    )
    releaser = Releaser(cluster, ledger, options, progress_to(params["progress_file"]))
    if params["state"] == "rolled_back":
        return releaser.roll_back(params["to"], params["components"])
    return releaser.deploy(read_bundle(params["bundle"], params["bundle_file"]))


def main() -> None:
    module = AnsibleModule(
        argument_spec={**CONNECTION, **PLATFORM, **OPTIONS},
        mutually_exclusive=[("bundle", "bundle_file")],
        required_if=[("state", "present", ("bundle", "bundle_file"), True)],
        supports_check_mode=True,
    )
    run(module, lambda: release(module))


if __name__ == "__main__":
    main()
