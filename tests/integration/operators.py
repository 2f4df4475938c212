# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small operator: a kind of its own, a webhook that judges its resources, and the server of that webhook."""
from __future__ import annotations

import base64
import datetime

from bundles import obj, pod, workload
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from living import space, there

# Serves a webhook that admits everything, some seconds after it was started; its readiness is whether it listens.
SERVER = """
import http.server, json, os, ssl, time
time.sleep(float(os.environ["SECONDS"]))
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"uid": asked["request"]["uid"], "allowed": True}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server = http.server.ThreadingHTTPServer(("", 8443), Hook)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def certificate(host: str) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM that host shows for itself, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
    built = built.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), plain


def operator(name: str, shown: tuple[bytes, bytes], revision: str = "one", seconds: float = 4) -> list[dict]:
    """A definition, who serves its webhook, and the webhook: as charts of operators bring them. Its one pod is replaced, not doubled."""
    group, kind = f"{name}.example.com", {"kind": "Gauge", "listKind": "GaugeList", "plural": "gauges", "singular": "gauge"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    environment = [{"name": name, "value": value} for name, value in (("REVISION", revision), ("SERVER", SERVER), ("SECONDS", str(seconds)))]
    template = pod("hook", 'exec python -c "$SERVER"', env=environment, readinessProbe={
        "tcpSocket": {"port": 8443}, "periodSeconds": 1, "failureThreshold": 30}, volumeMounts=[{"name": "tls", "mountPath": "/tls"}])
    template["spec"]["volumes"] = [{"name": "tls", "secret": {"secretName": "hook"}}]
    encoded = {key: base64.b64encode(value).decode() for key, value in zip(("tls.crt", "tls.key"), shown)}
    hook = {
        "name": f"hook.{group}", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "hook", "namespace": name}, "caBundle": encoded["tls.crt"]},
        "rules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["gauges"]}],
    }
    return [
        space(name),
        obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"gauges.{group}", spec={
            "group": group, "scope": "Namespaced", "names": kind, "versions": [version]}),
        obj("v1", "Secret", "hook", name, type="kubernetes.io/tls", data=encoded),
        obj("v1", "Service", "hook", name, spec={"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 8443}]}),
        workload("Deployment", "hook", name, template, strategy={"type": "Recreate"}),
        obj("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", f"{name}-hook", webhooks=[hook]),
    ]


def gauges(name: str, size: int) -> list[dict]:
    return [obj(f"{name}.example.com/v1", "Gauge", f"gauge-{number}", name, spec={"size": size}) for number in range(3)]


def sizes(name: str) -> list[int]:
    return [(there(gauge) or {}).get("spec", {}).get("size", 0) for gauge in gauges(name, 0)]
