"""Real server processes around the stub."""

import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from waiting import LIMIT_SECONDS, eventually

# The head of a prediction in JSON, as far as it is the same for all.
PREDICT = "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@dataclass
class Server:
    """A running serve_stub.py or work_stub.py."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path = Path(os.devnull)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self, path: str) -> int:
        return httpx.get(self.url + path, timeout=LIMIT_SECONDS).status_code

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", timeout=LIMIT_SECONDS).text

    def counted_5xx(self) -> list[str]:
        """The lines of its metrics that count requests with a status of 5xx."""
        return re.findall(r'^genai_http_requests_total\{.*status="5.*', self.metrics(), re.MULTILINE)

    def errors(self) -> list[str]:
        """The lines of its log that are errors, or not of its log at all, as a traceback that nothing caught."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if not re.match(r'\{"time": "[^"]+", "level": "(debug|info|warning)"', line)]

    def in_flight(self) -> int:
        """Requests that are being answered, without the one that asks."""
        found = re.search(r"^genai_http_requests_in_flight (\d+)", self.metrics(), re.MULTILINE)
        assert found
        return int(found[1]) - 1

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def resident(self) -> int:
        """The bytes of its process that are in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * mmap.PAGESIZE

    def most_resident(self) -> int:
        """The most bytes of its process that ever were in memory at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def becomes(self, path: str, status: int) -> None:
        eventually(lambda: self.status(path) == status, f"{path} answers {status}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self.process.wait(LIMIT_SECONDS)

    def says(self, text: str) -> bytes:
        """The whole answer to raw bytes, up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), LIMIT_SECONDS) as connection:
            connection.sendall(text.encode())
            return b"".join(iter(lambda: connection.recv(65536), b""))


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, and ends those that still run after the test."""
    with _starting(tmp_path) as run:
        yield run


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers for all tests of a module, which none of them may end."""
    with _starting(tmp_path_factory.mktemp("servers")) as run:
        yield run


@contextmanager
def _starting(folder: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def run(mode: str = "0.02", drain_seconds: float = 300, script: str = "serve_stub.py", **settings: str) -> Server:
        log = folder / f"{len(servers)}.log"
        variables = {
            "GENAI_HOST": "127.0.0.1",
            "GENAI_PORT": "0",
            "GENAI_DRAIN_SECONDS": str(drain_seconds),
            **settings,
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(("GENAI_", "OTEL_"))}
        environment = {**others, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        program = str(Path(__file__).with_name(script))
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, program, *mode.split()], env=environment, stdout=out, stderr=out
            )
        servers.append(Server(process, 0, log))
        eventually(lambda: "listening" in log.read_text() or process.poll() is not None, "listening")
        assert process.poll() is None, log.read_text()
        servers[-1].port = next(json.loads(line)["port"] for line in log.open() if '"listening"' in line)
        return servers[-1]

    try:
        yield run
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
