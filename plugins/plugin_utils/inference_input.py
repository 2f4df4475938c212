# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be right about the description of the inference service, beyond the type of each input. Pure."""
from __future__ import annotations

import collections
import fractions
import re
import typing as t

from ansible_collections.genai.platform.plugins.module_utils.objects.quantities import quantity, quantity_text

# The service's own defaults, and what a request may take of its memory: see the part "Memory" of app/README.md.
BODY_BYTES, IMAGE_PIXELS, IN_FLIGHT_BYTES = 2**20, 2**24, 2**27
PROCESS_BYTES, JSON_FACTOR, PIXEL_BYTES, MIB = 512 * 2**20, 24, 8, 2**20
SOURCES = ("/", "s3://", "https://", "http://")
MOST_CANARY_PERCENT = 99
MOST_DRAIN_SECONDS = 300  # the service refuses more
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# The longest that the controllers leave room for behind a name: a Deployment's pods, a CronJob's Jobs.
_LONGEST = {"Deployment": 52, "CronJob": 52}
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Input = t.Dict[str, t.Any]
Findings = t.Iterator[str]


def mistakes(about: Input, distribution: str) -> list[str]:
    """One line each, which begins with the name of the variable."""
    parts = (_stores, _clients, _memory, _models, _workers, _benchmark, _scaling)
    found = [line for part in parts for line in part(about)] + [*_canary(about, distribution)]
    return [f"inference_app_{line}" for line in found]


def slug(name: str) -> str:
    """What a model's name is where Kubernetes takes lower case and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-")


def scaler(worker: Input) -> str:
    """What scales a worker: keda, metrics or none."""
    return (worker.get("autoscaling") or {}).get("by", "none")


def _stores(about: Input) -> Findings:
    redis, database = about["redis_secret"].get("name"), about["database_secret"].get("name")
    for name in ("redis_secret", "database_secret", "api_keys_secret"):
        if about[name] and not about[name].get("name"):
            yield f"{name}: it has no name; give that of a Secret, or nothing at all"
    if about["ca"] and not about["ca"].get("config_map"):
        yield "ca: it has no config_map; give the name of a ConfigMap, or nothing at all"
    if about["audit"] and not database:
        yield "audit: it is written to PostgreSQL; set inference_app_database_secret"
    if about["jobs"].get("enabled") and not redis:
        yield "jobs: they wait in Redis; set inference_app_redis_secret"
    if about["workers"] and not redis:
        yield "workers: they take their jobs from Redis; set inference_app_redis_secret"


def _clients(about: Input) -> Findings:
    oidc, rate, tracing = about["oidc"], about["rate"], about["tracing"]
    if oidc and not (oidc.get("issuer") and oidc.get("audience")):
        yield "oidc: a token is checked for both, give issuer and audience"
    if rate.get("burst") is not None and not rate.get("per_second"):
        yield "rate: burst without per_second limits nothing; give per_second"
    if tracing and not tracing.get("endpoint"):
        yield "tracing: there is nowhere to send spans to; give endpoint, or nothing at all"


def _memory(about: Input) -> Findings:
    limits, given = about["limits"], (about["resources"].get("limits") or {}).get("memory")
    body, in_flight = limits.get("body_bytes") or BODY_BYTES, limits.get("in_flight_bytes") or IN_FLIGHT_BYTES
    if in_flight < 3 * body:
        yield f"limits.in_flight_bytes: {in_flight} is less than three bodies of {body} bytes (limits.body_bytes); give at least {3 * body}"
    least = PROCESS_BYTES + in_flight + JSON_FACTOR * body + PIXEL_BYTES * (limits.get("image_pixels") or IMAGE_PIXELS)
    memory = quantity(given)
    if memory is not None and memory < least:
        yield (
            f"resources.limits.memory: {given} is less than what requests may make of a pod,"
            f" {quantity_text(fractions.Fraction(-(-least // MIB) * MIB))} without models; give more, or less in inference_app_limits"
        )


def _models(about: Input) -> Findings:
    for index, model in enumerate(about["models"]):
        yield from (f"models[{index}].{line}" for line in _model(model, about["s3"], about["model_volume"]))
    for clash in _twice(slug(str(model.get("name"))) for model in about["models"]):
        names = [str(model["name"]) for model in about["models"] if slug(str(model["name"])) == clash]
        yield f"models: the names {' and '.join(names)} collide; give each model one of its own, told apart by more than case and punctuation"
    size = about["model_volume"].get("size_limit")
    if size is not None and quantity(size) is None:
        yield f"model_volume.size_limit: {size!r} is no quantity, write 10Gi"


def _model(model: Input, s3: Input, volume: Input) -> Findings:
    name, source, digest = str(model.get("name")), str(model.get("source")), model.get("sha256")
    if not (_MODEL_NAME.fullmatch(name) and slug(name)):
        yield f"name: {name!r} is no name of a model: letters, digits, '.', '_' and '-', at most 63"
    if not source.startswith(SOURCES):
        yield f"source: {source!r} is neither a folder of the image (/...) nor s3://... nor https://..."
    if digest and not _SHA256.fullmatch(str(digest)):
        yield f"sha256: {digest!r} is not 64 hexadecimal digits"
    if source.startswith("/") and volume.get("claim") and not digest:
        yield "source: the next image's would not take the place of what is on the claim then; give sha256, or no claim"
    if source.startswith("http://") and not digest:
        yield "source: whoever is in between can change it; take https://, or give sha256"
    if source.startswith("s3://") and not s3:
        yield "source: it is in an S3 store; set inference_app_s3"


def _workers(about: Input) -> Findings:
    for index, worker in enumerate(about["workers"]):
        where = f"workers[{index}]"
        yield from _name(f"{where}.name", worker.get("name"), f"{about['name']}-worker-{worker.get('name')}", "Deployment")
        yield from _gpus(where, worker)
        if not 0 <= int(worker.get("drain_seconds", 60)) <= MOST_DRAIN_SECONDS:
            yield f"{where}.drain_seconds: it must be from 0 to {MOST_DRAIN_SECONDS}"
        yield from _worker_scaling(where, worker, about["keda"])
    for clash in _twice(str(worker.get("name")) for worker in about["workers"]):
        yield f"workers: two are called {clash}; give each a name of its own"


def _worker_scaling(where: str, worker: Input, keda: Input) -> Findings:
    scaling = worker.get("autoscaling") or {}
    by, low, high = scaling.get("by", "none"), int(scaling.get("min", 1)), int(scaling.get("max", 10))
    least = 0 if by == "keda" else 1
    if by != "none" and not least <= low <= max(high, 1):
        yield f"{where}.autoscaling: min is {low} and max is {high}, it must be {least} <= min <= max"
    if by != "none" and int(scaling.get("jobs_per_worker", 1)) < 1:
        yield f"{where}.autoscaling.jobs_per_worker: it must be at least 1"
    if int(scaling.get("idle_seconds", 0)) < 0:
        yield f"{where}.autoscaling.idle_seconds: it must be at least 0"
    if by == "keda" and not keda.get("redis_address"):
        yield f"{where}.autoscaling: KEDA looks into Redis itself; set inference_app_keda.redis_address (host:port)"


def _benchmark(about: Input) -> Findings:
    wanted = about["benchmark"]
    if wanted.get("enabled"):
        yield from _gpus("benchmark", wanted)
        yield from _name("name", about["name"], f"{about['name']}-benchmark", "CronJob")
        if len(str(wanted.get("schedule", "0 2 * * *")).split()) != 5 and not str(wanted["schedule"]).startswith("@"):
            yield f"benchmark.schedule: {wanted['schedule']!r} has not the five fields of a cron schedule"


def _gpus(where: str, wanted: Input) -> Findings:
    if int(wanted.get("gpus") or 0) < 0:
        yield f"{where}.gpus: it must be at least 0"
    if int(wanted.get("gpus") or 0) > 0 and not wanted.get("gpu_resource"):
        yield f"{where}.gpu_resource: it asks for GPUs; say of which vendor, nvidia.com/gpu or amd.com/gpu"


def _name(where: str, label: t.Any, whole: str, kind: str) -> Findings:
    if not _LABEL.fullmatch(str(label)):
        yield f"{where}: {label!r} is no name: lower-case letters, digits and '-'"
    elif len(whole) > _LONGEST[kind]:
        yield f"{where}: the {kind} would be called {whole}, which is longer than {_LONGEST[kind]} characters"


def _canary(about: Input, distribution: str) -> Findings:
    canary, by = about["canary"], about["canary"].get("by", "gateway")
    if not canary.get("enabled"):
        return
    if not canary.get("image"):
        yield "canary.image: a canary is another image; give it"
    if not 1 <= int(canary.get("weight") or 0) <= MOST_CANARY_PERCENT:
        yield f"canary.weight: it is {canary.get('weight', 'not given')}, the canary's share of the requests is 1 to {MOST_CANARY_PERCENT} percent"
    if int(canary.get("replicas", 1)) < 1:
        yield "canary.replicas: without a pod its share of the requests would fail; give at least 1"
    if by == "gateway" and not about["gateway"]:
        yield "canary.by: a Gateway splits the requests; set inference_app_gateway (namespace/name), or split by istio or route"
    if by == "route" and not (about["host"] and distribution == "openshift"):
        yield "canary.by: the Route splits the requests, which is there on OpenShift and with inference_app_host"


def _scaling(about: Input) -> Findings:
    scaling = about["autoscaling"]
    for part in ("cpu_percent", "memory_percent", "queue_depth", "scale_up_seconds", "scale_down_seconds"):
        if int(scaling.get(part, 1)) < 0:
            yield f"autoscaling.{part}: it must be at least 0"
    steers = [scaling.get("cpu_percent", 70), scaling.get("memory_percent", 80), scaling.get("queue_depth", 0)]
    if scaling.get("enabled", True) and not any(int(value) for value in steers):
        yield "autoscaling: there is nothing to steer by; give cpu_percent, memory_percent or queue_depth"


def _twice(values: t.Iterable[str]) -> list[str]:
    return [value for value, count in collections.Counter(values).items() if count > 1]
