"""The bodies of requests and responses."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

# strict: no "3" and no true for 3. fail_fast: one fault is reported, not one for each of a megabyte of bad numbers.
Pixel = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Row = Annotated[list[Pixel], Field(fail_fast=True)]


def _form(value: Any) -> str:  # noqa: ANN401  # any JSON
    """Which of the two forms the caller meant, so that a fault is reported against that one only."""
    return "rows" if isinstance(value, list) and value and isinstance(value[0], list) else "flat"


Instance = Annotated[
    Annotated[Row, Tag("flat")] | Annotated[list[Row], Field(fail_fast=True), Tag("rows")],
    Discriminator(_form),
]


class PredictRequest(BaseModel):
    """Images to classify: each is a flat list of pixels or a list of rows."""

    model_config = ConfigDict(extra="forbid")

    instances: Annotated[list[Instance], Field(min_length=1, fail_fast=True)]


class Prediction(BaseModel):
    """The likeliest label, its probability, and the probability of every label in the order of model.yaml."""

    label: int | str
    probability: float
    probabilities: list[float]


class ModelInfo(BaseModel):
    """Which model answered."""

    name: str
    version: str


class PredictResponse(BaseModel):
    """One prediction for each instance, in the order of the request."""

    predictions: list[Prediction]
    model: ModelInfo


class Status(BaseModel):
    """The answer to a probe."""

    status: str
    reason: str | None = None


class VersionResponse(BaseModel):
    """What is running. `model` and `framework` are null until the model is loaded."""

    app: str
    title: str
    model: ModelInfo | None
    framework: str | None


class Problem(BaseModel):
    """An error, as RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
