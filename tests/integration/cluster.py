# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the integration tests see of the kind cluster: through its own kubectl and audit log, not through the code under test."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
NAME = os.environ.get("GENAI_KIND_CLUSTER", "genai")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genai-platform"
KUBECONFIG = CACHE / "kind" / f"{NAME}.kubeconfig"
URL = f"http://127.0.0.1:{18080 if NAME == 'genai' else 18081}"
NAMESPACE, LEDGER = "inference", "genai-ledger"
CONTROL_PLANE = f"{NAME}-control-plane"
USER_AGENT = "genai.platform/"
MANAGER = "genai.platform"
# Molecule forces colours on; a test that reads what people read must not trip over them.
PLAIN = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
WRITES = ("create", "update", "patch", "delete", "deletecollection")

# What a cluster writes by itself while nobody does anything, or derives from other objects.
DERIVED = {
    "events", "events.events.k8s.io", "leases.coordination.k8s.io", "nodes", "pods", "replicasets.apps", "endpoints",
    "endpointslices.discovery.k8s.io", "controllerrevisions.apps", "ipaddresses.networking.k8s.io",
}


def own(name: str) -> str:
    """A name of this process's own: where pytest-xdist runs the tests of a file in several, they must not meet on the cluster."""
    return name + os.environ.get("PYTEST_XDIST_WORKER", "")


def kubectl(*args: str) -> str:
    done = subprocess.run(
        ["docker", "exec", CONTROL_PLANE, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *args],
        capture_output=True, text=True, check=False, timeout=300,
    )
    assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
    return done.stdout


def objects() -> list[dict]:
    """Every object of the cluster but what it derives itself."""
    import live  # which imports this module

    return live.everything(live.Api())


def name_of(obj: dict) -> str:
    """`Kind namespace/name`, as the release module names objects."""
    meta = obj["metadata"]
    where = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{obj['kind']} {where}{meta['name']}"


def versions() -> dict[str, str]:
    """{object: resourceVersion} of the whole cluster."""
    return {f"{o['apiVersion']} {name_of(o)}": o["metadata"].get("resourceVersion", "") for o in objects()}


def ours() -> set[str]:
    """Names of the objects that the collection's field manager has written."""
    return {
        name_of(o) for o in objects()
        if any(entry.get("manager") == MANAGER for entry in o["metadata"].get("managedFields", []))
    }


def specs() -> dict[str, dict]:
    """{object: all of it but what a server keeps for itself} of the platform's namespaces, the ledger aside."""
    import live

    mine = (o for o in objects() if o["metadata"].get("namespace") == NAMESPACE or name_of(o) == f"Namespace {NAMESPACE}")
    return {name_of(o): live.normalised(o) for o in mine}


def images() -> set[str]:
    pods = json.loads(kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    return {c["image"] for pod in pods if not pod["metadata"].get("deletionTimestamp") for c in pod["spec"]["containers"]}


class Audit:
    """The API server's own record of who asked what since this object was made."""

    LOG = "/var/log/kubernetes/audit.log"

    def __init__(self) -> None:
        self._start = self._size()

    def _size(self) -> int:
        done = subprocess.run(["docker", "exec", CONTROL_PLANE, "stat", "-c", "%s", self.LOG], capture_output=True, text=True, check=True)
        return int(done.stdout)

    def requests(self) -> list[dict]:
        """Requests of the collection's modules."""
        time.sleep(0.2)  # the last entry is written when its answer has been sent
        tail = ["docker", "exec", CONTROL_PLANE, "tail", "-c", f"+{self._start + 1}", self.LOG]
        lines = subprocess.run(tail, capture_output=True, text=True, check=True).stdout.splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [e for e in entries if e.get("userAgent", "").startswith(USER_AGENT) and e["stage"] == "ResponseComplete"]

    def writes(self, about: str = "") -> list[str]:
        """What the modules wrote whose address has `about` in it: where tests run beside each other, a namespace of one's own."""
        asked = ("dryRun=All", "/authorization.k8s.io/")  # nothing is stored: a try, and what one may do
        written = (e for e in self.requests() if e["verb"] in WRITES and not any(each in e["requestURI"] for each in asked))
        return [f"{e['verb']} {e['requestURI']}" for e in written if about in e["requestURI"]]

    def ended_pods(self, namespace: str) -> list[str]:
        """Pods of a namespace that the modules deleted or evicted, one by one or all at once."""
        return [w for w in self.writes(f"/namespaces/{namespace}/pods") if not w.startswith("patch")]


class Replicas:
    """Every number of replicas that a Deployment was told to have while the block ran, in order."""

    def __init__(self, namespace: str = NAMESPACE, name: str = "inference") -> None:
        self.namespace, self.name = namespace, name

    def __enter__(self) -> Replicas:
        self.seen: list[int] = []
        command = ["docker", "exec", CONTROL_PLANE, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "deployment", self.name]
        self._watch = subprocess.Popen(
            [*command, "-n", self.namespace, "--watch", "-o", 'jsonpath={.spec.replicas}{"\\n"}'], stdout=subprocess.PIPE, text=True
        )
        assert self._watch.stdout
        self.seen.append(int(self._watch.stdout.readline()))
        return self

    def __exit__(self, *_exc: object) -> None:
        self._watch.terminate()
        rest = self._watch.communicate(timeout=30)[0]
        for number in map(int, rest.split()):
            if number != self.seen[-1]:
                self.seen.append(number)


@dataclasses.dataclass
class Run:
    """One finished `ansible-playbook`."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        return int(re.findall(r"changed=(\d+)", self.output)[-1])


def play(playbook: str, *args: str) -> Run:
    """Runs a playbook on the kind inventory, as a user does."""
    start = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", "inventories/kind", playbook, *args],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL,
        env=PLAIN,
    )
    return Run(done.returncode, done.stdout, time.monotonic() - start)


def play_and_kill(playbook: str, mark: str, *args: str) -> None:
    """Starts a playbook and kills it with everything it started, once `mark` shows in its output."""
    running = subprocess.Popen(
        ["ansible-playbook", "-i", "inventories/kind", playbook, *args],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        env=PLAIN,
    )
    seen = next((line for line in running.stdout or [] if mark in line), None)
    # Ansible's workers are in sessions of their own, so the process group is not enough.
    for pid in [running.pid, *_descendants(running.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert seen is not None, f"{playbook} ended before it showed {mark!r}"


def _descendants(pid: int) -> list[int]:
    """Ids of a process's children and theirs (field 4 of /proc/<pid>/stat is the parent)."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return [*children, *(grandchild for child in children for grandchild in _descendants(child))]
