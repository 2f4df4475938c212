"""Jobs as the API sees them: predictions asked for now, and computed by a worker later. All state is in Redis."""

import hashlib
import io
import json
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from . import bodies, codec, job_scripts, problems
from .engine import Batch
from .job_metrics import JobMetrics
from .model import WORD, ModelCard
from .schemas import BOM, PredictRequest
from .settings import MOST_SECONDS, Settings
from .stores import Away, Redis

GROUP = "workers"
QUEUES = {"predict": "standard", "blueprint": "blueprint"}
KEY = re.compile(r'("?)([A-Za-z0-9._:-]{1,128})\1')
# The answer has a number for each label of each instance: about 20 bytes each, in one value of Redis.
MOST_PROBABILITIES = 1_000_000
MEASURED_SECONDS = 2.0  # what scrapes are told of the queues may be so old: whoever reaches the port may scrape
BULK_SECONDS = 5.0  # that the largest inputs and results may take on their way
INLINE_BYTES = 65_536  # of a result that is part of its job's document
PIECE_BYTES = 2**20  # of a result that is sent by itself: as much of it as is in memory at once
TOO_LATE = "The deadline had passed before a worker could begin."
PUBLIC = (
    *("id", "status", "kind", "model", "gpus", "instances", "attempts", "cancel", "worker"),
    *("created", "started", "finished", "deadline", "reason", "detail"),
)
REASONS = {
    "input": (422, "The input does not fit the model"),
    "deadline": (504, "Deadline passed"),
    "model": (404, "No such model"),
    "attempts": (500, "Given up"),
    "result": (500, "Result too large"),
}


class JobOptions(BaseModel):
    """What shall be done with an input. `gpus`: devices of the worker that a blueprint job may use at once, by default
    all.
    """

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(pattern=WORD)] | None = None
    kind: Literal["predict", "blueprint"] = "predict"
    gpus: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    deadline_seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False, strict=True)] | None = None

    @field_validator("gpus")
    @classmethod
    def _one_device_for_a_prediction(cls, gpus: int | None, others: ValidationInfo) -> int | None:
        if gpus is not None and gpus > 1 and others.data.get("kind") == "predict":
            raise PydanticCustomError("gpus", 'only a job of kind "blueprint" may use more than one')
        return gpus


class JobRequest(JobOptions):
    """A job in JSON, with its input."""

    input: PredictRequest


@dataclass(frozen=True)
class NewJob:
    """A job that has been checked, as far as that is cheap: `input` is a body of this media type. `instances` is how
    many are in it.
    """

    request: JobOptions
    media_type: str
    input: bytes
    instances: int
    fingerprint: str


class QueueIsFull(Exception):  # an answer, not an accident
    """As many jobs wait as may: of all clients, or of this one."""


class OtherBody(Exception):
    """This client used the idempotency key before, for something else."""


def job_key(job: str) -> str:
    return f"genai:job:{job}"


def result_key(job: str) -> str:
    """Where the result of a job is kept, by itself, so that a part of it can be read."""
    return f"genai:job:{job}:result"


def stream_key(queue: str) -> str:
    return f"genai:jobs:{queue}"


def idempotency_key(client: str, key: str) -> str:
    """Where a client's key is kept: hashed, for two clients' keys must not meet whatever is in them."""
    return "genai:jobs:key:" + hashlib.sha256(f"{client}\0{key}".encode()).hexdigest()


def parse(body: bytes, cards: Sequence[ModelCard]) -> JobRequest:
    """The request in a body, for one of these models; HTTPException names what does not fit."""
    size = bodies.size_of(body)
    if cards and not any(bodies.may_hold(card.input, size, _most(card, len(body))) for card in cards):
        raise HTTPException(422, "input.instances: more lists or numbers than a job of this length can have")
    try:
        return JobRequest.model_validate_json(body.removeprefix(BOM))
    except ValidationError as error:
        raise problems.invalid(error.errors()[0]) from None


def _most(card: ModelCard, length: int) -> int:
    """Instances of one job, whose body has this length: each number takes two bytes."""
    return min(max(1, MOST_PROBABILITIES // len(card.labels)), length // (2 * math.prod(card.input.shape)))


def options_in(query: Mapping[str, str]) -> JobOptions:
    """The options in a query, where the body is the input alone; HTTPException names what does not fit."""
    try:
        return JobOptions.model_validate_strings(dict(query))
    except ValidationError as error:
        raise problems.invalid(error.errors()[0]) from None


def prepare(request: JobRequest, card: ModelCard) -> NewJob:
    """The job with its instances as the model takes them; InputError names what does not fit."""
    instances = request.input.instances
    _check_count("input.instances", len(instances), card)
    tensor = to_npy(codec.from_instances(card.input, instances))
    return NewJob(request, bodies.NPY, tensor, len(instances), _fingerprint(request, tensor))


def prepare_raw(request: JobOptions, media_type: str, body: bytes, card: ModelCard) -> NewJob:
    """The job of a body that is its input; InputError names what does not fit. A picture is looked at by the worker
    only, for it takes memory to unpack one.
    """
    count = 1
    if media_type in bodies.TENSORS:
        count = len(codec.from_tensor(card.input, bodies.TENSORS[media_type](body)))
        _check_count("tensor", count, card)
    return NewJob(request, media_type, body, count, _fingerprint(request, media_type.encode() + b"\0" + body))


def _check_count(what: str, count: int, card: ModelCard) -> None:
    most = max(1, MOST_PROBABILITIES // len(card.labels))
    if count > most:
        raise codec.InputError(f"{what}: at most {most} in one job, got {count}")


def _fingerprint(request: JobOptions, body: bytes) -> str:
    asked = json.dumps([request.model, request.kind, request.gpus, request.deadline_seconds]).encode()
    return hashlib.sha256(asked + b"\0" + body).hexdigest()


def to_npy(batch: Batch) -> bytes:
    file = io.BytesIO()
    np.save(file, batch, allow_pickle=False)
    return file.getvalue()


def error_of(reason: str, detail: str) -> dict[str, Any]:
    """Why a job failed, as the problem details of a request that fails like that."""
    status, title = REASONS[reason]
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def document(fields: dict[str, str]) -> dict[str, Any]:
    """A job as its client sees it, without its result; times are seconds since 1970."""
    times = {name: float(fields[name]) if name in fields else None for name in ("created", "started", "finished")}
    return {
        "id": fields["id"],
        "status": fields["status"],
        "kind": fields["kind"],
        "model": fields["model"],
        "gpus": int(fields["gpus"]) or None,
        "instances": int(fields["instances"]),
        "attempts": int(fields["attempts"]),
        "cancel_requested": fields["cancel"] == "1",
        "worker": fields.get("worker") or None,
        **times,
        "deadline": float(fields["deadline"]) if "deadline" in fields else None,
        "error": error_of(fields["reason"], fields["detail"]) if fields.get("reason") else None,
        "workers": int(fields["workers"]) if "workers" in fields else None,
        "result_url": f"/v1/jobs/{fields['id']}/result" if fields["status"] == "succeeded" else None,
    }


class Jobs:
    """The API's side. Every method raises Away while Redis does not answer."""

    def __init__(
        self, redis: Redis, settings: Settings, metrics: JobMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._measured_at = float("-inf")

    async def submit(self, new: NewJob, model: str, client: str, key: str, request_id: str) -> tuple[str, bool]:
        """The job's id, and whether it is new: a `key` that is not empty finds the job it was used for before.

        OtherBody if that was another one; QueueIsFull.
        """
        request, settings = new.request, self._settings
        fields = {
            "kind": request.kind,
            "model": model,
            "gpus": request.gpus or 0,
            "instances": new.instances,
            "request_id": request_id,
            "media_type": new.media_type,
            "input": new.input,
        }
        kept, job = idempotency_key(client, key) if key else "", uuid.uuid4().hex
        bounds = [settings.jobs_max_queued, settings.jobs_per_client]
        seconds = request.deadline_seconds or settings.job_deadline_seconds
        answer, *found = await self._script(
            job_scripts.SUBMIT,
            [job_key(job), stream_key(QUEUES[request.kind]), kept],
            [GROUP, *bounds, job, new.fingerprint, seconds, client]
            + [part for field in fields.items() for part in field],
        )
        if answer == b"full":
            raise QueueIsFull("Too many jobs are waiting")
        if answer == b"share":
            raise QueueIsFull(f"{settings.jobs_per_client} jobs of this client are not finished: no more may be")
        if answer == b"other":
            raise OtherBody
        if answer == b"created":
            self._metrics.submitted.labels(request.kind).inc()
        return found[0].decode(), bool(answer == b"created")

    async def find(self, job: str, client: str) -> dict[str, str] | None:
        """The fields of this client's job; None if it has none of this id. While it waits, also how many `workers` are
        at its queue.
        """
        values = await self._redis.call(lambda redis: redis.hmget(job_key(job), ["client", *PUBLIC]))
        if values[0] is None or values[0].decode() != client:
            return None
        found = zip(PUBLIC, values[1:], strict=True)
        fields = {name: value.decode() for name, value in found if value is not None}
        if fields["status"] == "queued":
            stream, seconds = stream_key(QUEUES[fields["kind"]]), self._settings.worker_lease_seconds
            fields["workers"] = str(await self._script(job_scripts.WORKERS, [stream], [seconds]))
        return fields

    async def result(self, job: str, start: int, count: int) -> tuple[int, bytes]:
        """How many bytes the JSON of the job's PredictResponse has, and `count` of them; 0 if there is no result."""
        seconds = self._settings.store_timeout_seconds + BULK_SECONDS
        arguments = [start, start + count - 1]
        size, part = await self._script(job_scripts.RESULT, [job_key(job), result_key(job)], arguments, seconds)
        return size, part

    async def rest_of_result(self, job: str, first: bytes, size: int) -> AsyncIterator[bytes]:
        """The whole result in pieces, of which the first one is there; Away if it is gone before its end."""
        yield first
        sent = len(first)
        while sent < size:
            _, piece = await self.result(job, sent, PIECE_BYTES)
            if not piece:
                raise Away("the result is gone")
            yield piece
            sent += len(piece)

    async def cancel(self, job: str, kind: str, client: str) -> str:
        """none, cancelled, asked (it is running), already (cancelled) or finished."""
        keys = [job_key(job), stream_key(QUEUES[kind])]
        answer = await self._script(job_scripts.CANCEL, keys, [GROUP, client, self._settings.job_result_seconds])
        if answer == b"cancelled":
            self._metrics.ended.labels(kind, "cancelled").inc()
        found: str = answer.decode()
        return found

    async def measure(self) -> None:
        """Brings the gauges of the queues up to date, or empties them: once in MEASURED_SECONDS, whoever scrapes."""
        if self._clock() - self._measured_at < MEASURED_SECONDS:
            return
        self._measured_at = self._clock()
        idle = int(self._settings.worker_lease_seconds * 1000)
        try:
            for queue in QUEUES.values():
                depth = await self._script(job_scripts.DEPTH, [stream_key(queue)], [GROUP, idle])
                self._metrics.depth(queue, *depth)
        except Away:
            self._metrics.depth_unknown()

    async def _script(self, script: str, keys: list[str], arguments: list[Any], seconds: float | None = None) -> Any:  # noqa: ANN401  # of Lua
        import redis

        try:
            return await self._redis.call(lambda redis: redis.register_script(script)(keys, arguments), seconds)
        except redis.exceptions.OutOfMemoryError:  # no room for one more job; all else goes on
            raise Away("redis is full") from None
