# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens connections from Ansible's parameters, by kubernetes.core's code, without the slow half of the Kubernetes client.

Only configuration and authentication are needed of it. `import kubernetes` also loads a class for every type of the API (up to client
36: half a second), a validator, and what only some logins need. So these packages are lazy once this module has imported them: a name in
`_WAITING` is taken from the one submodule that defines it, and any other name makes the package load itself as usual. Code that
imports the client later finds all of it.
"""
from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import sys
import types
import typing as t

from ..errors import InvalidInput

ASKED_EARLY = ""  # imported by name while modules load; used, if ever, as a function
# {package or module that can wait: {name asked of it: its module that has the name, or ASKED_EARLY}}
_WAITING: dict[str, dict[str, str]] = {
    "kubernetes.client": {"ApiClient": ASKED_EARLY, "Configuration": "configuration", "rest": "rest", "ApiException": "exceptions"},
    "kubernetes.client.models": {},
    "kubernetes.stream": {},
    "kubernetes_validate": {},
    "kubernetes_validate.utils": {"VersionNotSupportedError": ASKED_EARLY},
    "oauthlib.oauth2": {},
    "requests_oauthlib": {"OAuth2Session": ASKED_EARLY},
}
_REDONE = ("kubernetes", "ansible_collections.kubernetes", "oauthlib", "requests_oauthlib")


class Client(t.NamedTuple):
    """What requests are made with."""

    configuration: t.Any  # of the Kubernetes client: where to, and who we are
    pool: t.Any  # urllib3's kept-alive connections, made from it
    headers: dict[str, str]
    more_headers: dict[str, list[str]]  # those with several values


def api_client(connection: dict, workers: int) -> Client:
    """kubernetes.core's way from Ansible parameters to a configured client, without its discovery (we do our own)."""
    try:
        kubernetes, core = _imported()
    except ImportError as exc:
        raise InvalidInput(f"{exc}. Install it: pip install -r requirements.txt; ansible-galaxy collection install kubernetes.core") from exc
    try:
        auth = core._create_auth_spec(None, **connection)
        configuration = core._create_configuration(auth)
        headers = core._create_headers(None, **connection)
    except (kubernetes.config.ConfigException, OSError, ValueError) as exc:
        raise InvalidInput(f"no way to reach a cluster from these options: {exc}. Set kubeconfig (or host and api_key)") from exc
    configuration.connection_pool_maxsize = workers + 8  # watches hold connections of their own
    single = {k: v for k, v in headers.items() if not isinstance(v, list)}
    many = {k: v for k, v in headers.items() if isinstance(v, list)}
    return Client(configuration, kubernetes.client.rest.RESTClientObject(configuration).pool_manager, single, many)


def _imported() -> tuple[t.Any, t.Any]:
    """(the package kubernetes, kubernetes.core's client module), as usual should the quick way not work."""
    before, finder = set(sys.modules), _Finder()
    if "kubernetes" in before:
        return _usual()
    sys.meta_path.insert(0, finder)
    try:
        return _usual()
    except Exception:  # pylint: disable=broad-exception-caught  # whatever it is, the usual way decides
        for name in [name for name in sys.modules if name not in before and name.startswith(_REDONE)]:
            del sys.modules[name]
    finally:
        sys.meta_path.remove(finder)
    return _usual()


def _usual() -> tuple[t.Any, t.Any]:
    import kubernetes.client
    import kubernetes.config
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s import client as core

    # Asked for here, so that a client that keeps them elsewhere is found out while there is another way.
    _needed = (kubernetes.client.rest.RESTClientObject, kubernetes.client.Configuration, kubernetes.config.ConfigException)
    return kubernetes, core


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what can wait where it is, and has it wait."""

    def find_spec(self, fullname: str, path: t.Any, target: types.ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target) if fullname in _WAITING else None
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Waiting(spec.loader, fullname)
        return spec


def _use(loaded: t.Callable[[str], t.Any], name: str, *args: t.Any, **options: t.Any) -> t.Any:
    return loaded(name)(*args, **options)


class _Waiting(importlib.abc.Loader):
    """Leaves a module empty until somebody asks for what only its own `__init__` knows."""

    def __init__(self, real: t.Any, package: str) -> None:
        self._real, self._package = real, package

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        def loaded(name: str) -> t.Any:
            if vars(module).pop("__getattr__", None):  # the package's own, or none, from here on
                module.__spec__.loader = self._real  # type: ignore[union-attr]
                self._real.exec_module(module)
            return getattr(module, name)

        def missing(name: str) -> t.Any:
            if name == "__path__":  # asked of every module by `from ... import`; a package has one
                raise AttributeError(name)
            source = _WAITING[self._package].get(name)
            if source == ASKED_EARLY and any(isinstance(finder, _Finder) for finder in sys.meta_path):
                return functools.partial(_use, loaded, name)
            if not source:
                return loaded(name)
            found = importlib.import_module(f"{self._package}.{source}")
            return found if name == source else getattr(found, name)

        module.__getattr__ = missing  # type: ignore[method-assign]
