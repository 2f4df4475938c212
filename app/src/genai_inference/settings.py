"""All settings of the service, read from GENAI_* environment variables (in Kubernetes: from a ConfigMap), and the
optional file that lists several models.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from .in_flight import BYTES_PER_BODY_BYTE
from .model import ModelError, Word

PREFIX = "GENAI_"
QUEUED_BATCHES = 8
MOST_SECONDS = 7 * 86400.0  # that a job may take
SECRETS = ("redis_url", "database_url")

# Variables by which Kubernetes tells every pod of a namespace of its Services: with one called genai, or genai-...,
# these begin like settings.
_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_LINKED = re.compile(r"(tcp|udp|sctp)://")
_HOSTS = re.compile(r"(.*@)?((\[[^\]@]*\]|[^\[\]:,@]*)(:\d*)?(,|$))+")  # of PostgreSQL there may be several
_UNREADABLE = "not a URL that can be read: in a password, / is %2F, # is %23, ? is %3F and @ is %40"


class SettingsError(Exception):
    """A setting the service cannot start with; the message names the variable."""

    exit_code = 2


def _url(*schemes: str) -> Callable[[SecretStr], SecretStr]:
    """A check that a secret is a URL of one of these schemes; its message does not repeat the secret. Libraries would
    repeat what they take for a port, which is the end of a password with a slash.
    """

    def check(value: SecretStr) -> SecretStr:
        if value.get_secret_value().partition("://")[0] not in schemes:
            raise ValueError(f"a URL that begins with {schemes[0]}:// expected")
        try:
            hosts = urlsplit(value.get_secret_value()).netloc
        except ValueError:
            raise ValueError(_UNREADABLE) from None
        if not _HOSTS.fullmatch(hosts):
            raise ValueError(_UNREADABLE)
        return value

    return check


def _outlives_heartbeats(seconds: float, others: ValidationInfo) -> float:
    """One heartbeat that is late must not cost a worker its job."""
    least = 3 * others.data.get("worker_heartbeat_seconds", 0.0)
    if seconds < least:
        raise ValueError(f"at least three heartbeats ({least:g}) expected")
    return seconds


def _holds_a_body(size: int, others: ValidationInfo) -> int:
    """A body for which there is never room would be refused for ever."""
    least = BYTES_PER_BODY_BYTE * others.data.get("max_body_bytes", 0)
    if size < least:
        raise ValueError(f"at least {BYTES_PER_BODY_BYTE} times GENAI_MAX_BODY_BYTES ({least}) expected")
    return size


def is_safe(url: str) -> bool:
    """Whether what is read there is what its owner wrote: https; or http on this machine, or to a Service of the same
    cluster (`*.svc`), for which no public authority issues certificates, and whose network its operators answer for.
    A name and a password in it would be shown by whatever fails to use them.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        host = (parts.hostname or "").removesuffix(".cluster.local")
    except ValueError:
        return False
    inside = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".svc")
    return bool(host) and "@" not in parts.netloc and (parts.scheme == "https" or (parts.scheme == "http" and inside))


def _safe_url(value: str) -> str:
    if not is_safe(value):
        where = "http:// only on this machine or to a Service, *.svc"
        raise ValueError(f"an https:// URL expected, without a user's name ({where})")
    return value


def _needs(other: str) -> Callable[[Any, ValidationInfo], Any]:
    """A check that a setting is only there together with another one, which the class defines before it."""

    def check(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        if value and other in info.data and not info.data[other]:
            raise ValueError(f"{_variable((other,))} is needed with it")
        return value

    return check


def _audience(value: str | None, info: ValidationInfo) -> str | None:
    # Without it, a token that its issuer made for any other service would open this one.
    if not value and info.data.get("oidc_issuer"):
        raise ValueError("needed with GENAI_OIDC_ISSUER")
    return value


class ModelOptions(BaseModel):
    """How a model is served. Each is a setting of the service, which an entry of the models file may override."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: Annotated[int, Field(ge=1, le=1024)] = 32
    max_queue: Annotated[int, Field(ge=1, le=65536)] | None = None
    deadline_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")] = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    compile: bool = False
    warm_up: Annotated[int, Field(ge=0, le=100)] = 1
    cache_ttl_seconds: Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> "ModelOptions":
        if self.max_queue is not None and self.max_queue < self.max_batch_size:
            raise ValueError(f"max_queue must be at least max_batch_size ({self.max_batch_size})")
        return self

    @property
    def queue_bound(self) -> int:
        """Items that may wait."""
        return QUEUED_BATCHES * self.max_batch_size if self.max_queue is None else self.max_queue


class ModelConfig(ModelOptions):
    """One model to serve: its package, and how."""

    dir: Path
    name: Word | None = None  # None: as the package says

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: object, info: ValidationInfo) -> object:
        """What the entry does not say comes from the settings, which are the context."""
        return {**(info.context or {}), **value} if isinstance(value, dict) else value


class Settings(ModelOptions, BaseSettings):
    """Every field is the environment variable GENAI_<FIELD>."""

    # Without protected_namespaces, pydantic warns about our fields called model_*.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    model_dir: Path = Path("/model")
    models_file: Path | None = None
    reload_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 5.0
    model_title: Annotated[str, Field(max_length=200)] = ""
    host: str = "0.0.0.0"  # noqa: S104  # a container's only interface is its pod's
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 2**20)] = 2**20
    receive_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    keep_alive_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 75.0
    max_image_pixels: Annotated[int, Field(ge=1, le=2**28)] = 2**24
    in_flight_bytes: Annotated[int, Field(ge=2**16, le=2**36), AfterValidator(_holds_a_body)] = 2**27
    api_keys_file: Path | None = None
    # They may hold a password, so they are never shown.
    redis_url: Annotated[SecretStr, AfterValidator(_url("redis", "rediss", "unix"))] | None = None
    database_url: Annotated[SecretStr, AfterValidator(_url("postgresql", "postgres"))] | None = None
    store_timeout_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 0.5
    cache_local_bytes: Annotated[int, Field(ge=0, le=2**36)] = 64 * 2**20
    rate_per_second: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 0.0
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    jobs: Annotated[bool, AfterValidator(_needs("redis_url"))] = False
    job_result_seconds: Annotated[int, Field(ge=1, le=90 * 86400)] = 86400
    jobs_max_queued: Annotated[int, Field(ge=1, le=10**6)] = 1000
    jobs_max_per_client: Annotated[int, Field(ge=1, le=10**6)] | None = None
    job_deadline_seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)] = 86400.0
    job_kinds: Annotated[str, Field(pattern=r"^(predict|blueprint)(,(predict|blueprint))*$")] = "predict,blueprint"
    worker_queue: Literal["standard", "blueprint"] = "standard"
    worker_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    worker_heartbeat_seconds: Annotated[float, Field(ge=0.05, le=600, allow_inf_nan=False)] = 5.0
    worker_lease_seconds: Annotated[
        float, Field(ge=0.15, le=3600, allow_inf_nan=False), AfterValidator(_outlives_heartbeats)
    ] = 20.0
    audit: Annotated[bool, AfterValidator(_needs("database_url"))] = False
    oidc_issuer: Annotated[str, AfterValidator(_safe_url)] | None = None
    oidc_audience: Annotated[
        str | None, Field(validate_default=True), AfterValidator(_audience), AfterValidator(_needs("oidc_issuer"))
    ] = None
    oidc_jwks_url: Annotated[
        Annotated[str, AfterValidator(_safe_url)] | None, AfterValidator(_needs("oidc_issuer"))
    ] = None
    oidc_scope: Annotated[
        Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,200}$")] | None, AfterValidator(_needs("oidc_issuer"))
    ] = None
    device_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    drain_seconds: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = 8.0
    fetch_seconds: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 600.0
    torch_threads: Annotated[int, Field(ge=1, le=256)] | None = None
    node: Annotated[str, Field(max_length=253)] = ""
    benchmark_seconds: Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)] = 5.0
    benchmark_batch_sizes: Annotated[str, Field(pattern=r"^[1-9]\d{0,3}(,[1-9]\d{0,3}){0,31}$")] = "1,4,16,32"
    benchmark_run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")] | None = None

    @property
    def drain_idle_seconds(self) -> float:
        """While draining, idle connections are closed after this time: well before the listener is."""
        return min(5.0, self.drain_seconds / 2, self.keep_alive_seconds)

    @property
    def jobs_per_client(self) -> int:
        """How many jobs of one client may be unfinished: unless set, half of what may wait."""
        return self.jobs_max_per_client or max(1, self.jobs_max_queued // 2)

    @property
    def options(self) -> dict[str, Any]:
        """The options of a model that says nothing itself."""
        return {name: getattr(self, name) for name in ModelOptions.model_fields}


def read_settings() -> Settings:
    """Settings from the environment; SettingsError with one line about every bad variable, and every unknown one."""
    faults = unknown(os.environ)
    try:
        settings = Settings()
    except ValidationError as error:
        bad = [f"{_variable(e['loc'])}{_shown(e)}: {e['msg']}" for e in error.errors() if e["loc"]]
        faults += bad or [f"{PREFIX}MAX_QUEUE: {error.errors()[0]['msg']}"]
    if faults:
        raise SettingsError("; ".join(faults))
    return settings


def unknown(variables: Mapping[str, str]) -> list[str]:
    """What is wrong with each variable that looks like a setting and is none: who misspelt GENAI_API_KEYS_FILE does not
    want a service that is open to all. Its value is not shown, which may be a secret.
    """
    names = (name for name in sorted(variables) if name.upper().startswith(PREFIX))
    return [
        f"{name}: no such setting{_nearest(name)}"
        for name in names
        if name[len(PREFIX) :].lower() not in Settings.model_fields and not _is_link(name, variables[name])
    ]


def _is_link(name: str, value: str) -> bool:
    rest = name.removeprefix(PREFIX)
    return bool(_LINK.fullmatch(rest) or (rest.endswith("_PORT") and _LINKED.match(value)))


def _nearest(name: str) -> str:
    found = difflib.get_close_matches(name[len(PREFIX) :].lower(), Settings.model_fields, n=1)
    return f"; {_variable((found[0],))} is the nearest one" if found else ""


def read_models(settings: Settings) -> list[ModelConfig]:
    """The models to serve, the default one first; ModelError if the models file does not say so clearly."""
    file = settings.models_file
    if file is None:
        return [ModelConfig(dir=Path(folder), **settings.options) for folder in str(settings.model_dir).split(":")]
    try:
        return _ModelsFile.model_validate(yaml.safe_load(file.read_bytes()), context=settings.options).models
    except OSError as error:
        raise ModelError(file, (error.strerror or str(error)).lower()) from None
    except yaml.YAMLError as error:
        raise ModelError(file, " ".join(f"not valid YAML: {error}".split())) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(file, f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}") from None


class _ModelsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: Annotated[list[ModelConfig], Field(min_length=1, max_length=64)]


def _shown(fault: Mapping[str, Any]) -> str:
    """What the variable holds, unless that is a secret, or the part of a URL that may hold one."""
    return "" if str(fault["loc"][0]) in SECRETS else re.sub("//.*@", "//...@", f"={fault['input']!r}")


def _variable(location: tuple[int | str, ...]) -> str:
    return PREFIX + "_".join(str(part) for part in location).upper()
