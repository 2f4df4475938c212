# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other ways to the same API server: as somebody with fewer rights, and through a door that can be shut."""
from __future__ import annotations

import contextlib
import pathlib
import select
import socket
import tempfile
import threading
import time
import typing as t
import urllib.parse

import cluster
import yaml
from live import until

PIECE = 1 << 16  # bytes


def _config(folder: str, **changes: dict) -> pathlib.Path:
    """The cluster's kubeconfig with another `cluster` or `user`."""
    config = yaml.safe_load(cluster.KUBECONFIG.read_text(encoding="utf-8"))
    for name, change in changes.items():
        config[f"{name}s"][0][name] = {**config[f"{name}s"][0][name], **change} if name == "cluster" else change
    file = pathlib.Path(folder, "kubeconfig")
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    file.chmod(0o600)
    return file


@contextlib.contextmanager
def as_account(namespace: str, name: str) -> t.Iterator[pathlib.Path]:
    """A kubeconfig for a service account."""
    token = cluster.kubectl("create", "token", name, "-n", namespace, "--duration=1h").strip()
    with tempfile.TemporaryDirectory() as folder:
        yield _config(folder, user={"token": token})


class Door:
    """Carries bytes between a port of its own and the API server, and none while it is shut: connections stand still, as at a server that is paused."""

    def __enter__(self) -> Door:
        config = yaml.safe_load(cluster.KUBECONFIG.read_text(encoding="utf-8"))
        server = urllib.parse.urlsplit(config["clusters"][0]["cluster"]["server"])
        self._server = (server.hostname, server.port)
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._folder = tempfile.TemporaryDirectory()
        self.kubeconfig = _config(self._folder.name, cluster={"server": f"https://127.0.0.1:{self._listener.getsockname()[1]}"})
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._server) as server:
            other = {client: server, server: client}
            while True:
                for source in select.select([client, server], [], [])[0]:
                    piece = source.recv(PIECE)
                    if not piece:
                        return
                    self._open.wait()
                    other[source].sendall(piece)

    def close_when(self, condition: t.Callable[[], object], seconds: float) -> threading.Thread:
        """Shuts the door for a while once the condition holds."""

        def shut() -> None:
            until("the release has written a little", condition, 120)
            self._open.clear()
            time.sleep(seconds)
            self._open.set()

        thread = threading.Thread(target=shut)
        thread.start()
        return thread
