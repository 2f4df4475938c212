# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hands out the package in /model as an archive, by TLS. Runs in a pod of its own, in the inference service's image."""
from __future__ import annotations

import http.server
import io
import pathlib
import ssl
import tarfile

PORT, KEYS = 8443, pathlib.Path("/tls")


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for file in sorted(pathlib.Path("/model").iterdir()):
            tar.add(file, arcname=file.name)
    return packed.getvalue()


class Archive(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # pylint: disable=invalid-name
        body = archive()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("", PORT), Archive)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(KEYS / "tls.crt", KEYS / "tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
