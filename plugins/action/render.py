# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of genai.platform.render."""
from __future__ import annotations

from ansible.utils.path import unfrackpath
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM
from ansible_collections.genai.platform.plugins.plugin_utils.module_action import ModuleAction

# What `module_defaults` of the action group sets for the modules that reach a cluster.
OF_THE_CLUSTER = {*CONNECTION, *PLATFORM} - {"platform"}


class ActionModule(ModuleAction):
    def _arguments(self, args: dict) -> dict:
        """Leaves out what is about the cluster, for this module needs none, and says where a relative path begins."""
        mine = {name: value for name, value in args.items() if name not in OF_THE_CLUSTER}
        if self._connection.transport == "local" and isinstance(mine.get("dest"), str):
            # Ansible would run the module in the playbook's folder, and that may be anywhere, an installed collection for one.
            mine["dest"] = unfrackpath(mine["dest"], follow=False)
        return mine
