# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Redis, PostgreSQL and a stand-in for an S3 store in pods of their own, for the story of the inference service. Their data goes with
their pods.
"""
from __future__ import annotations

import hashlib
import json
import pathlib
import time
import typing as t

import bundles
import live
from cluster import NAMESPACE, REPOSITORY, kubectl

SPACE = "inference-backing"
PASSWORD = "of-a-test"
URLS = {
    "redis": f"redis://:{PASSWORD}@redis.{SPACE}.svc:6379/0",
    "postgres": f"postgresql://postgres:{PASSWORD}@postgres.{SPACE}.svc:5432/postgres",
}
PORTS = {"redis": 6379, "postgres": 5432, "bucket": 9000}
BUCKET_RATE = 10_000  # bytes a second, of a package of about 120,000
S3 = {"endpoint": f"http://bucket.{SPACE}.svc:{PORTS['bucket']}", "region": "eu-west-1", "secret": "inference-bucket"}
_POSTGRES = (
    "set -e; test -d pg || { printf %s \"$PASSWORD\" > /tmp/word; initdb -D pg -U postgres -A scram-sha-256 --pwfile /tmp/word --no-sync; "
    "echo 'host all all all scram-sha-256' >> pg/pg_hba.conf; }; "
    "exec postgres -D pg -h 0.0.0.0 -c unix_socket_directories=/tmp -c fsync=off -c shared_preload_libraries=timescaledb -c timescaledb.telemetry_level=off"
)
COMMANDS = {"redis": 'exec redis-server --save "" --appendonly no --requirepass "$PASSWORD"', "postgres": _POSTGRES}
PROBES = {"redis": 'redis-cli -a "$PASSWORD" --no-auth-warning ping | grep -q PONG', "postgres": "pg_isready -h 127.0.0.1 -q"}
SECRETS = {
    "redis": {"url": URLS["redis"]},
    "postgres": {"url": URLS["postgres"]},
    "bucket": {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": PASSWORD},
}


def image() -> str:
    """The name under which molecule/shared/backing.yml has put it on the nodes."""
    recipe = (REPOSITORY / "images/backing/Containerfile").read_text(encoding="utf-8").rstrip()
    return f"genai-platform/backing:{hashlib.sha256(recipe.encode()).hexdigest()[:10]}"


def _program(name: str) -> dict:
    """What of a container is its own."""
    if name in COMMANDS:
        probe = {"exec": {"command": ["sh", "-c", PROBES[name]]}}
        return {"image": image(), "command": ["sh", "-c", COMMANDS[name]], "readinessProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 5}}
    script = pathlib.Path(__file__).with_name("bucket.py").read_text(encoding="utf-8")
    return {"image": bundles.IMAGE, "command": ["python", "-c", script], "readinessProbe": {"tcpSocket": {"port": PORTS[name]}, "periodSeconds": 1}}


def objects() -> t.Iterator[dict]:
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    for name, port in PORTS.items():
        labels = {"app.kubernetes.io/name": name, "data-classification": "public"}
        meta = {"name": name, "namespace": SPACE, "labels": labels}
        container = {
            "name": name,
            **_program(name),
            "env": [{"name": "PASSWORD", "value": PASSWORD}, {"name": "RATE", "value": str(BUCKET_RATE)}],
            "ports": [{"containerPort": port}],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        spec = {
            "terminationGracePeriodSeconds": 2,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10002, "fsGroup": 10002, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
        workload = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}
        yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": workload}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": [{"port": port}]}}
        secret = {"name": f"inference-{name}", "namespace": NAMESPACE}
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": SECRETS[name]}


def _path(obj: dict) -> str:
    plural = obj["kind"].lower() + "s"
    base = "/api/v1" if obj["apiVersion"] == "v1" else f"/apis/{obj['apiVersion']}"
    where = f"/namespaces/{obj['metadata']['namespace']}" if "namespace" in obj["metadata"] else ""
    return f"{base}{where}/{plural}/{obj['metadata']['name']}"


def start() -> None:
    api = live.Api()
    for obj in objects():
        api.need("PATCH", _path(obj), obj)
    for name in PORTS:
        kubectl("rollout", "status", f"deployment/{name}", "-n", SPACE, "--timeout=180s")


def remove() -> None:
    kubectl("delete", "namespace", SPACE, "--ignore-not-found")
    kubectl("delete", "secret", "-n", NAMESPACE, "--ignore-not-found", *(f"inference-{name}" for name in PORTS))


def stop(name: str) -> None:
    """As when its node is lost: no pod, and nobody behind its Service."""
    kubectl("scale", f"deployment/{name}", "-n", SPACE, "--replicas=0")
    kubectl("wait", "--for=delete", "pod", "-l", f"app.kubernetes.io/name={name}", "-n", SPACE, "--timeout=60s")


def resume(name: str) -> None:
    kubectl("scale", f"deployment/{name}", "-n", SPACE, "--replicas=1")
    kubectl("rollout", "status", f"deployment/{name}", "-n", SPACE, "--timeout=180s")


def _in(name: str, *command: str) -> str:
    return kubectl("exec", "-n", SPACE, f"deployment/{name}", "--", *command)


def sql(statement: str) -> list[list[str]]:
    """Rows of a query, as text."""
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1/postgres"
    return [line.split("|") for line in _in("postgres", "psql", url, "-AtqX", "-c", statement).splitlines() if line]


def redis(*command: str) -> str:
    return _in("redis", "redis-cli", "-a", PASSWORD, "--no-auth-warning", *command).strip()


def eventually(condition: t.Callable[[], t.Any], what: str, seconds: float = 180) -> t.Any:
    """What `condition` gives once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return found


def pods(selector: str) -> list[dict]:
    """The pods of the inference service that are not on their way out."""
    found = json.loads(kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json"))["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
