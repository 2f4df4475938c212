"""Raw tensors and images: what they become, and that hostile ones become one clear problem."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from checks import check
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import save
from stub import StubEngine, digit

from genai_inference import codec
from genai_inference.model import InputSpec

GREY = InputSpec(shape=[8, 8], minimum=0.0, maximum=16.0)
COLOUR = InputSpec(shape=[3, 4, 6], minimum=0.0, maximum=255.0)
NPY, SAFETENSORS, PNG, JPEG = "application/x-npy", "application/x-safetensors", "image/png", "image/jpeg"
SEVEN = np.array(digit(7)).reshape(8, 8)


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:  # noqa: ANN401
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    """An .npy file whose header is this text."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


def picture(values: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and is a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\x00" * 4096)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


# --- JSON ------------------------------------------------------------------------------------------------------------

FORMS = {"flat": [digit(7)] * 3, "rows": [SEVEN.tolist()] * 3, "both": [digit(7), SEVEN.tolist(), digit(7)]}


@pytest.mark.parametrize("instances", FORMS.values(), ids=FORMS)
def test_lists_of_numbers(instances: list[Any]) -> None:
    batch = codec.from_instances(GREY, instances)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, np.stack([SEVEN] * 3))


LATER = {
    "too large": [0] * 63 + [17],
    "no number": [0] * 63 + [float("nan")],
    "too short": [0] * 63,
    "rows": [[0] * 8] * 7,
}


@pytest.mark.parametrize("fault", LATER.values(), ids=LATER)
@pytest.mark.parametrize("good", [digit(7), SEVEN.tolist()], ids=["flat", "rows"])
def test_the_one_that_does_not_fit_is_named(good: list[Any], fault: list[Any]) -> None:
    with pytest.raises(codec.InputError, match=r"^instances\.1: "):
        codec.from_instances(GREY, [good, fault, good])


def test_formats_mean_the_same(client: TestClient) -> None:
    expected = client.post("/v1/predict", json={"instances": [digit(7)]}).json()
    bodies = [(NPY, npy(SEVEN.astype(kind))) for kind in codec.RAW_TYPES]
    bodies += [(NPY, npy(SEVEN[np.newaxis])), (NPY, npy(np.asfortranarray(SEVEN)))]
    bodies += [(SAFETENSORS, save({"x": SEVEN.astype(np.float32)}))]
    bodies += [(PNG, picture((SEVEN * 255 / 16).astype(np.uint8)))]
    for kind, body in bodies:
        answer = client.post("/v1/predict", content=body, headers={"content-type": kind})
        assert answer.json() == expected, kind


def test_several_instances_in_one_tensor(client: TestClient, engine: StubEngine) -> None:
    tensor = np.array([digit(n) for n in (3, 1, 4)], dtype=np.uint8).reshape(3, 8, 8)
    answer = client.post("/v1/predict", content=npy(tensor), headers={"content-type": NPY}).json()
    assert [prediction["label"] for prediction in answer["predictions"]] == [3, 1, 4]
    assert engine.batches[-1] == 3


def test_a_raw_tensor_is_not_copied() -> None:
    body = npy(np.zeros((2, 3, 4, 6), dtype=np.uint8))
    batch = codec.from_tensor(COLOUR, codec.read_npy(body))
    assert (batch.dtype, batch.shape, batch.flags.owndata) == (np.uint8, (2, 3, 4, 6), False)


def test_an_image_is_scaled_to_the_model() -> None:
    red = np.zeros((40, 60, 3), dtype=np.uint8)
    red[:, :, 0] = 255
    for kind, media_type in (("PNG", PNG), ("JPEG", JPEG)):
        batch = codec.from_image(COLOUR, picture(red, kind), media_type, 10_000)
        assert batch.shape == (1, 3, 4, 6)
        assert batch[0, 0].min() >= 250
        assert batch[0, 1:].max() <= 5
    white = np.full((5, 5), 255, dtype=np.uint8)
    assert codec.from_image(GREY, picture(white), PNG, 10_000).tolist() == np.full((1, 8, 8), 16).tolist()


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RAMP = Image.fromarray(np.linspace(0, 255, 48, dtype=np.uint8).repeat(64).reshape(48, 64))  # dark above, light below
TWO = RAMP.point(lambda value: 255 * (value > 127))
RAINBOW = Image.merge("RGB", (RAMP, RAMP.transpose(Image.Transpose.FLIP_TOP_BOTTOM), RAMP))


TURN = Image.Transpose
WAYS = {  # by orientation: from what is shown to what is stored
    2: TURN.FLIP_LEFT_RIGHT,
    3: TURN.ROTATE_180,
    4: TURN.FLIP_TOP_BOTTOM,
    5: TURN.TRANSPOSE,
    6: TURN.ROTATE_90,
    7: TURN.TRANSVERSE,
    8: TURN.ROTATE_270,
}
SIX = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def turned(orientation: int, exif: bytes = b"") -> bytes:
    """A JPEG whose pixels lie as a sensor had them, with the tag that turns them for a viewer."""
    data, image = Image.Exif(), RAINBOW
    data[0x0112] = orientation
    if orientation in WAYS:
        image = image.transpose(WAYS[orientation])
    return stored(image, "JPEG", quality=95, exif=exif or data)


def grey16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image, dtype=np.uint16) * 257)


def opaque(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(255)
    return image


SAME = {
    **{f"jpeg: orientation {each}": (JPEG, turned(each), RAINBOW) for each in range(1, 9)},
    "jpeg: orientation that is none": (JPEG, turned(9), RAINBOW),
    "jpeg: damaged EXIF data": (JPEG, turned(1, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40), RAINBOW),
    "png: orientation 6": (PNG, stored(RAINBOW.transpose(TURN.ROTATE_90), exif=SIX), RAINBOW),
    "png: 16 bits of grey": (PNG, stored(grey16(RAMP)), RAMP),
    "png: an alpha channel that hides nothing": (PNG, stored(opaque(RAINBOW)), RAINBOW),
    "png: grey and alpha": (PNG, stored(opaque(RAMP)), RAMP),
    "png: a palette": (PNG, stored(RAMP.convert("P")), RAMP),
    "png: one bit": (PNG, stored(TWO.convert("1")), TWO),
    "jpeg: CMYK": (JPEG, stored(RAINBOW.convert("CMYK"), "JPEG", quality=95), RAINBOW),
    "jpeg: progressive": (JPEG, stored(RAINBOW, "JPEG", quality=95, progressive=True), RAINBOW),
}


@pytest.mark.parametrize(("media_type", "body", "plain"), SAME.values(), ids=SAME)
@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_picture_is_what_a_viewer_shows(spec: InputSpec, media_type: str, body: bytes, plain: Image.Image) -> None:
    expected = codec.from_image(spec, stored(plain), PNG, 10_000).astype(np.float64)
    found = codec.from_image(spec, body, media_type, 10_000).astype(np.float64)
    assert abs(found - expected).max() <= 0.03 * (spec.maximum - spec.minimum)


def tinted(hidden: int) -> Image.Image:
    image = Image.new("LA", (8, 8), (hidden, 0))
    image.paste((255, 255), (0, 0, 4, 8))
    return image


HIDDEN = {
    "grey": stored(tinted(0)),
    "grey, white below": stored(tinted(255)),
    "colour": stored(tinted(7).convert("RGBA")),
    "half": stored(Image.new("RGBA", (8, 8), (1, 2, 3, 254))),
    "a palette": stored(Image.new("P", (8, 8)), transparency=0),
    "one colour": stored(Image.new("RGB", (8, 8)), transparency=(0, 0, 0)),
}


@pytest.mark.parametrize("body", HIDDEN.values(), ids=HIDDEN)
def test_pixels_that_nobody_sees_are_no_input(body: bytes) -> None:
    with pytest.raises(codec.InputError, match="image: it has transparent pixels"):
        codec.from_image(COLOUR, body, PNG, 10_000)


def test_a_picture_too_large_for_the_room_is_not_unpacked() -> None:
    many = RAINBOW.resize((640, 480))
    for body, kind, pixels in (
        (stored(RAINBOW), PNG, 64 * 48),
        (stored(many, "JPEG"), JPEG, 80 * 60),  # of which an eighth is enough for this model
        (stored(many, "JPEG", progressive=True), JPEG, 640 * 480),
    ):
        codec.from_image(COLOUR, body, kind, 10**6, pixels)
        with pytest.raises(codec.LargePicture):
            codec.from_image(COLOUR, body[: len(body) // 2], kind, 10**6, pixels - 1)


BAD = {
    "npy: empty": (NPY, b"", 422, "not an .npy file"),
    "npy: text": (NPY, b"hello", 422, "not an .npy file"),
    "npy: cut off": (NPY, npy(SEVEN)[:-1], 422, "its length is not that of its shape"),
    "npy: too long": (NPY, npy(SEVEN) + b"\0", 422, "its length is not that of its shape"),
    "npy: pickle": (NPY, npy(np.array([{}]), allow_pickle=True), 422, "tensor: one of uint8, "),
    "npy: text inside": (NPY, npy(np.array(["a"])), 422, "tensor: one of uint8, "),
    "npy: a structure": (NPY, npy(np.zeros(2, dtype=[("a", "f4")])), 422, "tensor: one of uint8, "),
    "npy: terabytes": (
        NPY,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8, 8), }\n"),
        422,
        "its length is not that of its shape",
    ),
    "npy: overflow": (
        NPY,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 8, 8), }\n"),
        422,
        "its length is not that of its shape",
    ),
    "npy: negative": (NPY, header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -64), }\n"), 422, "negative"),
    "npy: no tuple": (NPY, header("{'descr': '<f4', 'fortran_order': False, 'shape': 64, }\n"), 422, "not an .npy"),
    "npy: true in the shape": (
        NPY,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8, 8), }\n", bytes(256)),
        422,
        "not an .npy file",
    ),
    "npy: nested": (NPY, header("(" * 9000), 422, "not an .npy file"),
    "npy: code": (NPY, header("__import__('os').getpid()\n"), 422, "not an .npy file"),
    "npy: another shape": (NPY, npy(np.zeros((2, 7, 8))), 422, "tensor: 8x8 or n x 8x8 numbers expected, got 2x7x8"),
    "npy: none": (NPY, npy(np.zeros((0, 8, 8))), 422, "tensor: 8x8 or n x 8x8 numbers expected, got 0x8x8"),
    "npy: a number": (NPY, npy(np.zeros(())), 422, "tensor: 8x8 or n x 8x8 numbers expected, got a single number"),
    "npy: NaN": (NPY, npy(np.full((8, 8), np.nan)), 422, "tensor: numbers must be between 0 and 16"),
    "npy: infinite": (NPY, npy(np.full((8, 8), -np.inf)), 422, "tensor: numbers must be between 0 and 16"),
    "npy: too dark": (NPY, npy(SEVEN + 1), 422, "tensor: numbers must be between 0 and 16"),
    "npy: 33": (NPY, npy(np.zeros((33, 8, 8), dtype=np.uint8)), 422, "tensor: at most 32 at once, got 33"),
    "safetensors: empty": (SAFETENSORS, b"", 422, "not a safetensors file"),
    "safetensors: a header of exabytes": (SAFETENSORS, b"\xff" * 8 + b"{}", 422, "not a safetensors file"),
    "safetensors: two": (SAFETENSORS, save({"a": SEVEN, "b": SEVEN}), 422, "one tensor expected, got 2"),
    "safetensors: integers": (SAFETENSORS, save({"a": SEVEN.astype(np.int64)}), 422, "tensor: one of uint8, "),
    "png: empty": (PNG, b"", 422, "image: cannot be read as image/png"),
    "png: is a jpeg": (PNG, picture(SEVEN.astype(np.uint8), "JPEG"), 422, "image: cannot be read as image/png"),
    "png: cut off": (PNG, picture(SEVEN.astype(np.uint8))[:-30], 422, "image: cannot be read as image/png"),
    "png: a bomb": (PNG, bomb(30_000, 30_000), 422, "image: "),
    "png: no pixels": (PNG, bomb(0, 0), 422, "image: cannot be read as image/png"),
    "png: fewer data than pixels": (PNG, bomb(2000, 2000), 422, "image: cannot be read as image/png"),
    "jpeg: text": (JPEG, b"hello", 422, "image: cannot be read as image/jpeg"),
    "gif": ("image/gif", b"GIF89a", 415, "Content-Type must be one of application/json, "),
    "pickle": ("application/octet-stream", b"\x80\x04N.", 415, "Content-Type must be one of "),
}


@pytest.mark.parametrize(("kind", "body", "status", "detail"), BAD.values(), ids=BAD)
def test_bad_body(client: TestClient, kind: str, body: bytes, status: int, detail: str) -> None:
    answer = client.post("/v1/predict", content=body, headers={"content-type": kind})
    check(answer, status, detail)


def test_the_size_of_an_image_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(codec.InputError, match="image: at most 100 pixels, got 11x10"):
        codec.from_image(GREY, bomb(11, 10), PNG, 100)


def test_every_cut_of_a_good_file_is_one_problem() -> None:
    for good, read in (
        (npy(SEVEN), codec.read_npy),
        (save({"a": SEVEN}), codec.read_safetensors),
        (picture(SEVEN.astype(np.uint8)), lambda body: codec.from_image(GREY, body, PNG, 100)),
    ):
        for end in range(len(good) - 20):
            with pytest.raises(codec.InputError):
                read(good[:end])  # type: ignore[no-untyped-call]
