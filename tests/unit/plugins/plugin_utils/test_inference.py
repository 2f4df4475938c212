# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From one description of the inference service to the parts of its manifests, and what is said about a wrong one."""
from __future__ import annotations

import copy
import json
import pathlib
import typing as t

import pytest
import yaml
from ansible_collections.genai.platform.plugins.plugin_utils import inference as _inference
from ansible_collections.genai.platform.plugins.plugin_utils import inference_models as _inference_models
from ansible_collections.genai.platform.plugins.plugin_utils.inference import inference

ROLE = pathlib.Path(__file__).resolve().parents[4] / "roles" / "inference_app"
DEFAULTS = {name.removeprefix("inference_app_"): value for name, value in yaml.safe_load((ROLE / "defaults/main.yml").read_text("utf-8")).items()}
OPTIONS = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text("utf-8"))["argument_specs"]["main"]["options"]
SELECTOR = {"app.kubernetes.io/name": "inference", "app.kubernetes.io/component": "api"}
ADDED = {"selector": SELECTOR, "user": 10001, "container_security": {"readOnlyRootFilesystem": True}, "settings": {"GENAI_LOG_LEVEL": "info"}}

REDIS, DATABASE = {"name": "inference-redis"}, {"name": "inference-postgres"}
MODEL = {"name": "digits", "source": "/model"}
STANDARD = {"name": "standard"}
CANARY = {"enabled": True, "image": "inference:2.0.0", "weight": 10}


def parts(distribution: str = "kubernetes", **described: t.Any) -> dict[str, t.Any]:
    return inference({**copy.deepcopy(DEFAULTS), **ADDED, **described}, distribution)


def deployment(name: str, **described: t.Any) -> dict[str, t.Any]:
    (found,) = [each for each in parts(**described)["deployments"] if each["name"] == name]
    return found


def pods(**described: t.Any) -> list[t.Any]:
    """All that a pod's template is made of: what is the same has the same pods."""
    made = parts(**described)
    own = ("labels", "image", "args", "env", "resources", "fetchers", "grace_seconds", "node_selector", "tolerations")
    return [made["settings"], made["volumes"], made["mounts"], made["pod_security"], [{key: each[key] for key in own} for each in made["deployments"]]]


# --- what it is by itself --------------------------------------------------------------------------------------------


def test_the_default_is_the_api_alone():
    made = parts()
    assert made["finding"] is None
    assert [each["name"] for each in made["deployments"]] == ["inference"]
    assert made["settings"] == {"GENAI_LOG_LEVEL": "info"}
    assert {name for name, part in made.items() if part} == {"settings", "pod_security", "deployments", "autoscalers", "backends", "routes"}
    api = made["deployments"][0]
    assert {name for name, part in api.items() if part is None} == {"replicas", "node_selector", "tolerations", "args", "env", "fetchers"}
    assert api["resources"] == DEFAULTS["resources"] and api["selector"] == SELECTOR


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (("workers",), _inference.WORKER),
        (("workers", "autoscaling"), _inference.WORKER_AUTOSCALING),
        (("autoscaling",), _inference.AUTOSCALING),
        (("benchmark",), _inference.BENCHMARK),
        (("canary",), _inference.CANARY),
        (("model_volume",), _inference_models.VOLUME),
    ],
)
def test_defaults_are_the_documented_ones(path, values):
    options = OPTIONS[f"inference_app_{path[0]}"]["options"]
    for name in path[1:]:
        options = options[name]["options"]
    assert values == {name: option["default"] for name, option in options.items() if not option.get("required")}


@pytest.mark.parametrize("group", _inference.VARIABLES)
def test_every_part_of_a_setting_is_an_option(group):
    options = set(OPTIONS[f"inference_app_{group}"]["options"])
    assert set(_inference.VARIABLES[group]) == options - {"enabled"}


def test_every_option_of_a_model_reaches_its_file():
    assert set(OPTIONS["inference_app_models"]["options"]) == {"name", "source", "sha256", *_inference_models.MODEL_OPTIONS}


# --- settings and secrets --------------------------------------------------------------------------------------------


def test_settings_are_what_was_given():
    made = parts(
        redis_secret=REDIS, database_secret=DATABASE, jobs={"enabled": True, "max_queued": 5}, audit=True, cache={"ttl_seconds": 0.5, "local_bytes": 0},
        tracing={"endpoint": "http://jaeger:4317", "ratio": 0.1}, api_keys_secret={"name": "clients"},
    )  # fmt: skip
    assert made["settings"] == {
        "GENAI_LOG_LEVEL": "info", "GENAI_JOBS": "true", "GENAI_JOBS_MAX_QUEUED": "5", "GENAI_AUDIT": "true", "GENAI_CACHE_TTL_SECONDS": "0.5",
        "GENAI_CACHE_LOCAL_BYTES": "0", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4317", "OTEL_TRACES_SAMPLER_ARG": "0.1",
        "GENAI_API_KEYS_FILE": "/etc/genai/api-keys/keys",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("queues", "kinds"),
    [([], None), (["standard"], "predict"), (["blueprint"], "blueprint"), (["blueprint", "standard"], "predict,blueprint")],
)
def test_jobs_that_no_worker_computes_are_refused(queues, kinds):
    workers = [{"name": queue, "queue": queue} for queue in queues]
    assert parts(redis_secret=REDIS, jobs={"enabled": True}, workers=workers)["settings"].get("GENAI_JOB_KINDS") == kinds


def test_urls_of_stores_come_from_secrets_in_every_pod():
    stores = {"redis_secret": REDIS, "database_secret": {"name": "pg", "key": "uri"}}
    made = parts(**stores, workers=[STANDARD], benchmark={"enabled": True}, canary=CANARY, gateway="a/b")
    wanted = [
        {"name": "GENAI_REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "inference-redis", "key": "url"}}},
        {"name": "GENAI_DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "uri"}}},
    ]
    assert [each["env"][:2] for each in (*made["deployments"], made["benchmark"])] == [wanted] * 4
    assert not {"GENAI_REDIS_URL", "GENAI_DATABASE_URL"} & set(made["settings"])


@pytest.mark.parametrize(("value", "read"), [(True, "true"), (False, "false"), (1, "1"), (0.5, "0.5"), ([1, 8], "1,8"), ("a", "a")])
def test_text(value, read):
    assert _inference.variable_text(value) == read


# --- models ----------------------------------------------------------------------------------------------------------

FACES = {"name": "Faces-2.1", "source": "s3://models/faces", "sha256": "a" * 64}
MODELS = [MODEL, FACES]
S3 = {"endpoint": "http://minio:9000", "region": "eu", "secret": "s3"}


def test_a_model_is_fetched_to_where_the_file_says_it_is():
    made = parts(models=MODELS, s3=S3)
    listed = json.loads(made["models"]["data"]["models.yaml"])["models"]
    fetchers = {each["name"]: each for each in made["deployments"][0]["fetchers"]}
    assert [each["name"] for each in listed] == ["digits", "Faces-2.1"]
    assert fetchers["fetch-digits"]["args"] == ["fetch", "--from", "/model", "--to", listed[0]["dir"]]
    assert fetchers["fetch-faces-2-1"]["args"] == ["fetch", "--from", "s3://models/faces", "--to", listed[1]["dir"], "--sha256", "a" * 64]
    assert made["settings"]["GENAI_MODELS_FILE"] == "/etc/genai/models/models.yaml"
    assert {"name": "models-file", "configMap": {"name": made["models"]["name"]}} in made["volumes"]
    assert all(mount["readOnly"] for mount in made["mounts"])
    assert "readOnly" not in fetchers["fetch-digits"]["volumeMounts"][0]


def test_keys_of_the_store_are_for_who_fetches_from_it():
    made = parts(models=MODELS, s3=S3, redis_secret=REDIS, workers=[STANDARD], benchmark={"enabled": True})
    for pod in (*made["deployments"], made["benchmark"]):
        by_name = {each["name"]: [variable["name"] for variable in each["env"]] for each in pod["fetchers"]}
        assert by_name == {"fetch-digits": [], "fetch-faces-2-1": ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]}
        assert not [variable for variable in pod["env"] or [] if variable["name"].startswith("AWS_")]


FOLLOWED = [
    [{**MODEL, "max_batch_size": 8}, FACES],
    [{**MODEL, "max_queue": 9, "deadline_seconds": 1, "device": "cpu", "dtype": "bfloat16", "cache_ttl_seconds": 1}, FACES],
    [FACES, MODEL],
]
REPLACED = [[MODEL], [MODEL, {**FACES, "source": "s3://models/faces2"}], [MODEL, {**FACES, "sha256": "b" * 64}], [{**MODEL, "name": "numbers"}, FACES], []]


@pytest.mark.parametrize("changed", FOLLOWED)
def test_a_change_of_options_leaves_the_pods(changed):
    before, after = parts(models=MODELS, s3=S3), parts(models=changed, s3=S3)
    assert pods(models=MODELS, s3=S3) == pods(models=changed, s3=S3)
    assert before["models"]["name"] == after["models"]["name"] and before["models"]["data"] != after["models"]["data"]


@pytest.mark.parametrize("changed", REPLACED)
def test_other_packages_are_other_pods_and_the_old_ones_keep_their_file(changed):
    assert pods(models=MODELS, s3=S3) != pods(models=changed, s3=S3)
    after = parts(models=changed, s3=S3)["models"]
    assert after is None or after["name"] != parts(models=MODELS, s3=S3)["models"]["name"]


def test_versions_of_a_package_lie_side_by_side():
    folders = {_inference_models.folder_of({**MODEL, **change}) for change in ({}, {"source": "/other"}, {"sha256": "a" * 64}, {"name": "other"})}
    assert len(folders) == 4


@pytest.mark.parametrize(
    ("volume", "models", "disk"),
    [
        ({}, [], "64Mi"),
        ({}, [MODEL], "2112Mi"),  # what the models take is counted as the pod's own use; more than its limit, and it is evicted
        ({"size_limit": "10Gi"}, [MODEL], "10304Mi"),
        ({"claim": "models"}, [MODEL], "64Mi"),
    ],
)
def test_models_on_the_nodes_disk_are_asked_for(volume, models, disk):
    api = deployment("inference", models=models, model_volume=volume)
    assert api["resources"]["requests"]["ephemeral-storage"] == disk
    assert DEFAULTS["resources"]["requests"]["ephemeral-storage"] == "64Mi"


@pytest.mark.parametrize(
    ("distribution", "volume", "secret", "group"),
    [
        ("kubernetes", {}, {}, None),
        ("kubernetes", {"claim": "models"}, {}, 10001),
        ("kubernetes", {}, {"name": "clients"}, 10001),  # the kubelet makes a Secret's files readable for root and this group
        ("openshift", {"claim": "models"}, {"name": "clients"}, None),  # which gives every pod a group of its own
    ],
)
def test_the_pods_user_may_write_the_claim_and_read_the_keys(distribution, volume, secret, group):
    made = parts(distribution, models=[MODEL], model_volume=volume, api_keys_secret=secret)
    assert made["pod_security"].get("fsGroup") == group
    assert set(made["pod_security"]) - {"fsGroup", "fsGroupChangePolicy"} == (
        {"runAsNonRoot", "seccompProfile"} | ({"runAsUser", "runAsGroup"} if distribution == "kubernetes" else set())
    )


def test_authorities_are_trusted_by_every_container():
    made = parts(models=MODELS, s3=S3, ca={"config_map": "corporate", "key": "bundle.pem"})
    variables = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), "/etc/genai/ca/bundle.pem")
    assert made["settings"].items() >= variables.items()
    assert {"name": "ca", "configMap": {"name": "corporate"}} in made["volumes"]
    mount = {"name": "ca", "mountPath": "/etc/genai/ca", "readOnly": True}
    assert mount in made["mounts"]
    for fetcher in made["deployments"][0]["fetchers"]:
        assert mount in fetcher["volumeMounts"] and {each["name"]: each.get("value") for each in fetcher["env"]}.items() >= variables.items()


MIB = 2**20


@pytest.mark.parametrize(
    ("limits", "memory", "said"),
    [
        ({}, "792Mi", None),
        ({}, "791Mi", "inference_app_resources.limits.memory: 791Mi is less than what requests may make of a pod, 792Mi without models; give more, or less"),
        ({"image_pixels": 2**26}, "1Gi", "inference_app_resources.limits.memory: 1Gi is less than what requests may make of a pod, 1176Mi"),
        ({"body_bytes": 64 * MIB, "in_flight_bytes": 192 * MIB}, "2Gi", "inference_app_resources.limits.memory: 2Gi is less"),
        ({"body_bytes": 43 * MIB}, "4Gi", "inference_app_limits.in_flight_bytes: 134217728 is less than three bodies of 45088768 bytes"),
        ({"image_pixels": 2**28}, None, None),
    ],
)
def test_memory_has_room_for_what_requests_may_take(limits, memory, said):
    found = parts(limits=limits, resources={"limits": {"memory": memory} if memory else {}})["finding"]
    assert found is None if said is None else said in found


# --- workloads -------------------------------------------------------------------------------------------------------

GPU = {"name": "blueprint", "queue": "blueprint", "gpus": 8, "gpu_resource": "amd.com/gpu", "node_selector": {"gpu-type": "mi300x"}, "concurrency": 2}


def test_a_worker_on_gpus():
    worker = deployment("inference-worker-blueprint", redis_secret=REDIS, workers=[GPU])
    assert worker["args"] == ["worker"] and worker["replicas"] == 1 and worker["node_selector"] == {"gpu-type": "mi300x"}
    assert {each["name"]: each.get("value") for each in worker["env"]} == {
        "GENAI_REDIS_URL": None, "GENAI_WORKER_QUEUE": "blueprint", "GENAI_WORKER_CONCURRENCY": "2", "GENAI_DRAIN_SECONDS": "60",
    }  # fmt: skip
    assert worker["grace_seconds"] > 60
    assert [worker["resources"][kind]["amd.com/gpu"] for kind in ("requests", "limits")] == ["8", "8"]
    assert worker["rolling"] == {"maxSurge": 0, "maxUnavailable": 1}, "no node has GPUs for a pod more"


def test_what_a_worker_asks_for_is_added_to_what_the_api_does():
    worker = deployment("inference-worker-standard", redis_secret=REDIS, workers=[{**STANDARD, "resources": {"limits": {"cpu": "4"}}}])
    assert worker["resources"] == {"requests": DEFAULTS["resources"]["requests"], "limits": {**DEFAULTS["resources"]["limits"], "cpu": "4"}}


def test_no_selector_takes_the_pods_of_another():
    made = parts(redis_secret=REDIS, workers=[STANDARD, GPU], canary=CANARY, gateway="a/b", benchmark={"enabled": True}, labels={"version": "x", "team": "a"})
    pods_of = {each["name"]: each["labels"] for each in made["deployments"]} | {"benchmark": made["benchmark"]["labels"]}
    for each in made["deployments"]:
        assert [name for name, labels in pods_of.items() if each["selector"].items() <= labels.items()] == [each["name"]]
    assert all(labels["team"] == "a" for labels in pods_of.values())
    assert pods_of["inference-canary"]["version"] == "canary"


def test_a_canary_is_the_api_with_another_image():
    described = {"canary": {**CANARY, "replicas": 2}, "gateway": "a/b", "models": [MODEL]}
    api, canary = deployment("inference", **described), deployment("inference-canary", **described)
    assert (canary["image"], canary["replicas"], canary["fetchers"][0]["image"]) == ("inference:2.0.0", 2, "inference:2.0.0")
    own = {"name", "selector", "labels", "replicas", "image", "fetchers"}
    assert {key: api[key] for key in api if key not in own} == {key: canary[key] for key in canary if key not in own}
    assert {**api["fetchers"][0], "image": ""} == {**canary["fetchers"][0], "image": ""}
    assert pods(models=[MODEL])[4][0] == pods(**described)[4][0], "the API's pods do not notice that there is a canary"


def test_a_run_of_the_benchmark_is_its_job():
    made = parts(benchmark={"enabled": True, "batch_sizes": [1, 16], "seconds": 5, "gpus": 1, "gpu_resource": "nvidia.com/gpu"})["benchmark"]
    assert {each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"] for each in made["env"]} == {
        "GENAI_BENCHMARK_SECONDS": "5", "GENAI_BENCHMARK_BATCH_SIZES": "1,16", "GENAI_NODE": "spec.nodeName",
        "GENAI_BENCHMARK_RUN": "metadata.labels['batch.kubernetes.io/job-name']",
    }  # fmt: skip
    assert made["resources"]["limits"]["nvidia.com/gpu"] == "1" and made["schedule"] == "0 2 * * *"


# --- autoscaling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaling", "steers_by"),
    [
        ({}, [("cpu", 70), ("memory", 80)]),
        ({"min": 2, "cpu_percent": 50}, [("cpu", 50), ("memory", 80)]),
        ({"memory_percent": 0}, [("cpu", 70)]),
        ({"cpu_percent": 0, "memory_percent": 0, "queue_depth": 50}, [("genai_queue_depth", "50")]),
    ],
)
def test_what_the_autoscaler_steers_by(scaling, steers_by):
    (api,) = parts(autoscaling=scaling)["autoscalers"]
    resources = [(m["resource"]["name"], m["resource"]["target"]["averageUtilization"]) for m in api["metrics"] if m["type"] == "Resource"]
    assert resources + [(m["pods"]["metric"]["name"], m["pods"]["target"]["averageValue"]) for m in api["metrics"] if m["type"] == "Pods"] == steers_by


def test_up_fast_and_down_slowly():
    behavior = parts()["autoscalers"][0]["behavior"]
    assert {policy["periodSeconds"] for policy in behavior["scaleUp"]["policies"]} == {30}
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    own = {"scaleDown": {"selectPolicy": "Disabled"}}
    assert parts(autoscaling={"behavior": own})["autoscalers"][0]["behavior"] == own


def test_each_way_to_scale_workers():
    workers = [{"name": by, "replicas": 3, "autoscaling": {"by": by, "min": 1, "max": 4, "jobs_per_worker": 5}} for by in ("none", "keda", "metrics")]
    made = parts(redis_secret=REDIS, workers=workers, keda={"redis_address": "redis:6379"}, autoscaling={"enabled": False})
    assert {each["name"]: each["replicas"] for each in made["deployments"]} == {
        "inference": 3, "inference-worker-none": 3, "inference-worker-keda": None, "inference-worker-metrics": None,
    }  # fmt: skip
    (by_metric,), (by_keda,) = made["autoscalers"], made["scaled_objects"]
    assert (by_metric["name"], by_metric["min"], by_metric["max"]) == ("inference-worker-metrics", 1, 4)
    assert by_metric["metrics"][0]["external"]["metric"] == {"name": "genai_jobs_waiting", "selector": {"matchLabels": {"queue": "standard"}}}
    assert [by_keda[part] for part in ("name", "min", "max", "idle_seconds")] == ["inference-worker-keda", 1, 4, 300]
    assert [trigger["metadata"] for trigger in by_keda["triggers"]] == [
        {"address": "redis:6379", "stream": "genai:jobs:standard", "consumerGroup": "workers", "enableTLS": "false", threshold: "5"}
        for threshold in ("lagCount", "pendingEntriesCount")
    ]
    assert all(trigger["authenticationRef"] is None for trigger in by_keda["triggers"])


@pytest.mark.parametrize(
    ("keda", "ca", "kinds"),
    [
        ({}, {}, set()),
        ({}, {"config_map": "all"}, set()),  # nothing that a certificate would be shown for
        ({"password_key": "word"}, {}, {"secretTargetRef"}),
        ({"tls": True}, {}, set()),  # of an authority that KEDA knows by itself
        ({"tls": True}, {"config_map": "all"}, {"configMapTargetRef"}),
        ({"password_key": "word", "tls": True}, {"config_map": "all", "key": "all.pem"}, {"secretTargetRef", "configMapTargetRef"}),
    ],
)
def test_keda_has_the_password_and_the_authorities_of_redis(keda, ca, kinds):
    workers = [{"name": "one", "autoscaling": {"by": "keda"}}]
    made = parts(redis_secret=REDIS, workers=workers, keda={"redis_address": "redis:6379", **keda}, ca=ca)
    assert set(made["authentication"] or {}) == kinds
    assert {bool(trigger["authenticationRef"]) for trigger in made["scaled_objects"][0]["triggers"]} == {bool(kinds)}
    assert parts(redis_secret=REDIS, workers=[STANDARD], keda=keda, ca=ca)["authentication"] is None


# --- the split -------------------------------------------------------------------------------------------------------

BOTH, ALONE = [90, 10], [100]


@pytest.mark.parametrize(
    ("canary", "gateway", "shares"),
    [
        ({}, "", {"gateway": ALONE, "istio": [], "route": ALONE}),
        (CANARY, "a/b", {"gateway": BOTH, "istio": [], "route": ALONE}),
        ({**CANARY, "by": "istio"}, "", {"gateway": ALONE, "istio": BOTH, "route": ALONE}),
        ({**CANARY, "by": "route"}, "", {"gateway": ALONE, "istio": [], "route": BOTH}),
        ({"by": "istio"}, "a/b", {"gateway": ALONE, "istio": ALONE, "route": ALONE}),  # the way in stays when the canary goes
    ],
)
def test_one_of_them_splits(canary, gateway, shares):
    made = parts("openshift", canary=canary, gateway=gateway, host="inference.example.com")
    assert made["finding"] is None
    assert {way: [each["weight"] for each in found] for way, found in made["routes"].items()} == shares


# --- what is wrong ---------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict, str]] = [
    ({"audit": True}, "inference_app_audit: it is written to PostgreSQL; set inference_app_database_secret"),
    ({"jobs": {"enabled": True}}, "inference_app_jobs: they wait in Redis; set inference_app_redis_secret"),
    ({"workers": [STANDARD]}, "inference_app_workers: they take their jobs from Redis; set inference_app_redis_secret"),
    ({"redis_secret": {"key": "url"}}, "inference_app_redis_secret: it has no name"),
    ({"oidc": {"issuer": "https://id"}}, "inference_app_oidc: a token is checked for both, give issuer and audience"),
    ({"rate": {"burst": 5}}, "inference_app_rate: burst without per_second"),
    ({"tracing": {"ratio": 0.5}}, "inference_app_tracing: there is nowhere to send spans to"),
    ({"models": [MODEL, {**MODEL, "name": "Digits"}]}, "inference_app_models: the names digits and Digits collide"),
    ({"models": [MODEL, MODEL]}, "inference_app_models: the names digits and digits collide"),
    ({"models": [{**MODEL, "name": "a b"}]}, "inference_app_models[0].name: 'a b' is no name of a model"),
    ({"models": [{**MODEL, "name": "9" * 64}]}, "inference_app_models[0].name: "),
    ({"models": [{**MODEL, "source": "ftp://x"}]}, "inference_app_models[0].source: 'ftp://x' is neither"),
    ({"models": [{**MODEL, "source": "http://x/y.tar"}]}, "inference_app_models[0].source: whoever is in between"),
    ({"models": [{**MODEL, "sha256": "abc"}]}, "inference_app_models[0].sha256: 'abc' is not 64"),
    ({"models": [FACES]}, "inference_app_models[0].source: it is in an S3 store; set inference_app_s3"),
    ({"models": [MODEL], "model_volume": {"claim": "models"}}, "inference_app_models[0].source: the next image's would not take the place"),
    ({"models": [MODEL], "model_volume": {"size_limit": "much"}}, "inference_app_model_volume.size_limit: 'much' is no quantity"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "gpus": 2}]}, "inference_app_workers[0].gpu_resource: it asks for GPUs"),
    ({"redis_secret": REDIS, "workers": [STANDARD, STANDARD]}, "inference_app_workers: two are called standard"),
    ({"redis_secret": REDIS, "workers": [{"name": "A_b"}]}, "inference_app_workers[0].name: 'A_b' is no name"),
    ({"redis_secret": REDIS, "workers": [{"name": "x" * 60}]}, "inference_app_workers[0].name: the Deployment would be called inference-worker-xxx"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "drain_seconds": 301}]}, "inference_app_workers[0].drain_seconds: it must be from 0 to 300"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "autoscaling": {"by": "keda"}}]}, "inference_app_workers[0].autoscaling: KEDA looks into Redis itself"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "autoscaling": {"by": "metrics", "min": 0}}]}, "inference_app_workers[0].autoscaling: min is 0"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "autoscaling": {"by": "metrics", "min": 5, "max": 4}}]}, "autoscaling: min is 5 and max is 4"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "autoscaling": {"by": "metrics", "jobs_per_worker": 0}}]}, "jobs_per_worker: it must be at least 1"),
    ({"redis_secret": REDIS, "workers": [{**STANDARD, "autoscaling": {"idle_seconds": -1}}]}, "idle_seconds: it must be at least 0"),
    ({"benchmark": {"enabled": True, "gpus": 1}}, "inference_app_benchmark.gpu_resource: it asks for GPUs"),
    ({"benchmark": {"enabled": True, "schedule": "daily"}}, "inference_app_benchmark.schedule: 'daily' has not the five fields"),
    ({"canary": {**CANARY, "image": ""}, "gateway": "a/b"}, "inference_app_canary.image: a canary is another image"),
    ({"canary": {"enabled": True, "image": "x:1"}, "gateway": "a/b"}, "inference_app_canary.weight: it is not given"),
    ({"canary": {**CANARY, "weight": 100}, "gateway": "a/b"}, "inference_app_canary.weight: it is 100"),
    ({"canary": {**CANARY, "replicas": 0}, "gateway": "a/b"}, "inference_app_canary.replicas: without a pod"),
    ({"canary": CANARY}, "inference_app_canary.by: a Gateway splits the requests; set inference_app_gateway"),
    ({"canary": {**CANARY, "by": "route"}}, "inference_app_canary.by: the Route splits the requests"),
    ({"autoscaling": {"cpu_percent": 0, "memory_percent": 0}}, "inference_app_autoscaling: there is nothing to steer by"),
    ({"autoscaling": {"memory_percent": -1}}, "inference_app_autoscaling.memory_percent: it must be at least 0"),
]


@pytest.mark.parametrize(("described", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_said_once(described, said):
    (line,) = (parts(**described)["finding"] or "").splitlines()
    assert said in line and line.startswith("inference_app_")


def test_everything_wrong_is_said_at_once():
    finding = parts(audit=True, jobs={"enabled": True}, canary={"enabled": True})["finding"]
    assert [line.partition(":")[0] for line in finding.splitlines()] == [
        "inference_app_audit", "inference_app_jobs", "inference_app_canary.image", "inference_app_canary.weight", "inference_app_canary.by",
    ]  # fmt: skip


def test_a_cache_needs_no_store():
    assert parts(cache={"ttl_seconds": 60}, rate={"per_second": 5})["finding"] is None
