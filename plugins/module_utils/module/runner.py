# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module of the collection is, and the one place where errors become results."""
from __future__ import annotations

import dataclasses
import signal
import traceback
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values

from ..cluster.api import Cluster
from ..cluster.login import log_out
from ..engine.ledger import Ledger
from ..errors import Interrupted, PlatformError
from .argspec import CONNECTION
from .signals import STOPPING


def connect(params: dict, workers: int = 16) -> tuple[Cluster, Ledger]:
    """The cluster and the ledger that a module's parameters name. Sends nothing yet."""
    connection = {name: params[name] for name in CONNECTION if params.get(name) is not None}
    cluster = Cluster(connection, params["expected_server"], workers)
    return cluster, Ledger(cluster, params["ledger_namespace"], params["platform"])


@dataclasses.dataclass(frozen=True)
class Call:
    """One run of a module: its validated parameters, Ansible's modes, and where lines for people go."""

    params: dict
    check_mode: bool
    diff: bool
    progress: t.Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Module:
    """What a module is, wherever it runs: as a program of its own (`run_as_module`), or in Ansible's worker (`run_in_worker`).

    `looking`: tells from the parameters whether this run only reports what it finds. If it fails then, the host counts as unreachable, and
    ansible-playbook ends with 4; 2 is left for a report of something bad.
    """

    work: t.Callable[[Call], dict]
    options: dict[str, dict]
    rules: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    looking: t.Callable[[dict], bool] = lambda _params: False

    @property
    def arguments(self) -> dict:
        """Those of `AnsibleModule`."""
        return {"argument_spec": self.options, **self.rules, "supports_check_mode": True}

    def run_as_module(self, module: t.Any) -> None:
        """Runs as a program. `module`: the AnsibleModule made from `arguments`. Nobody can see progress."""
        result = self._result(Call(module.params, module.check_mode, module._diff, lambda _line: None))
        for line in result.pop("warnings", []):
            module.warn(line)
        (module.fail_json if result.get("failed") else module.exit_json)(**result)

    def run_in_worker(self, args: dict, check_mode: bool, diff: bool, progress: t.Callable[[str], None]) -> dict:
        """Runs in this process, as AnsibleModule would. Returns the task's result."""
        checked = ArgumentSpecValidator(self.options, **self.rules).validate(args)
        if checked.error_messages:
            return remove_values({"failed": True, "msg": "; ".join(checked.error_messages)}, checked._no_log_values)
        handlers = {each: signal.getsignal(each) for each in STOPPING}  # the worker's own, which the work may replace
        try:
            result = self._result(Call(checked.validated_parameters, check_mode, diff, progress))
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
        return remove_values({"changed": False, **result}, checked._no_log_values)

    def _result(self, call: Call) -> dict:
        try:
            return self.work(call)
        except (PlatformError, Interrupted) as exc:
            end = "unreachable" if self.looking(call.params) else "failed"
            return {end: True, "msg": exc.message, "reason": exc.reason, **exc.facts}
        except Exception as exc:  # pylint: disable=broad-exception-caught
            said = f"a fault of this collection, please report it: {type(exc).__name__}: {exc}; -vvv shows where it is"
            return {"failed": True, "msg": said, "reason": "internal_error", "exception": traceback.format_exc()}
        finally:
            log_out()
