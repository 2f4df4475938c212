# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stands in for an S3 store that is slow: lists what is in /model, and hands it out at RATE bytes a second. Runs in a pod of its own, in
the inference service's image. Signatures are not looked at.
"""
from __future__ import annotations

import hashlib
import http.server
import os
import pathlib
import time
import urllib.parse

PACKAGE, RATE, PORT = pathlib.Path("/model"), int(os.environ["RATE"]), 9000
PARTS_PER_SECOND = 10


def listing(prefix: str) -> bytes:
    files = [file for file in sorted(PACKAGE.iterdir()) if file.is_file()]
    entries = "".join(f"<Contents><Key>{prefix}{file.name}</Key><Size>{file.stat().st_size}</Size><ETag>{tag(file)}</ETag></Contents>" for file in files)
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


def tag(file: pathlib.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:32]


class Bucket(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # pylint: disable=invalid-name
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        file = PACKAGE / pathlib.PurePosixPath(url.path).name
        if query.get("list-type") == "2":
            self._answer(listing(query.get("prefix", "")), "application/xml", slowly=False)
        elif file.is_file():
            self._answer(file.read_bytes(), "application/octet-stream", slowly=True)
        else:
            self.send_error(404)

    def _answer(self, body: bytes, kind: str, slowly: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        part = max(1, RATE // PARTS_PER_SECOND) if slowly else len(body)
        for start in range(0, len(body), part):
            self.wfile.write(body[start : start + part])
            if slowly:
                time.sleep(1 / PARTS_PER_SECOND)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", PORT), Bucket).serve_forever()
