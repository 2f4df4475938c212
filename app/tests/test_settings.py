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
        "store_timeout_seconds": "0.25",
        "cache_ttl_seconds": "60.0",
        "cache_local_bytes": "1024",
        "rate_per_second": "2.5",
        "rate_burst": "10",
        "jobs": "True",
        "job_result_seconds": "60",
        "jobs_max_queued": "5",
        "worker_queue": "blueprint",
        "worker_concurrency": "2",
        "worker_heartbeat_seconds": "1.0",
        "worker_lease_seconds": "3.0",
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
