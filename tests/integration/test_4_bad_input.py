# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users get wrong: one clear error, before anything is written, no traceback."""
from __future__ import annotations

import base64
import json
import subprocess
import time

import cluster
import pytest
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding


@pytest.fixture
def expired(tmp_path):
    """A kubeconfig whose ServiceAccount token the cluster itself would accept, had it not expired an hour ago."""
    key = subprocess.run(["docker", "exec", cluster.CONTROL_PLANE, "cat", "/etc/kubernetes/pki/sa.key"], capture_output=True, check=True).stdout
    uid = json.loads(cluster.kubectl("get", "serviceaccount", "-n", "default", "default", "-o", "json"))["metadata"]["uid"]
    issuer = "https://kubernetes.default.svc.cluster.local"
    now = int(time.time())
    claims = {
        "iss": issuer, "aud": [issuer], "sub": "system:serviceaccount:default:default", "iat": now - 7200, "nbf": now - 7200, "exp": now - 3600,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "default", "uid": uid}},
    }
    signed = ".".join(_b64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    private = serialization.load_pem_private_key(key, None)
    token = f"{signed}.{_b64(private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    config = yaml.safe_load(cluster.KUBECONFIG.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "expired.kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture
def nowhere(tmp_path):
    """A kubeconfig that leads to a port where nothing listens."""
    config = yaml.safe_load(cluster.KUBECONFIG.read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path = tmp_path / "nowhere.kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def assert_refused(figure, what: str, said: list[str], *args: str) -> None:
    before, audit = cluster.specs(), cluster.Audit()
    run = cluster.play("site.yml", *args)
    assert run.code != 0, run.output
    for text in said:
        assert text in run.output, run.output
    assert "Traceback" not in run.output and "MODULE FAILURE" not in run.output, run.output
    assert audit.writes() == [] and cluster.specs() == before
    figure(f"refused before any write: {what}", "yes")


def test_wrong_cluster(figure):
    url = "https://203.0.113.7:6443"
    assert_refused(figure, "wrong cluster", ["wrong cluster", url, "Nothing was sent"], "-e", f"common_expected_server={url}")


def test_unreachable(figure, nowhere):
    args = ("-e", f"common_kubeconfig={nowhere}", "-e", "common_expected_server=https://127.0.0.1:9")
    assert_refused(figure, "unreachable API", ["cannot reach the API server https://127.0.0.1:9"], *args)


def test_expired_token(figure, expired):
    said = ["refused the credentials (401)", "may have expired"]
    assert_refused(figure, "expired token", said, "-e", f"common_kubeconfig={expired}")


SITE = [
    ("a manifest without a name", {"namespaces_list": [{"name": ""}]}, ["namespace.yaml.j2", "Namespace without metadata.name"]),
    ("a misspelt variable", {"inference_app_replica": 3}, ["unknown variable inference_app_replica", "did you mean inference_app_replicas?"]),
    ("an undefined variable", {"inference_app_title": "{{ no_such_variable }}"}, ["no_such_variable"]),
    (
        "a negative replica count",
        {"inference_app_autoscaling": {"enabled": False}, "inference_app_replicas": -1},
        ["deployment.yaml.j2", "Deployment inference/inference", "spec.replicas is -1", "at least 0"],
    ),
    (
        "a quota too small and a flow from nobody, both at once",
        {"namespaces_flows": [{"from": "ingres", "to": "inference_app"}], "inference_app_resources": {"requests": {"cpu": "3", "memory": "1Gi"}}},
        ["'ingres', which is no component; did you mean ingress?", "spec.hard.requests.cpu is 4", "need 9 (Deployment inference 6, one more pod of Deployment inference while it is updated 3)"],
    ),
]


@pytest.mark.parametrize(("what", "variables", "said"), SITE, ids=[row[0] for row in SITE])
def test_bad_description(what, variables, said, figure):
    assert_refused(figure, what, said, "-e", json.dumps(variables))
