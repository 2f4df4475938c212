"""The body of a request, by its Content-Type, to instances of a model."""

import math
from collections.abc import Callable
from itertools import accumulate
from operator import mul
from typing import Any

from fastapi import HTTPException
from numpy.typing import NDArray
from pydantic import ValidationError

from . import codec
from .engine import Batch
from .model import InputSpec
from .problems import invalid
from .schemas import BOM, PredictRequest

NPY = "application/x-npy"
SAFETENSORS = "application/x-safetensors"
IMAGES = tuple(codec.IMAGE_FORMATS)
TENSORS: dict[str, Callable[[bytes], NDArray[Any]]] = {NPY: codec.read_npy, SAFETENSORS: codec.read_safetensors}
SPARE = 1000  # lists, and numbers, that a body may have more than the largest valid one
MEDIA_TYPES = ("application/json", *TENSORS, *IMAGES)


def media_type(content_type: str, encoding: str) -> str:
    """The Content-Type without its parameters; 415 if it is none of ours."""
    found = content_type.partition(";")[0].strip().lower()
    if found not in MEDIA_TYPES:
        raise HTTPException(415, f"Content-Type must be one of {', '.join(MEDIA_TYPES)}.")
    if encoding.lower() != "identity":
        raise HTTPException(415, "A compressed body is not accepted.")
    return found


def to_batch(
    spec: InputSpec, kind: str, body: bytes, most_items: int, most_pixels: int, room: int | None = None
) -> Batch:
    """Instances (n, *shape), at most `most_items`; HTTPException or InputError says what is wrong with the body.
    `room`: see codec.from_image.
    """
    if kind in IMAGES:
        return codec.from_image(spec, body, kind, most_pixels, room)
    if kind in TENSORS:
        batch = codec.from_tensor(spec, TENSORS[kind](body))
        _check_count("tensor", len(batch), most_items)
        return batch
    if not may_hold(spec, size_of(body), most_items):
        raise HTTPException(422, f"instances: at most {most_items} instances of {codec.by(spec.shape)} numbers at once")
    try:
        instances = PredictRequest.model_validate_json(body.removeprefix(BOM)).instances
    except ValidationError as error:
        raise invalid(error.errors()[0]) from None
    _check_count("instances", len(instances), most_items)
    return codec.from_instances(spec, instances)


def size_of(body: bytes) -> tuple[int, int]:
    """How many lists and numbers JSON has at most: counted, for parsing takes 300 times as long."""
    return body.count(b"["), body.count(b",") + 1


def may_hold(spec: InputSpec, size: tuple[int, int], most_items: int) -> bool:
    """Whether JSON of this size may be so many instances, or nearly so: then its parser has the better message. A
    megabyte of tiny lists would stop the event loop for 0.2 s, whichever thread parses it.
    """
    lists = 1 + sum(accumulate(spec.shape[:-1], mul))
    numbers = math.prod(spec.shape)
    return all(found <= most_items * each + SPARE for found, each in zip(size, (lists, numbers), strict=True))


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise HTTPException(422, f"{what}: at most {most} at once, got {count}")
