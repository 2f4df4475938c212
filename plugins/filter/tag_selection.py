# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter genai.platform.tag_selection."""
from __future__ import annotations

DOCUMENTATION = r"""
name: tag_selection
short_description: Components that a run means, by the tags it is limited to
version_added: 0.5.0
author: genai.platform authors (@genai-platform)
description:
  - Each component has its own name as tag. C(--tags) and C(--skip-tags) choose among them as Ansible chooses tasks.
  - A tag that is unknown, and tags that leave no component, are no error here but C(mistakes), a text each. The role C(common) stops
    the play with them.
positional: _input, run_tags, skip_tags, aliases, others
options:
  _input:
    description: Names of the platform's components.
    type: list
    elements: str
    required: true
  run_tags:
    description: What the run is limited to, the variable C(ansible_run_tags).
    type: list
    elements: str
    required: true
  skip_tags:
    description: What the run leaves out, the variable C(ansible_skip_tags).
    type: list
    elements: str
    required: true
  aliases:
    description: Components by further tags of theirs.
    type: dict
    required: true
  others:
    description: Tags of other plays in the same playbook. A run that is limited to them means no component, and that is no mistake.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# with --tags app: {listed: [database, api], components: [api], complete: false, mistakes: []}
meant: "{{ ['database', 'api'] | genai.platform.tag_selection(ansible_run_tags, ansible_skip_tags, {'app': 'api'}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(listed), all names; C(components), those that the run means, in their order; C(complete), whether nothing limits the run;
      C(mistakes), what is wrong with the tags.
    - With a mistake, C(components) are all there are.
  type: dict
"""

import typing as t

from ansible_collections.genai.platform.plugins.plugin_utils.selection import tag_selection


class FilterModule:
    def filters(self) -> dict[str, t.Callable]:
        return {"tag_selection": tag_selection}
