"""Whatever a caller sends, the answer is a problem with status 4xx and a sentence that helps."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from checks import check
from fastapi import HTTPException
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzzing
from hypothesis import strategies as st
from stub import CARD, StubEngine, digit

from genai_inference import jobs
from genai_inference.bodies import to_batch
from genai_inference.model import InputSpec
from genai_inference.schemas import PredictRequest

JSON = {"content-type": "application/json"}
ONE = json.dumps({"instances": [digit(1)]}).encode()


def body(*instances: object) -> bytes:
    return json.dumps({"instances": instances}).encode()


def pixels(value: str) -> bytes:
    """A body whose last pixel is the JSON text `value`."""
    return b'{"instances": [[' + b"0," * 63 + value.encode() + b"]]}"


BAD = {
    "no body": (b"", 400, "not valid JSON"),
    "not JSON": (b"{", 400, "not valid JSON"),
    "not UTF-8": (b'{"instances": "\xff"}', 400, ""),
    "nested without end": (b"[" * 60_000, 422, "at most 32 instances"),
    "nested deeply": (b"[" * 1000, 400, "not valid JSON"),
    "a list": (b"[]", 422, ""),
    "null": (b"null", 422, ""),
    "no instances": (b"{}", 422, "instances: Field required"),
    "unknown field": (b'{"instances": [], "model": 1}', 422, ""),
    "instances is text": (b'{"instances": "7"}', 422, "instances: Input should be a valid array"),
    "instances is empty": (body(), 422, "instances: List should have at least 1 item"),
    "an instance is null": (body(None), 422, "instances.0: Input should be a valid array"),
    "an instance is empty": (body([]), 422, "instances.0: 64 or 8x8 numbers expected, got 0"),
    "one pixel short": (body(digit(1)[:-1]), 422, "instances.0: 64 or 8x8 numbers expected, got 63"),
    "second has one too many": (body(digit(1), [*digit(1), 0]), 422, "instances.1: 64 or 8x8 numbers expected, got 65"),
    "4x16": (body([[0] * 16] * 4), 422, "instances.0: 64 or 8x8 numbers expected, got 4x16"),
    "ragged rows": (body([[0] * 8] * 7 + [[0] * 7]), 422, "instances.0: the rows are not all of the same length"),
    "three levels": (body([[[0] * 8] * 8]), 422, "instances.0: 64 or 8x8 numbers expected, got 1x8x8"),
    "four levels": (body([[[[0] * 8] * 8]]), 422, "instances.0.0.0.0: Input should be a valid number"),
    "rows and numbers": (body([[0] * 8, 0]), 422, "instances.0.1: Input should be a valid array"),
    "text": (pixels('"3"'), 422, "instances.0.63: Input should be a valid number"),
    "true": (pixels("true"), 422, "instances.0.63: Input should be a valid number"),
    "null pixel": (pixels("null"), 422, "instances.0.63: Input should be a valid number"),
    "NaN": (pixels("NaN"), 422, "instances.0.63: Input should be a finite number"),
    "Infinity": (pixels("Infinity"), 422, "instances.0.63: Input should be a finite number"),
    "-Infinity": (pixels("-Infinity"), 422, "instances.0.63: Input should be a finite number"),
    "1e999": (pixels("1e999"), 422, "instances.0.63: Input should be a finite number"),
    "1e300": (pixels("1e300"), 422, "instances.0: numbers must be between 0 and 16"),
    "an integer of 400 digits": (pixels("9" * 400), 422, ""),
    "an integer of 5,000 digits": (pixels("9" * 5000), 400, ""),
    "too dark": (pixels("16.001"), 422, "instances.0: numbers must be between 0 and 16"),
    "negative": (pixels("-1"), 422, "instances.0: numbers must be between 0 and 16"),
    "33 instances": (body(*[digit(1)] * 33), 422, "instances: at most 32 at once, got 33"),
    "a lone surrogate": (b'{"instances": "\\ud800"}', 400, "not valid JSON"),
}


@pytest.mark.parametrize(("content", "status", "detail"), BAD.values(), ids=BAD)
def test_bad_body(client: TestClient, content: bytes, status: int, detail: str) -> None:
    check(client.post("/v1/predict", content=content, headers=JSON), status, detail)


# Small in bytes, and long to parse: about 200,000 lists, and as many numbers.
LONG_TO_PARSE = {
    "tiny lists": b"[1]," * 12_000,
    "empty lists": b"[]," * 20_000,
    "numbers": b"1," * 30_000,
    "lists in lists": b"[[1]]," * 10_000,
}


def never(*_: object, **__: object) -> None:
    raise AssertionError("it is parsed")


@pytest.mark.parametrize("unit", LONG_TO_PARSE.values(), ids=LONG_TO_PARSE)
def test_what_cannot_fit_is_not_parsed(client: TestClient, monkeypatch: pytest.MonkeyPatch, unit: bytes) -> None:
    """Parsing a megabyte of it stops the event loop for 0.2 s."""
    monkeypatch.setattr(PredictRequest, "model_validate_json", never)
    content = b'{"instances": [' + unit[:-1] + b"]}"
    check(client.post("/v1/predict", content=content, headers=JSON), 422, "at most 32 instances of 8x8 numbers")


def test_a_job_that_cannot_fit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.dumps([[0] * 8] * 8, separators=(",", ":"))
    largest = f'{{"input":{{"instances":[{",".join([rows] * 7000)}]}}}}'.encode()  # a megabyte of the shortest numbers
    assert len(jobs.parse(largest, [CARD]).input.instances) == 7000
    monkeypatch.setattr(jobs.JobRequest, "model_validate_json", never)
    with pytest.raises(HTTPException, match="more lists or numbers than a job of this length can have"):
        jobs.parse(b'{"input": {"instances": [' + b"[1]," * 200_000 + b"[1]]}}", [CARD])


@pytest.mark.parametrize("shape", [[8, 8], [3, 4, 5], [1, 2, 2]], ids=str)
def test_every_form_of_the_largest_body_is_parsed(shape: list[int]) -> None:
    spec, most = InputSpec(shape=shape, minimum=0.0, maximum=1.0), 1024
    image = np.zeros(shape)
    for form in (image, image.reshape(-1)):
        content = json.dumps({"instances": [form.tolist()] * most}).encode()
        assert len(to_batch(spec, "application/json", content, most, 1)) == most


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonp"},
        {**JSON, "content-encoding": "gzip"},
    ],
    ids=str,
)
def test_other_content_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    check(client.post("/v1/predict", content=ONE, headers=headers), 415, "")


def test_parameters_of_the_content_type_are_fine(client: TestClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/predict", content=ONE, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/v1", "/v2/predict", "/v1/predict/x", "/docs"])
def test_unknown_path(client: TestClient, path: str) -> None:
    check(client.get(path), 404, "Not Found")


def test_wrong_method_names_the_right_one(client: TestClient) -> None:
    response = client.get("/v1/predict")
    check(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def test_oversized_body_with_declared_length(client: TestClient) -> None:
    check(client.post("/v1/predict", content=b" " * 65537, headers=JSON), 413, "at most 65536 bytes")


def test_oversized_body_in_chunks_is_not_read_to_its_end(client: TestClient) -> None:
    check(client.post("/v1/predict", content=iter([b" " * 1024] * 65), headers=JSON), 413, "at most 65536 bytes")


def test_body_in_chunks_up_to_the_limit(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b" " * (65536 - len(ONE))
        yield from (ONE[at : at + 7] for at in range(0, len(ONE), 7))

    assert client.post("/v1/predict", content=chunks(), headers=JSON).status_code == 200


def test_an_error_of_the_engine_is_a_500_without_details(client: TestClient, engine: StubEngine) -> None:
    engine.error = ZeroDivisionError()
    check(client.post("/v1/predict", content=ONE, headers=JSON), 500, "Unexpected error; see the log.")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=70,
)


@fuzzing(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=ANY_JSON)
def test_no_json_makes_a_500(client: TestClient, instances: object) -> None:
    content = json.dumps({"instances": instances}).encode()
    check(client.post("/v1/predict", content=content, headers=JSON), 422, "")
