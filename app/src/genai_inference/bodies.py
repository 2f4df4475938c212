"""The body of a request, by its Content-Type, to instances of a model."""

from collections.abc import Callable
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
MEDIA_TYPES = ("application/json", *TENSORS, *IMAGES)


def media_type(content_type: str, encoding: str) -> str:
    """The Content-Type without its parameters; 415 if it is none of ours."""
    found = content_type.partition(";")[0].strip().lower()
    if found not in MEDIA_TYPES:
        raise HTTPException(415, f"Content-Type must be one of {', '.join(MEDIA_TYPES)}.")
    if encoding.lower() != "identity":
        raise HTTPException(415, "A compressed body is not accepted.")
    return found


def to_batch(spec: InputSpec, kind: str, body: bytes, most_items: int, most_pixels: int) -> Batch:
    """Instances (n, *shape), at most `most_items`; HTTPException or InputError says what is wrong with the body."""
    if kind in IMAGES:
        return codec.from_image(spec, body, kind, most_pixels)
    if kind in TENSORS:
        batch = codec.from_tensor(spec, TENSORS[kind](body))
        _check_count("tensor", len(batch), most_items)
        return batch
    try:
        instances = PredictRequest.model_validate_json(body.removeprefix(BOM)).instances
    except ValidationError as error:
        raise invalid(error.errors()[0]) from None
    _check_count("instances", len(instances), most_items)
    return codec.from_instances(spec, instances)


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise HTTPException(422, f"{what}: at most {most} at once, got {count}")
