"""Requests that no honest client sends: bytes for a raw socket, from a seed."""

import io
import json
import random
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import safetensors.numpy
from PIL import Image
from processes import Server
from stub import digit

JSON, NPY, SAFETENSORS, PNG = "application/json", "application/x-npy", "application/x-safetensors", "image/png"


@dataclass(frozen=True)
class Hostile:
    """What is sent. `answered`: whether it is HTTP enough for an answer to be owed."""

    kind: str
    content: bytes
    answered: bool = True


def request(body: bytes, media: str = JSON, path: str = "/v1/predict", head: str = "", method: str = "POST") -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {media}\r\n{head}"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def good() -> dict[str, bytes]:
    """A body of each kind that the stub takes."""
    image = np.asarray(digit(3), dtype=np.float32).reshape(1, 8, 8)
    npy, png = io.BytesIO(), io.BytesIO()
    np.save(npy, image)
    Image.fromarray((image[0] * 15).astype(np.uint8)).save(png, "PNG")
    rows = json.dumps({"instances": [digit(3), digit(4)]}).encode()
    tensor = safetensors.numpy.save({"image": image})
    return {JSON: rows, NPY: npy.getvalue(), SAFETENSORS: tensor, PNG: png.getvalue()}


GOOD = good()


def truncated(random: random.Random) -> Hostile:
    """Its sender closes before all of the body is there."""
    media, body = random.choice(list(GOOD.items()))
    whole = request(body, media)
    return Hostile("truncated body", whole[: len(whole) - random.randint(1, len(body))], answered=False)


def damaged(random: random.Random) -> Hostile:
    media, body = random.choice(list(GOOD.items()))
    changed = bytearray(body)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return Hostile("damaged body", request(bytes(changed[: random.randint(1, len(changed))]), media))


def another_kind(random: random.Random) -> Hostile:
    body = random.choice(list(GOOD.values()))
    media = random.choice(
        [*GOOD, "image/jpeg", "text/plain", "", "multipart/form-data; boundary=x", "application/json; charset=utf-16"]
    )
    return Hostile("body of another kind", request(body, media))


_JSON = (
    "NaN",
    "[NaN]",
    "Infinity",
    "-1e999",
    "1e400",
    "null",
    "true",
    '"x"',
    "[]",
    "{}",
    "[[]]",
    "[[[]]]",
    "[[[[]]]]",
    "[" * 3000 + "]" * 3000,
    "[" * 100_000,
    '{"a":' * 5000,
    "9" * 5000,
    "[" + "9" * 400 + "]",
    '[["1"]]',
    "[[1,2],[3]]",
    "[1e308,1e308]",
    '"\\ud800"',
    "[false]",
    "[17]",
    "[-1]",
    json.dumps([[0.0] * 64] * 33),
    json.dumps([0.0] * 63),
    json.dumps([[[0.0] * 8] * 8] * 2),
    "0" * 70_000,
)


def wrong_numbers(random: random.Random) -> Hostile:
    value = random.choice(_JSON)
    body = random.choice(
        [
            '{"instances": %s}',
            '{"instances": [%s]}',
            "%s",
            '{"instances": [%s], "instances": [%s]}',
            '{"instances": [%s], "x": 1}',
        ]
    )
    return Hostile("wrong numbers", request(body.replace("%s", value).encode()))


def lying_header(random: random.Random) -> Hostile:
    """A file that says of itself what is not so: a size, a type, objects to unpickle."""
    shape = random.choice(
        [
            "(1000000000, 8, 8)",
            "(-1, 8, 8)",
            "(1, 8, 8, 8, 8)",
            "()",
            "(8,)",
            "(2**70,)",
            "(1, 8, 8" + ", 1" * 200 + ")",
        ]
    )
    dtype = random.choice(["<f4", "|O", "<U100000000", "<c16", "|V1000000", "[('a', '<f4')]", "' + 'x" * 50])
    header = f"{{'descr': '{dtype}', 'fortran_order': {random.choice(['True', 'False', '1/0'])}, 'shape': {shape}, }}".encode()
    npy = (
        b"\x93NUMPY" + bytes([random.choice([1, 2, 3, 255]), 0]) + struct.pack("<H", len(header)) + header + bytes(256)
    )
    size = random.choice([2**63 - 1, 2**64 - 1, 100_000_000, 0, 8])
    tensor = {
        "image": {"dtype": random.choice(["F32", "F64", "BOOL", "X"]), "shape": [2**40, 8], "data_offsets": [0, 2**40]}
    }
    described = json.dumps(tensor).encode()
    files = {
        NPY: npy,
        SAFETENSORS: random.choice(
            [struct.pack("<Q", size) + described, struct.pack("<Q", len(described)) + described]
        ),
        PNG: bomb(random.choice([60_000, 2**31 - 1, 0])),
    }
    media, body = random.choice(list(files.items()))
    return Hostile("lying header", request(body, media))


def bomb(side: int) -> bytes:
    """A small PNG that says it is a large picture."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000), 9)) + chunk(b"IEND", b"")


_PATHS = (
    "/v1/models/../../etc/passwd:predict", "/v1/models/%2e%2e%2f:predict", "/v1/models/%00:predict", "/v1/models/:predict", "//v1/predict", "/v1/predict/",
    "/v1/models/" + "a" * 20_000, "/v1/jobs/" + "%ff" * 500, "/v1/jobs/0", "/v1/benchmarks?limit=-1", "/v1/benchmarks?limit=999999999999", "/v1/benchmarks?limit=x",
    "/metrics?x=" + "y" * 5000, "/%", "/%zz", "/page/../../../etc/passwd", "/page/%2e%2e/%2e%2e/settings.py", "/openapi.json?" + "&".join(["a"] * 2000), "*",
)  # fmt: skip


def odd_path(random: random.Random) -> Hostile:
    method = random.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW", "get"])
    return Hostile("odd path or method", request(GOOD[JSON], path=random.choice(_PATHS), method=method))


_HEADS = (
    "X-Request-Timeout-Ms: -1", "X-Request-Timeout-Ms: 1e3", "X-Request-Timeout-Ms: " + "9" * 400, "X-Request-ID: " + "a" * 5000, "X-Request-ID: \x7f\xff",
    "Content-Encoding: gzip", "Expect: 100-continue", "Range: bytes=0-", "Authorization: Bearer " + "x" * 8000, "Authorization: Bearer a.b.c",
    "Authorization: Basic =", "X-API-Key: \xff", "traceparent: 00-" + "0" * 32 + "-" + "0" * 16 + "-01", "traceparent: \xff", "Cookie: " + "a=b; " * 1000,
    "Idempotency-Key: " + "k" * 4000, "Idempotency-Key: \x01", "Cache-Control: no-store, , ,=", "If-None-Match: W/\"", "Upgrade: websocket\r\nConnection: upgrade",
)  # fmt: skip


def odd_head(random: random.Random) -> Hostile:
    heads = "".join(f"{head}\r\n" for head in random.sample(_HEADS, random.randint(1, 3)))
    return Hostile("odd head", request(GOOD[JSON], head=heads), answered=False)


_NOT_HTTP = (
    b"", b"\r\n\r\n", b"GET", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 4096,
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nA" + b"a" * 200_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
)  # fmt: skip


def not_http(random: random.Random) -> Hostile:
    return Hostile("not HTTP", random.choice(_NOT_HTTP), answered=False)


MAKERS: tuple[Callable[[random.Random], Hostile], ...] = (
    truncated, damaged, another_kind, wrong_numbers, lying_header, odd_path, odd_head, not_http,
)  # fmt: skip


def requests(count: int, seed: int) -> Iterator[Hostile]:
    """As many, of all kinds in turn."""
    source = random.Random(seed)  # noqa: S311  # not for secrets
    for number in range(count):
        yield MAKERS[number % len(MAKERS)](source)


def hang_ups(count: int, seed: int) -> Iterator[bytes]:
    """As many beginnings of valid requests: predictions in every format, and jobs, of which none is whole."""
    source = random.Random(seed)  # noqa: S311
    job = json.dumps({"input": {"instances": [digit(3)]}}).encode()
    kinds = [*((media, body, "/v1/predict") for media, body in GOOD.items()), (JSON, job, "/v1/jobs")]
    for number in range(count):
        media, body, path = kinds[number % len(kinds)]
        whole = request(body, media, path) if source.random() < 0.5 else chunked(body, media, path, source)
        ahead = source.choice([b"", b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
        yield ahead + whole[: source.randint(1, len(whole) - (path == "/v1/jobs"))]


def chunked(body: bytes, media: str, path: str, random: random.Random) -> bytes:
    """A request whose body comes in chunks."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
    size = random.randint(1, len(body))
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def files(server: Server) -> int:
    """How many files its process has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


class Honest(threading.Thread):
    """Asks for a prediction again and again; what it was answered other than rightly is kept."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.wrong: list[str] = []
        self.answered = 0
        self._server, self._done = server, threading.Event()

    def run(self) -> None:
        client = httpx.Client(base_url=self._server.url, timeout=60)
        while not self._done.wait(0.02):
            try:
                answer = client.post("/v1/predict", json={"instances": [digit(7)]})
            except httpx.HTTPError as error:
                self.wrong.append(repr(error))
                continue
            self.answered += 1
            if answer.status_code != 200 or answer.json()["predictions"][0]["label"] != 7:
                self.wrong.append(f"{answer.status_code}: {answer.text[:200]}")
        client.close()

    def stop(self) -> None:
        self._done.set()
        self.join(60)
