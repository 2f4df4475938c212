"""A real OpenID Connect issuer: an HTTP server with its configuration and its keys, which can go away and come back."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
from backing import free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "genai"
MAKERS = {
    "RS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "PS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


class Issuer:
    """Not yet listening. `keys` are what it publishes: {kid: (algorithm, private key)}. With a file to put its
    certificate in, it speaks https.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._tls = context(certificate) if certificate else None
        self.keys: dict[str, tuple[str, Any]] = {}
        self.asked: list[str] = []
        self.answer: bytes | None = None  # in place of every document
        self.elsewhere: str | None = None  # where it sends whoever asks
        self._server: ThreadingHTTPServer | None = None

    def rotate(self, kid: str, algorithm: str = "RS256") -> None:
        """Publishes another key beside the others."""
        self.keys = {**self.keys, kid: (algorithm, MAKERS[algorithm][0]())}

    def start(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                if issuer.elsewhere:
                    self.send_response(302)
                    self.send_header("Location", issuer.elsewhere)
                    self.end_headers()
                    return
                body = issuer.answer if issuer.answer is not None else json.dumps(issuer.document(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def document(self, path: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": [self.jwk(kid) for kid in self.keys] + [{"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}]}

    def jwk(self, kid: str) -> dict[str, Any]:
        algorithm, key = self.keys[kid]
        return {**json.loads(MAKERS[algorithm][1].to_jwk(key.public_key())), "kid": kid, "use": "sig"}

    def token(self, kid: str = "first", header: dict[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
        """A good one but for what is said here; a claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "shop", "iat": now, "nbf": now, "exp": now + 300, **claims}
        algorithm, key = self.keys[kid]
        payload = {name: value for name, value in usual.items() if value is not None}
        return jwt.encode(payload, key, algorithm, {"kid": kid, **(header or {})})


@contextmanager
def listening() -> Iterator[Issuer]:
    """An issuer that listens and has a key, `first`."""
    issuer = Issuer()
    issuer.rotate("first")
    issuer.start()
    yield issuer
    issuer.stop()


def context(file: Path) -> ssl.SSLContext:
    """TLS with a certificate of its own making, which it leaves in the file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8, bare = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, pkcs8, bare) + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
