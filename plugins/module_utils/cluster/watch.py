# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches of several types and namespaces at once, whose events are taken out of one queue."""
from __future__ import annotations

import queue
import threading
import typing as t

from ..errors import ApiError, PlatformError
from ..objects.types import ResourceType
from .api import OUTAGE_SECONDS, RETRIED, Cluster

EVENTS = ("ADDED", "MODIFIED", "DELETED")


class Watch(t.NamedTuple):
    """What is watched: objects of a type, in one namespace or ('') in all, with the labels of a selector."""

    rtype: ResourceType
    namespace: str
    selector: str


class Watches:
    """Runs each watch in a thread of its own. `poll`: the pause before a watch that ended begins again."""

    def __init__(self, cluster: Cluster, clock: t.Callable[[], float], poll: float) -> None:
        self._cluster, self._clock, self._poll = cluster, clock, poll
        self.seconds = 0  # after which the server ends a watch
        self._queue: queue.Queue[tuple[ResourceType, dict] | PlatformError] = queue.Queue()
        self._stopped = threading.Event()
        self.interrupted: set[Watch] = set()  # those that ended and began again, and may have missed a deletion

    def start(self, watch: Watch, otherwise: t.Collection[Watch] = ()) -> None:
        """Begins a watch. `otherwise`: the watches to begin instead when the identity may not have this one (403)."""
        threading.Thread(target=self._run, args=(watch, otherwise), daemon=True).start()

    def take(self, seconds: float) -> t.Iterator[tuple[ResourceType, dict]]:
        """(type, event) of everything that has arrived; waits for the first. Raises what ended a watch for good."""
        try:
            item = self._queue.get(timeout=seconds)
            while True:
                if isinstance(item, PlatformError):
                    raise item
                yield item
                item = self._queue.get_nowait()
        except queue.Empty:
            return

    def stop(self) -> None:
        """Lets no watch begin again. One that is open ends with its connection."""
        self._stopped.set()

    def _run(self, watch: Watch, otherwise: t.Collection[Watch]) -> None:
        """Feeds the queue until `stop`. A server may end a watch, a proxy may cut it: a new one starts with all objects there
        are (as ADDED), so that only deletions are missed. A refusal, or an outage that lasts, is an error."""
        seen, failing_since = False, None
        while not self._stopped.is_set():
            try:
                for event in self._cluster.watch(watch.rtype.path(watch.namespace), watch.selector, self.seconds):
                    seen, failing_since = True, None
                    if event.get("type") in EVENTS:
                        self._queue.put((watch.rtype, event))
                failing_since = None
            except PlatformError as exc:
                if otherwise and not seen and isinstance(exc, ApiError) and exc.status == 403:
                    for each in otherwise:
                        self.start(each)
                    return
                failing_since = self._clock() if failing_since is None else failing_since
                if _refused(exc) or self._clock() - failing_since >= OUTAGE_SECONDS:
                    self._queue.put(exc)
                    return
            if seen:
                self.interrupted.add(watch)
            self._stopped.wait(self._poll)  # a server that ends every watch at once is not to be hammered


def _refused(exc: PlatformError) -> bool:
    """Whether asking again is in vain. 410: the watch was too old, a new one is not."""
    return isinstance(exc, ApiError) and exc.status not in (*RETRIED, 410)
