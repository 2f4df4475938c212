# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark does to the kind cluster beside measuring: identities, counting requests, cleaning up."""
from __future__ import annotations

import collections
import json
import os
import pathlib
import subprocess
import time

CLUSTER = os.environ.get("GENAI_KIND_CLUSTER", "genai")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genai-platform"
KUBECONFIG = CACHE / "kind" / f"{CLUSTER}.kubeconfig"
KUBECTL, HELM = str(CACHE / "bin" / "kubectl"), str(CACHE / "bin" / "helm")
PREFIX = "genai-bench"  # of every namespace and identity that the benchmark makes
HOME = f"{PREFIX}-home"  # holds the identities
NODE = f"{CLUSTER}-control-plane"
AUDIT_FOLDER = "/var/log/kubernetes"
GONE_SECONDS = 600
VERBS = {"get": "GET", "list": "GET", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def kubectl(*args: str, text: str | None = None) -> str:
    done = subprocess.run(
        [KUBECTL, f"--kubeconfig={KUBECONFIG}", *args], input=text, capture_output=True, text=True, check=False, timeout=GONE_SECONDS
    )
    if done.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done.stdout


# --- identities ------------------------------------------------------------------------------------------------------


def make_identity(name: str, folder: pathlib.Path) -> pathlib.Path:
    """A cluster admin of its own, so that the audit log tells the peers apart; its kubeconfig.

    The benchmark shares the cluster: a user agent would also count what somebody else does with the same tool.
    """
    binding = f"--clusterrole=cluster-admin --serviceaccount={HOME}:{name}".split()
    kubectl("create", "serviceaccount", name, "-n", HOME)
    kubectl("create", "clusterrolebinding", f"{HOME}-{name}", *binding)
    token = kubectl("create", "token", name, "-n", HOME, "--duration=6h").strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    path = folder / f"{name}.kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    path.chmod(0o600)
    return path


def make_home() -> None:
    kubectl("create", "namespace", HOME)


# --- counting --------------------------------------------------------------------------------------------------------


class Audit:
    """What one identity asked of the API server since this object was made, by the server's own record."""

    def __init__(self, identity: str) -> None:
        self._user = f"system:serviceaccount:{HOME}:{identity}"
        self._inode, self._start = self._node("stat", "-c", "%i %s", f"{AUDIT_FOLDER}/audit.log").split()

    @staticmethod
    def _node(*command: str) -> str:
        return subprocess.run(["docker", "exec", NODE, *command], capture_output=True, text=True, check=True, timeout=120).stdout

    def _lines(self) -> list[str]:
        """Lines of this identity. At its size limit the log gets another name, and a new one begins: the inode stays."""
        script = (
            f"cd {AUDIT_FOLDER}; old=$(find . -inum {self._inode}); "
            f'{{ tail -c +{int(self._start) + 1} "$old"; [ "$old" = ./audit.log ] || cat audit.log; }} | grep -F \'"{self._user}"\' || true'
        )
        return self._node("sh", "-c", script).splitlines()

    def entries(self) -> list[dict]:
        time.sleep(0.5)  # a request is written down when it has ended
        by_id = {}
        for line in self._lines():
            entry = json.loads(line)
            by_id[entry["auditID"]] = entry  # a watch is written down when it starts and when it ends
        return list(by_id.values())


def by_verb(entries: list[dict]) -> dict[str, int]:
    """{HTTP verb, or WATCH: number}."""
    return dict(collections.Counter(verb(entry) for entry in entries))


def method(entry: dict) -> str:
    """The HTTP method, or WATCH, of a request as it was sent."""
    return VERBS.get(entry["verb"], entry["verb"].upper())


def verb(entry: dict) -> str:
    """What may be done is asked by POST, but nothing is stored: a question is a GET here."""
    return "GET" if "/authorization.k8s.io/" in entry["requestURI"] else method(entry)


def writes_outside(entries: list[dict], namespace: str) -> int:
    """Number of writes to anything but the objects of `namespace` and the namespace itself."""
    inside = f"/api/v1/namespaces/{namespace}/"
    written = [e["requestURI"] for e in entries if verb(e) in WRITES and "dryRun=All" not in e["requestURI"]]
    return sum(1 for uri in written if not f"{uri.split('?')[0]}/".startswith(inside))


# --- cleaning up -----------------------------------------------------------------------------------------------------


def namespaces(prefix: str) -> list[str]:
    names = kubectl("get", "namespaces", "-o", "name").split()
    return [name.removeprefix("namespace/") for name in names if name.startswith(f"namespace/{prefix}-")]


def remove_namespaces(prefix: str) -> None:
    """Deletes all namespaces that start with `prefix` and waits until they are gone."""
    names = namespaces(prefix)
    if names:
        kubectl("delete", "namespace", "--wait=false", *names)
    deadline = time.monotonic() + GONE_SECONDS
    while left := namespaces(prefix):
        if time.monotonic() > deadline:
            raise RuntimeError(f"still being deleted after {GONE_SECONDS} s: {', '.join(left)}")
        time.sleep(1)


def remove_everything() -> None:
    """Whatever this or a killed benchmark left."""
    bindings = [name for name in kubectl("get", "clusterrolebindings", "-o", "name").split() if f"/{HOME}-" in name]
    if bindings:
        kubectl("delete", *bindings)
    remove_namespaces(PREFIX)
