# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a platform's releases, for a run that writes to nodes alone.

Its journal has no entries: there is nothing in it to restore from, and the next release, or the next run of this kind, clears it
away when this run was killed.
"""
from __future__ import annotations

import contextlib
import functools
import typing as t
import uuid

from ..checks.permissions import Permission, of_ledger
from ..cluster.api import Cluster
from ..engine.ledger import Ledger
from ..engine.lock import Lock, alive
from ..errors import Busy, LockLost, PlatformError
from ..objects.types import NAMESPACES


class PlatformLock:
    """For one use. `warnings`: what people have to know of how it went, complete when `held` has ended."""

    def __init__(self, cluster: Cluster, ledger: Ledger, by: str) -> None:
        self.cluster, self.ledger, self.by = cluster, ledger, by
        self.warnings: list[str] = []
        self._lock = Lock(cluster, ledger)
        self._held, self._over = False, False

    def needs(self) -> set[Permission]:
        """The permissions that it takes: none where there is no ledger."""
        return of_ledger(self.ledger.namespace) if self._has_ledger else set()

    @contextlib.contextmanager
    def held(self) -> t.Iterator[bool]:
        """Raises Busy when another run is writing to the platform. False where nothing can be locked, or where a killed run's journal is
        in the way, which stays for the release that follows and restores from it."""
        self._held = self._has_ledger and self._acquire()
        try:
            yield self._held
        finally:
            self._over = True
            if self._held:
                self._give_back()

    def check(self) -> None:
        """Raises LockLost once another run may be writing."""
        if self._over:
            raise LockLost("this run has ended")
        if self._held:
            self._lock.check()

    @functools.cached_property
    def _has_ledger(self) -> bool:
        """Whether the ledger's namespace is there to stay. Before the first release it is not, and nobody can hold a lock in it."""
        found = self.cluster.get(NAMESPACES, "", self.ledger.namespace)
        return found is not None and not found["metadata"].get("deletionTimestamp")

    def _acquire(self) -> bool:
        try:
            self._lock.acquire({"run": uuid.uuid4().hex, "by": self.by, "at": self.cluster.server_time, "entries": []})
        except Busy as busy:
            return self._after_another(busy)
        return True

    def _after_another(self, busy: Busy) -> bool:
        """Takes over a dead run's journal that has nothing to restore, and leaves any other. Raises `busy` while its run is alive."""
        state, journal = self.ledger.load()
        if journal is None:
            raise busy  # it has ended just now, and what it did is not known yet
        recorded = bool(state.releases) and state.releases[-1].get("run") == journal["run"]
        if not recorded and alive(journal, journal["renewed"], self.cluster.server_time):
            raise busy
        if not recorded and journal.get("entries") == []:
            self._lock.take_over(journal)
            return True
        self.warnings.append(
            f"the run of {journal['by']} at {journal['at']} has left its journal, which is the next release's to clear away;"
            " until then nodes are written without the lock"
        )
        return False

    def _give_back(self) -> None:
        try:
            self._lock.check()
        except LockLost:
            self._lock.stop()  # whoever took over goes on with the same journal: it is no longer ours to delete
            return
        try:
            self._lock.release()
        except PlatformError as exc:
            self.warnings.append(f"the lock could not be given back: {exc.message}. A later run clears it away")
