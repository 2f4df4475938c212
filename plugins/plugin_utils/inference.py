# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one description of the inference service to the parts of its manifests whose shape depends on it. Pure.

The templates of the role inference_app put these parts in their places. What is wrong with the description is found by
`inference_input` and handed over with the parts, so that everything is said at once, before anything is written.
"""
from __future__ import annotations

import typing as t

from .inference_input import mistakes, scaler
from .inference_models import (
    AUTHORITIES, AUTHORITIES_FOLDER, FILE, FILE_FOLDER, MODELS, MODELS_FOLDER, VOLUME, fetchers, from_secret, models_map, on_claim, trust,
)
from ansible_collections.genai.platform.plugins.module_utils.objects.quantities import quantity, quantity_text

# What a nested option is when it is not given; argument_specs.yml says the same.
WORKER = {
    "queue": "standard", "replicas": 1, "gpus": 0, "gpu_resource": "", "node_selector": {}, "tolerations": [], "resources": {},
    "concurrency": 8, "drain_seconds": 60, "autoscaling": {},
}  # fmt: skip
WORKER_AUTOSCALING = {"by": "none", "min": 1, "max": 10, "jobs_per_worker": 10, "idle_seconds": 300}
AUTOSCALING = {
    "enabled": True, "min": 3, "max": 10, "cpu_percent": 70, "memory_percent": 80, "scale_up_seconds": 30, "scale_down_seconds": 300,
    "queue_depth": 0, "behavior": {},
}  # fmt: skip
BENCHMARK = {
    "enabled": False, "schedule": "0 2 * * *", "seconds": 5, "batch_sizes": [1, 4, 16, 32], "node_selector": {}, "tolerations": [],
    "resources": {}, "gpus": 0, "gpu_resource": "", "retries": 10,
}  # fmt: skip
CANARY = {"enabled": False, "image": "", "weight": 0, "replicas": 1, "by": "gateway"}
# Which settings of the service an input of several parts becomes: {input: {part: environment variable}}.
VARIABLES = {
    "cache": {"ttl_seconds": "GENAI_CACHE_TTL_SECONDS", "local_bytes": "GENAI_CACHE_LOCAL_BYTES"},
    "rate": {"per_second": "GENAI_RATE_PER_SECOND", "burst": "GENAI_RATE_BURST"},
    "oidc": {
        "issuer": "GENAI_OIDC_ISSUER", "audience": "GENAI_OIDC_AUDIENCE", "jwks_url": "GENAI_OIDC_JWKS_URL", "scope": "GENAI_OIDC_SCOPE",
    },
    "limits": {
        "body_bytes": "GENAI_MAX_BODY_BYTES", "image_pixels": "GENAI_MAX_IMAGE_PIXELS", "in_flight_bytes": "GENAI_IN_FLIGHT_BYTES",
        "device_seconds": "GENAI_DEVICE_SECONDS", "keep_alive_seconds": "GENAI_KEEP_ALIVE_SECONDS",
    },
    "jobs": {
        "result_seconds": "GENAI_JOB_RESULT_SECONDS", "deadline_seconds": "GENAI_JOB_DEADLINE_SECONDS", "max_queued": "GENAI_JOBS_MAX_QUEUED",
        "max_per_client": "GENAI_JOBS_MAX_PER_CLIENT",
    },
    "tracing": {"endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT", "sampler": "OTEL_TRACES_SAMPLER", "ratio": "OTEL_TRACES_SAMPLER_ARG"},
}
KINDS = {"standard": "predict", "blueprint": "blueprint"}  # the kind of job that waits in each queue
KEYS, KEYS_FOLDER = "api-keys", "/etc/genai/api-keys"
AFTER_DRAIN = 22  # seconds in which a pod that has drained finishes what is under way, and ends
COMPONENT = "app.kubernetes.io/component"

Input = t.Dict[str, t.Any]


def inference(described: Input, distribution: str = "kubernetes") -> dict[str, t.Any]:
    """The parts of all manifests. `described`: the role's inputs by their names without the role's own, each one given."""
    about = without_tags(described)
    problems = mistakes(about, distribution)
    return {
        "finding": "\n".join(problems) or None,
        "settings": settings(about),
        "models": models_map(about),
        "pod_security": pod_security(about, distribution),
        "volumes": volumes(about) or None,
        "mounts": mounts(about) or None,
        "deployments": deployments(about),
        "canary": _of_canary(about) if _canary(about) else None,
        "autoscalers": autoscalers(about),
        "scaled_objects": scaled_objects(about),
        "authentication": authentication(about),
        "benchmark": benchmark(about),
        "backends": backends(about),
        "routes": routes(about),
    }


def without_tags(value: t.Any) -> t.Any:
    """Without the wrappers in which Ansible hands over what it may still have to template."""
    if isinstance(value, dict):
        return {str(key): without_tags(item) for key, item in value.items()}
    return [without_tags(item) for item in value] if isinstance(value, (list, tuple)) else value


# --- settings --------------------------------------------------------------------------------------------------------


def settings(about: Input) -> dict[str, str]:
    """The environment that all pods share. Only what is given is in it, the service's own defaults hold for the rest."""
    found = dict(about["settings"])
    for group, parts in VARIABLES.items():
        given = about[group]
        found |= {variable: variable_text(given[part]) for part, variable in parts.items() if given.get(part) is not None}
    switches = {"GENAI_JOBS": about["jobs"].get("enabled"), "GENAI_AUDIT": about["audit"]}
    found |= {variable: "true" for variable, on in switches.items() if on}
    if about["jobs"].get("enabled") and about["workers"]:  # what no worker will ever compute is refused
        queues = {worker.get("queue", WORKER["queue"]) for worker in about["workers"]}
        found["GENAI_JOB_KINDS"] = ",".join(kind for queue, kind in KINDS.items() if queue in queues)
    files = {"GENAI_MODELS_FILE": about["models"] and f"{FILE_FOLDER}/{FILE}", "GENAI_API_KEYS_FILE": _keys_file(about)}
    return {**found, **trust(about), **{variable: path for variable, path in files.items() if path}}


def variable_text(value: t.Any) -> str:
    """As the service reads it from its environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(variable_text, value)) if isinstance(value, list) else str(value)


def _keys_file(about: Input) -> str:
    secret = about["api_keys_secret"]
    return f"{KEYS_FOLDER}/{secret.get('key', 'keys')}" if secret.get("name") else ""


def environment(about: Input, own: dict[str, t.Any] | None = None) -> list[dict]:
    """What must not be in a ConfigMap, because it holds passwords, and what only some pods have."""
    urls = {"GENAI_REDIS_URL": about["redis_secret"], "GENAI_DATABASE_URL": about["database_secret"]}
    found = [from_secret(variable, secret["name"], secret.get("key", "url")) for variable, secret in urls.items() if secret.get("name")]
    return found + [{"name": variable, "value": variable_text(value)} for variable, value in (own or {}).items()]


# --- pods ------------------------------------------------------------------------------------------------------------


def pod_security(about: Input, distribution: str) -> dict:
    """OpenShift gives every namespace a range of users and groups of its own, and refuses any other."""
    found: dict[str, t.Any] = {"runAsNonRoot": True}
    if distribution != "openshift":
        found |= {"runAsUser": about["user"], "runAsGroup": about["user"]}
        found |= {"fsGroup": about["user"], "fsGroupChangePolicy": "OnRootMismatch"} if on_claim(about) or _keys_file(about) else {}
    return {**found, "seccompProfile": {"type": "RuntimeDefault"}}


def volumes(about: Input) -> list[dict]:
    found, volume, listed = [], {**VOLUME, **about["model_volume"]}, models_map(about)
    if listed:
        store = {"persistentVolumeClaim": {"claimName": volume["claim"]}} if volume["claim"] else {"emptyDir": {"sizeLimit": volume["size_limit"]}}
        found += [{"name": MODELS, **store}, {"name": "models-file", "configMap": {"name": listed["name"]}}]
    if _keys_file(about):
        found += [{"name": KEYS, "secret": {"secretName": about["api_keys_secret"]["name"], "defaultMode": 0o440}}]
    if trust(about):
        found += [{"name": AUTHORITIES, "configMap": {"name": about["ca"]["config_map"]}}]
    return found


def mounts(about: Input) -> list[dict]:
    """Whole folders: the kubelet brings changes of a ConfigMap or Secret only into these."""
    names = {MODELS: MODELS_FOLDER, "models-file": FILE_FOLDER} if about["models"] else {}
    names = {**names, KEYS: KEYS_FOLDER} if _keys_file(about) else names
    names = {**names, AUTHORITIES: AUTHORITIES_FOLDER} if trust(about) else names
    return [{"name": name, "mountPath": path, "readOnly": True} for name, path in names.items()]


def resources_of(about: Input, own: Input, gpus: int = 0, gpu_resource: str = "") -> dict:
    """What a container asks for: what it does not say is as for the API; then GPUs, and the models it keeps on the node's disk, which
    count as its own use of it."""
    kinds = ("requests", "limits")
    given = {kind: {**(about["resources"].get(kind) or {}), **(own.get(kind) or {})} for kind in kinds}
    for kind in kinds:
        if gpus and gpu_resource:
            given[kind][gpu_resource] = str(gpus)
        disk = quantity(given[kind].get("ephemeral-storage"))
        if about["models"] and not on_claim(about) and disk is not None:
            models = quantity({**VOLUME, **about["model_volume"]}["size_limit"]) or 0
            given[kind]["ephemeral-storage"] = quantity_text(disk + models)
    return given


# --- workloads -------------------------------------------------------------------------------------------------------


def deployments(about: Input) -> list[dict]:
    """The API, its canary and the workers, each with what is its own."""
    return [_api(about), *([_of_canary(about)] if _canary(about) else []), *(_of_worker(about, worker) for worker in about["workers"])]


def _named(about: Input, *parts: str) -> str:
    return "-".join(filter(None, (about["name"], *parts)))


def _api(about: Input) -> dict:
    scaled = {**AUTOSCALING, **about["autoscaling"]}["enabled"]
    return {
        "name": _named(about),
        "selector": about["selector"],
        "labels": {**about["labels"], **about["selector"]},
        "replicas": None if scaled else about["replicas"],
        "rolling": {"maxSurge": 1, "maxUnavailable": 0},
        "grace_seconds": about["drain_seconds"] + AFTER_DRAIN,
        "node_selector": None,
        "tolerations": None,
        "container": "api",
        "image": about["image"],
        "args": None,
        "env": environment(about) or None,
        "resources": resources_of(about, {}),
        "fetchers": fetchers(about, about["image"]),
    }


def _canary(about: Input) -> Input | None:
    canary = {**CANARY, **about["canary"]}
    return canary if canary["enabled"] else None


def _canary_selector(about: Input) -> dict:
    return {**about["selector"], COMPONENT: "api-canary"}


def _of_canary(about: Input) -> dict:
    """As the API, but for its image: a component of its own, which the API's selector does not take, nor its selector the API."""
    canary = {**CANARY, **about["canary"]}
    selector = _canary_selector(about)
    own = {"name": _named(about, "canary"), "selector": selector, "labels": {**about["labels"], **selector, "version": "canary"}}
    return {**_api(about), **own, "replicas": canary["replicas"], "image": canary["image"], "fetchers": fetchers(about, canary["image"])}


def _worker_name(about: Input, worker: Input) -> str:
    return _named(about, "worker", worker["name"])


def _of_worker(about: Input, given: Input) -> dict:
    """A GPU that is taken cannot be taken by a new pod as well: the old one goes first, and its jobs wait."""
    worker = {**WORKER, **given}
    selector = {**about["selector"], COMPONENT: "worker", "genai.platform/worker": worker["name"]}
    own = {"GENAI_WORKER_QUEUE": worker["queue"], "GENAI_WORKER_CONCURRENCY": worker["concurrency"], "GENAI_DRAIN_SECONDS": worker["drain_seconds"]}
    return {
        "name": _worker_name(about, worker),
        "selector": selector,
        "labels": {**about["labels"], **selector},
        "replicas": worker["replicas"] if scaler(worker) == "none" else None,
        "rolling": {"maxSurge": 0, "maxUnavailable": 1} if worker["gpus"] else {"maxSurge": 1, "maxUnavailable": 0},
        "grace_seconds": worker["drain_seconds"] + AFTER_DRAIN,
        "node_selector": worker["node_selector"] or None,
        "tolerations": worker["tolerations"] or None,
        "container": "worker",
        "image": about["image"],
        "args": ["worker"],
        "env": environment(about, own),
        "resources": resources_of(about, worker["resources"], worker["gpus"], worker["gpu_resource"]),
        "fetchers": fetchers(about, about["image"]),
    }


def benchmark(about: Input) -> dict | None:
    """The CronJob's own parts. A run is known by its Job: a pod that takes the place of a lost one goes on with the same run."""
    wanted = {**BENCHMARK, **about["benchmark"]}
    if not wanted["enabled"]:
        return None
    labels = {**about["selector"], COMPONENT: "benchmark"}
    own = {"GENAI_BENCHMARK_SECONDS": wanted["seconds"], "GENAI_BENCHMARK_BATCH_SIZES": wanted["batch_sizes"]}
    fields = {"GENAI_BENCHMARK_RUN": "metadata.labels['batch.kubernetes.io/job-name']", "GENAI_NODE": "spec.nodeName"}
    return {
        **wanted,
        "name": _named(about, "benchmark"),
        "labels": {**about["labels"], **labels},
        "node_selector": wanted["node_selector"] or None,
        "tolerations": wanted["tolerations"] or None,
        "env": environment(about, own) + [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "resources": resources_of(about, wanted["resources"], wanted["gpus"], wanted["gpu_resource"]),
        "fetchers": fetchers(about, about["image"]),
    }


# --- autoscaling -----------------------------------------------------------------------------------------------------


def autoscalers(about: Input) -> list[dict]:
    """HorizontalPodAutoscalers: of the API, and of the workers that follow the metric of their queue."""
    api = {**AUTOSCALING, **about["autoscaling"]}
    found = [{"name": _named(about), "min": api["min"], "max": api["max"], "metrics": _api_metrics(api), "behavior": _behavior(api)}]
    return (found if api["enabled"] else []) + [_by_queue(about, worker) for worker in about["workers"] if scaler(worker) == "metrics"]


def _api_metrics(api: Input) -> list[dict]:
    found = [
        {"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": api[f"{name}_percent"]}}}
        for name in ("cpu", "memory") if api[f"{name}_percent"]
    ]  # fmt: skip
    depth = {"metric": {"name": "genai_queue_depth"}, "target": {"type": "AverageValue", "averageValue": str(api["queue_depth"])}}
    return found + ([{"type": "Pods", "pods": depth}] if api["queue_depth"] else [])


def _behavior(api: Input) -> dict:
    """Up at once, and then twice as many (at least two more) each period; down to what was needed at any time of the period."""
    up = {"selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [
        {"type": "Percent", "value": 100, "periodSeconds": api["scale_up_seconds"]}, {"type": "Pods", "value": 2, "periodSeconds": api["scale_up_seconds"]},
    ]}  # fmt: skip
    down = {"stabilizationWindowSeconds": api["scale_down_seconds"], "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}
    return api["behavior"] or {"scaleUp": up, "scaleDown": down}


def _by_queue(about: Input, given: Input) -> dict:
    worker = {**WORKER, **given}
    scaling = {**WORKER_AUTOSCALING, **worker["autoscaling"]}
    metric = {"name": "genai_jobs_waiting", "selector": {"matchLabels": {"queue": worker["queue"]}}}
    target = {"type": "AverageValue", "averageValue": str(scaling["jobs_per_worker"])}
    metrics = [{"type": "External", "external": {"metric": metric, "target": target}}]
    return {"name": _worker_name(about, worker), "min": scaling["min"], "max": scaling["max"], "metrics": metrics, "behavior": None}


def scaled_objects(about: Input) -> list[dict]:
    """What KEDA scales, by what waits in the queue's stream and by what was handed out and is not done: who works is not ended."""
    found = []
    for given in about["workers"]:
        if scaler(given) == "keda":
            worker = {**WORKER, **given}
            scaling = {**WORKER_AUTOSCALING, **worker["autoscaling"]}
            metadata = {"address": about["keda"].get("redis_address"), **_stream(worker["queue"]), "enableTLS": variable_text(bool(about["keda"].get("tls")))}
            triggers = [
                {"type": "redis-streams", "metadata": {**metadata, threshold: str(scaling["jobs_per_worker"])}, "authenticationRef": _authentication(about)}
                for threshold in ("lagCount", "pendingEntriesCount")
            ]
            found.append({"name": _worker_name(about, worker), **{part: scaling[part] for part in ("min", "max", "idle_seconds")}, "triggers": triggers})
    return found


def _stream(queue: str) -> dict:
    return {"stream": f"genai:jobs:{queue}", "consumerGroup": "workers"}


def authentication(about: Input) -> dict | None:
    """How KEDA proves to Redis who it is, and whom it trusts there: the same authorities as the service."""
    keda, ca, found = about["keda"], about["ca"], {}
    if keda.get("password_key"):
        found["secretTargetRef"] = [{"parameter": "password", "name": about["redis_secret"].get("name"), "key": keda["password_key"]}]
    if keda.get("tls") and ca.get("config_map"):
        found["configMapTargetRef"] = [{"parameter": "ca", "name": ca["config_map"], "key": ca.get("key", "ca.crt")}]
    return found if found and any(scaler(worker) == "keda" for worker in about["workers"]) else None


def _authentication(about: Input) -> dict | None:
    return {"name": f"{about['name']}-redis"} if authentication(about) else None


# --- the split of the traffic ----------------------------------------------------------------------------------------


def backends(about: Input) -> dict[str, int]:
    """{Service: its share of the requests in percent}."""
    canary = _canary(about)
    if not canary:
        return {_named(about): 100}
    return {_named(about): 100 - int(canary["weight"]), _named(about, "canary"): int(canary["weight"])}


def routes(about: Input) -> dict[str, list[dict]]:
    """{what may split the requests: its backends}, as each has them. One of them splits; behind the others is the API alone."""
    by = {**CANARY, **about["canary"]}["by"]
    alone = {_named(about): 100}
    shares = {way: backends(about) if by == way else alone for way in ("gateway", "istio", "route")}
    meshed = by == "istio" and (_canary(about) or about["gateway"])
    return {
        "gateway": [{"name": name, "port": 80, "weight": weight} for name, weight in shares["gateway"].items()],
        "istio": [
            {"destination": {"host": f"{name}.{about['namespace']}.svc.cluster.local", "port": {"number": 80}}, "weight": weight}
            for name, weight in shares["istio"].items() if meshed
        ],
        "route": [{"kind": "Service", "name": name, "weight": weight} for name, weight in shares["route"].items()],
    }  # fmt: skip
