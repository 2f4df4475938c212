# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error family: everything a user can be told. `Module` in `module.runner` turns any of them into one failed result."""
from __future__ import annotations


class Told:
    """What ends a task with one clear message and, for machines, facts beside it.

    `reason` is a stable word (a caller may branch on it); `facts` become result keys of the failed task.
    """

    reason = "error"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class PlatformError(Told, Exception):
    """An error."""


class Interrupted(Told, BaseException):
    """The run was told to stop (SIGTERM: a cancelled job). As a KeyboardInterrupt it is no Exception: who goes on after an error must
    not go on after this."""

    reason = "interrupted"


class InvalidInput(PlatformError):
    """What the user handed in cannot be right. Raised before anything is written."""

    reason = "invalid_input"


class WrongCluster(PlatformError):
    """The API server reached is not the one the inventory names."""

    reason = "wrong_cluster"


class Unreachable(PlatformError):
    """No answer from the API server, or no way to start a conversation with it."""

    reason = "unreachable"


class ApiError(PlatformError):
    """The API server answered, and the answer was no. `status` is the HTTP status, `body` its Status object."""

    reason = "api_error"

    def __init__(self, message: str, status: int, body: dict | None = None, **facts: object) -> None:
        super().__init__(message, status=status, **facts)
        self.status = status
        self.body = body or {}

    def facts_without_status(self) -> dict[str, object]:
        return {key: value for key, value in self.facts.items() if key not in ("status", "object")}


class NotPermitted(PlatformError):
    """The identity used lacks permissions, which the message names. Raised before anything is written."""

    reason = "not_permitted"


class Busy(PlatformError):
    """Another run holds the platform's journal."""

    reason = "busy"


class LockLost(PlatformError):
    """This run stood still for so long that another may have taken over its journal."""

    reason = "lock_lost"


class Hopeless(PlatformError):
    """Something that is being waited for cannot get better by itself; `problem` says what, where and why."""

    reason = "hopeless"


class TimedOut(PlatformError):
    """The time to wait was over before everything was ready."""

    reason = "timed_out"


class ReleaseFailed(PlatformError):
    """A release failed after its first write; the message says why and whether the state before was restored."""

    reason = "release_failed"


class NodesFailed(PlatformError):
    """Some nodes could not be written; the facts say what was done to the others."""

    reason = "nodes_failed"
