# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A release of forty objects of many kinds fails at every single write, in every way a write can fail on the real API
server: what was there before is there again, whoever owned it, and the next run finds a free lock."""
from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import pathlib
import signal
import threading
import typing as t

import cluster
import forty
import pytest
from ansible_collections.genai.platform.plugins.module_utils.cluster import api as _cluster
from ansible_collections.genai.platform.plugins.module_utils.errors import Busy, InvalidInput, ReleaseFailed
from ansible_collections.genai.platform.plugins.module_utils.objects.kinds import UNCHANGEABLE
from bundles import Platform
from faults import LEDGER, REFUSAL, C, D, Policy, World, Write
from live import Snapshot, remove
from proxy import Fate, Proxy, Request, always_pass
from victim import Victims, quick_backoff

INJECTED = {
    Fate.CUT_BEFORE: ("connection cut before the request", "cannot reach the API server"),
    Fate.CUT_AFTER: ("connection cut before the answer", "cannot reach the API server"),
    Fate.ERROR_500: ("HTTP 500", "injected 500"),
    Fate.ERROR_409: ("HTTP 409", "injected 409"),
}
STRIDE = 5
LEDGER_WRITES = 7  # the journal, four revisions, the state, and the journal's end
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def world():
    """Version 1 of the forty objects, touched by other hands."""
    found = World()
    try:
        found.arrange()
        yield found
    finally:
        found.proxy.reset()
        found.clean(wait=False)


@pytest.fixture
def victims():
    found = Victims()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_cluster, "_backoff", quick_backoff)
    monkeypatch.setattr(_cluster, "OUTAGE_SECONDS", 0.0)  # so that the number of tries decides when an outage is one


@pytest.fixture
def two_in_a_file(tmp_path):
    """Version 2 for a run in another process."""
    path = tmp_path / "bundle"
    path.write_text(json.dumps(forty.bundle(2)), encoding="utf-8")
    return path


def complaints(world: World, bundle: forty.Bundle, before: Snapshot, write: Write, cause: str) -> list[str]:
    """What is wrong after version 2 was tried and `write` failed; nothing when all is as it was before."""
    try:
        world.deploy(bundle)
        return ["the release did not fail"]
    except ReleaseFailed as exc:
        message, outcome = exc.message, "The state before is restored ("
    except InvalidInput as exc:  # kinds with fields that cannot be changed are asked about first, and so admission speaks earlier
        message, outcome = exc.message, "nothing was written"
        assert write.kind in UNCHANGEABLE and not any(f"/{LEDGER}/" in path for _method, path in world.proxy.writes), message
    world.proxy.reset()
    # Where the connection broke, which object was under way says nothing about the cause.
    said = (cause, outcome, *(() if "cannot reach" in cause else (write.name,)))
    return [f"not said: {text}, but: {message}" for text in said if text not in message] + untrue(world, before)


def untrue(world: World, before: Snapshot, everywhere: bool = False) -> list[str]:
    """What is not as it was before, of the kinds of which there was something; everywhere once the last attempt is done."""
    after = world.look(everywhere)
    found = [f"different: {name}: {before.objects.get(name)} is now {after.objects.get(name)}" for name in before.differences(after)]
    found += [f"owned otherwise: {name}: {before.owners[name]} is now {after.owners[name]}" for name in before.owned_otherwise(after)]
    pruned = {cluster.name_of({"kind": w.kind, "metadata": w._asdict()}) for w in world.writes if w.action == "delete"}
    found += [f"deleted and created again: {name}" for name in before.born_again(after) - pruned]
    return found + (["the lock is still held"] if world.journal() else [])


def report(figure, mode: str, tried: int, wrong: dict[str, list[str]], world: World, before: Snapshot) -> None:
    figure(f"fault injection, {mode}: tried / restored", f"{tried} / {tried - len(wrong)}")
    assert tried and not wrong, "\n".join(f"{where}: {what}" for where, whats in wrong.items() for what in whats)
    assert untrue(world, before, everywhere=True) == []


def test_the_plan_is_forty_writes_of_many_kinds(world, figure):
    assert {action: sum(w.action == action for w in world.writes) for action in forty.WRITES} == forty.WRITES
    kinds = {w.kind for w in world.writes}
    assert len(kinds) >= 18, kinds
    figure("fault injection: writes in the plan, kinds", f"{len(world.writes)}, {len(kinds)}")


@pytest.mark.parametrize("fate", INJECTED, ids=lambda fate: fate.name.lower())
def test_a_write_that_fails_on_its_way(fate, world, figure):
    mode, said = INJECTED[fate]
    before, wrong = world.look(), {}
    for write in world.writes:
        world.proxy.reset(lambda request, write=write: fate if write.is_it(request) else Fate.PASS)
        found = complaints(world, forty.bundle(2), before, write, said)
        if found:
            wrong[str(write)] = found
            world.deploy(forty.bundle(1))
    report(figure, mode, len(world.writes), wrong, world, before)


def test_a_write_that_admission_refuses(world, figure):
    before, wrong, policy = world.look(), {}, Policy(world.api, world.writes[0])
    try:
        for write in world.writes:
            with policy.refusing(write) as bundle:
                found = complaints(world, bundle, world.look(False), write, REFUSAL)
            if found:
                wrong[str(write)] = found
                world.deploy(forty.bundle(1))
    finally:
        policy.close()
    report(figure, "admission refusal", len(world.writes), wrong, world, before)


def test_a_run_killed_at_any_write(world, victims, two_in_a_file, figure):
    """SIGKILL at the i-th write, the ledger's own included; every other time the API server has done the write by then."""
    one, two, bare = rounds(world)
    wrong: dict[str, list[str]] = {}
    for number in itertools.count():
        how = (Fate.KILL_BEFORE, Fate.KILL_AFTER)[number % 2]
        if not killed(world, victims, two_in_a_file, number, how):
            break
        method, where = world.proxy.writes[number]
        found = repaired_wrong(world, one, two, bare)
        if found:
            wrong[f"{how.name} {number}, {method} {where}"] = found
            world.deploy(forty.bundle(1))
    world.deploy(forty.bundle(1), keep=1)  # the last one came to its end
    world.foreign_hands()
    report(figure, "SIGKILL", number, wrong, world, one)
    assert number == len(world.writes) + LEDGER_WRITES


def rounds(world: World) -> tuple[Snapshot, Snapshot, Snapshot]:
    """Version 1 as it is, version 2, and version 1 without what others had done to objects that version 2 prunes."""
    world.deploy(forty.bundle(2))
    two = world.look()
    world.deploy(forty.bundle(1), keep=1)
    bare = world.look()
    world.foreign_hands()
    return world.look(), two, bare


def killed(world: World, victims: Victims, path: pathlib.Path, number: int, how: Fate) -> bool:
    """Whether a run that releases version 2 got as far as write `number`, and died there."""
    count = itertools.count()
    world.proxy.reset(lambda request: how if request.is_write and next(count) == number else Fate.PASS)
    status = run_victim(world, victims, path)
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def repaired_wrong(world: World, one: Snapshot, two: Snapshot, bare: Snapshot) -> list[str]:
    """What is wrong after the next run, which deploys version 1; the state it found was one of the two or had a journal."""
    journal, last = world.journal(), world.releases()[-1]
    recorded = last["status"] == "deployed" and last["by"] == "victim"
    found = []
    if recorded or not journal:
        found += [f"neither version 1 nor 2: {name}" for name in (two if recorded else one).differences(world.look(False))]
    # Of the ledger only this release is kept, so that the revisions of version 2 are new again the next time.
    after = world.deploy(forty.bundle(1), keep=1)
    if recorded:
        found += untrue(world, bare)
        world.foreign_hands()
    else:
        # Repairing alone has to bring version 1 back: the release after it must find nothing left to do.
        found += [f"not repaired: {change}" for change in after["changes"]] + untrue(world, one)
        found += [] if bool(after["repaired"]) is journal else [f"repaired: {after['repaired']}"]
    return found


def test_a_run_killed_while_it_restores(world, victims, two_in_a_file, figure):
    """One of the last writes of version 2 is refused, and the run that then restores version 1 dies on the way, early or late."""
    before, wrong = world.look(), {}
    last = next(write for write in world.writes if (write.action, write.kind) == ("delete", "Role"))
    for number in itertools.count(0, STRIDE):
        world.proxy.reset(functools.partial(refuse_then_kill, last, [], number))
        status = run_victim(world, victims, two_in_a_file)
        if status == 1:
            break
        after = world.deploy(forty.bundle(1))
        found = [f"not repaired: {change}" for change in after["changes"]] + untrue(world, before)
        if found:
            wrong[f"write {number} of the restoring"] = found
            world.deploy(forty.bundle(1))
    report(figure, "SIGKILL while restoring", number // STRIDE, wrong, world, before)
    assert number > len(world.writes)


def refuse_then_kill(refused: Write, since: list[Request], number: int, request: Request) -> Fate:
    """`since`: the writes from the refused one on."""
    if not request.is_write or not (since or refused.is_it(request)):
        return Fate.PASS
    since.append(request)
    if len(since) == 1:
        return Fate.ERROR_409
    return Fate.KILL_AFTER if len(since) == number + 2 else Fate.PASS


def test_a_write_of_the_ledger_that_fails(world, victims, two_in_a_file, figure):
    """In a process of its own: one that ends without a word about its lock must not leave it closed."""
    one, two, bare = rounds(world)
    wrong: dict[str, list[str]] = {}
    # Not done, and done without an answer; the other modes are the same to what comes after.
    attempts = list(itertools.product((Fate.ERROR_500, Fate.CUT_AFTER), ledger_writes(world, victims, two_in_a_file)))
    world.deploy(forty.bundle(1), keep=1)
    world.foreign_hands()
    for fate, write in attempts:
        world.proxy.reset(functools.partial(failing, fate, write, itertools.count(1)))
        status = run_victim(world, victims, two_in_a_file)
        # The journal's end comes last, when the release is recorded: the next run sees to it.
        found = [] if status == (0 if write[0] == "DELETE" else 1) else [f"exit status {status}"]
        found += repaired_wrong(world, one, two, bare)
        if found:
            wrong[f"{fate.name} {' '.join(write)}"] = found
            world.deploy(forty.bundle(1), keep=1)
    report(figure, "the ledger's own writes", len(attempts), wrong, world, one)
    assert len(attempts) == 2 * LEDGER_WRITES


def failing(fate: Fate, write: tuple[str, str], tries: t.Iterator[int], request: Request) -> Fate:
    """`fate` for as many requests as the engine tries, and no more: what restores is to be answered."""
    limit = {Fate.ERROR_500: 2, Fate.ERROR_409: 1}.get(fate, _cluster.ATTEMPTS)
    return fate if (request.method, request.path) == write and next(tries) <= limit else Fate.PASS


def ledger_writes(world: World, victims: Victims, path: pathlib.Path) -> list[tuple[str, str]]:
    """(method, path) of what a release of version 2 writes into the ledger, the lock's renewals aside."""
    world.proxy.reset()
    assert run_victim(world, victims, path) == 0
    found = [write for write in world.proxy.writes if f"/{LEDGER}/" in write[1]]
    return [(method, path) for method, path in found if method != "PATCH" or not path.endswith(".journal")]


def run_victim(world: World, victims: Victims, path: pathlib.Path) -> int:
    """The exit status of a run in a process of its own that releases version 2."""
    world.proxy.victim = victims.start(platform=forty.NAME, url=world.proxy.url, bundle=str(path), by="victim")
    victims.go()
    status = victims.wait()
    world.proxy.wait_until_idle()
    world.proxy.decide, world.proxy.dead = always_pass, False
    return status


def test_a_dead_runs_lock_is_taken_over(world, victims, two_in_a_file):
    """It died with the lock and before its first write: there is nothing to restore, and nothing in the way."""
    before = world.look()
    assert killed(world, victims, two_in_a_file, 1, Fate.KILL_BEFORE) and world.journal()
    result = world.deploy(forty.bundle(1))
    assert result["repaired"]["by"] == "victim" and result["changes"] == []
    assert untrue(world, before) == []


def test_a_second_run_is_refused_while_the_first_is_writing(world, victims, two_in_a_file, figure):
    held = next(write for write in world.writes if write.kind == "Deployment")
    world.proxy.reset(lambda request: Fate.HOLD if held.is_it(request) else Fate.PASS)
    victims.start(platform=forty.NAME, url=world.proxy.url, bundle=str(two_in_a_file), by="alice@desk")
    victims.go()
    assert world.proxy.held.wait(60)
    second = Proxy(world.api)
    for options in ({}, {"check": True}):
        with pytest.raises(Busy, match=r"alice@desk, since 20\d\d-\d\d-\d\dT[\d:]+Z"):
            Platform(forty.NAME, second.url).deploy(forty.bundle(1), by="bob@desk", **options)
    assert second.writes == []
    world.proxy.released.set()
    assert victims.wait() == 0, "and the first came to its end undisturbed"
    assert world.releases()[-1]["by"] == "alice@desk" and not world.journal()
    second.shutdown()
    world.deploy(forty.bundle(1))
    figure("two runs at once: the second is refused, names holder and time, has written", "yes, yes, 0 objects")


def test_of_two_runs_that_reach_for_the_lock_at_once_one_gets_it(world):
    proxies, both = [Proxy(world.api), Proxy(world.api)], threading.Barrier(2)

    def meet(request: Request) -> Fate:
        if request.method == "POST" and request.is_write:
            both.wait(30)
        return Fate.PASS

    for proxy in proxies:
        proxy.reset(meet)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(Platform(forty.NAME, proxy.url).deploy, forty.bundle(2), by=f"run-{i}") for i, proxy in enumerate(proxies)]
    outcomes = [run.exception() for run in runs]
    assert [outcome is None for outcome in outcomes].count(True) == 1, outcomes
    loser = outcomes.index(next(outcome for outcome in outcomes if outcome))
    assert isinstance(outcomes[loser], Busy) and f"run-{1 - loser}, since" in str(outcomes[loser])
    assert proxies[loser].writes == [("POST", f"/api/v1/namespaces/{LEDGER}/secrets")]
    assert not world.journal()
    for proxy in proxies:
        proxy.shutdown()
    world.deploy(forty.bundle(1))


def test_claims_of_a_failed_release_stay(world, figure):
    """They may hold data already. A Namespace that holds one stays with it, one that does not goes."""
    before = world.look()
    bundle = forty.bundle(2)
    new = [forty.obj("Namespace", name, None) for name in (C, D)]
    bundle["faults_rest"] += [*new, forty.claim("fresh", forty.A), forty.claim("fresh", C), forty.configmap("fresh", C, 2)]
    failing = next(write for write in world.writes if write.kind == "Ingress")
    world.proxy.reset(lambda request: Fate.ERROR_409 if failing.is_it(request) else Fate.PASS)
    with pytest.raises(ReleaseFailed, match="3 kept: ") as caught:
        world.deploy(bundle)
    world.proxy.reset()
    kept = {f"PersistentVolumeClaim {forty.A}/fresh", f"PersistentVolumeClaim {C}/fresh", f"Namespace {C}"}
    assert {text.partition(": ")[0] for text in caught.value.facts["restored"]["kept"]} == kept
    made_by_the_cluster = {f"ConfigMap {C}/kube-root-ca.crt", f"ServiceAccount {C}/default"}
    assert set(before.differences(world.look())) == kept | made_by_the_cluster
    assert not world.journal()
    remove(world.api, [f"/api/v1/namespaces/{C}", f"/api/v1/namespaces/{forty.A}/persistentvolumeclaims/fresh"])
    assert untrue(world, before) == []
    figure("fault injection: claims of the failed release kept", "2 of 2")
