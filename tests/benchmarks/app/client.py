# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads one HTTP server of this machine, and prints what it saw as JSON.

    client.py SPEC.json       {"port", "path", "content_type", "bodies": [base64], "connections", "seconds", "rate", "warm_up"}

Without a rate every connection sends its next request when it has its answer. With one, requests are due at fixed times whether or
not earlier ones were answered, and a latency counts from the time a request was due. Requests are bytes made beforehand and of an
answer only status and length are read: the client must not be what is measured, and says itself how busy it was.
"""
from __future__ import annotations

import asyncio
import base64
import collections
import dataclasses
import json
import pathlib
import sys
import time

try:
    import uvloop
except ImportError:
    uvloop = None


OK = 200


@dataclasses.dataclass
class Load:
    """Shared by all connections: what to send, and what came back."""

    requests: list[bytes]
    measured_from: float = 0.0
    stopped: bool = False
    sent: int = 0
    latencies: list[float] = dataclasses.field(default_factory=list)
    refusals: list[float] = dataclasses.field(default_factory=list)
    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    # With a rate: the times at which requests were due that no connection has taken yet, and connections without work.
    due: collections.deque[float] = dataclasses.field(default_factory=collections.deque)
    free: collections.deque[Connection] = dataclasses.field(default_factory=collections.deque)
    paced: bool = False

    def answered(self, connection: Connection, status: int, began: float) -> None:
        now = time.perf_counter()
        if now >= self.measured_from and not self.stopped:  # whenever it began: else the last batches would not count
            self.statuses[status] += 1
            (self.latencies if status == OK else self.refusals).append(now - began)
        if self.stopped:
            return
        if not self.paced:
            connection.send(now)
        elif self.due:
            connection.send(self.due.popleft())
        else:
            self.free.append(connection)

    def next_request(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.stopped:
            self._load.statuses[0] += 1

    def send(self, began: float) -> None:
        self._began = began
        self._transport.write(self._load.next_request())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if at >= 0:
            whole = len(self._buffer) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        else:  # in chunks, the last of which is empty
            whole = self._buffer.endswith(b"0\r\n\r\n")
        if whole:
            self._buffer = b""
            self._load.answered(self, int(head[9:12]), self._began)


async def pace(load: Load, rate: float, until: float) -> None:
    due = time.perf_counter()
    while due < until:
        now = time.perf_counter()
        if due > now:
            await asyncio.sleep(due - now)
        if load.free:
            load.free.popleft().send(due)
        else:
            load.due.append(due)
        due += 1 / rate


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def run(spec: dict) -> dict:
    head = "{} {} HTTP/1.1\r\nHost: bench\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    bodies = [base64.b64decode(body) for body in spec["bodies"]] or [b""]
    method = "POST" if spec["bodies"] else "GET"
    load = Load([head.format(method, spec["path"], spec["content_type"], len(body)).encode() + body for body in bodies])
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(lambda: Connection(load), "127.0.0.1", spec["port"]))[1] for _ in range(spec["connections"])]
    start = time.perf_counter()
    load.measured_from = start + spec["warm_up"]
    until = load.measured_from + spec["seconds"]
    if spec.get("rate"):
        load.paced = True
        load.free.extend(connections)
        pacing = loop.create_task(pace(load, spec["rate"], until))
    else:
        pacing = None
        for connection in connections:
            connection.send(start)
    await asyncio.sleep(spec["warm_up"])
    busy, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(max(0.0, until - time.perf_counter()))
    busy, took = time.process_time() - busy, time.perf_counter() - began
    if pacing:
        await pacing
    load.stopped = True
    ordered = sorted(load.latencies)
    return {
        "per_second": len(ordered) / took,
        "statuses": {str(status): count for status, count in load.statuses.items()},
        **{f"p{share}": percentile(ordered, share / 100) * 1000 for share in (50, 95, 99)},
        "refused_p95": percentile(sorted(load.refusals), 0.95) * 1000,
        "client_busy": busy / took,
        "unsent": len(load.due),
    }


if __name__ == "__main__":
    if uvloop is not None:
        uvloop.install()
    print(json.dumps(asyncio.run(run(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))))))
