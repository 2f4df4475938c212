# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The least that patching a set of objects can cost from Python: in a loop, 16 at a time, and nothing else.

    floor.py KUBECONFIG MANIFESTS.json             by server-side apply; prints {"seconds", "requests"}
    floor.py KUBECONFIG MANIFESTS.json --merge     by merge patch
"""
from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
import pathlib
import ssl
import sys
import threading
import time
import urllib.parse

WORKERS = 16
PLURALS = {"NetworkPolicy": "networkpolicies"}
HEADERS = {"Accept": "application/json", "User-Agent": "genai-bench-floor"}
# (content type, query)
APPLY = ("application/apply-patch+yaml", "fieldManager=genai-bench-floor&force=false")
MERGE = ("application/merge-patch+json", "fieldManager=genai-bench-floor")


class Server:
    """Kept-alive connections to one API server, one for each thread."""

    def __init__(self, kubeconfig: dict, content_type: str) -> None:
        cluster = kubeconfig["clusters"][0]["cluster"]
        self._netloc = urllib.parse.urlsplit(cluster["server"]).netloc
        self._context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._headers = {**HEADERS, "Content-Type": content_type, "Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
        self._local = threading.local()

    def patch(self, request: tuple[str, bytes]) -> None:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(self._netloc, context=self._context, timeout=60)
        path, body = request
        self._local.connection.request("PATCH", path, body=body, headers=self._headers)
        response = self._local.connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{path}: {answer.decode()}")


def as_request(manifest: dict, query: str) -> tuple[str, bytes]:
    group, meta, plural = manifest["apiVersion"], manifest["metadata"], PLURALS.get(manifest["kind"], f"{manifest['kind'].lower()}s")
    space = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    path = f"/{'apis' if '/' in group else 'api'}/{group}{space}/{plural}/{meta['name']}?{query}"
    return path, json.dumps(manifest).encode()


def main(kubeconfig: str, file: str, *options: str) -> None:
    content_type, query = MERGE if "--merge" in options else APPLY
    server = Server(json.loads(pathlib.Path(kubeconfig).read_text(encoding="utf-8")), content_type)
    manifests = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    waves = [[as_request(m, query) for m in manifests if (m["kind"] == "Namespace") is first] for first in (True, False)]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as executor:
        start = time.monotonic()
        for wave in waves:
            list(executor.map(server.patch, wave))
        print(json.dumps({"seconds": time.monotonic() - start, "requests": len(manifests)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
