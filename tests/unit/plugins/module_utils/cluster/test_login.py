# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""User name and password, against a mock of OpenShift's OAuth server: real HTTPS and the real openshift client, but our own idea
of what the server does (challenge, code, token, its deletion). No real one can run here."""
from __future__ import annotations

import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
import urllib.parse

import pytest
from ansible_collections.genai.platform.plugins.module_utils.cluster import login as _login
from ansible_collections.genai.platform.plugins.module_utils.cluster.api import Cluster
from ansible_collections.genai.platform.plugins.module_utils.errors import ApiError, InvalidInput, Unreachable, WrongCluster
from ansible_collections.genai.platform.plugins.module_utils.module.argspec import CONNECTION, PLATFORM
from ansible_collections.genai.platform.plugins.module_utils.module.runner import Module, connect
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD, TOKEN = "ada", "lovelace-1815", "sha256~analytical"


class MockOpenShift(http.server.ThreadingHTTPServer):
    """An API server and its OAuth server at one address. `asked`: (method, path) of every request."""

    daemon_threads = True

    def __init__(self, certificate):
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.ca = str(certificate)
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.plain = False  # Kubernetes: without an OAuth server
        self.broken = False  # tokens without what a token is
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def connection(self, **other):
        return {"host": self.url, "ca_cert": self.ca, "username": USER, "password": PASSWORD, **other}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        self.server.asked.append((self.command, self.path))
        status, headers, answer = self._decide(urllib.parse.urlsplit(self.path), body)
        raw = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_DELETE = _answer

    def _decide(self, url, body):
        if url.path == "/.well-known/oauth-authorization-server":
            endpoints = {f"{each}_endpoint": f"{self.server.url}/oauth/{path}" for each, path in (("authorization", "authorize"), ("token", "token"))}
            return (403, {}, {}) if self.server.plain else (200, {}, endpoints)
        if url.path == "/oauth/authorize":
            return self._authorize(urllib.parse.parse_qs(url.query))
        if url.path == "/oauth/token":
            given = urllib.parse.parse_qs(body)
            if given["code"] != ["the-code"] or given["grant_type"] != ["authorization_code"]:
                return 400, {}, {"error": "invalid_grant"}
            self.server.tokens.add(TOKEN)
            return 200, {}, {} if self.server.broken else {"access_token": TOKEN, "expires_in": 86400, "scope": "user:full"}
        if self.headers.get("authorization") not in {f"Bearer {token}" for token in self.server.tokens}:
            return 401, {}, {"message": "Unauthorized"}
        if self.command == "DELETE":
            self.server.tokens.clear()
        return 200, {}, {"kind": "Status"}

    def _authorize(self, query):
        right = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("authorization") != f"Basic {right}" or not self.headers.get("x-csrf-token"):
            return 401, {"WWW-Authenticate": 'Basic realm="openshift"'}, {}
        assert query["client_id"] == ["openshift-challenging-client"] and query["response_type"] == ["code"]
        return 302, {"Location": f"{self.server.url}/oauth/token/implicit?code=the-code&state={query['state'][0]}"}, {}

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture(scope="module", name="certificate")
def make_certificate(tmp_path_factory):
    """Key and certificate of 127.0.0.1, signed by itself, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mock")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "mock.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(name="server")
def serve(certificate):
    running = MockOpenShift(certificate)
    yield running
    _login.log_out()
    running.shutdown()
    running.server_close()


def module(work, **rules):
    return Module(work, {**CONNECTION, **PLATFORM}, rules)


def here(server, work, **other):
    return module(work).run_in_worker(server.connection(**other), False, False, lambda _line: None)


def test_a_token_is_got_used_and_given_back(server):
    def work(call):
        cluster, _ledger = connect(call.params)
        cluster.request("GET", "/api/v1/namespaces")
        return {"open": sorted(server.tokens), "echo": cluster._client.configuration.password}

    result = here(server, work)
    assert result["open"] == [TOKEN] and server.tokens == set()
    stored = "sha256~" + base64.urlsafe_b64encode(hashlib.sha256(b"analytical").digest()).rstrip(b"=").decode()
    assert [path for method, path in server.asked if method == "DELETE"] == [f"/apis/oauth.openshift.io/v1/useroauthaccesstokens/{stored}"]
    assert PASSWORD not in str(result), "a parameter that must not be logged is taken out of every result"


def test_the_token_is_given_back_when_the_work_fails(server):
    def work(call):
        cluster, _ledger = connect(call.params)
        raise ApiError("no", 400, server=cluster.server)

    result = here(server, work)
    assert result["failed"] and server.tokens == set()
    assert TOKEN not in str(result) and PASSWORD not in str(result)


def test_a_wrong_password_is_one_clear_error(server):
    result = here(server, lambda call: {"cluster": str(connect(call.params))}, password="wrong-1815")
    assert result["msg"] == f"cannot log in to {server.url} as {USER}: the user name or the password is wrong"
    assert result["reason"] == "invalid_input" and "wrong-1815" not in str(result)


def test_kubernetes_takes_no_password(server):
    server.plain = True
    with pytest.raises(InvalidInput, match="Kubernetes itself takes no user name and password"):
        Cluster(server.connection())
    assert server.asked == [("GET", _login.DISCOVERY)], "the password has gone nowhere"


def test_another_server_than_expected_gets_no_password(server):
    with pytest.raises(WrongCluster):
        Cluster(server.connection(), "https://elsewhere:6443")
    assert server.asked == []


@pytest.mark.parametrize("better", [{"api_key": "mine"}, {"client_cert": "mock.pem", "client_key": "mock.pem"}])
def test_whoever_has_better_needs_no_login(server, better):
    files = {name: server.ca for name in better if name != "api_key"}
    Cluster(server.connection(**{**better, **files}))
    assert server.asked == []


def test_a_server_that_gives_no_token(server):
    server.broken = True
    with pytest.raises(InvalidInput, match="gave no token: KeyError 'access_token'"):
        Cluster(server.connection())


def test_a_certificate_that_is_not_trusted(server):
    with pytest.raises(Unreachable, match="cannot reach the API server"):
        Cluster({**server.connection(), "ca_cert": None, "validate_certs": True})
    assert server.asked == []


def test_a_token_that_cannot_be_given_back_ends_nothing(server):
    Cluster(server.connection())
    server.shutdown()
    server.server_close()
    _login.log_out()
    assert _login._OPEN == []
