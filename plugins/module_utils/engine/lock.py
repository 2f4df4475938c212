# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a run as its lock: one run writes to a platform at a time, and a dead one does not block the next.

The holder renews an annotation of the journal. A journal whose holder's process is gone, or that the API server has seen no renewal
of for STALE_SECONDS by its own clock, is taken over: the next run restores from it.
"""
from __future__ import annotations

import calendar
import json
import os
import threading
import time
import typing as t

from ..cluster.api import OUTAGE_SECONDS, Cluster
from ..errors import ApiError, Busy, LockLost, PlatformError
from ..objects.types import SECRETS
from .ledger import ANNOTATION_HOLDER, ANNOTATION_RENEWED, Ledger

RENEW_SECONDS = 10.0
GIVE_UP_SECONDS = OUTAGE_SECONDS  # without a renewal for so long we do not write: before anybody may take over
STALE_SECONDS = GIVE_UP_SECONDS + 15.0


class Lock:
    """The lock on a platform, from `acquire` or `take_over` to `release`, `stop` or `abandon`. A thread renews it every RENEW_SECONDS meanwhile.

    Each renewal names the version of the journal that the last one left, as for the leases of Kubernetes: a run that stood still finds out that another has
    taken over, and one that was only cut off goes on. `clock`: seconds of wall time, for tests.
    """

    def __init__(self, cluster: Cluster, ledger: Ledger, clock: t.Callable[[], float] = time.time) -> None:
        # Wall time, because the monotonic clock stands still while a laptop sleeps.
        self.cluster, self.ledger, self.clock = cluster, ledger, clock
        self._uid = self._version = ""
        self._renewed, self._lost = 0.0, False
        self._renewing, self._renewer = threading.Lock(), 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, journal: dict) -> None:
        """Stores the journal and begins to renew it. Raises Busy, naming the holder, when another run has one; ApiError, Unreachable."""
        began = self.clock()
        self._hold(self.ledger.open_journal(journal, process()), began)

    def take_over(self, journal: dict) -> None:
        """Makes the journal of a run that ended early ours, so that its writes can be undone. `journal`: as `Ledger.load` returns it. Raises Busy when
        another run is faster; ApiError, Unreachable."""
        notes = {ANNOTATION_RENEWED: self.cluster.server_time, ANNOTATION_HOLDER: json.dumps(process())}
        began = self.clock()
        try:
            meta = self._patch(journal["uid"], journal["version"], notes)
        except ApiError as exc:
            if exc.status not in (404, 409):
                raise
            raise Busy("another run is just repairing what a killed one left; run again when it has ended") from exc
        self._hold({"uid": journal["uid"], "version": meta["resourceVersion"]}, began)

    def release(self) -> None:
        """Ends the renewing and deletes the journal. Raises ApiError, Unreachable."""
        self.stop()
        self.ledger.close_journal(self._uid)

    def _hold(self, journal: dict, began: float) -> None:
        self._uid, self._version, self._renewed, self._lost = journal["uid"], journal["version"], began, False
        self._done.clear()
        self.cluster.fence = self.check
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the renewing and leaves the journal where it is, for the run that has taken over, or for the next one to restore from."""
        self._done.set()
        self.cluster.fence = None
        if self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """Ends the renewing, and says in the journal that nobody is at work any more: the next run restores from it at once, without waiting for
        STALE_SECONDS. Raises nothing: when it cannot be said, the next run waits."""
        self.stop()
        try:
            self._patch(self._uid, self._version, {ANNOTATION_HOLDER: json.dumps({"ended": True})})
        except PlatformError:
            pass  # the next run finds out by itself

    def check(self) -> None:
        """Returns when this run may write; called before every write and before one is tried again. Renews the lock first if the last renewal is older than
        GIVE_UP_SECONDS, else it costs no request. Raises LockLost when another run may have taken over."""
        if self._renewer == threading.get_ident():
            return  # the renewal itself is being tried again
        if self._is_old():
            self._renew(unless_done=True)
        if self._lost or self._is_old():
            raise LockLost("this run stood still for too long and another may have taken over; it stopped writing. The next run restores")

    def _keep(self) -> None:
        while not self._done.wait(RENEW_SECONDS) and not self._lost:
            self._renew()

    def _is_old(self) -> bool:
        return self.clock() - self._renewed > GIVE_UP_SECONDS

    def _renew(self, unless_done: bool = False) -> None:
        """`unless_done`: of many threads that find it too old, one renews."""
        with self._renewing:
            if self._lost or (unless_done and not self._is_old()):
                return
            began = self.clock()  # from before the request: how long it took is part of the journal's age
            self._renewer = threading.get_ident()
            try:
                meta = self._patch(self._uid, self._version, {ANNOTATION_RENEWED: self.cluster.server_time})
                self._version, self._renewed = meta["resourceVersion"], began
            except ApiError as exc:
                self._lost = exc.status in (404, 409) and not self._is_ours()
            except PlatformError:
                pass  # not reached: `check` counts the time
            finally:
                self._renewer = 0

    def _is_ours(self) -> bool:
        """Whether the journal is still ours although its version is another: the answer to a renewal of our own was lost."""
        try:
            secret = self.cluster.get(SECRETS, self.ledger.namespace, self.ledger.journal_name)
        except PlatformError:
            return False
        meta = secret["metadata"] if secret else {}
        notes = meta.get("annotations") or {}
        if meta.get("uid") != self._uid or json.loads(notes.get(ANNOTATION_HOLDER, "{}")) != process():
            return False
        self._version = meta["resourceVersion"]
        return True

    def _patch(self, uid: str, version: str, notes: dict[str, str]) -> dict:
        body = {"metadata": {"uid": uid, "resourceVersion": version, "annotations": notes}}
        return self.cluster.patch(SECRETS, self.ledger.namespace, self.ledger.journal_name, body)["metadata"]


def alive(journal: dict, renewed: str, now: str) -> bool:
    """Whether the run that wrote a journal may still be writing. `journal`: as `Ledger.load` returns it. `renewed`, `now`: times of the API server (RFC
    3339)."""
    return not _ended(journal["holder"]) and _seconds(now) - _seconds(renewed) < STALE_SECONDS


def process() -> dict:
    """Where this process can be looked up, as {space, pid}. `space` is the same only for processes of one boot of one machine in one pid namespace."""
    return {"space": _space(), "pid": os.getpid()}


def _space() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return f"{handle.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # not Linux: only the renewals tell


def _ended(holder: dict) -> bool:
    if holder.get("ended"):
        return True
    here = bool(holder.get("space")) and holder["space"] == _space()
    if not here:
        return False
    try:
        os.kill(holder["pid"], 0)  # /proc may hide other people's processes
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _seconds(stamp: str) -> float:
    return calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))
