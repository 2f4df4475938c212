"""Settings come from the environment; a bad one ends the process with one clear line."""

from pathlib import Path

import pytest
from command import start

from genai_inference.settings import SECRETS, Settings, SettingsError, read_settings

BAD = {
    "GENAI_PORT": "http",
    "GENAI_LOG_LEVEL": "loud",
    "GENAI_MAX_BODY_BYTES": "1MiB",
    "GENAI_MAX_BATCH_SIZE": "0",
    "GENAI_DRAIN_SECONDS": "nan",
    "GENAI_TORCH_THREADS": "",
    "GENAI_MODEL_TITLE": "x" * 201,
    "GENAI_DEVICE": "tpu",
    "GENAI_DTYPE": "float8",
    "GENAI_DEADLINE_SECONDS": "0",
    "GENAI_MAX_QUEUE": "-1",
    "GENAI_CACHE_TTL_SECONDS": "nan",
    "GENAI_CACHE_LOCAL_BYTES": "64MiB",
    "GENAI_RATE_PER_SECOND": "-1",
    "GENAI_RATE_BURST": "0",
    "GENAI_JOBS": "true",  # without Redis
    "GENAI_WORKER_QUEUE": "fast",
    "GENAI_WORKER_LEASE_SECONDS": "14.9",  # less than three heartbeats
    "GENAI_BENCHMARK_SECONDS": "301",
    "GENAI_BENCHMARK_BATCH_SIZES": "1,0",
    "GENAI_BENCHMARK_RUN": "a b",
    "GENAI_JOBS_MAX_PER_CLIENT": "0",
    "GENAI_JOB_DEADLINE_SECONDS": "604801",  # more than a client may ask for
    "GENAI_JOB_KINDS": "predict,train",
}


def test_defaults() -> None:
    settings = read_settings()
    assert settings.model_dir == Path("/model")
    assert (settings.host, settings.port, settings.drain_seconds) == ("0.0.0.0", 8080, 8.0)  # noqa: S104
    assert (settings.max_body_bytes, settings.max_batch_size) == (1048576, 32)


def test_every_field_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "model_dir": "/elsewhere",
        "model_title": "canary",
        "host": "::1",
        "port": "9000",
        "log_level": "debug",
        "max_body_bytes": "2048",
        "max_batch_size": "4",
        "drain_seconds": "2.5",
        "receive_seconds": "7.5",
        "max_image_pixels": "100",
        "api_keys_file": "/etc/keys",
        "max_queue": "8",
        "deadline_seconds": "0.5",
        "device": "cuda:1",
        "dtype": "bfloat16",
        "compile": "True",
        "warm_up": "0",
        "models_file": "/etc/models.yaml",
        "reload_seconds": "60.0",
        "torch_threads": "2",
        "fetch_seconds": "30.0",
        "store_timeout_seconds": "0.25",
        "cache_ttl_seconds": "60.0",
        "cache_local_bytes": "1024",
        "rate_per_second": "2.5",
        "rate_burst": "10",
        "jobs": "True",
        "job_result_seconds": "60",
        "jobs_max_queued": "5",
        "jobs_max_per_client": "2",
        "job_deadline_seconds": "3600.0",
        "job_kinds": "predict",
        "worker_queue": "blueprint",
        "worker_concurrency": "2",
        "worker_heartbeat_seconds": "1.0",
        "worker_lease_seconds": "3.0",
        "node": "node-1",
        "benchmark_seconds": "0.5",
        "benchmark_batch_sizes": "1,8",
        "benchmark_run": "nightly-1",
        "audit": "True",
        "oidc_issuer": "https://issuer.test/realm",
        "oidc_audience": "genai",
        "oidc_jwks_url": "http://keycloak.iam.svc:8080/keys",
        "oidc_scope": "predict:all",
    }
    secrets = {"redis_url": "rediss://:word@redis:6379/1", "database_url": "postgresql://me:word@postgres/genai"}
    assert {*values, *secrets} == set(Settings.model_fields)
    assert set(secrets) == set(SECRETS)
    for name, value in {**values, **secrets}.items():
        monkeypatch.setenv(f"GENAI_{name.upper()}", value)
    settings = read_settings()
    assert {name: str(getattr(settings, name)) for name in values} == values
    assert {name: getattr(settings, name).get_secret_value() for name in secrets} == secrets
    assert "word" not in repr(settings)


@pytest.mark.parametrize("name", SECRETS)
def test_a_bad_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"GENAI_{name.upper()}", "http://me:word@host")
    with pytest.raises(SettingsError, match=f"^GENAI_{name.upper()}: ") as caught:
        read_settings()
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), BAD.items(), ids=BAD)
def test_bad_value_names_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}="):
        read_settings()


def test_all_bad_values_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BAD.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert all(name in str(caught.value) for name in BAD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("queued", "mine", "share"), [(1000, None, 500), (1, None, 1), (10, 3, 3)])
def test_the_share_of_one_client(queued: int, mine: int | None, share: int) -> None:
    assert Settings(jobs_max_queued=queued, jobs_max_per_client=mine).jobs_per_client == share


@pytest.mark.parametrize("drain", [0.5, 1.0, 8.0, 300.0])
def test_idle_connections_end_before_the_drain_does(drain: float) -> None:
    assert Settings(drain_seconds=drain).keep_alive_seconds < drain


def test_the_process_ends_with_2_and_one_line() -> None:
    code, stderr = start(GENAI_PORT="http")
    assert code == 2
    assert stderr.startswith("genai-inference: GENAI_PORT='http': Input should be a valid integer")
    assert stderr.count("\n") == 1


def test_a_port_that_is_taken_ends_with_2_and_one_line() -> None:
    code, stderr = start(GENAI_HOST="192.0.2.1")
    assert code == 2
    assert stderr.startswith("genai-inference: GENAI_HOST, GENAI_PORT: cannot listen on 192.0.2.1:8080: ")
    assert stderr.count("\n") == 1


def test_a_missing_model_package_ends_with_3_and_one_line(tmp_path: Path) -> None:
    code, stderr = start(GENAI_MODEL_DIR=str(tmp_path), GENAI_HOST="127.0.0.1", GENAI_PORT="0")
    assert (code, stderr) == (3, f"genai-inference: {tmp_path}/model.yaml: no such file or directory\n")


ISSUER = {"GENAI_OIDC_ISSUER": "https://issuer.test", "GENAI_OIDC_AUDIENCE": "genai"}
TOGETHER = {
    "no audience": ({"GENAI_OIDC_ISSUER": "https://issuer.test"}, "GENAI_OIDC_AUDIENCE=None: .*needed with GENAI_OIDC"),
    "no issuer": ({"GENAI_OIDC_AUDIENCE": "genai"}, "GENAI_OIDC_AUDIENCE='genai': .*GENAI_OIDC_ISSUER is needed"),
    "a scope alone": ({"GENAI_OIDC_SCOPE": "predict"}, "GENAI_OIDC_SCOPE='predict': .*GENAI_OIDC_ISSUER is needed"),
    "two scopes": ({**ISSUER, "GENAI_OIDC_SCOPE": "a b"}, "GENAI_OIDC_SCOPE='a b': "),
    "plain http": ({**ISSUER, "GENAI_OIDC_ISSUER": "http://issuer.test"}, "GENAI_OIDC_ISSUER=.*https:// URL expected"),
    "keys by http": ({**ISSUER, "GENAI_OIDC_JWKS_URL": "http://issuer.test"}, "GENAI_OIDC_JWKS_URL=.*https:// URL"),
    "a file": ({**ISSUER, "GENAI_OIDC_JWKS_URL": "file:///etc/passwd"}, "GENAI_OIDC_JWKS_URL=.*https:// URL"),
}


@pytest.mark.parametrize(("variables", "message"), TOGETHER.values(), ids=TOGETHER)
def test_settings_that_need_each_other(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{message}"):
        read_settings()
