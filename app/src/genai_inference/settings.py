"""All settings of the service, read from GENAI_* environment variables (in Kubernetes: from a ConfigMap)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "GENAI_"


class SettingsError(Exception):
    """A setting the service cannot start with; the message names the variable."""

    exit_code = 2


class Settings(BaseSettings):
    """Every field is the environment variable GENAI_<FIELD>."""

    # Without protected_namespaces, pydantic warns about our fields called model_*.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    model_dir: Path = Path("/model")
    model_title: Annotated[str, Field(max_length=200)] = ""
    host: str = "0.0.0.0"  # noqa: S104  # a container's only interface is its pod's
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 2**20)] = 2**20
    max_batch_size: Annotated[int, Field(ge=1, le=1024)] = 32
    drain_seconds: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = 8.0
    torch_threads: Annotated[int, Field(ge=1, le=256)] = 1

    @property
    def keep_alive_seconds(self) -> float:
        """Idle connections are closed after this time: well before the end of a drain, when the listener closes."""
        return min(5.0, self.drain_seconds / 2)


def read_settings() -> Settings:
    """Settings from the environment; SettingsError with one line about every bad variable."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{_variable(e['loc'])}={e['input']!r}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(faults)) from None


def _variable(location: tuple[int | str, ...]) -> str:
    return PREFIX + "_".join(str(part) for part in location).upper()
