# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the models of the inference service get into its pods: init containers that fetch them, and the file that lists them. Pure."""
from __future__ import annotations

import hashlib
import json
import typing as t

from .inference_input import slug

VOLUME = {"claim": "", "size_limit": "2Gi"}
# What becomes an entry of the models file. The service switches to changes of these while it serves.
MODEL_OPTIONS = ("max_batch_size", "max_queue", "deadline_seconds", "device", "dtype", "cache_ttl_seconds")
MODELS, MODELS_FOLDER = "models", "/models"
AUTHORITIES, AUTHORITIES_FOLDER = "ca", "/etc/genai/ca"
FILE, FILE_FOLDER = "models.yaml", "/etc/genai/models"

Input = t.Dict[str, t.Any]


def models_map(about: Input) -> dict | None:
    """The ConfigMap with the models file, {name, data}; None where the image's own model is served.

    Its name says which packages the file is about. A pod that runs has other packages than one that will run when these change,
    and must not be told of what it does not have; when only options change, it is the same ConfigMap and the pod follows it.
    """
    if not about["models"]:
        return None
    entries = [
        {"name": model["name"], "dir": folder_of(model), **{option: model[option] for option in MODEL_OPTIONS if model.get(option) is not None}}
        for model in about["models"]
    ]
    packages = sorted(folder_of(model) for model in about["models"])
    return {"name": f"{about['name']}-models-{_short(json.dumps(packages))}", "data": {FILE: json.dumps({"models": entries}, indent=2)}}


def folder_of(model: Input) -> str:
    """Where a package lies in the volume: another source, another folder, so that versions can lie side by side on a claim."""
    return f"{MODELS_FOLDER}/{slug(model['name'])}/{_short(str(model.get('source')), str(model.get('sha256') or ''))}"


def _short(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:10]


def fetchers(about: Input, image: str) -> list[dict] | None:
    """One init container per model, by name: the order of the models is an option, which no pod has to be replaced for."""
    found = [_fetcher(about, model, image) for model in sorted(about["models"], key=lambda model: model["name"])]
    return found or None


def _fetcher(about: Input, model: Input, image: str) -> dict:
    checked = ["--sha256", model["sha256"]] if model.get("sha256") else []
    return {
        "name": f"fetch-{slug(model['name'])}",
        "image": image,
        "imagePullPolicy": about["image_pull_policy"],
        "args": ["fetch", "--from", model["source"], "--to", folder_of(model), *checked],
        "env": (s3_environment(about["s3"]) if str(model.get("source")).startswith("s3://") else []) + _named_values(trust(about)),
        "resources": about["fetch_resources"],
        "volumeMounts": [{"name": MODELS, "mountPath": MODELS_FOLDER}, *_authorities(about)],
        "securityContext": about["container_security"],
    }


def s3_environment(s3: Input) -> list[dict]:
    """As every S3 client reads it. The keys of the Secret are called like the variables."""
    values = {"AWS_ENDPOINT_URL": s3.get("endpoint"), "AWS_REGION": s3.get("region")}
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if s3.get("secret") else ()
    return _named_values(values) + [from_secret(key, s3["secret"], key) for key in keys]


def _named_values(values: t.Mapping[str, t.Any]) -> list[dict]:
    return [{"name": name, "value": value} for name, value in values.items() if value]


def trust(about: Input) -> dict[str, str]:
    """Where OpenSSL, requests (spans) and the S3 client look for the authorities that they trust; {} for the image's own."""
    given = about["ca"]
    path = f"{AUTHORITIES_FOLDER}/{given.get('key', 'ca.crt')}"
    return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), path) if given.get("config_map") else {}


def _authorities(about: Input) -> list[dict]:
    return [{"name": AUTHORITIES, "mountPath": AUTHORITIES_FOLDER, "readOnly": True}] if trust(about) else []


def from_secret(variable: str, name: str, key: str) -> dict:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def on_claim(about: Input) -> bool:
    return bool(about["models"] and about["model_volume"].get("claim"))
