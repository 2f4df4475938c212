# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests of whole releases say: release a bundle, go back, tear down, be killed or refused at a certain write."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger, State
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.engine.teardown import teardown
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import LABEL_PLATFORM, Ref


STATE = "apply Secret genai-ledger/genai.state"  # what a release writes last but for its journal


def obj(kind, name, namespace="ns", **rest):
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **rest}


def releaser(cluster, progress=lambda _line: None, **options):
    facts = {"by": "tester", "why": "", "commit": "", "profile": ""}
    return Releaser(cluster, Ledger(cluster, "genai-ledger", "genai"), Options("genai", facts=facts, **options), progress)


def deploy(cluster, bundle, **options):
    return releaser(cluster, **{"complete": True, **options}).deploy(bundle)


def roll_back(cluster, to="previous", components=None, **options):
    return releaser(cluster, **options).roll_back(to, components)


def state(cluster) -> State:
    return Ledger(cluster, "genai-ledger", "genai").load()[0]


def tear_down(cluster, data=False, forget=False, **options):
    return teardown(releaser(cluster, **options), data, forget)


def config(name, labels=None, annotations=None, namespace="ns", **data):
    found = obj("ConfigMap", name, namespace, data=data)
    found["metadata"] |= {"labels": labels} if labels else {}
    found["metadata"] |= {"annotations": annotations} if annotations else {}
    return found


def configmap(name, namespace="ns"):
    return Ref("", "ConfigMap", namespace, name)


def managers(cluster, ref):
    return sorted(entry["manager"] for entry in cluster.objects[ref]["metadata"].get("managedFields", []))


def owner(cluster, ref):
    return cluster.objects[ref]["metadata"].get("labels", {}).get(LABEL_PLATFORM)


def fail_when(cluster, what, failure=None):
    """Makes the first write of that name fail, such as `apply Secret genai-ledger/genai.state`: what a release writes last."""
    write, left = cluster._write, [failure or ApiError("refused by an admission webhook", 400)]

    def checked(line):
        if line == what and left:
            raise left.pop()
        write(line)

    cluster._write = checked


def just_before(cluster, what, act):
    """Lets somebody else act once, just before a write arrives."""
    write, left = cluster._write, [act]

    def watched(line):
        if line == what and left:
            left.pop()()
        write(line)

    cluster._write = watched


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


def kill_at(cluster, monkeypatch, what, bundle, **options):
    """Releases a bundle in a process that is killed just before a write."""
    fail_when(cluster, what, Killed())
    victim = releaser(cluster, **{"complete": True, "max_deleted": "100%", **options})
    monkeypatch.setattr(victim, "_undo", lambda exc, *_args: exc)
    with pytest.raises(Killed):
        victim.deploy(bundle)
    victim.lock.stop()
    cluster.created.clear()  # another process knows nothing of it
    monkeypatch.setattr("ansible_collections.genai.platform.plugins.module_utils.engine.release.alive", lambda *_args: False)
