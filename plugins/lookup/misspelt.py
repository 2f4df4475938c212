# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup genai.platform.misspelt."""
from __future__ import annotations

DOCUMENTATION = r"""
name: misspelt
short_description: Variables that look like an option of a role and are none
version_added: 0.5.0
author: genai.platform authors (@genai-platform)
description:
  - Looks at the names of all variables of the host, wherever they were set, and at the options that the roles document.
  - Finds those that begin with the role's name and are no option of it, and those that resemble an option of any role beside it or are one
    without the role's name.
options:
  _terms:
    description: Folder of the role.
    required: true
    type: list
    elements: path
  others:
    description: Names that belong to somebody else, as shell patterns.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse misspelt variables
  ansible.builtin.assert:
    that: query('genai.platform.misspelt', role_path) | length == 0
"""

RETURN = r"""
_list:
  description: A text for each, with what may have been meant.
  type: list
  elements: str
"""

import pathlib
import typing as t

from ansible.plugins.lookup import LookupBase
from ansible_collections.genai.platform.plugins.plugin_utils.spelling import near_misses, unknown_options


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict | None = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        names, others = list(variables or {}), self.get_option("others")
        found = [text for term in terms for find in (unknown_options, near_misses) for text in find(pathlib.Path(term), names, others)]
        return [f"{text} If it is yours, name it in common_other_variables" for text in found]
