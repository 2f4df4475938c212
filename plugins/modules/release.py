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
  - Asks before the first write whether the identity used may do all that the plan, and undoing it, needs. One error names every
    permission that is missing.
  - When anything fails after the first write, the state before is restored. Changed objects get their fields back, new
    objects go, claims and namespaces that hold data or anything of others stay.
  - What belongs to another platform is refused. What was there before and is nobody's is taken over and never deleted.
  - Replicas that an autoscaler has set are left to it, whether it is in the bundle or not.
  - What is being deleted is waited for and made anew.
  - A run that was killed leaves its journal; the next run restores the state before it and then goes on.
options:
  state:
    description:
      - V(present) deploys O(bundle).
      - V(rolled_back) returns to release O(to) from the ledger, as a new release.
      - V(absent) removes everything the ledger owns, in reverse order, and waits until it is gone. Namespaces that hold claims or
        anything of others stay, objects that were there before the platform only lose its labels, and the ledger stays, so that a rollback
        can bring the platform back.
    type: str
    choices: [present, rolled_back, absent]
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
  max_deleted:
    description:
      - How many of the objects that the ledger owns one run with O(state=present) may delete, as a number or a percentage of them. A
        percentage never means fewer than five. To delete everything takes V(100%), and so does to delete everything but what is kept, such
        as a Namespace.
      - A rollback and a teardown say themselves what goes, and are not limited.
    type: str
    default: 25%
  to:
    description:
      - Release to return to with O(state=rolled_back), a number or V(previous).
    type: str
    default: previous
  components:
    description:
      - With O(state=present), the components that this run means to release. One that O(bundle) lacks is an error, so that a play which was
        started in the middle, stepped through or cut short prunes nothing.
      - With O(state=rolled_back), return only these components. All of them when not given.
    type: list
    elements: str
  after:
    description:
      - "What comes after what, C({component: [component, ...]}). Nothing of a component is written until those that it comes after are ready,
        but for its namespaces and definitions, which hold nothing up. It is removed before them, and they wait until its pods are gone."
      - O(wait_timeout) begins anew when a component that was held back is written. With O(wait=false) the order is kept, and nothing waited for.
      - A component that the platform does not have holds nobody back. A circle is an error.
      - The ledger keeps it. A rollback and a teardown go by that.
    type: dict
    default: {}
    version_added: 0.7.0
  allow_one_way:
    description:
      - With O(state=rolled_back), go back past changes that components declared as one-way, such as a database migration.
      - An object declares one by the annotation C(genai.platform/one-way), whose text says what cannot be undone.
    type: bool
    default: false
  data:
    description:
      - With O(state=absent), also remove the platform's PersistentVolumeClaims and PersistentVolumes, and with them what they hold.
    type: bool
    default: false
  forget:
    description:
      - With O(state=absent), also remove the ledger, unless something was kept. There is no way back after that. Its namespace goes only if
        a platform made it and nothing else is in it.
    type: bool
    default: false
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
  references:
    description:
      - Before the first write, look for what the objects to be written name and the bundle has not. ConfigMaps, Secrets, claims, service
        accounts, roles, Services of an Ingress and targets of an autoscaler that are neither in the bundle nor in the cluster are an error.
      - Switch it off where something else makes them later, such as the Secrets of cert-manager. An C(optional) reference is never missed.
      - A rollback does not look.
    type: bool
    default: true
  consistency:
    description:
      - Before the first write, compare the objects of the bundle with each other. A ResourceQuota that is smaller than what the workloads of
        its namespace need at least, a pod that the Pod Security level of its Namespace forbids, and a flow of the role C(namespaces) that
        names an unknown component are one error that lists all of them.
      - Quotas and levels that are only in the cluster are not looked at, and neither are they by a rollback.
    type: bool
    default: true
  wait:
    description:
      - Wait until every workload of the bundle is ready. Ends early on what cannot get better, with events and log lines.
    type: bool
    default: true
  why:
    description:
      - Reason for the release, kept in the ledger.
    type: str
    default: ''
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
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.working
  - genai.platform.platform.recording
  - genai.platform.platform.attributes
seealso:
  - module: genai.platform.release_info
  - module: genai.platform.unlock
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

- name: Remove the platform, keep its data
  genai.platform.release:
    state: absent

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
    - component: inference_app
      action: update
      kind: ConfigMap
      namespace: inference
      name: inference
      fields: [data.title]
      pending: ''
      taken_over: false
taken_over:
  description: Objects that were there before the platform and are nobody's, to which this run writes for the first time.
  returned: success
  type: list
  elements: str
scaled:
  description: Workloads whose replicas an autoscaler outside of the bundle has set; the manifest's number is not applied.
  returned: success
  type: list
  elements: str
order:
  description: Components by stage, in the order in which they are written. Those of a stage come after some of the stage before.
  returned: success
  type: list
  elements: list
  sample: [[namespaces, postgresql], [inference_app]]
  version_added: 0.7.0
returns_to:
  description: With O(state=rolled_back), the number of the release that is returned to; null otherwise.
  returned: success
  type: int
not_ready:
  description: >-
    What is not ready when the run ends and did not fail it: what was broken before and to which the run did not write, and what it may
    have mended but has not yet. M(genai.platform.verify) says why.
  returned: success
  type: list
  elements: str
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
  description: Objects no longer described that are kept, most of them because they hold data.
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

from ansible_collections.genai.platform.plugins.module_utils._argspec import CONNECTION, PLATFORM, RECORDING, WORKING, Call, Module, connect
from ansible_collections.genai.platform.plugins.module_utils._input import read_bundle, stop_on_signals, who
from ansible_collections.genai.platform.plugins.module_utils._order import after
from ansible_collections.genai.platform.plugins.module_utils._patience import patience
from ansible_collections.genai.platform.plugins.module_utils._release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils._teardown import teardown

OPTIONS = {
    "state": {"type": "str", "choices": ["present", "rolled_back", "absent"], "default": "present"},
    "bundle": {"type": "dict"},
    "bundle_file": {"type": "path"},
    "complete": {"type": "bool", "default": False},
    "max_deleted": {"type": "str", "default": "25%"},
    "to": {"type": "str", "default": "previous"},
    "components": {"type": "list", "elements": "str"},
    "after": {"type": "dict", "default": {}},
    "allow_one_way": {"type": "bool", "default": False},
    "data": {"type": "bool", "default": False},
    "forget": {"type": "bool", "default": False},
    "prune": {"type": "bool", "default": True},
    "prune_protected": {"type": "bool", "default": False},
    "force_conflicts": {"type": "bool", "default": False},
    "references": {"type": "bool", "default": True},
    "consistency": {"type": "bool", "default": True},
    "wait": {"type": "bool", "default": True},
    "why": {"type": "str", "default": ""},
    "commit": {"type": "str", "default": ""},
    "profile": {"type": "str", "default": ""},
}
# Parameters that mean the same in the engine.
FLAGS = ("allow_one_way", "references", "consistency", "wait", "wait_timeout", "prune", "prune_protected", "complete", "max_deleted", "keep")


def release(call: Call) -> dict:
    params = call.params
    cluster, ledger = connect(params, params["workers"])
    facts = {"by": params["by"] or who(), **{name: params[name] for name in ("why", "commit", "profile")}}
    options = Options(
        platform=params["platform"],
        check=call.check_mode,
        diff=call.diff,
        force=params["force_conflicts"],
        facts=facts,
        patience=patience(params["patience"]),
        after=after(params["after"]),
        **{name: params[name] for name in FLAGS},
    )
    releaser = Releaser(cluster, ledger, options, call.progress)
    stop_on_signals()
    if params["state"] == "rolled_back":
        return releaser.roll_back(params["to"], params["components"])
    if params["state"] == "absent":
        return teardown(releaser, params["data"], params["forget"])
    return releaser.deploy(read_bundle(params["bundle"], params["bundle_file"]), params["components"])


MODULE = Module(
    release,
    {**CONNECTION, **PLATFORM, **WORKING, **RECORDING, **OPTIONS},
    {"mutually_exclusive": [("bundle", "bundle_file")], "required_if": [("state", "present", ("bundle", "bundle_file"), True)]},
)


def main() -> None:
    MODULE.main(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
