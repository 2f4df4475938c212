#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.render."""
from __future__ import annotations

DOCUMENTATION = r"""
module: render
short_description: Write a platform as a kustomize tree, for Argo CD, Flux or kubectl
version_added: 0.1.0
author: genai.platform authors (@genai-platform)
description:
  - Writes the objects of a bundle as files, exactly as M(genai.platform.release) would apply them. C(kubectl apply -k) of the
    tree makes the same objects.
  - The tree has a folder per component with a file per object, C(<kind>_<namespace>_<name>.yaml), and a C(kustomization.yaml)
    in each folder and at the top.
  - The same bundle gives the same bytes. A file that is right is not touched.
  - A file is written over or removed only when its first line says that this module wrote it, for this platform, in this place.
    Anything else where a file of the tree has to be is an error. All else under O(dest) is left alone.
  - All files change, or after a failure none.
options:
  bundle:
    description:
      - "Components and their manifests, C({component: [manifest, ...]}). A component name is a role name."
      - Handed over by the action plugin in a private file, so that Secrets do not appear in the task's invocation.
    type: dict
  bundle_file:
    description:
      - JSON file that holds the bundle, in place of O(bundle).
    type: path
  dest:
    description:
      - Folder of the tree. Made when it is missing. A relative path begins where Ansible was started.
    type: path
    required: true
  complete:
    description:
      - Whether the bundle is the whole platform. The files of components that the bundle has not are then removed; otherwise
        they stay, and stay listed.
    type: bool
    default: false
  components:
    description:
      - The components that this run means to render. One that O(bundle) lacks is an error, so that a play which was started in the middle,
        stepped through or cut short removes nothing.
    type: list
    elements: str
  secrets:
    description:
      - Whether Secrets are in the tree. Their files can be read by their owner only, and a C(.gitignore) beside them keeps them
        out of Git, where C(kustomization.yaml) would then miss them.
      - With V(false) they are in no file and no C(kustomization.yaml), and the result names them. Choose this for a tree that
        goes to Git, and bring the Secrets to the cluster by other means.
    type: bool
    default: true
  consistency:
    description:
      - Refuse a bundle that contradicts itself, as M(genai.platform.release) does.
    type: bool
    default: true
  platform:
    description:
      - Name of the platform. Its objects carry it as a label.
    type: str
    default: genai
requirements:
  - PyYAML
extends_documentation_fragment:
  - genai.platform.platform.attributes
attributes:
  platform:
    description: Runs where the tree shall be, usually the controller. Needs no cluster.
notes:
  - Takes the connection options that C(module_defaults) of the action group sets for the other modules, and ignores them.
  - Kustomize drops objects and annotations that it takes for its own, such as C(config.kubernetes.io/local-config). An object
    that has one is an error here.
  - Custom resources whose definition is in the same tree need C(kubectl apply -k) a second time; Argo CD and Flux try again
    by themselves. Removing from the cluster what is no longer in the tree is theirs to do, too.
seealso:
  - module: genai.platform.release
"""

EXAMPLES = r"""
- name: Write the tree, see the changes first with --check --diff
  genai.platform.render:
    dest: clusters/production
    complete: true
    secrets: false
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
  register: rendered

- name: Name the Secrets that have to come another way
  ansible.builtin.debug:
    var: rendered.left_out
"""

RETURN = r"""
dest:
  description: Folder of the tree, as an absolute path.
  returned: success
  type: str
  sample: /home/me/gitops/clusters/production
objects:
  description: Number of objects of the bundle that are in the tree.
  returned: success
  type: int
  sample: 13
created:
  description: Files that are new (or would be, in check mode), as paths below RV(dest).
  returned: success
  type: list
  elements: str
  sample: [inference_app/deployment_inference_inference.yaml, inference_app/kustomization.yaml]
updated:
  description: Files whose text or mode changed.
  returned: success
  type: list
  elements: str
removed:
  description: Files of earlier renderings that are gone.
  returned: success
  type: list
  elements: str
left_out:
  description: Secrets that are not in the tree because of O(secrets=false).
  returned: success
  type: list
  elements: str
  sample: [Secret inference/registry]
reason:
  description: Stable word for the kind of failure, such as V(invalid_input).
  returned: failure
  type: str
errors:
  description: Everything that was wrong, one by one.
  returned: failure, where there is more than the message
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils._argspec import PLATFORM, Call, Module
from ansible_collections.genai.platform.plugins.module_utils._consistency import refuse_contradictions
from ansible_collections.genai.platform.plugins.module_utils._input import read_bundle
from ansible_collections.genai.platform.plugins.module_utils._limit import refuse_empty, refuse_undescribed
from ansible_collections.genai.platform.plugins.module_utils._manifest import prepare
from ansible_collections.genai.platform.plugins.module_utils._render import render
from ansible_collections.genai.platform.plugins.module_utils._tree import Tree, outcome

OPTIONS = {
    "bundle": {"type": "dict"},
    "bundle_file": {"type": "path"},
    "dest": {"type": "path", "required": True},
    "complete": {"type": "bool", "default": False},
    "components": {"type": "list", "elements": "str"},
    "secrets": {"type": "bool", "default": True, "no_log": False},
    "consistency": {"type": "bool", "default": True},
    "platform": PLATFORM["platform"],
}


def work(call: Call) -> dict:
    params = call.params
    bundle = read_bundle(params["bundle"], params["bundle_file"])
    if params["components"]:
        refuse_undescribed(bundle, params["components"])
    objects = prepare(bundle, params["platform"])
    if params["complete"]:
        refuse_empty(objects)  # else nothing would be left of the tree
    if params["consistency"]:
        refuse_contradictions(objects)
    rendered = render(objects.values(), params["platform"], params["secrets"])
    tree = Tree(params["dest"], params["platform"])
    changes = tree.update(rendered, None if params["complete"] else set(bundle), call.check_mode)
    return outcome(tree, rendered, changes, call.diff)


MODULE = Module(
    work, OPTIONS, {"mutually_exclusive": [("bundle", "bundle_file")], "required_one_of": [("bundle", "bundle_file")]}
)


def main() -> None:
    MODULE.main(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
