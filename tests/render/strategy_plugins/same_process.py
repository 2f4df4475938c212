# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategy linear without a process for every task of every host: templates and plugins are loaded once, not hundreds of times.

For render.yml only. Its tasks describe and change nothing, so nothing has to be kept apart but what a worker writes into
its own host and task. It replaces a class of ansible-core, whose version requirements-dev.txt pins.
"""
from __future__ import annotations

DOCUMENTATION = r"""
name: same_process
short_description: Executes tasks in lockstep, in the process of the play
version_added: 0.1.0
author: genai.platform authors (@genai-platform)
description:
  - As the strategy linear, one host after the other.
"""

import contextlib
import copy
import io

from ansible._internal import _task
from ansible.executor.process.worker import WorkerProcess
from ansible.plugins import strategy
from ansible.plugins.strategy.linear import StrategyModule as Linear


class Worker(WorkerProcess):
    """Has done its task when `start` returns."""

    def start(self) -> None:
        # Deep in a role, a task's parents would be copied with all their tasks: nobody writes into those.
        parent, self._task = self._task._parent, self._task.copy(exclude_parent=True)
        self._task._parent, self._host = parent, copy.copy(self._host)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), _task.TaskContext(self._task):
            self._run()

    def is_alive(self) -> bool:
        return False

    def close(self) -> None:
        """There is no process to be waited for."""


class StrategyModule(Linear):
    def __init__(self, *arguments: object) -> None:
        strategy.WorkerProcess = Worker
        super().__init__(*arguments)
