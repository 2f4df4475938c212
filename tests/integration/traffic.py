# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client that calls the deployed service all along, so that a failed request cannot hide."""
from __future__ import annotations

import collections
import json
import threading
import time
import typing as t

import httpx
from cluster import CACHE, URL

PAUSE = 0.04  # seconds between two requests of one thread: a steady load, not a stress test
MOST = 600.0  # seconds after which a forgotten client ends by itself


def samples(version: str = "1.0.0") -> dict:
    """{instances, labels} of the digits that were held out when the model was trained."""
    return json.loads((CACHE / "kind" / f"samples-{version}.json").read_text(encoding="utf-8"))


def predict(client: httpx.Client, instances: list) -> dict:
    answer = client.post(f"{URL}/v1/predict", json={"instances": instances})
    answer.raise_for_status()
    return answer.json()


class Traffic:
    """Calls `/v1/predict` from several threads while the block runs: some keep their connection, some never do."""

    def __init__(self, kept: int = 3, fresh: int = 2) -> None:
        self.answers: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._stop, self._instance = threading.Event(), samples()["instances"][0]
        self._threads = [threading.Thread(target=self._call, args=(n < kept,), daemon=True) for n in range(kept + fresh)]

    def __enter__(self) -> t.Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        time.sleep(2)  # the old pods are still draining when a release is done: they must not lose requests either
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _call(self, keep: bool) -> None:
        ends = time.monotonic() + MOST
        client = httpx.Client(timeout=20)
        while not self._stop.is_set() and time.monotonic() < ends:
            try:
                self.answers[predict(client, [self._instance])["model"]["version"]] += 1
            except (httpx.HTTPError, KeyError, ValueError) as exc:
                self.failures.append(f"{time.strftime('%X')} {'kept' if keep else 'fresh'}: {type(exc).__name__}: {exc}")
            if not keep:
                client.close()
                client = httpx.Client(timeout=20)
            time.sleep(PAUSE)

    @property
    def sent(self) -> int:
        return sum(self.answers.values()) + len(self.failures)
