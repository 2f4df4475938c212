# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of genai.platform.release_info."""
from __future__ import annotations

from ansible_collections.genai.platform.plugins.plugin_utils.module_action import ModuleAction


class ActionModule(ModuleAction):
    pass
