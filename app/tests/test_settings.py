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
    "GENAI_IN_FLIGHT_BYTES": "65535",
    "GENAI_DEVICE_SECONDS": "0",
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
        "in_flight_bytes": "65536",
        "max_batch_size": "4",
        "device_seconds": "12.5",
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
        "keep_alive_seconds": "620.0",
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


def test_the_largest_body_has_to_find_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_IN_FLIGHT_BYTES", str(3 * 2**20))
    assert read_settings().in_flight_bytes == 3 * 2**20
    monkeypatch.setenv("GENAI_MAX_BODY_BYTES", str(2**20 + 1))
    with pytest.raises(SettingsError, match=r"GENAI_IN_FLIGHT_BYTES='3145728': .*3 times GENAI_MAX_BODY_BYTES"):
        read_settings()


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
    assert Settings(drain_seconds=drain).drain_idle_seconds < drain
    assert Settings(drain_seconds=drain, keep_alive_seconds=0.1).drain_idle_seconds == 0.1


def test_an_idle_connection_outlives_that_of_common_proxies() -> None:
    """Else one of theirs ends while they send a request on it, and their client gets a 502. Theirs is 60 s."""
    assert Settings().keep_alive_seconds > 60


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


UNKNOWN = {
    "GENAI_API_KEY_FILE": "GENAI_API_KEYS_FILE",
    "GENAI_OIDC_ISSUER_URL": "GENAI_OIDC_ISSUER",
    "genai_api_key_file": "GENAI_API_KEYS_FILE",
    "GENAI_RATE_PER_SECONDS": "GENAI_RATE_PER_SECOND",
    "GENAI_COLOUR_OF_THE_SKY": None,
    "GENAI_": None,
    "GENAI_API_KEYS_PORT": "GENAI_API_KEYS_FILE",  # would be a Service's with tcp://
}


@pytest.mark.parametrize(("name", "meant"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_setting_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None
) -> None:
    monkeypatch.setenv(name, "a-secret")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value) == f"{name}: no such setting" + (f"; {meant} is the nearest one" if meant else "")


@pytest.mark.parametrize("command", ["serve", "worker", "benchmark", "fetch"])
def test_every_command_that_reads_settings_refuses_it(command: str) -> None:
    arguments = ("--from", "/nowhere", "--to", "/nowhere/else") if command == "fetch" else ()
    code, stderr = start(command, *arguments, GENAI_API_KEY_FILE="/etc/keys")
    assert (code, stderr) == (
        2,
        "genai-inference: GENAI_API_KEY_FILE: no such setting; GENAI_API_KEYS_FILE is the nearest one\n",
    )


def test_unknown_and_bad_ones_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GENAI_PORT": "http", "GENAI_DEVISE": "cpu", "GENAI_HOSTS": "::"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"^GENAI_DEVISE: .*; GENAI_HOSTS: .*; GENAI_PORT='http': "):
        read_settings()


# What Kubernetes puts into every pod of the namespace for Services called genai, genai-api and genai-model-dir.
LINKS = {
    "GENAI_SERVICE_HOST": "10.96.0.7",
    "GENAI_SERVICE_PORT": "8080",
    "GENAI_SERVICE_PORT_HTTP": "8080",
    "GENAI_PORT_8080_TCP": "tcp://10.96.0.7:8080",
    "GENAI_PORT_8080_TCP_ADDR": "10.96.0.7",
    "GENAI_PORT_8080_TCP_PORT": "8080",
    "GENAI_PORT_8080_TCP_PROTO": "tcp",
    "GENAI_API_PORT": "tcp://10.96.0.8:80",
    "GENAI_API_SERVICE_HOST": "fd00::8",
    "GENAI_API_PORT_53_UDP": "udp://10.96.0.8:53",
    "GENAI_MODEL_DIR_SERVICE_PORT": "80",
}


def test_what_kubernetes_says_of_services_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    assert read_settings() == Settings()


def test_a_service_called_genai_takes_no_port_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes would set it to this in place of the default."""
    monkeypatch.setenv("GENAI_PORT", "tcp://10.96.0.7:8080")
    with pytest.raises(SettingsError, match=r"^GENAI_PORT='tcp://10\.96\.0\.7:8080': .*integer"):
        read_settings()


PASSWORDS = {
    "GENAI_OIDC_ISSUER": "https://me:word@issuer.test",
    "GENAI_OIDC_JWKS_URL": "https://me:word@issuer.test/keys",
}


@pytest.mark.parametrize(("name", "url"), PASSWORDS.items(), ids=PASSWORDS)
def test_a_password_in_the_url_of_an_issuer_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    for variable, value in {**ISSUER, name: url}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{name}=.*without a user's name") as caught:
        read_settings()
    assert "word" not in str(caught.value)


# In each, `hunter` is part of a password that should have been written with %2F, %23 or %3F.
BAD_URLS = {
    "a slash": "redis://:my/hunter@redis:6379",
    "a hash": "redis://:my#hunter@redis:6379",
    "a question mark": "redis://:my?hunter@redis:6379",
    "no port": "redis://redis:hunter/0",
    "half an address": "redis://[hunter",
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_a_url_of_redis_that_cannot_be_read_is_named_and_not_shown(url: str) -> None:
    code, stderr = start(GENAI_REDIS_URL=url, GENAI_HOST="127.0.0.1", GENAI_PORT="0")
    assert (code, stderr.count("\n")) == (2, 1)
    assert stderr.startswith("genai-inference: GENAI_REDIS_URL: ")
    assert "hunter" not in stderr


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_a_url_of_postgresql_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It would be used at the first query only, and `/ready` would show a part of it."""
    monkeypatch.setenv("GENAI_DATABASE_URL", url.replace("redis:", "postgresql:", 1))
    with pytest.raises(SettingsError, match=r"^GENAI_DATABASE_URL: .*not a URL that can be read") as caught:
        read_settings()
    assert "hunter" not in str(caught.value)


GOOD_URLS = [
    *(
        "redis://redis",
        "redis://:hunter@redis:6379/1",
        "rediss://me:a%2Fb@[fd00::1]:6380",
        "unix:///run/redis.sock?db=1",
    ),
    *("postgresql://me:hunter@a:5432,b:5433/genai?target_session_attrs=read-write", "postgresql:///genai?host=/run/pg"),
    *("postgres://me@[::1]/genai", "postgresql://me:a@b@host/genai"),
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_urls_of_stores(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GENAI_DATABASE_URL" if url.startswith("postgres") else "GENAI_REDIS_URL", url)
    read_settings()
