# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes client without its slow half: each test in a process of its own, because an import happens once."""
from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import sys

import pytest

BEGIN = """
import json, os, pathlib, sys
from ansible_collections.genai.platform.plugins.module_utils.cluster import client as _client
def models():
    return sum(1 for name in sys.modules if name.startswith("kubernetes.client.models."))
def headers(client):
    # As the client itself does it; the method that it does it with differs from version to version.
    return {found["key"]: found["value"] for found in client.configuration.auth_settings().values()}
given = json.loads(sys.argv[1])
"""
TOKEN = """
client = _client.api_client(given, 16)
print(json.dumps({"host": client.configuration.host, "authorization": headers(client).get("authorization"), "models": models()}))
"""


def run(code: str, given: object = None, **environment: str) -> dict:
    """What the code prints last, as JSON. Nothing of the environment but what is given may lead to a cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("K8S_AUTH_", "KUBE"))}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, json.dumps(given)], capture_output=True, text=True, check=False, timeout=60,
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kubeconfig(user: dict) -> dict:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "one",
        "clusters": [{"name": "one", "cluster": {"server": "https://one:6443"}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "users": [{"name": "one", "user": user}],
    }


EXEC = {
    "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "sh",
    "args": ["-c", """echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t-3"}}'"""],
}


@pytest.mark.parametrize(
    ("given", "environment", "host", "authorization"),
    [
        ({"host": "https://two:6443/", "api_key": "t-1"}, {}, "https://two:6443", "Bearer t-1"),
        ({}, {"K8S_AUTH_HOST": "https://three", "K8S_AUTH_API_KEY": "t-2"}, "https://three", "Bearer t-2"),
        ({"kubeconfig": kubeconfig({"token": "t-4"})}, {}, "https://one:6443", "Bearer t-4"),
        ({"kubeconfig": kubeconfig({"exec": EXEC})}, {}, "https://one:6443", "Bearer t-3"),
        ({"kubeconfig": kubeconfig({"token": "t-4"}), "context": "one", "host": "https://four"}, {}, "https://four", "Bearer t-4"),
    ],
)
def test_ways_to_authenticate_load_no_models(given, environment, host, authorization):
    assert run(TOKEN, given, **environment) == {"host": host, "authorization": authorization, "models": 0}


def test_certificates_and_proxy():
    certificate, key = "a certificate", "a key"
    encoded = {"client-certificate-data": base64.b64encode(certificate.encode()).decode(), "client-key-data": base64.b64encode(key.encode()).decode()}
    code = """
import kubernetes.client.rest
kubernetes.client.rest.RESTClientObject.__init__ = lambda self, *_args: setattr(self, 'pool_manager', None)  # it would read these
found = _client.api_client(given, 16).configuration
read = [pathlib.Path(path).read_text() for path in (found.cert_file, found.key_file)]
print(json.dumps([*read, found.proxy, found.verify_ssl, found.connection_pool_maxsize]))
"""
    # The client is imported by the first line, so this is the usual way; the quick one is below, with the same code after it.
    for first in ("", "_client._imported()\n"):
        given = {"kubeconfig": kubeconfig(encoded), "proxy": "http://proxy:3128", "validate_certs": False}
        assert run(first + code, given) == [certificate, key, "http://proxy:3128", False, 24]


def test_in_a_cluster(tmp_path: pathlib.Path):
    (tmp_path / "token").write_text("t-6", encoding="utf-8")
    (tmp_path / "ca.crt").write_text("a CA", encoding="utf-8")
    code = f"""
import ssl
_client._imported()
from kubernetes.config import incluster_config
incluster_config.SERVICE_TOKEN_FILENAME, incluster_config.SERVICE_CERT_FILENAME = r"{tmp_path}/token", r"{tmp_path}/ca.crt"
ssl.SSLContext.load_verify_locations = lambda *_args, **_options: None
""" + TOKEN
    found = run(code, {}, KUBERNETES_SERVICE_HOST="10.0.0.1", KUBERNETES_SERVICE_PORT="443")
    assert (found["host"], found["authorization"].lower(), found["models"]) == ("https://10.0.0.1:443", "bearer t-6", 0)


def test_impersonation():
    code = """
client = _client.api_client(given, 16)
print(json.dumps([client.headers, client.more_headers]))
"""
    given = {"host": "https://two", "api_key": "x", "impersonate_user": "eve", "impersonate_groups": ["a", "b"]}
    assert run(code, given) == [{"Impersonate-User": "eve"}, {"Impersonate-Group": ["a", "b"]}]


def test_who_comes_later_finds_everything():
    code = """
client = _client.api_client(given, 16)
import kubernetes
from kubernetes import client as public
from kubernetes.client import V1Pod, CoreV1Api
same = [
    public.V1Pod is V1Pod, public.models.V1Pod is V1Pod, public.ApiClient.__name__ == 'ApiClient', public.Configuration is type(client.configuration),
    public.rest.ApiException is public.ApiException, public.__spec__.loader is not None, hasattr(public, "no_such_name"),
    CoreV1Api().api_client.__class__ is public.ApiClient, V1Pod(kind="Pod").kind,
]
print(json.dumps(same))
"""
    assert run(code, {"host": "https://two", "api_key": "x"}) == [True, True, True, True, True, True, False, True, "Pod"]


def test_a_client_of_another_shape_is_loaded_as_usual():
    code = """
_client._WAITING["kubernetes.client"]["Configuration"] = "somewhere_else"
client = _client.api_client(given, 16)
import kubernetes
print(json.dumps([type(client.configuration) is kubernetes.client.Configuration, headers(client), any(isinstance(f, _client._Finder) for f in sys.meta_path)]))
"""
    assert run(code, {"host": "https://two", "api_key": "x"}) == [True, {"authorization": "Bearer x"}, False]


def test_without_the_client_the_error_says_what_to_install():
    code = """
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("kubernetes"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Nowhere())
try:
    _client.api_client(given, 16)
except _client.InvalidInput as exc:
    print(json.dumps(exc.message))
"""
    assert "pip install -r requirements.txt" in run(code, {"host": "https://two"})
