# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's side: where a module runs, and what of its arguments goes where."""
from __future__ import annotations

import datetime
import functools
import json
import os
import pathlib
import signal
import stat
import sys
import types

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.genai.platform.plugins.action import drift, release, release_info, render, verify
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Module
from ansible_collections.genai.platform.plugins.module_utils.module.signals import stop_on_signals
from ansible_collections.genai.platform.plugins.modules import render as render_module

BUNDLE = {"app": [{"kind": "Secret", "stringData": {"token": "hunter2"}}]}
VARS = {"inventory_hostname": "one", "ansible_python_interpreter": sys.executable}


class Task:
    """One task that runs an action with these arguments and notes what reaches the module, here or elsewhere."""

    def __init__(self, plugin, args, transport="local", become=None, environment=None, delegate_to=None):
        shell = types.SimpleNamespace(join_path=os.path.join)
        self.action = plugin.ActionModule.__new__(plugin.ActionModule)
        self.action._task = types.SimpleNamespace(
            args=args, async_val=0, environment=environment, check_mode=False, diff=True, delegate_to=delegate_to
        )
        self.action._connection = types.SimpleNamespace(transport=transport, become=become, _shell=shell)
        self.action._templar = types.SimpleNamespace(template=lambda value: value)
        self.action._make_tmp_path = lambda: "/remote"
        self.action._fixup_perms2 = lambda paths: None
        self.action._transfer_file = self._transfer
        self.action._execute_module = self._there
        self.sent: dict[str, str] = {}
        self.seen: dict = {}
        self.progress: list[str] = []

    def _transfer(self, path, remote):
        self.seen["mode"], self.seen["local"] = stat.S_IMODE(os.stat(path).st_mode), path
        self.sent[remote] = pathlib.Path(path).read_text(encoding="utf-8")
        return remote

    def _there(self, name, module_args, task_vars):
        self.seen.update(name=name, args=dict(module_args), vars=task_vars)
        return {"changed": True, "invocation": {"module_args": module_args}}

    def _here(self, module, args, check_mode, diff, progress):
        progress("half way")
        self.seen.update(here=args, modes=(check_mode, diff), options=module.options)
        return {"changed": True}

    def run(self, task_vars=None):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("ansible.plugins.action.ActionBase.run", lambda *args: {})
            patched.setattr(Module, "run_in_worker", functools.partialmethod(_here_of, self))
            patched.setattr("ansible.utils.display.Display.display", lambda _self, line: self.progress.append(line))
            return self.action.run(None, VARS if task_vars is None else task_vars)


def _here_of(module, task, *call):
    return task._here(module, *call)


@pytest.fixture(params=[release, render], ids=["release", "render"])
def plugin(request):
    return request.param


@pytest.mark.parametrize("action", [drift, release, release_info, render, verify])
def test_a_local_module_runs_in_ansibles_own_process(action):
    task = Task(action, {"bundle": BUNDLE, "platform": "genai"})
    assert task.run() == {"changed": True}
    assert task.seen["here"] == {"bundle": BUNDLE, "platform": "genai"} and task.seen["modes"] == (False, True)
    assert task.progress == ["  one: half way"] and not task.sent
    assert "platform" in task.seen["options"]


OTHER = {"inventory_hostname": "one", "ansible_python_interpreter": "/usr/bin/other"}


@pytest.mark.parametrize(
    ("how", "task_vars", "here"),
    [
        ({}, VARS, True),
        ({}, {}, True),  # nobody chose a Python, and this one has the client
        ({}, {"ansible_python_interpreter": "auto_silent"}, True),
        ({}, OTHER, False),
        ({"transport": "ssh"}, VARS, False),
        ({"become": object()}, VARS, False),
        ({"environment": [{"https_proxy": "http://proxy"}]}, VARS, False),
        ({"environment": [{}]}, VARS, True),
        ({"delegate_to": "two"}, {**VARS, "ansible_delegated_vars": {"two": OTHER}}, False),
        ({"delegate_to": "two"}, {**OTHER, "ansible_delegated_vars": {"two": VARS}}, True),
    ],
)
def test_where_a_module_runs(how, task_vars, here):
    task = Task(release, {"state": "rolled_back"}, **how)
    task.run(task_vars)
    assert ("here" in task.seen) == here and ("name" in task.seen) != here


def test_elsewhere_the_bundle_travels_in_a_private_file(plugin):
    task = Task(plugin, {"bundle": BUNDLE}, transport="ssh")
    assert task.run() == {"changed": True}
    assert task.seen["args"] == {"bundle_file": "/remote/bundle.json"} and task.seen["mode"] == 0o600
    assert json.loads(task.sent["/remote/bundle.json"]) == BUNDLE and not os.path.exists(task.seen["local"])
    assert task.seen["name"] == f"genai.platform.{plugin.__name__.rpartition('.')[2]}" and task.seen["vars"] == VARS


def test_what_a_file_cannot_carry_is_named_and_not_sent(plugin):
    """As the module itself says it where it runs here: what YAML has made a date is not guessed back into a text."""
    bad = {"app": [{"kind": "Secret", "data": {"since": datetime.datetime(2031, 3, 25), "bytes": b"private"}}]}
    task = Task(plugin, {"bundle": bad}, transport="ssh")
    with pytest.raises(AnsibleActionFail, match=r"bundle.app\[0\].data.since is a time, quote it") as caught:
        task.run()
    assert "private" not in str(caught.value) and not task.sent
    task = Task(plugin, {"bundle": bad})
    task.run()
    assert task.seen["here"]["bundle"] == bad


def test_a_file_of_the_users_own_is_left_alone(plugin):
    task = Task(plugin, {"bundle_file": "/mine.json"}, transport="ssh")
    task.run()
    assert task.seen["args"]["bundle_file"] == "/mine.json"


def test_render_takes_no_notice_of_the_cluster():
    args = {"dest": "/tmp/x", "kubeconfig": "k", "context": "c", "api_key": "secret", "ledger_namespace": "l", "expected_server": "s", "platform": "p"}
    task = Task(render, args)
    task.run()
    assert task.seen["here"] == {"dest": "/tmp/x", "platform": "p"}


@pytest.mark.parametrize(
    ("dest", "transport", "becomes"),
    [
        ("out/x", "local", "{cwd}/out/x"), ("~/x", "local", "{home}/x"), ("$HOME/x", "local", "{home}/x"), ("/a/../b", "local", "/b"),
        ("out/x", "ssh", "out/x"), (7, "local", 7),
    ],
)  # fmt: skip
def test_where_a_relative_path_begins(dest, transport, becomes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = Task(render, {"dest": dest}, transport)
    task.run()
    if isinstance(becomes, str):
        becomes = becomes.format(cwd=tmp_path, home=os.path.expanduser("~"))
    assert (task.seen.get("here") or task.seen["args"])["dest"] == becomes


class Text(str):
    """As Ansible's own texts, which are texts and more."""


class Number(int):
    """As Ansible's own numbers."""


class Encrypted:
    """As Vault's, which are decrypted as text."""

    def __str__(self):
        return "clear"


def test_the_module_gets_plain_values(plugin):
    task = Task(plugin, {"dest": Text("/x"), "bundle": {Text("app"): ({"a": Number(3), "b": True, "c": None, "d": 1.5, "e": Encrypted()},)}})
    task.run()
    args = task.seen["here"]
    assert args == {"dest": "/x", "bundle": {"app": [{"a": 3, "b": True, "c": None, "d": 1.5, "e": "clear"}]}}
    assert [type(each) for each in (args["dest"], [*args["bundle"]][0], args["bundle"]["app"][0]["a"])] == [str, str, int]


def here(module, check_mode=False, **args):
    lines: list[str] = []
    return {**module.run_in_worker(args, check_mode, False, lines.append), "lines": lines}


def test_run_here_is_run_as_a_module(tmp_path):
    told = here(render_module.MODULE, check_mode=True, dest=str(tmp_path / "tree"), bundle={})
    assert not told.get("failed") and not told["changed"] and not (tmp_path / "tree").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "missing required arguments: dest"),
        ({"dest": "/x"}, "one of the following is required: bundle, bundle_file"),
        ({"dest": "/x", "bundle": {}, "bundle_file": "/y"}, "mutually exclusive"),
        ({"dest": "/x", "bundle": "no dict"}, "bundle"),
        ({"dest": "/x", "bundle": {}, "surplus": 1}, "surplus"),
        ({"dest": "/x", "bundle_file": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_arguments(args, said):
    result = here(render_module.MODULE, **args)
    assert result["failed"] and said in result["msg"]


OPTIONS = {"token": {"type": "str", "no_log": True}, "count": {"type": "int", "default": 1}}


def test_secrets_and_defaults():
    result = here(Module(lambda call: {"said": f"with {call.params['token']}", "count": call.params["count"]}, OPTIONS), token="hunter2")
    assert "hunter2" not in str(result) and (result["count"], result["changed"]) == (1, False)
    assert "hunter2" not in str(here(Module(lambda call: {}, OPTIONS), token="hunter2", count="hunter2"))


@pytest.mark.parametrize(("looking", "end"), [(True, "unreachable"), (False, "failed")])
def test_an_error_is_a_result(looking, end):
    def work(_call):
        raise InvalidInput("wrong, and how to put it right")

    result = here(Module(work, OPTIONS, looking=lambda _params: looking))
    assert result[end] and result["msg"] == "wrong, and how to put it right" and result["reason"] == "invalid_input"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(number):
    """The work hears of it once and ends in its own time; afterwards the signals are the worker's again."""

    def work(call):
        stop_on_signals()
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # not heard
            call.progress("put back")

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    result = here(Module(work, OPTIONS))
    assert result["failed"] and signal.Signals(number).name in result["msg"] and result["lines"] == ["put back"]
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
