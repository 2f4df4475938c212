# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup genai.platform.component."""
from __future__ import annotations

DOCUMENTATION = r"""
name: component
short_description: What a role says of its component to all others
version_added: 0.7.0
author: genai.platform authors (@genai-platform)
description:
  - Reads C(meta/component.yml) of a role. Its only key is C(after), a list of the components that must be ready before anything of this one is
    written. One that a platform does not have holds nobody back.
  - A role without that file comes after nothing.
options:
  _terms:
    description: Folder of the role.
    required: true
    type: list
    elements: path
"""

EXAMPLES = r"""
- name: Show what a role comes after
  ansible.builtin.debug:
    msg: "{{ lookup('genai.platform.component', role_path).after }}"
"""

RETURN = r"""
_list:
  description: A dictionary for each role, with the list C(after).
  type: list
  elements: dict
  sample: [{after: [postgresql]}]
"""

import pathlib
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.genai.platform.plugins.plugin_utils._descriptor import Malformed, descriptor


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict | None = None, **kwargs: t.Any) -> list[dict]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [descriptor(pathlib.Path(term)) for term in terms]
        except Malformed as exc:
            raise AnsibleLookupError(str(exc)) from exc
