# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of the modules: runs them in Ansible's own worker process where that is the same thing, else as any module.

With a local connection and Ansible's own Python, a module gains nothing from a process of its own. Without one there is no
archive to build, no second interpreter to start, and nothing of a bundle is written anywhere; progress shows as it happens.
"""
from __future__ import annotations

import datetime
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import typing as t

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import not_json

display = Display()
COLLECTION = "genai.platform"


class ModuleAction(ActionBase):
    """Runs the module of the action's own name. Keeps a bundle out of the invocation, where `-vvv` would print it and its Secrets."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = self._arguments(dict(self._task.args))
        result = self._run_in_worker(args, task_vars) if self._may_run_in_worker(task_vars) else self._run_as_module(args, task_vars)
        result.pop("invocation", None)
        return result

    def _arguments(self, args: dict) -> dict:
        """What the module is given of the task's arguments."""
        return args

    @property
    def _module(self) -> str:
        """Name of the module, which is that of the action's own file."""
        return type(self).__module__.rpartition(".")[2]

    def _may_run_in_worker(self, task_vars: dict) -> bool:
        """Whether the module would run on this machine, as this user, in this environment, by this Python."""
        task = self._task
        plain = self._connection.transport == "local" and not self._connection.become
        return plain and not any(task.environment or ()) and self._is_own_python(task_vars)

    def _is_own_python(self, task_vars: dict) -> bool:
        delegated = (task_vars.get("ansible_delegated_vars") or {}).get(self._task.delegate_to)
        chosen = (delegated or task_vars).get("ansible_python_interpreter") or constants.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars)
        chosen = str(self._templar.template(chosen))
        # Nobody chose one: that with the client in it is the right one.
        return chosen == sys.executable or (chosen.startswith("auto") and importlib.util.find_spec("kubernetes") is not None)

    def _run_in_worker(self, args: dict, task_vars: dict) -> dict:
        module = importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.modules.{self._module}")
        host = task_vars.get("inventory_hostname", "")

        def progress(line: str) -> None:
            display.display(f"  {host}: {line}")

        return module.MODULE.run_in_worker(_without_tags(args), self._task.check_mode, self._task.diff, progress)

    def _run_as_module(self, args: dict, task_vars: dict) -> dict:
        if "bundle" in args:
            args["bundle_file"] = self._handed_over(args.pop("bundle"))
        return self._execute_module(f"{COLLECTION}.{self._module}", module_args=args, task_vars=task_vars)

    def _handed_over(self, bundle: t.Any) -> str:
        """Sends the bundle to where the module runs. Returns its path there; it goes with the task's own folder."""
        with tempfile.TemporaryDirectory(prefix="genai-platform-") as folder:
            path = os.path.join(folder, "bundle.json")
            plain = _without_tags(bundle)
            problems = [f"bundle.{problem}" for problem in not_json(plain, hide=True)]  # a Secret is not told from the rest here
            if problems:
                raise AnsibleActionFail("the manifests are not valid, nothing was written:\n- " + "\n- ".join(problems))
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as handle:
                json.dump(plain, handle)
            there = self._make_tmp_path()  # the module's own too, so that it goes when the module has run
            remote = self._connection._shell.join_path(there, "bundle.json")
            self._transfer_file(path, remote)
        self._fixup_perms2([there, remote])
        return remote


def _without_tags(value: t.Any) -> t.Any:
    """The same in Python's own types: Ansible's carry where a value came from, and Vault's are decrypted only as text.

    What YAML made a date or bytes of stays so, and is refused: what stood there cannot be told from it any more.
    """
    if value is None or isinstance(value, (bool, datetime.date, bytes)):
        return value
    if isinstance(value, dict):
        return {_without_tags(key): _without_tags(sub) for key, sub in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tags(item) for item in value]
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    return str(value)
