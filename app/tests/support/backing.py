"""Real Redis and PostgreSQL on free ports, for tests/services. Their folders go with the session."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import eventually

POSTGRES_USER = "postgres"  # PostgreSQL does not run as root


class Backing:
    """A server process that can be stopped, frozen and started again on the same port."""

    def __init__(self, command: list[str], port: int, url: str, user: str | None = None) -> None:
        self.port, self.url = port, url
        self._command, self._user = command, user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"user": self._user} if self._user and os.geteuid() == 0 else {}
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **options
        )
        eventually(self._listens, f"{self._command[0]} listens")

    def stop(self) -> None:
        """As when its pod is killed."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGINT if self._user else signal.SIGKILL)  # PostgreSQL: fast shutdown
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """As when its node is gone: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process
        for pid in [*_children(self._process.pid), self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _listens(self) -> bool:
        assert self._process and self._process.poll() is None, f"{self._command[0]} ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Backing]:
    """An empty Redis."""
    port = free_port()
    command = [_found("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = Backing(command, port, f"redis://127.0.0.1:{port}/0")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def durable_redis(tmp_path: Path) -> Iterator[Backing]:
    """An empty Redis that keeps what it has acknowledged, whatever happens to it."""
    port = free_port()
    command = [_found("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    keeping = ["--appendonly", "yes", "--appendfsync", "always"]
    server = Backing([*command, *keeping], port, f"redis://127.0.0.1:{port}/0")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Path]:
    """A new PostgreSQL cluster's folder."""
    folder = Path(tempfile.mkdtemp(prefix="genai-postgres-"))
    options = {"user": POSTGRES_USER} if os.geteuid() == 0 else {}
    if options:
        shutil.chown(folder, POSTGRES_USER)
    initdb = [_found("initdb"), "-D", str(folder / "data"), "-U", POSTGRES_USER]
    subprocess.run(
        [*initdb, "-A", "trust", "-E", "UTF8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/", **options
    )
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_server(postgres_cluster: Path) -> Iterator[Backing]:
    """A PostgreSQL with an empty database."""
    port = free_port()
    options = ["-c", "fsync=off", "-c", f"unix_socket_directories={postgres_cluster}"]
    command = [_found("postgres"), "-D", str(postgres_cluster / "data"), "-h", "127.0.0.1", "-p", str(port), *options]
    server = Backing(command, port, f"postgresql://{POSTGRES_USER}@127.0.0.1:{port}/tests", POSTGRES_USER)
    server.start()
    psql = [_found("psql"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", POSTGRES_USER, "-d", "postgres"]
    asking = [*psql, "-c", "select 1"]
    eventually(lambda: subprocess.run(asking, capture_output=True, check=False).returncode == 0, "postgres answers")
    for statement in ("drop database if exists tests with (force)", "create database tests"):
        subprocess.run([*psql, "-c", statement], check=True, stdout=subprocess.DEVNULL)
    yield server
    server.stop()


def _found(program: str) -> str:
    """Where a program is: Debian keeps PostgreSQL's in a folder for each version, which is on no PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    found = shutil.which(program, path=path)
    assert found, f"{program} is not installed"
    return found
