# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Watches that end, are cut, are refused, or have to be made in each namespace instead."""
from __future__ import annotations

import itertools
import threading

import pytest
from ansible_collections.genai.platform.plugins.module_utils.cluster.watch import OUTAGE_SECONDS, Watch, Watches
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, Unreachable
from ansible_collections.genai.platform.plugins.module_utils.objects.types import ResourceType

JOBS = ResourceType("batch", "v1", "Job", "jobs", True)
EVERYWHERE, HERE, THERE = (Watch(JOBS, namespace, "a=b") for namespace in ("", "here", "there"))
FORBIDDEN = ApiError("forbidden", 403)


def event(name, kind="ADDED"):
    return {"type": kind, "object": {"metadata": {"name": name}}}


class Script:
    """{path: what each watch in turn delivers}; after that a watch stays open until the test is over."""

    def __init__(self, **scripts):
        self.scripts = {f"/apis/batch/v1/{path}": list(turns) for path, turns in scripts.items()}
        self.begun, self.over = [], threading.Event()

    def watch(self, path, selector, seconds):
        self.begun.append(path)
        turns = self.scripts.get(path, [])
        for item in turns.pop(0) if turns else [None]:
            if isinstance(item, Exception):
                raise item  # pylint: disable=raising-bad-type
            if item is None:
                self.over.wait(10)
                return
            yield item


@pytest.fixture(name="run")
def running():
    """Starts a watch, and gives back names out of the queue until as many have come as were asked for."""
    opened = []

    def run(script, wanted, watch=EVERYWHERE, otherwise=(), step=0.1):
        ticks = itertools.count()
        watches = Watches(script, lambda: next(ticks) * step, 0.001)
        opened.append((watches, script))
        watches.start(watch, otherwise)
        names = []
        while len(names) < wanted:
            names += [found["object"]["metadata"]["name"] for _rtype, found in watches.take(5)]
        return names, watches.interrupted

    yield run
    for watches, script in opened:
        watches.stop()
        script.over.set()


def test_bookmarks_are_no_events(run):
    assert run(Script(jobs=[[event("a"), event("", "BOOKMARK"), event("b"), None]]), 2) == (["a", "b"], set())


@pytest.mark.parametrize("end", [[], [Unreachable("reset")], [ApiError("too old", 410)], [ApiError("busy", 503)]])
def test_a_watch_that_ends_goes_on_and_is_known_to_have_been_interrupted(run, end):
    assert run(Script(jobs=[[event("a"), *end], [event("a"), event("b"), None]]), 3) == (["a", "a", "b"], {EVERYWHERE})


def test_a_watch_that_told_nothing_yet_has_missed_nothing(run):
    assert run(Script(jobs=[[Unreachable("refused")], [], [event("a"), None]]), 1) == (["a"], set())


def test_who_may_not_watch_all_namespaces_watches_each(run):
    script = Script(**{"jobs": [[FORBIDDEN]], "namespaces/here/jobs": [[event("a"), None]], "namespaces/there/jobs": [[event("b"), None]]})
    names, interrupted = run(script, 2, otherwise=[HERE, THERE])
    assert sorted(names) == ["a", "b"] and interrupted == set() and script.begun[0] == "/apis/batch/v1/jobs"


@pytest.mark.parametrize(
    ("first", "otherwise"), [([FORBIDDEN], []), ([event("a"), FORBIDDEN], [HERE]), ([ApiError("gone", 404)], [HERE])],
    ids=["nothing instead", "it was allowed before", "another refusal"],
)  # fmt: skip
def test_a_refusal_is_an_error(run, first, otherwise):
    with pytest.raises(ApiError):
        run(Script(jobs=[first]), 9, otherwise=otherwise)


def test_an_outage_has_its_time(run):
    """45 s of a server that is away, told by a clock that goes on by 10 s a look."""
    away = [[Unreachable("refused")] for _each in range(4)]
    assert run(Script(jobs=[*away, [event("a"), None]]), 1, step=5)[0] == ["a"]
    with pytest.raises(Unreachable):
        run(Script(jobs=[[Unreachable("refused")] for _each in range(99)]), 1, step=OUTAGE_SECONDS)
