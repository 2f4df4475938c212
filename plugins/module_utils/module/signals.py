# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is told to stop ends like any other that fails: the state before is restored."""
from __future__ import annotations

import signal
import typing as t

from ..errors import Interrupted

STOPPING = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> None:
    """Makes a cancelled job, or Ctrl-C, an error like any other, so that the state before is restored. What is told to stop
    twice goes on restoring."""

    def stop(number: int, _frame: t.Any) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(f"the run was told to stop ({signal.Signals(number).name})")

    for each in STOPPING:
        signal.signal(each, stop)
