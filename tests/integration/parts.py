# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inference service is used with, for the story of its options: Istio, KEDA, Jaeger, an issuer of tokens, a store of models, and Redis.

All of it is real; the definitions are what their own projects give out (molecule/shared/parts.yml brings them). It reaches no other namespace
than those of the story, and goes with them.
"""
from __future__ import annotations

import datetime
import json
import pathlib
import subprocess
import typing as t

import backing
import bundles
import cluster
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = pathlib.Path(__file__).parent
FOLDER = cluster.CACHE / "parts"
SPACE, MESH, SCALER = "options-parts", "istio-system", "keda"
SERVICE = "options"  # the namespace of the service itself
STORY = {"genai.platform/story": "options"}
PASSWORD = backing.PASSWORD
ISSUER, STORE, SPANS = (f"https://{name}.{SPACE}.svc:{port}" for name, port in (("issuer", 8443), ("store", 8443), ("jaeger", 4318)))
OUTSIDE, INSIDE = "issuer", "caller"  # who makes requests: the second one is in the mesh
DAYS = datetime.timedelta(days=2)

_ISSUER = (
    "from oidc_provider_mock import app; from werkzeug.serving import run_simple; "
    "run_simple('0.0.0.0', 8443, app(), threaded=True, ssl_context=('/tls/tls.crt', '/tls/tls.key'))"
)
_JAEGER = {
    "service": {
        "extensions": ["jaeger_storage", "jaeger_query"],
        "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
    },
    "extensions": {
        "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
        "jaeger_query": {"storage": {"traces": "memory"}, "http": {"endpoint": "0.0.0.0:16686"}, "grpc": {"endpoint": "0.0.0.0:16685"}},
    },
    "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:4318", "tls": {"cert_file": "/tls/tls.crt", "key_file": "/tls/tls.key"}}}}},
    "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
}


def image() -> str:
    """The name under which molecule/shared/parts.yml has put it on the nodes."""
    return f"genai-platform/parts:{FOLDER.resolve().name.rpartition('-')[2]}"


def definitions(name: str) -> list[dict]:
    return [each for each in yaml.safe_load_all((FOLDER / "definitions" / f"{name}.yaml").read_text(encoding="utf-8")) if each]


def text_of(name: str) -> str:
    return (FOLDER / "definitions" / f"{name}.yaml").read_text(encoding="utf-8")


def apply(*objects: dict) -> None:
    """As an administrator does it by hand."""
    command = ["docker", "exec", "-i", cluster.CONTROL_PLANE, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "--server-side"]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    done = subprocess.run([*command, "--force-conflicts", "-f", "-"], input=listed, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


# --- a private authority ---------------------------------------------------------------------------------------------


Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificate(name: str, names: list[str], by: Signer | None) -> Signer:
    """A certificate with its key: an authority's own, or for these host names, signed `by` one."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (by[0].subject, by[1]) if by else (subject, key)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - DAYS).not_valid_after(now + DAYS)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )  # fmt: skip
    if by is None:
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
        made = made.add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True)
    else:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
    return made.sign(signer, hashes.SHA256()), key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def trust() -> tuple[str, dict[str, str]]:
    """The certificate of a new authority, and what a Secret holds for the servers that it vouches for."""
    authority = _certificate("an authority of the tests", [], None)
    names = [f"{name}.{SPACE}.svc" for name in ("issuer", "store", "jaeger", "redis", "elsewhere")]
    server, key = _certificate("servers", names, authority)
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return _pem(authority[0]), {"tls.crt": _pem(server), "tls.key": plain.decode()}


# --- Istio -----------------------------------------------------------------------------------------------------------


def _env(**values: str) -> list[dict]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _injector() -> dict[str, str]:
    values = yaml.safe_load(text_of("istio-values"))["_internal_defaults_do_not_set"]
    proxy = {"image": image(), "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}, "readinessPeriodSeconds": 1}
    common = {**values["global"], "imagePullPolicy": "Never"}
    common |= {"proxy": {**common["proxy"], **proxy}, "proxy_init": {**common["proxy_init"], "image": image()}}
    used = {
        "global": common, "sidecarInjectorWebhook": values["sidecarInjectorWebhook"], "revision": "",
        "pilot": {"cni": values["cni"], "env": values["env"]}, "gateways": values["gateways"],
    }  # fmt: skip
    templates = {"sidecar": text_of("istio-sidecar"), "kube-gateway": text_of("istio-gateway")}
    return {"config": yaml.safe_dump({"policy": "enabled", "defaultTemplates": ["sidecar"], "templates": templates}), "values": json.dumps(used)}


def _istiod() -> dict:
    """The three switches make an Envoy enough that knows nothing of Istio's own filters."""
    env = _env(
        REVISION="default", PILOT_CERT_PROVIDER="istiod", POD_NAMESPACE=MESH, SERVICE_ACCOUNT="istiod", CLUSTER_ID="Kubernetes",
        PILOT_ENABLE_ALPN_FILTER="false", PILOT_ENABLE_METADATA_EXCHANGE="false", PILOT_DISABLE_MX_ALPN="true",
    )  # fmt: skip
    container = {
        "name": "discovery",
        "image": image(),
        "command": ["/usr/local/bin/pilot-discovery", "discovery", "--monitoringAddr=:15014", "--domain", "cluster.local"],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, *env],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "certs", "mountPath": "/var/run/secrets/istio-dns"}],
    }
    spec = {"serviceAccountName": "istiod", "containers": [container], "volumes": [{"name": "certs", "emptyDir": {}}]}
    return bundles.workload("Deployment", "istiod", MESH, {"metadata": {"labels": {"app": "istiod"}}, "spec": spec})


def istio() -> t.Iterator[dict]:
    yield from (each for name in ("istio-crds", "gateway-api") for each in definitions(name) if each["kind"] == "CustomResourceDefinition")
    yield bundles.obj("v1", "Namespace", MESH, metadata={"labels": STORY})
    yield bundles.obj("v1", "ServiceAccount", "istiod", MESH)
    yield bundles.obj(
        "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "story-istiod",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        subjects=[{"kind": "ServiceAccount", "name": "istiod", "namespace": MESH}],
    )  # fmt: skip
    mesh = {"trustDomain": "cluster.local", "rootNamespace": MESH, "discoverySelectors": [{"matchLabels": STORY}]}
    mesh["defaultConfig"] = {"discoveryAddress": f"istiod.{MESH}.svc:15012"}
    yield bundles.obj("v1", "ConfigMap", "istio", MESH, data={"mesh": yaml.safe_dump(mesh), "meshNetworks": "networks: {}"})
    yield bundles.obj("v1", "ConfigMap", "istio-sidecar-injector", MESH, data=_injector())
    ports = [("grpc-xds", 15010, 15010), ("https-dns", 15012, 15012), ("https-webhook", 443, 15017), ("http-monitoring", 15014, 15014)]
    listed = [{"name": name, "port": port, "targetPort": target} for name, port, target in ports]
    yield bundles.obj("v1", "Service", "istiod", MESH, spec={"selector": {"app": "istiod"}, "ports": listed})
    yield _istiod()


def injection() -> dict:
    """For pods of the story's own namespace that ask for it: no other story's pods are held up by a mesh that is not there."""
    webhook = {
        "name": "rev.namespace.sidecar-injector.istio.io",
        "clientConfig": {"service": {"name": "istiod", "namespace": MESH, "path": "/inject", "port": 443}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}},
        "objectSelector": {"matchLabels": {"sidecar.istio.io/inject": "true"}},
    }
    meta = {"labels": {"istio.io/rev": "default"}}
    return bundles.obj("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "istio-sidecar-injector", metadata=meta, webhooks=[webhook])


def gateways() -> t.Iterator[dict]:
    """One of the Gateway API, for which Istio makes a Deployment, and one of Istio's own kind, on the same pods."""
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    meta = {"annotations": {"networking.istio.io/service-type": "ClusterIP"}}
    spec: dict = {"gatewayClassName": "istio", "listeners": [listener]}
    yield bundles.obj("gateway.networking.k8s.io/v1", "Gateway", "public", SPACE, metadata=meta, spec=spec)
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    spec = {"selector": {"gateway.networking.k8s.io/gateway-name": "public"}, "servers": [server]}
    yield bundles.obj("networking.istio.io/v1", "Gateway", "classic", SPACE, spec=spec)


# --- KEDA ------------------------------------------------------------------------------------------------------------


def keda() -> tuple[list[dict], list[dict]]:
    """KEDA as it is given out, without its own check of ScaledObjects; and what may come only once it answers."""
    programs = {"keda-operator": "/usr/local/bin/keda", "keda-metrics-apiserver": "/usr/local/bin/keda-adapter"}
    found = []
    for each in definitions("keda"):
        if "admission" in each["metadata"]["name"] or each["kind"] == "ValidatingWebhookConfiguration":
            continue
        if each["kind"] == "Deployment":
            container = each["spec"]["template"]["spec"]["containers"][0]
            container |= {"image": image(), "imagePullPolicy": "Never", "command": [programs[each["metadata"]["name"]]]}
            container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
        found.append(each)
    late = [each for each in found if each["kind"] == "APIService"]
    return [each for each in found if each["kind"] != "APIService"], late


# --- the rest --------------------------------------------------------------------------------------------------------


def _server(name: str, ports: t.Collection[int], container: dict, volumes: t.Collection[dict] = (), labels: dict | None = None) -> t.Iterator[dict]:
    mounts = {"tls": {"secret": {"secretName": "tls"}}, "tmp": {"emptyDir": {}}}
    main = {"name": name, "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "tmp", "mountPath": "/data"}], **container}
    if ports:
        main["readinessProbe"] = main.get("readinessProbe", {"tcpSocket": {"port": min(ports)}, "periodSeconds": 1})
    spec = {"terminationGracePeriodSeconds": 0, "containers": [main], "volumes": [{"name": key, **value} for key, value in mounts.items()]}
    template = {"metadata": {"labels": {"app": name, **(labels or {})}}, "spec": spec}
    yield bundles.workload("Deployment", name, SPACE, template)
    if ports:
        listed = [{"name": f"p{port}", "port": port} for port in ports]
        yield bundles.obj("v1", "Service", name, SPACE, spec={"selector": {"app": name}, "ports": listed})


def servers() -> t.Iterator[dict]:
    served = f"{backing.COMMANDS['redis']} --port 0 --tls-port 6379 --tls-cert-file /tls/tls.crt --tls-key-file /tls/tls.key --tls-auth-clients no"
    yield from _server("redis", [6379], {"image": backing.image(), "command": ["sh", "-c", served], "env": _env(PASSWORD=PASSWORD)})
    yield from _server("issuer", [8443], {"image": image(), "command": ["python3", "-c", _ISSUER]})
    # The same issuer under another name: what it signs there names another issuer.
    yield bundles.obj("v1", "Service", "elsewhere", SPACE, spec={"selector": {"app": "issuer"}, "ports": [{"name": "https", "port": 8443}]})
    yield from _server("store", [8443], {"image": bundles.IMAGE, "command": ["python", "-c", (HERE / "archive.py").read_text(encoding="utf-8")]})
    jaeger = {"image": image(), "command": ["/usr/local/bin/jaeger", f"--config=yaml:{json.dumps(_JAEGER)}"]}
    yield from _server("jaeger", [4318, 16686], jaeger)


def caller() -> t.Iterator[dict]:
    """In the mesh."""
    yield from _server("caller", [], {"image": image(), "command": ["sleep", "infinity"]}, labels={"sidecar.istio.io/inject": "true"})


# --- all of it -------------------------------------------------------------------------------------------------------


def everything() -> list[dict]:
    first, late = keda()
    space = bundles.obj("v1", "Namespace", SPACE, metadata={"labels": STORY})
    return [*istio(), injection(), space, *first, *late]


def install() -> str:
    """The certificate of the authority that the servers' own ones are signed by."""
    authority, files = trust()
    first, late = keda()
    apply(*istio(), injection(), bundles.obj("v1", "Namespace", SPACE, metadata={"labels": STORY}), *first)
    apply(bundles.obj("v1", "Secret", "tls", SPACE, stringData=files), *servers())
    rolled("istiod", MESH)
    # Without that the API server trusts no answer of the mesh, and no pod that asks for a sidecar comes.
    webhook = ("get", "mutatingwebhookconfiguration", "istio-sidecar-injector", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
    backing.eventually(lambda: cluster.kubectl(*webhook), "Istio has signed its webhook")
    apply(*gateways(), *caller())
    for name in ("redis", "issuer", "store", "jaeger", "caller"):
        rolled(name, SPACE)
    cluster.kubectl("wait", "--for=condition=Programmed", "gateway.gateway.networking.k8s.io/public", "-n", SPACE, "--timeout=180s")
    for name in ("keda-operator", "keda-metrics-apiserver"):
        rolled(name, SCALER)
    apply(*late)
    return authority


def rolled(name: str, space: str) -> None:
    cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", space, "--timeout=180s")


def remove() -> None:
    """What reaches beyond its namespace first, and definitions last: what they define goes with them."""
    last = ("CustomResourceDefinition",)
    listed = everything()
    beyond = [each for each in listed if not each["metadata"].get("namespace") and each["kind"] not in ("Namespace", *last)]
    elsewhere = [each for each in listed if each["metadata"].get("namespace") == "kube-system"]
    for some in (beyond, elsewhere, [each for each in listed if each["kind"] == "Namespace"], [each for each in listed if each["kind"] in last]):
        names = [f"{each['kind']}{_group(each)}/{each['metadata']['name']}" for each in some]
        space = ("-n", "kube-system") if some is elsewhere else ()
        if names:
            cluster.kubectl("delete", "--ignore-not-found", *space, *names)


def _group(each: dict) -> str:
    group, _, version = each["apiVersion"].rpartition("/")
    return f".{version}.{group}" if group else ""


# --- requests from inside of the cluster -----------------------------------------------------------------------------


def request(method: str, url: str, body: str | None = None, **headers: str) -> dict:
    return {"method": method, "url": url, "body": body, "headers": {name.replace("_", "-"): value for name, value in headers.items()}}


def ask(*requests: dict, by: str = OUTSIDE) -> list[dict]:
    """Their answers, {status, headers, body}."""
    script = (HERE / "caller.py").read_text(encoding="utf-8")
    said = cluster.kubectl("exec", "-n", SPACE, f"deployment/{by}", "-c", by, "--", "python3", "-c", script, json.dumps(requests))
    return json.loads(said)


def run(script: str, *args: str, by: str = OUTSIDE) -> str:
    return cluster.kubectl("exec", "-n", SPACE, f"deployment/{by}", "-c", by, "--", "python3", "-c", script, *args)


def redis(*command: str) -> str:
    client = ("redis-cli", "--tls", "--insecure", "-a", PASSWORD, "--no-auth-warning")
    return cluster.kubectl("exec", "-n", SPACE, "deployment/redis", "--", *client, *command).strip()
