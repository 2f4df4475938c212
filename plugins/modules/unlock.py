#!/usr/bin/python
# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module genai.platform.unlock."""
from __future__ import annotations

DOCUMENTATION = r"""
module: unlock
short_description: Open a platform whose last run could not be undone
version_added: 0.3.0
author: genai.platform authors (@genai-platform)
description:
  - A run that was killed, or whose undo failed, leaves its journal, and the next run restores from it first. Where that keeps failing, no run
    gets any further.
  - This module restores what can be restored, names what cannot, and removes the journal, so that the platform takes releases again. In
    check mode it shows what it would do with each object and writes nothing.
  - Refuses while the run that wrote the journal is alive. Does nothing where there is no journal.
  - What could not be restored stays as it is. The next release brings it to what its description says, or says why it cannot.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - genai.platform.platform
  - genai.platform.platform.working
  - genai.platform.platform.recording
  - genai.platform.platform.attributes
seealso:
  - module: genai.platform.release
"""

EXAMPLES = r"""
- name: See what the run that did not end has left
  genai.platform.unlock:
    kubeconfig: ~/.kube/config
  check_mode: true
  register: found

- name: Go on without what cannot be restored
  genai.platform.unlock:
"""

RETURN = r"""
interrupted:
  description: Who started the run that did not end, and when; null when the platform was not locked.
  returned: success
  type: dict
left:
  description:
    - Objects that are not as they were before that run, with the outcome and, where the server refuses it, its reason.
    - In check mode all of them, otherwise those that could not be restored.
  returned: success
  type: list
  elements: dict
  sample:
    - {object: ConfigMap search/settings, outcome: stays as it is, message: field is immutable}
lines:
  description: The same for people.
  returned: success
  type: list
  elements: str
requests:
  description: Number of API requests by verb.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.engine.unlock import unlock, unlock_lines
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM, RECORDING, WORKING
from ansible_collections.genai.platform.plugins.module_utils.module.input import who
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Call, Module, connect
from ansible_collections.genai.platform.plugins.module_utils.module.signals import stop_on_signals


def unlocked(call: Call) -> dict:
    params = call.params
    facts = {"by": params["by"] or who(), "why": "", "commit": "", "profile": ""}
    options = Options(params["platform"], check=call.check_mode, diff=call.diff, keep=params["keep"], facts=facts)
    stop_on_signals()
    result = unlock(Releaser(*connect(params, params["workers"]), options, call.progress))
    return {**result, "lines": unlock_lines(result, call.check_mode)}


MODULE = Module(unlocked, {**CONNECTION, **PLATFORM, **WORKING, **RECORDING})


def main() -> None:
    MODULE.run_as_module(AnsibleModule(**MODULE.arguments))


if __name__ == "__main__":
    main()
