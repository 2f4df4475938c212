"""Bodies to instances, and probabilities to predictions: all of it decided by the model's card.

Instances are arrays (n, *shape) in the card's own scale; InputError names what does not fit.
"""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic_core
from numpy.lib import format as npy
from numpy.typing import NDArray

from .engine import Batch, Probabilities
from .model import InputSpec, ModelCard

if TYPE_CHECKING:
    from PIL import Image

Pixels = Sequence[Any]
RAW_TYPES = ("uint8", "float16", "float32", "float64")
IMAGE_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
QUARTER_TURNS = (5, 6, 7, 8)  # the EXIF orientations in which height and width are exchanged


class InputError(ValueError):
    """A body this model cannot take; the message is meant for the caller."""


class LargePicture(Exception):
    """To unpack this picture takes more memory than the caller has room for."""


# --- JSON ------------------------------------------------------------------------------------------------------------


def from_instances(spec: InputSpec, instances: Sequence[Pixels]) -> Batch:
    """Numbers as lists, each instance flat or in the shape of the card."""
    try:
        batch = np.asarray(instances, dtype=np.float64)
    except ValueError:  # one is of another shape than the first, which may be good
        batch = np.stack([_instance(spec, index, pixels) for index, pixels in enumerate(instances)])
    if not _fits(spec, batch.shape[1:]) or not _in_range(spec, batch):  # then say which
        for index, pixels in enumerate(instances):
            _check_range(spec, _instance(spec, index, pixels), f"instances.{index}")
    return batch.reshape(-1, *spec.shape).astype(np.float32)


def _instance(spec: InputSpec, index: int, pixels: Pixels) -> NDArray[np.float64]:
    try:
        image = np.asarray(pixels, dtype=np.float64)
    except ValueError:
        raise InputError(f"instances.{index}: the rows are not all of the same length") from None
    if not _fits(spec, image.shape):
        size, shape = math.prod(spec.shape), by(spec.shape)
        raise InputError(f"instances.{index}: {size} or {shape} numbers expected, got {by(image.shape)}")
    return image.reshape(spec.shape)


def _fits(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    return shape in ((math.prod(spec.shape),), tuple(spec.shape))


# --- raw tensors -----------------------------------------------------------------------------------------------------


def from_tensor(spec: InputSpec, tensor: NDArray[Any]) -> Batch:
    """One instance, or several along the first axis."""
    shape = tuple(spec.shape)
    if tensor.shape == shape:
        tensor = tensor[np.newaxis]
    if tensor.shape[1:] != shape or not len(tensor):
        raise InputError(f"tensor: {by(shape)} or n x {by(shape)} numbers expected, got {by(tensor.shape)}")
    if tensor.dtype != np.uint8 or (spec.minimum, spec.maximum) != (0, 255):
        _check_range(spec, tensor, "tensor")
    return tensor.astype(np.float32) if tensor.dtype == np.float64 else tensor


def read_npy(body: bytes) -> NDArray[Any]:
    """The array of an .npy file, without a copy; nothing is unpickled, and no byte allocated that was not sent."""
    try:
        start = npy.MAGIC_LEN + 2 + int.from_bytes(body[npy.MAGIC_LEN : npy.MAGIC_LEN + 2], "little")
        shape, fortran, dtype = _npy_header(body[:start])
        if math.prod(shape) * dtype.itemsize != len(body) - start:
            raise ValueError("its length is not that of its shape")
        return np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    except InputError:
        raise
    except Exception as error:  # a hostile header makes numpy raise errors of the tokenizer, of recursion, and others
        raise InputError(f"not an .npy file of version 1.0: {' '.join(str(error).split())[:200]}") from None


@lru_cache(maxsize=64)  # clients send the same header again and again; reading one takes longer than all the rest
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    file = io.BytesIO(header)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("another version")
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if dtype.name not in RAW_TYPES:
        raise InputError(f"tensor: one of {', '.join(RAW_TYPES)} expected, got {dtype.name}")
    if any(size < 0 for size in shape):
        raise ValueError("a negative size")
    return shape, fortran, dtype


def read_safetensors(body: bytes) -> NDArray[Any]:
    """The one tensor of a safetensors file, whatever its name."""
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(body)
    except Exception as error:  # the package raises its own, KeyError for a type numpy lacks, and others
        raise InputError(f"not a safetensors file: {' '.join(str(error).split())[:200]}") from None
    if len(tensors) != 1:
        raise InputError(f"one tensor expected, got {len(tensors)}")
    (tensor,) = tensors.values()
    if tensor.dtype.name not in RAW_TYPES:
        raise InputError(f"tensor: one of {', '.join(RAW_TYPES)} expected, got {tensor.dtype.name}")
    return tensor


# --- images ----------------------------------------------------------------------------------------------------------


def from_image(spec: InputSpec, body: bytes, media_type: str, most_pixels: int, room: int | None = None) -> Batch:
    """One instance: the picture as a viewer shows it, in the card's size and colours, black as its minimum and white as
    its maximum.

    Its size is read from the header and refused before anything is unpacked. LargePicture, also before that, if more
    than `room` pixels would be in memory at once, with 8 bytes each: 4 as sent, and 4 in the model's colours.
    """
    from PIL import Image

    *channels, height, width = spec.shape
    if channels not in ([], [1], [3]):
        raise InputError(f"this model takes no images: it has {channels[0]} channels")
    try:
        with Image.open(io.BytesIO(body), formats=[IMAGE_FORMATS[media_type]]) as image:
            if image.width * image.height > most_pixels:
                raise InputError(f"image: at most {most_pixels} pixels, got {image.width}x{image.height}")
            plain = _plain(image, "RGB" if channels == [3] else "L", (width, height), room)
    except (InputError, LargePicture):
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise InputError(f"image: cannot be read as {media_type}: {type(error).__name__}") from None
    values = np.asarray(plain)
    values = np.moveaxis(values, -1, 0) if channels == [3] else values.reshape(spec.shape)
    if (spec.minimum, spec.maximum) == (0, 255):
        return values[np.newaxis]
    scaled = spec.minimum + values.astype(np.float32) / np.float32(255) * np.float32(spec.maximum - spec.minimum)
    return scaled[np.newaxis]


def _plain(image: "Image.Image", mode: str, size: tuple[int, int], room: int | None) -> "Image.Image":
    """A picture the way up that its EXIF data say, with 8 bits a channel and without transparency, in this size."""
    from PIL import Image, ImageOps

    shrinks = image.format == "JPEG" and not image.info.get("progressive")  # that one is in memory as a whole first
    if not shrinks:
        _check_room(image, room)  # already to ask for the orientation unpacks a PNG
    size = size[::-1] if _orientation(image) in QUARTER_TURNS else size
    image.draft(None, size)  # JPEG unpacks to half, a quarter or an eighth for next to nothing
    if shrinks:
        _check_room(image, room)
    if image.has_transparency_data and _is_transparent(image):
        raise InputError("image: it has transparent pixels, whose colour nobody knows: send it without transparency")
    if image.mode.startswith("I"):  # grey with 16 bits, which convert() alone would cut off at 255
        image = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    small = image.convert(mode).resize(size, Image.Resampling.BILINEAR)
    return ImageOps.exif_transpose(small)


def _check_room(image: "Image.Image", room: int | None) -> None:
    if room is not None and image.width * image.height > room:
        raise LargePicture


def _is_transparent(image: "Image.Image") -> bool:
    alpha = (image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A")
    return bool(alpha.getextrema()[0] != 255)


def _orientation(image: "Image.Image") -> int:
    """The EXIF tag Orientation, 1 to 8; 1, upright, where it is missing or cannot be read, as viewers take it."""
    from PIL import ExifTags

    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata make Pillow raise nearly anything
        image.info.pop("exif", None)
        return 1


# --- answers ---------------------------------------------------------------------------------------------------------


def labels_of(card: ModelCard, probabilities: Probabilities) -> list[int | str]:
    """The likeliest label of every instance."""
    return [card.labels[index] for index in probabilities.argmax(axis=1).tolist()]


def to_json(card: ModelCard, probabilities: Probabilities, labels: Sequence[int | str]) -> bytes:
    """A PredictResponse, built by hand: validating a thousand numbers for each image takes longer than computing."""
    rows: Any = probabilities.tolist()
    predictions = [
        {"label": label, "probability": max(row), "probabilities": row} for label, row in zip(labels, rows, strict=True)
    ]
    return pydantic_core.to_json({"predictions": predictions, "model": {"name": card.name, "version": card.version}})


def _check_range(spec: InputSpec, values: NDArray[Any], what: str) -> None:
    if not _in_range(spec, values):
        raise InputError(f"{what}: numbers must be between {spec.minimum:g} and {spec.maximum:g}")


def _in_range(spec: InputSpec, values: NDArray[Any]) -> bool:
    return bool(values.min() >= spec.minimum and values.max() <= spec.maximum)  # false of NaN


def by(shape: Sequence[int]) -> str:
    """The shape as people write it: 3x224x224."""
    return "x".join(str(size) for size in shape) or "a single number"
