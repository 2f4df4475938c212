"""The bodies of requests and responses."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from .benchmark_results import StepResult

# strict: no "3" and no true for 3. fail_fast: one fault is reported, not one for each of a megabyte of bad numbers.
Pixel = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Row = Annotated[list[Pixel], Field(fail_fast=True)]


def _form(value: Any) -> str:  # noqa: ANN401  # any JSON
    """Which of the forms the caller meant, so that a fault is reported against that one only."""
    depth = 0
    while depth < len(FORMS) - 1 and isinstance(value, list) and value and isinstance(value[0], list):
        value, depth = value[0], depth + 1
    return FORMS[depth]


FORMS = ("flat", "rows", "channels")
Rows = Annotated[list[Row], Field(fail_fast=True)]
Instance = Annotated[
    Annotated[Row, Tag("flat")]
    | Annotated[Rows, Tag("rows")]
    | Annotated[list[Rows], Field(fail_fast=True), Tag("channels")],
    Discriminator(_form),
]


BOM = b"\xef\xbb\xbf"  # some libraries write it before their JSON, and a reader may skip it (RFC 8259, 8.1)


class PredictRequest(BaseModel):
    """Images to classify: each is a flat list of pixels, a list of rows, or a list of channels of rows."""

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


class ModelEntry(BaseModel):
    """One line of the catalog: a model, and how it is served. An instance has `shape`, in minimum..maximum."""

    name: str
    version: str
    ready: bool = True
    default: bool
    architecture: str
    shape: list[int]
    minimum: float
    maximum: float
    labels: int
    accuracy: float | None
    device: str
    dtype: str
    compiled: bool
    max_batch_size: int
    max_queue: int
    deadline_seconds: float
    cache_ttl_seconds: float
    load_seconds: float
    benchmarks: list[StepResult] = []  # of this version: the newest one for each batch size


class ModelDetail(ModelEntry):
    """A model of the catalog, with what its answers mean."""

    label_names: list[int | str]
    weights_sha256: str
    degraded: str | None = None


class Catalog(BaseModel):
    """What is served, the default model first. `degraded` says why something may be missing or old."""

    models: list[ModelEntry]
    degraded: str | None = None


class Status(BaseModel):
    """The answer to a probe."""

    status: str
    reason: str | None = None


class Readiness(Status):
    """`degraded` says what does not work although requests are answered: the part, and why."""

    degraded: dict[str, str] | None = None


class VersionResponse(BaseModel):
    """What is running. `model` and `framework` are null until the model is loaded."""

    app: str
    title: str
    model: ModelInfo | None
    framework: str | None


class Problem(BaseModel):
    """An error, as RFC 9457 problem details. `request_id` is that of the log and of the header X-Request-ID."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str


class JobError(BaseModel):
    """Why a job failed, as the problem details of a request that fails like that."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class JobDocument(BaseModel):
    """A job. Times are seconds since 1970; `attempts` counts how often a worker began it. While it waits, `workers` is
    how many are at its queue. `result` is null also where it is large: `result_url` leads to it.
    """

    id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    kind: str
    model: str
    gpus: int | None
    instances: int
    attempts: int
    cancel_requested: bool
    worker: str | None
    created: float
    started: float | None
    finished: float | None
    deadline: float | None
    error: JobError | None
    workers: int | None
    result_url: str | None
    result: PredictResponse | None
