# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects for tests, as short as they can be written, and the engine on them with nothing in between."""
from __future__ import annotations

import typing as t

import cluster
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import Cluster
from ansible_collections.genai.platform.plugins.module_utils.engine.ledger import Ledger
from ansible_collections.genai.platform.plugins.module_utils.engine.release import Options, Releaser
from ansible_collections.genai.platform.plugins.module_utils.engine.teardown import teardown
from ansible_collections.genai.platform.plugins.module_utils.upkeep.reconcile import drift

IMAGE = "genai-platform/inference:1.0.0"  # on every node already, with a shell and Python in it


def obj(api: str, kind: str, name: str, namespace: str = "", **rest: t.Any) -> dict:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


def pod(name: str, *command: str, **container: t.Any) -> dict:
    """A pod template; the command is a shell's."""
    main = {"name": "main", "image": IMAGE, "command": ["sh", "-c", *(command or ("sleep infinity",))], **container}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [main]}
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def workload(kind: str, name: str, namespace: str, template: dict, **spec: t.Any) -> dict:
    extra = {"serviceName": name} if kind == "StatefulSet" else {}
    body = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template, **extra, **spec}
    return obj("apps/v1", kind, name, namespace, spec=body)


class Platform:
    """A platform of a test's own on the cluster: its name is also the prefix of its namespaces and its ledger's name.

    `url`: of a proxy that lets everybody in, between the engine and the API server.
    """

    def __init__(self, name: str, url: str = "") -> None:
        self.name, self.ledger_namespace = name, f"{name}-ledger"
        self.connection = {"host": url, "api_key": "none"} if url else {"kubeconfig": str(cluster.KUBECONFIG)}

    def releaser(self, progress: t.Callable[[str], None] = lambda _line: None, by: str = "tester", **options: t.Any) -> Releaser:
        api = Cluster(self.connection)
        facts = {"by": by, "why": "", "commit": "", "profile": ""}
        chosen = Options(self.name, **{"complete": True, "max_deleted": "100%", "wait_timeout": 300, **options}, facts=facts)
        return Releaser(api, Ledger(api, self.ledger_namespace, self.name), chosen, progress)

    def deploy(self, bundle: dict[str, list[dict]], **options: t.Any) -> dict:
        return self.releaser(**options).deploy(bundle)

    def roll_back(self, to: str = "previous", components: list[str] | None = None, **options: t.Any) -> dict:
        return self.releaser(**options).roll_back(to, components)

    def drift(self) -> list[str]:
        """What was changed by hand, in lines for people."""
        return drift(self.releaser(), False, None, [])["drift_lines"]

    def tear_down(self, data: bool = False, forget: bool = False, **options: t.Any) -> dict:
        return teardown(self.releaser(**options), data, forget)

    def remove(self, wait: bool = True) -> None:
        """Whatever a test left behind. `wait`: until it is gone."""
        names = [n for n in cluster.kubectl("get", "namespaces", "-o", "name").split() if n.startswith(f"namespace/{self.name}")]
        if names:
            cluster.kubectl("delete", "--ignore-not-found", f"--wait={str(wait).lower()}", *names)
