# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases and rollbacks while the cluster is hostile. Needs the cluster to itself: its control plane is stopped for a while."""
from __future__ import annotations

import collections
import functools
import os
import threading
import time
import typing as t

import hostile
import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import ReleaseFailed
from bundles import Platform
from cluster import Audit, kubectl
from hostile import Client, Throttle, Writer
from live import until
from living import API, autoscaler, by_hand, deployment, path, scaled, settings, space, there
from proxy import Fate, Proxy, Request

ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "3"))
PAUSE, DRAIN, WEBHOOK = "pause", "drain", "webhook"
# What happens in the middle of the release of a round, and of its rollback; the next round takes the next line.
TROUBLES: list[tuple[set[str], set[str]]] = [({PAUSE, DRAIN}, {WEBHOOK}), ({WEBHOOK}, {PAUSE}), ({PAUSE, DRAIN, WEBHOOK}, {PAUSE, DRAIN, WEBHOOK})]
SETTINGS, OUTAGE_SECONDS = 300, 15  # of case 47


@pytest.fixture
def platform():
    made = Platform("hostile")
    made.remove()
    yield made
    hostile.start_control_plane()
    hostile.webhook_is_back(made.name)
    hostile.nodes_are_back()
    kubectl("delete", "pods", "--all", "-n", made.name, "--force", "--grace-period=0")  # their preStop is long
    made.remove()


class Story:
    """The platform in the middle of it all: its runs, their troubles, and what came of them."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.name = platform, platform.name
        self.revision, self.release = "0", 0  # what is deployed
        self.done, self.restored, self.deleted, self.drains = 0, 0, 0, 0

    def begin(self) -> None:
        self.release = self.platform.deploy(hostile.bundle(self.name, self.revision))["release"]
        by_hand(autoscaler(self.name, "somebodys", least=2, target="back"))
        scaled(deployment(self.name, "back"), 2)

    def round(self, number: int) -> None:
        for_release, for_rollback = TROUBLES[number % len(TROUBLES)]
        before, revision = str(self.release), str(number + 1)
        old, bundle = self.revision, hostile.bundle(self.name, revision)
        if not self.run(for_release, lambda releaser: releaser.deploy(bundle), revision):
            assert self.run(set(), lambda releaser: releaser.deploy(bundle), revision), "the platform is not blocked"
        self.run(for_rollback, lambda releaser: releaser.roll_back(before, None), old)

    def run(self, troubles: set[str], work: t.Callable[[t.Any], dict], revision: str) -> bool:
        """Whether the run succeeded. Either way the state is right: `revision`, or the one before."""
        audit = Audit()
        if WEBHOOK in troubles:
            hostile.webhook_goes_down(self.name)
        try:
            with hostile.beside(*self.functions(troubles)) as start:
                self.release = work(self.platform.releaser(lambda line: start() if "applying" in line else None))["release"]
            self.revision, self.done = revision, self.done + 1
        except ReleaseFailed as exc:
            print(f"{', '.join(sorted(troubles))}: {exc.message}")  # shown should the test fail
            assert "The state before is restored" in exc.message, exc.message
            self.restored += 1
        hostile.nodes_are_back()
        until(f"both Deployments and the ConfigMap are at {self.revision}", lambda: hostile.ready(self.name, self.revision), 120)
        self.deleted += len(audit.ended_pods(self.name))
        return self.revision == revision

    def functions(self, troubles: set[str]) -> list[t.Callable[[], None]]:
        self.drains += DRAIN in troubles
        node = hostile.WORKERS[self.drains % len(hostile.WORKERS)]
        table = {
            PAUSE: hostile.control_plane_stands_still,
            DRAIN: functools.partial(hostile.node_is_drained, node),
            WEBHOOK: functools.partial(hostile.webhook_comes_back, self.name),
        }
        return [table[each] for each in sorted(troubles)]


@pytest.mark.timeout(300 * ROUNDS + 300)
def test_releases_and_rollbacks_in_a_hostile_cluster(platform, figure):
    """Red where a run leaves neither its own state nor the one before, ends a pod, fights with an autoscaler, or loses a request."""
    proxy = Proxy(API)
    platform.connection = {"host": proxy.url, "api_key": "none"}
    story = Story(platform)
    story.begin()
    proxy.reset(Throttle(seed=1))
    with Client(platform.name) as client, Writer(platform.name) as writer:
        for number in range(ROUNDS):
            story.round(number)
    figure(f"hostile cluster, {ROUNDS} rounds: runs done / failed and restored / answered 429", f"{story.done} / {story.restored} / {proxy.hits}")
    figure(f"hostile cluster, {ROUNDS} rounds: pods deleted by us / requests failed of", f"{story.deleted} / {len(client.failures)} of {client.sent}")
    figure(f"hostile cluster, {ROUNDS} rounds: labels written by another manager / replicas seen", f"{writer.written} / {dict(writer.replicas)}")
    assert story.deleted == 0
    assert client.failures == [], client.failures
    assert len(client.answers) == ROUNDS + 1, client.answers  # it was served by every revision
    assert writer.replicas["back"] == {2} and min(writer.replicas["front"]) >= 2, writer.replicas
    assert all(hostile.BEAT in (there(body) or {})["metadata"]["labels"] for body in (space(platform.name), settings(platform.name)))
    assert there(autoscaler(platform.name, "somebodys")), path(autoscaler(platform.name, "somebodys"))
    assert not platform.deploy(hostile.bundle(platform.name, story.revision))["changed"]


@pytest.mark.timeout(600)
def test_the_control_plane_stands_still_in_the_middle_of_a_release(figure):
    """Case 47. Red where an outage of a quarter of a minute leaves some ConfigMaps at the new state and some at the old."""
    proxy = Proxy(API)
    platform = Platform("hostile-47", proxy.url)
    name = platform.name
    platform.remove()

    def bundle(revision: str) -> dict[str, list[dict]]:
        many = [settings(name, f"settings-{n}", revision) for n in range(SETTINGS)]
        return {"app": [space(name), deployment(name, minReadySeconds=int(revision)), *many]}

    def rates() -> dict[str, int]:
        items = API.need("GET", f"/api/v1/namespaces/{name}/configmaps")["items"]
        return collections.Counter(item["data"]["rate"] for item in items if "rate" in item["data"])

    paused = threading.Event()

    def in_the_middle(request: Request) -> Fate:
        """With the proxy's lock held: what comes after this write waits."""
        if "/configmaps/" in request.path and len(proxy.writes) > SETTINGS // 2 and not paused.is_set():
            hostile.stop_control_plane()
            paused.set()
        return Fate.PASS

    def go_on() -> None:
        assert paused.wait(120)
        time.sleep(OUTAGE_SECONDS)
        hostile.start_control_plane()

    try:
        platform.deploy(bundle("1"))
        proxy.reset(in_the_middle)
        with hostile.beside(go_on) as start:
            start()
            try:
                platform.deploy(bundle("2"))
                expected = "2"
            except ReleaseFailed as exc:
                assert "The state before is restored" in exc.message, exc.message
                expected = "1"
        assert rates() == {expected: SETTINGS}
        assert platform.deploy(bundle("2"))["changed"] == (expected == "1")
        assert rates() == {"2": SETTINGS}
    finally:
        hostile.start_control_plane()
        platform.remove()
    what = f"the control plane stands still for {OUTAGE_SECONDS} s after half of {SETTINGS} writes"
    figure(f"case 47, {what}: release / mixture", f"{'done' if expected == '2' else 'restored'} / no")
