# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's ordinary ways to run a playbook, other than from its first task to its last: none deletes what it was not told to.

Two small platforms on one cluster, as two inventory hosts. Each way brings a change with it, so that a run that releases writes; afterwards
every object is still there, is the very same one, and a platform has its change everywhere or nowhere. A sample of each table runs here;
`make soak-ways` (GENAI_WAYS=all) runs all of it.
"""
from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import typing as t

import cluster
import pytest
import yaml
from bundles import Platform
from live import Api, Looker, Snapshot, until

ALL = os.environ.get("GENAI_WAYS") == "all"
OWN = cluster.own("ways")
HOSTS = (f"{OWN}-one", f"{OWN}-two")
NODE = f"{OWN}-node"  # nobody's machine
TAGS = ("namespaces", "policy", "gpu_nodes")
VALUE = "genai.platform/cost-center"
API = Api()
_values = itertools.count()


def some(ways: t.Sequence[t.Any], most: int, always: t.Collection[t.Any] = ()) -> list[t.Any]:
    """All of them, or a sample: those of `always`, and as many others in even distances."""
    rest = [way for way in ways if way not in always]
    step = max(1, -(-len(rest) // most))
    return list(ways) if ALL else [way for way in ways if way in always or way in rest[::step]]


# --- the two platforms -----------------------------------------------------------------------------------------------


def variables(host: str) -> dict:
    """What one of the platforms consists of. Only one may have nodes: a platform's pools are all that a cluster has."""
    has_nodes = host == HOSTS[0] and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    pools = [{"name": OWN, "vendor": "nvidia", "match": {"nodes": [NODE]}, "labels": {"gpu-type": "{{ ways_value | default('none') }}"}}]
    return {
        "ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "common_kubeconfig": str(cluster.KUBECONFIG), "common_platform": host, "common_ledger_namespace": f"{host}-ledger",
        "common_components": list(TAGS),
        "namespaces_list": [{"name": f"{host}-{each}", "cost_center": "{{ ways_value | default('none') }}"} for each in ("a", "b")],
        "policy_rules": {"no_latest_tag": {"action": "warn"}},
        "gpu_nodes_pools": pools if has_nodes else [], "gpu_nodes_namespace": f"{host}-a",
    }  # fmt: skip


@dataclasses.dataclass
class Ways:
    """The inventory of both platforms, and what of them is on the cluster."""

    inventory: pathlib.Path
    looker: Looker

    def look(self) -> Snapshot:
        """All that is of the platforms but their ledgers, whose Secrets come and go with each release."""
        seen = self.looker.look()
        names = [name for name in seen.objects if "-ledger/" not in name]
        return Snapshot({name: seen.objects[name] for name in names}, {name: seen.uids[name] for name in names})

    def command(self, playbook: str | pathlib.Path, *args: str) -> list[str]:
        return ["ansible-playbook", "-i", str(self.inventory), str(playbook), *args]

    def play(self, playbook: str | pathlib.Path, *args: str, answers: str = "", **environment: str) -> cluster.Run:
        start = time.monotonic()
        done = subprocess.run(
            self.command(playbook, *args), cwd=cluster.REPOSITORY, input=answers, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=300, env={**cluster.PLAIN, **environment},
        )
        return cluster.Run(done.returncode, done.stdout, time.monotonic() - start)


def node_type() -> str | None:
    return API.need("GET", f"/api/v1/nodes/{NODE}")["metadata"]["labels"].get("gpu-type")


def everywhere_or_nowhere(seen: Snapshot) -> None:
    """The value of each platform's last change is in both of its namespaces."""
    for host in HOSTS:
        values = {seen.objects[f"Namespace {host}-{each}"]["metadata"]["annotations"].get(VALUE) for each in ("a", "b")}
        assert len(values) == 1, (host, values)


@pytest.fixture(scope="module", name="ways")
def both_platforms(tmp_path_factory) -> t.Iterator[Ways]:
    inventory = tmp_path_factory.mktemp("ways") / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"platforms": {"hosts": {host: variables(host) for host in HOSTS}}}), encoding="utf-8")
    labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "ways"}
    remove()
    API.need("POST", "/api/v1/nodes", {"metadata": {"name": NODE, "labels": labels}, "spec": {"unschedulable": True}})
    looker = Looker(API, [f"{host}-{each}" for host in HOSTS for each in ("a", "b", "ledger")], OWN)
    made = Ways(inventory, looker)
    run = made.play("site.yml")
    assert run.code == 0, run.output
    yield made
    for host in HOSTS:
        Platform(host).tear_down(data=True, forget=True)
    remove()


def remove() -> None:
    API.request("DELETE", f"/api/v1/nodes/{NODE}")
    for host in HOSTS:
        Platform(host).remove()
        label = f"genai.platform/platform={host}"
        cluster.kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "--selector", label)


class Check:
    """What has to hold around one way. Prints a line for it."""

    def __init__(self, ways: Ways, figure: t.Callable[[str, object], None]) -> None:
        self.ways, self.figure = ways, figure
        self.before, self.node = ways.look(), node_type()

    def nothing_deleted(self, what: str, run: cluster.Run, stopped: bool = False) -> list[str]:
        """Names of the objects that the way has changed. What was `stopped` may end in a traceback, which is Ansible's own."""
        after = self.ways.look()
        gone = [name for name in self.before.objects if name not in after.objects]
        assert gone == [] and self.before.born_again(after) == set(), f"{what}: {gone}\n{run.output}"
        everywhere_or_nowhere(after)
        assert stopped or "Traceback" not in run.output, run.output
        changed = self.before.differences(after)
        if run.code:
            assert changed == [] and node_type() == self.node, f"{what} failed and left {changed}\n{run.output}"
        how = "stopped" if stopped else "refused" if run.code else "ran"
        self.figure(f"way: {what}", f"{how}, {len(changed)} changed, 0 deleted, {run.seconds:.1f} s")
        return changed


@pytest.fixture
def check(ways, figure) -> Check:
    return Check(ways, figure)


def value() -> list[str]:
    """A change for the run to bring."""
    return ["-e", f"ways_value=v{next(_values)}-{os.getpid()}"]


# --- in the middle, step by step --------------------------------------------------------------------------------------


def tasks_of_site() -> list[str]:
    """Names of the tasks of site.yml, with their roles, in their order."""
    command = ["ansible-playbook", "-i", "platforms,", "site.yml", "--list-tasks"]
    listing = subprocess.run(command, cwd=cluster.REPOSITORY, capture_output=True, text=True, check=True, env=cluster.PLAIN).stdout
    return re.findall(r"^      (.+?)\tTAGS:", listing, re.MULTILINE)


TASKS = tasks_of_site()
# The first of a name is where it starts. The list lacks what stands under `always`.
STARTS = [*dict.fromkeys(task.rpartition(" : ")[2] for task in TASKS), "Bring the nodes back to the pools that are deployed"]
STEPS = [(task, TASKS[:place].count(task)) for place, task in enumerate(TASKS)]
ACTING = ("Release", "Bring the nodes to their pools", "Describe the component", "Preflight, where none was")
ACTING_STEPS = [(f"genai.platform.common : {name}", 0) for name in ("Describe the component", "Release")]
LACKING = "not described in this run: "


@pytest.mark.parametrize("task", some(STARTS, 5, ACTING))
def test_started_at_a_task(ways, check, task):
    run = ways.play("site.yml", "--start-at-task", task, *value())
    changed = check.nothing_deleted(f"--start-at-task {task}", run)
    if task in ("Release", "Bring the nodes to their pools"):
        assert run.code and LACKING + ", ".join(TAGS) in run.output and changed == [], run.output


@pytest.fixture(scope="module", name="asked")
def questions(ways) -> list[str]:
    """What `--step` asks about, in its order."""
    run = ways.play("site.yml", "--check", "--step", answers="y\n" * 200)
    assert run.code == 0, run.output
    # Each question stands there twice, once as the headline of what comes next.
    return re.findall(r"^Perform task: TASK: (.+?) \(N\)o/\(y\)es/\(c\)ontinue: $", run.output, re.MULTILINE)


@pytest.mark.parametrize("task", some(STEPS, 4, ACTING_STEPS), ids=lambda task: task[0])
def test_stepped_past_a_task(ways, check, asked, task):
    """`task`: its name and which of that name, for the roles have some in common."""
    name, which = task
    places = [place for place, each in enumerate(asked) if each == name]
    if not places:
        pytest.skip("Ansible does not ask about a meta task")
    number = places[which]
    run = ways.play("site.yml", "--step", *value(), answers="y\n" * number + "n\n" + "c\n")
    changed = check.nothing_deleted(f"--step without {name} ({which})", run)
    if task in ACTING_STEPS[:1]:
        assert run.code and changed == [], run.output


def test_stepped_past_every_role(ways, check, asked):
    """Only what acts is let through."""
    answers = "".join("y\n" if name.rpartition(" : ")[2] in ("Release", "Bring the nodes to their pools") else "n\n" for name in asked)
    run = ways.play("site.yml", "--step", *value(), answers=answers)
    assert run.code, run.output
    assert check.nothing_deleted("--step without any role", run) == []


# --- a part of it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
@pytest.mark.parametrize("tag", TAGS)
def test_tags(ways, check, option, tag):
    run = ways.play("site.yml", option, tag, *value())
    assert run.code == 0, run.output
    check.nothing_deleted(f"{option} {tag}", run)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tags", "namespace"), "unknown tag namespace in --tags: did you mean namespaces?"),
        (("--skip-tags", "polcy"), "unknown tag polcy in --skip-tags: did you mean policy?"),
        (("--tags", "inference_app"), "unknown tag inference_app in --tags"),  # it is not in the list
        (("--tags", "always"), "no component is left to release with --tags always"),
        (("--tags", "untagged"), "no component is left to release with --tags untagged"),
        (("--skip-tags", "always"), "--skip-tags always leaves out the release itself"),
        (("--skip-tags", "all"), "no component is left to release with --skip-tags all"),
        (("-e", "common_platfrom=acme"), "unknown variable common_platfrom: the role common has no such option; did you mean common_platform?"),
        (("-e", "namespace_list=[]"), "unknown variable namespace_list: did you mean namespaces_list?"),
        (("-e", '{"common_components": ["namespaces", "policy", "gpu_nodes", "gateway"]}'), f"{LACKING}gateway"),
        (("-e", '{"common_components": []}'), "no component is left to release; common_components has none"),
        (("-e", '{"common_components": ["gpu_nodes"], "common_max_deleted": "3"}'), "objects that the ledger owns would be deleted, and max_deleted=3 allows 3"),
    ],
    ids=lambda each: " ".join(each)[:40] if isinstance(each, tuple) else None,
)  # fmt: skip
def test_refused(ways, check, words, said):
    run = ways.play("site.yml", *value(), *words)
    assert run.code and said in " ".join(run.output.split()), run.output
    assert check.nothing_deleted(" ".join(words), run) == []


@pytest.mark.parametrize("playbook", ["rollback", "drift", "verify", "history", "teardown", "unlock"])
def test_a_misspelt_variable_elsewhere(ways, check, playbook):
    run = ways.play(f"{playbook}.yml", "-e", "common_platfrom=acme", "-e", "force_conflicts=true")
    assert run.code and all(f"did you mean {name}?" in run.output for name in ("common_platform", "common_force_conflicts")), run.output
    assert check.nothing_deleted(f"{playbook}.yml with misspelt variables", run) == []


@pytest.mark.parametrize("words", [("--tags", "all,policy"), ("--tags", "tagged"), ("--tags", "elsewhere", "-e", '{"common_other_tags": ["elsewhere"]}')], ids=" ".join)
def test_special_tags(ways, check, words):
    run = ways.play("site.yml", *value(), *words)
    assert run.code == 0, run.output
    assert bool(check.nothing_deleted(" ".join(words[:2]), run)) == ("elsewhere" not in words)


def test_limit(ways, check):
    run = ways.play("site.yml", "--limit", HOSTS[1], *value())
    assert run.code == 0, run.output
    changed = check.nothing_deleted("--limit to one of two clusters", run)
    assert changed and not [name for name in changed if HOSTS[0] in name]


@pytest.mark.parametrize("lacks", TAGS)
def test_a_shorter_play(ways, check, lacks, tmp_path):
    """site.yml as somebody has copied it, without one of the roles."""
    (play,) = yaml.safe_load((cluster.REPOSITORY / "playbooks" / "site.yml").read_text(encoding="utf-8"))
    play["roles"] = [role for role in play["roles"] if not role["role"].endswith(f".{lacks}")]
    mine = tmp_path / "mine.yml"
    mine.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    run = ways.play(mine, *value())
    assert run.code and LACKING + lacks in run.output, run.output
    assert check.nothing_deleted(f"a play without {lacks}", run) == []


def test_a_role_alone(ways, check, tmp_path):
    """It releases itself, and leaves everything else of its platform."""
    (play,) = yaml.safe_load((cluster.REPOSITORY / "playbooks" / "site.yml").read_text(encoding="utf-8"))
    mine = tmp_path / "mine.yml"
    alone = {key: play[key] for key in ("hosts", "gather_facts", "module_defaults")} | {"roles": ["genai.platform.namespaces"]}
    mine.write_text(yaml.safe_dump([alone], sort_keys=False), encoding="utf-8")
    run = ways.play(mine, *value())
    assert run.code == 0, run.output
    changed = check.nothing_deleted("a role in a play of one's own", run)
    assert changed and not [name for name in changed if "AdmissionPolicy" in name]


# --- another order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forks", ["1", "10"])
@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_strategies(ways, check, strategy, forks):
    run = ways.play("site.yml", "--forks", forks, *value(), ANSIBLE_STRATEGY=strategy)
    assert run.code == 0, run.output
    assert {f"Namespace {host}-a" for host in HOSTS} <= set(check.nothing_deleted(f"strategy {strategy}, {forks} forks", run))


# --- told to stop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", some(range(20), 3))
def test_told_to_stop(ways, check, number, moment):
    """After a twentieth of a run and more: what was written is undone or stays as a whole, and the next run finds everything."""
    whole = ways.play("site.yml", *value()).seconds
    check.before, check.node = ways.look(), node_type()
    start, change = time.monotonic(), value()
    running = subprocess.Popen(
        ways.command("site.yml", *change), cwd=cluster.REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=cluster.PLAIN, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored here
    )  # fmt: skip
    time.sleep(whole * (moment + 0.5) / 20)
    workers = cluster._descendants(running.pid)
    # As a terminal does, which tells the whole group, and as a job's runner does, which tells the one it started.
    os.killpg(running.pid, number) if number == signal.SIGINT else os.kill(running.pid, number)
    output = running.communicate(timeout=120)[0]
    until("its workers have ended", lambda: not [pid for pid in workers if pathlib.Path(f"/proc/{pid}").exists()], 120)
    stopped = cluster.Run(0, output, time.monotonic() - start)  # whatever it ended with
    check.nothing_deleted(f"{signal.Signals(number).name} after {moment + 0.5:.1f}/20 of a run", stopped, stopped=True)
    again = ways.play("site.yml", *change)
    assert again.code == 0, output + again.output
    after = ways.look()
    assert set(after.objects) == set(check.before.objects)
    wanted = json.dumps(change[1].partition("=")[2])
    assert all(wanted in json.dumps(after.objects[f"Namespace {host}-{each}"]) for host in HOSTS for each in ("a", "b"))
