"""The model package on disk: model.yaml (what it is), weights.safetensors (what it learnt), samples.json (data not
seen in training).

Knows nothing of torch, so a broken package is named before seconds are spent on importing it.
"""

import hashlib
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CARD_FILE = "model.yaml"
WEIGHTS_FILE = "weights.safetensors"
SAMPLES_FILE = "samples.json"

# Both end up as label values of metrics and in the version of an image: short and plain.
WORD = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
Word = Annotated[str, Field(pattern=WORD)]
Size = Annotated[int, Field(ge=1, le=4096)]


class ModelError(Exception):
    """A model package that cannot be served: which file, and why."""

    exit_code = 3

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputSpec(_Part):
    """What one instance is: (height, width) or (channels, height, width). The model sees it divided by `maximum`."""

    shape: Annotated[list[Size], Field(min_length=2, max_length=3)]
    minimum: float
    maximum: Annotated[float, Field(gt=0)]


class WeightsSpec(_Part):
    """Ties the description to the one weights file it was written with."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class HeldOut(_Part):
    """Result on data not seen in training: `accuracy` is a share, 0 to 1."""

    accuracy: Annotated[float, Field(ge=0, le=1)]
    count: Annotated[int, Field(ge=1)]


class ModelCard(_Part):
    """model.yaml."""

    name: Word
    version: Word
    architecture: Word
    input: InputSpec
    labels: Annotated[list[int | str], Field(min_length=2, max_length=1000)]
    weights: WeightsSpec
    held_out: HeldOut | None = None  # None: never trained, as the packages for benchmarks

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> "ModelCard":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels are not distinct")
        return self


def read_card(model_dir: Path, name: str | None = None) -> ModelCard:
    """The package's model.yaml, checked; ModelError names what is wrong with it. `name`: what to call it instead."""
    path = model_dir / CARD_FILE
    try:
        card = ModelCard.model_validate(yaml.safe_load(_read(path)))
        return card.model_copy(update={"name": name}) if name else card
    except yaml.YAMLError as error:
        raise ModelError(path, " ".join(f"not valid YAML: {error}".split())) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise ModelError(path, f"{where}: {first['msg']}") from None


def read_weights(model_dir: Path, card: ModelCard) -> bytes:
    """The weights file, whole and known to be the one `card` describes."""
    path = model_dir / WEIGHTS_FILE
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != card.weights.sha256:
        raise ModelError(path, f"damaged, or of another version: its sha256 is not the one in {CARD_FILE}")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(path, (error.strerror or str(error)).lower()) from None
