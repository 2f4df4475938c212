# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""User name and password for a cluster: OpenShift gives a token for them, which is used for the run and given back.

The login itself is the openshift client's. Kubernetes takes no password, and kubernetes.core would send nothing in its place: then
this says so.
"""
from __future__ import annotations

import base64
import hashlib
import typing as t

from ..errors import InvalidInput, PlatformError, Unreachable

DISCOVERY = "/.well-known/oauth-authorization-server"
TOKENS = "/apis/oauth.openshift.io/v1/useroauthaccesstokens/"
TIMEOUT = 10.0
_OPEN: list[t.Any] = []  # clients with a token of ours


def log_in(client: t.Any) -> None:
    """Gives a client that has user name and password, and nothing better, the token for them. Errors: InvalidInput, Unreachable."""
    configuration = client.configuration
    if not (configuration.username and configuration.password) or configuration.api_key or configuration.cert_file:
        return
    if _ask(client, "GET", DISCOVERY).status != 200:
        raise InvalidInput(
            f"{configuration.host} has no OAuth server of OpenShift, and Kubernetes itself takes no user name and password. "
            "Use a kubeconfig, an api_key or a client certificate"
        )
    configuration.api_key = {"authorization": f"Bearer {_token(configuration)}"}
    _OPEN.append(client)


def log_out() -> None:
    """Gives every token back that `log_in` has got in this process. One that cannot be is left to run out."""
    while _OPEN:
        client = _OPEN.pop()
        bearer = client.configuration.api_key.pop("authorization")
        try:
            _ask(client, "DELETE", TOKENS + stored_name(bearer.removeprefix("Bearer ")), {"Authorization": bearer})
        except PlatformError:
            pass


def stored_name(token: str) -> str:
    """What the cluster calls a token: it keeps a hash, not the token."""
    digest = hashlib.sha256(token.removeprefix("sha256~").encode()).digest()
    return "sha256~" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _ask(client: t.Any, method: str, path: str, headers: dict[str, str] | None = None) -> t.Any:
    import urllib3

    server = client.configuration.host
    try:
        return client.pool.request(method, server.rstrip("/") + path, headers=headers, timeout=TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError as exc:
        raise Unreachable(f"cannot reach the API server {server}: {exc}", server=server) from exc


def _token(configuration: t.Any) -> str:
    try:
        from oauthlib.oauth2 import OAuth2Error
        from openshift.helper.userpassauth import OCPLoginConfiguration, OCPLoginRequestException
        from requests import RequestException
    except ImportError as exc:
        raise InvalidInput(f"{exc}. To log in with user name and password: pip install openshift requests-oauthlib") from exc
    # Not by its own constructor, which hands on an argument that newer Kubernetes clients no longer take.
    login = OCPLoginConfiguration.__new__(OCPLoginConfiguration)
    type(configuration).__init__(login, host=configuration.host.rstrip("/"))
    login.ocp_username, login.ocp_password = configuration.username, configuration.password
    login.con_verify_ca = (configuration.ssl_ca_cert or True) if configuration.verify_ssl else False
    try:
        login.discover()
        return login.login()["access_token"]
    except OCPLoginRequestException as exc:
        raise _refused(configuration, exc.req_info.get("req_status_code")) from exc
    except RequestException as exc:
        raise Unreachable(f"cannot reach the OAuth server of {configuration.host}: {type(exc).__name__}", server=configuration.host) from exc
    except (OAuth2Error, KeyError, ValueError) as exc:
        raise InvalidInput(f"the OAuth server of {configuration.host} gave no token: {type(exc).__name__} {exc}") from exc


def _refused(configuration: t.Any, status: int | None) -> InvalidInput:
    why = "the user name or the password is wrong" if status in (401, 403) else f"its OAuth server answered {status}"
    return InvalidInput(f"cannot log in to {configuration.host} as {configuration.username}: {why}")
