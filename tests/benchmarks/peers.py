# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools that are compared, each at its best: the files it reads and the command a user would type."""
from __future__ import annotations

import json
import pathlib
import typing as t

import kind
import objects

HERE = pathlib.Path(__file__).resolve().parent
OURS, WAITING, TASK, LOOP, SERVER_SIDE, KUBECTL, HELM = "ours", "waiting", "task", "loop", "server-side", "kubectl", "helm"
TITLES = {
    OURS: "`genai.platform.release`, `wait: false`",
    WAITING: "`genai.platform.release`",
    TASK: "`kubernetes.core.k8s`, one task",
    LOOP: "`kubernetes.core.k8s`, a loop",
    SERVER_SIDE: "`kubectl apply --server-side`",
    KUBECTL: "`kubectl apply`",
    HELM: "`helm upgrade --install`",
}
PEERS = tuple(TITLES)


def playbook(name: str, **variables: t.Any) -> list[str]:
    """An `ansible-playbook` on this machine. Variables go as JSON: nothing has to be guessed about their types."""
    words = ["ansible-playbook", "-i", str(HERE / "inventory.yml"), str(HERE / "playbooks" / f"{name}.yml")]
    return [*words, "-e", json.dumps(variables)] if variables else words


def ledger(prefix: str) -> str:
    """Our ledger's namespace; it starts with the prefix, so that it is removed with the rest."""
    return f"{prefix}-ledger"


def command(peer: str, prefix: str, kubeconfig: pathlib.Path, folder: pathlib.Path, manifests: list[dict]) -> list[str]:
    """Writes what `peer` reads into `folder`; the command that brings `manifests` to the cluster."""
    file = folder / f"{prefix}.json"
    if peer in (OURS, WAITING):
        file.write_text(json.dumps(objects.bundle(manifests)), encoding="utf-8")
        return playbook("release", **_release(prefix, kubeconfig), file=str(file), wait=peer == WAITING)
    if peer in (TASK, LOOP):
        file.write_text(json.dumps(manifests), encoding="utf-8")
        return playbook(peer, kubeconfig=str(kubeconfig), file=str(file))
    if peer == HELM:
        chart = _chart(folder / prefix, manifests)
        return [*_helm(kubeconfig, folder), "upgrade", "--install", "bench", str(chart), "--namespace", ledger(prefix), "--create-namespace"]
    file.write_text(objects.as_list(manifests), encoding="utf-8")
    options = ["--server-side"] if peer == SERVER_SIDE else []
    # By default kubectl reads the schema of the API group anew for every object it compares: five times as slow.
    faster = [] if peer == SERVER_SIDE else ["env", "KUBECTL_OPENAPIV3_PATCH=false"]
    return [*faster, kind.KUBECTL, f"--kubeconfig={kubeconfig}", f"--cache-dir={folder}/kubectl", "apply", *options, "-f", str(file)]


def rollback(peer: str, prefix: str, kubeconfig: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """The command that returns to what was there before the last one."""
    if peer == HELM:
        return [*_helm(kubeconfig, folder), "rollback", "bench", "--namespace", ledger(prefix)]
    return playbook("rollback", **_release(prefix, kubeconfig), wait=False)


def _release(prefix: str, kubeconfig: pathlib.Path) -> dict[str, str]:
    return {"kubeconfig": str(kubeconfig), "platform": prefix, "ledger": ledger(prefix)}


def _helm(kubeconfig: pathlib.Path, folder: pathlib.Path) -> list[str]:
    # By default helm slows itself down after the first 100 requests.
    limits = ["--qps=10000", "--burst-limit=10000"]
    return ["env", f"HELM_CACHE_HOME={folder}/helm", kind.HELM, f"--kubeconfig={kubeconfig}", *limits]


def _chart(folder: pathlib.Path, manifests: list[dict]) -> pathlib.Path:
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: bench\nversion: 1.0.0\n", encoding="utf-8")
    (folder / "templates" / "all.yaml").write_text(objects.as_documents(manifests), encoding="utf-8")
    return folder
