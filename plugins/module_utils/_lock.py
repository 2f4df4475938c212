# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a run as its lock: one run writes to a platform at a time, and a dead one does not block the next.

The holder renews an annotation of the journal. A journal whose holder's process is gone, or that was not renewed for
STALE_SECONDS of the API server's clock, is taken over: the next run restores from it.
"""
from __future__ import annotations

import calendar
import json
import os
import threading
import time
import typing as t

from ._cluster import Cluster
from ._errors import ApiError, Busy, LockLost, PlatformError
from ._ledger import ANNOTATION_HOLDER, ANNOTATION_RENEWED, SECRETS, Ledger

RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
GIVE_UP_SECONDS = 45.0  # without a renewal for so long we stop writing: before anybody may take over


class Lock:
    """Held from `acquire` to `release`. `check` raises LockLost once another run may have taken over."""

    def __init__(self, cluster: Cluster, ledger: Ledger, clock: t.Callable[[], float] = time.time) -> None:
        # Wall time, because the monotonic clock stands still while a laptop sleeps.
        self.cluster, self.ledger, self.clock = cluster, ledger, clock
        self._uid = ""
        self._renewed, self._lost = 0.0, False
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, journal: dict) -> None:
        """Writes the journal. Raises Busy, naming the holder, when another run has one."""
        self._hold(self.ledger.open_journal(journal, process()))

    def take_over(self, journal: dict) -> None:
        """Makes a dead run's journal ours, to restore from it. Of several that try only one succeeds, the others are Busy."""
        notes = {ANNOTATION_RENEWED: self.cluster.server_time, ANNOTATION_HOLDER: json.dumps(process())}
        body = {"metadata": {"uid": journal["uid"], "resourceVersion": journal["version"], "annotations": notes}}
        try:
            self.cluster.patch(SECRETS, self.ledger.namespace, self.ledger.journal_name, body)
        except ApiError as exc:
            if exc.status not in (404, 409):
                raise
            raise Busy("another run is just repairing what a killed one left; run again when it has ended") from exc
        self._hold(journal["uid"])

    def release(self) -> None:
        """Deletes the journal."""
        self.stop()
        self.ledger.close_journal(self._uid)

    def _hold(self, uid: str) -> None:
        self._uid, self._renewed, self._lost = uid, self.clock(), False
        self._done.clear()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the renewing and leaves the journal where it is: for a run that could not restore everything."""
        self._done.set()
        if self._thread:
            self._thread.join()

    def check(self) -> None:
        if self._lost or self.clock() - self._renewed > GIVE_UP_SECONDS:
            raise LockLost("this run stood still for too long and another may have taken over; it stopped writing. The next run restores")

    def _keep(self) -> None:
        while not self._done.wait(RENEW_SECONDS) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        if self.clock() - self._renewed > GIVE_UP_SECONDS:
            self._lost = True  # it is too late: a journal that was taken over must not look as if it were ours again
            return
        body = {"metadata": {"uid": self._uid, "annotations": {ANNOTATION_RENEWED: self.cluster.server_time}}}
        try:
            self.cluster.patch(SECRETS, self.ledger.namespace, self.ledger.journal_name, body)
            self._renewed = self.clock()
        except ApiError as exc:
            self._lost = exc.status in (404, 409)  # gone, or another run's: `uid` is a precondition
        except PlatformError:
            pass  # not reached: `check` counts the time


def alive(journal: dict, renewed: str, now: str) -> bool:
    """Whether the run that wrote this journal may still be writing. `renewed` and `now` are times of the server, RFC 3339."""
    return not _ended(journal["holder"]) and _seconds(now) - _seconds(renewed) < STALE_SECONDS


def process() -> dict:
    """Where this process can be looked up: {space, pid}. `space` tells machines, their boots and pid namespaces apart."""
    return {"space": _space(), "pid": os.getpid()}


def _space() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return f"{handle.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # not Linux: only the renewals tell


def _ended(holder: dict) -> bool:
    here = bool(holder.get("space")) and holder["space"] == _space()
    return here and not os.path.exists(f"/proc/{holder['pid']}")


def _seconds(stamp: str) -> float:
    return calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))
