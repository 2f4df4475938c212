# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure functions from prepared objects to the files of a kustomize tree: `{path: text}`. No disk, no clock.

The same objects give the same bytes, whatever order they came in. Kustomize hands every object on as it is: what it would
change or drop is refused here.
"""
from __future__ import annotations

import functools
import hashlib
import re
import typing as t
import urllib.parse

from ..errors import InvalidInput
from ..objects.kinds import PLAIN_GROUPS
from ..objects.manifest import Desired, Ref

KUSTOMIZATION, IGNORE = "kustomization.yaml", ".gitignore"
MARK = "# Rendered by genai.platform"
LONGEST_NAME = 200  # of a file; systems take 255 bytes

# What kustomize takes for its own in an object: it drops the annotation or the whole object.
_KUSTOMIZE_ANNOTATION = re.compile(r"^((internal\.|alpha\.|kustomize\.)?config\.kubernetes\.io|(kustomize\.)?config\.k8s\.io)/")
_UNFIT_TEXT = re.compile(r"[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Nothing that any reader of YAML, 1.1 or 1.2, takes for a number, a date, a truth value or null.
_PLAIN_TEXT = re.compile(r"^(?!(y|n|yes|no|on|off|true|false|null)$)[a-z/][-\w./@+ :]*", re.IGNORECASE | re.ASCII)
_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_LEADING_KEYS = ("apiVersion", "kind", "metadata", "name", "namespace")
_PLATFORM = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

Files = dict[str, str]


class Rendered(t.NamedTuple):
    """Files by component, with paths from the top of the tree, and the names of the Secrets that are not among them."""

    components: dict[str, Files]
    left_out: list[str]


def render(objects: t.Iterable[Desired], platform: str, secrets: bool = True) -> Rendered:
    """The files of every component. Raises one InvalidInput that lists what kustomize would not hand on as it is."""
    wanted = sorted(objects, key=lambda item: item.ref)
    kept = [item for item in wanted if secrets or item.ref.kind != "Secret"]
    errors = [f"{item.component}: {item.ref}: {text}" for item in kept for text in _not_for_kustomize(item.sent)]
    if not _PLATFORM.fullmatch(platform):
        errors.insert(0, f"platform {platform!r} cannot be the value of a label")
    by_path: dict[str, Desired] = {}
    for item in kept:
        if by_path.setdefault(path_of(item), item) is not item:
            errors.append(f"{item.component}: {item.ref} would be the same file as {by_path[path_of(item)].ref}, {path_of(item)}")
    if errors:
        raise InvalidInput("the manifests cannot be rendered, nothing was written:\n- " + "\n- ".join(errors), errors=errors)
    components: dict[str, Files] = {}
    for path, item in sorted(by_path.items()):
        components.setdefault(item.component, {})[path] = manifest(path, platform, item)
    for component, files in components.items():
        files.update(_companions(component, sorted(files), platform))
    return Rendered(dict(sorted(components.items())), [] if secrets else [str(item.ref) for item in wanted if item.ref.kind == "Secret"])


def _not_for_kustomize(body: dict) -> list[str]:
    """What kustomize would take out of this object, or take it for."""
    annotations = body["metadata"].get("annotations", {})
    errors = [f"kustomize takes the annotation {key} for its own" for key in annotations if _KUSTOMIZE_ANNOTATION.match(key)]
    if body["kind"].endswith("List") and isinstance(body.get("items"), list):
        errors.append("kustomize takes this for a list and applies its items instead")
    return errors + [f"kustomize cannot hand on {where}" for where in _unfit(body)]


def _unfit(value: t.Any, path: str = "") -> t.Iterator[str]:
    """Keys and text that kustomize (5.7) fails over or silently changes."""
    if isinstance(value, dict):
        for key, sub in value.items():
            where = f"{path}.{key}" if path else key
            if key == "<<" or len(key.encode(errors="replace")) > 1000 or _UNFIT_TEXT.search(key):
                yield f"the key {ascii(key)[:60]} in {path or 'the manifest'}"
            else:
                yield from _unfit(sub, where)
    elif isinstance(value, list):
        for index, sub in enumerate(value):
            yield from _unfit(sub, f"{path}[{index}]")
    elif isinstance(value, str):
        for character in sorted(set(_UNFIT_TEXT.findall(value))):
            yield f"{path}: it holds the character {ascii(character)}"


def path_of(item: Desired) -> str:
    return f"{item.component}/{file_name(item.ref)}"


def file_name(ref: Ref) -> str:
    """`<kind>_<namespace>_<name>.yaml`, without the namespace where there is none, with the group for kinds of others.

    No two objects share one: a name has no `_`, and all else than small letters, digits, `.` and `-` is escaped, so that
    a file system that does not tell large letters from small ones will do.
    """
    kind = ref.kind.lower() if ref.group in PLAIN_GROUPS else f"{ref.kind.lower()}.{ref.group}"
    name = "_".join(_escaped(part) for part in (kind, ref.namespace, ref.name) if part)
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME - 17]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.yaml"


def _escaped(text: str) -> str:
    quoted = urllib.parse.quote(text, safe="").replace("_", "%5f").replace("~", "%7e")
    return re.sub("%..|[A-Z]", lambda hit: hit[0].lower() if hit[0][0] == "%" else f"%{ord(hit[0]):02x}", quoted)


def is_secret(path: str) -> bool:
    """Whether the file of this path holds a Secret."""
    return re.match(r"secret[_.]", path.rpartition("/")[2]) is not None


def mark(path: str, platform: str) -> str:
    """The first line of a file: whose it is. Path and platform are in it, so that a copy elsewhere is not taken for ours."""
    return f"{MARK}: {path} of the platform {platform}; the next rendering overwrites it."


def manifest(path: str, platform: str, item: Desired) -> str:
    source = f"# Source: {item.source}\n" if item.source and item.source.isprintable() else ""
    return f"{mark(path, platform)}\n{source}{to_yaml(item.sent)}"


def top(components: t.Iterable[str], platform: str) -> Files:
    """The kustomization that brings the components together; nothing for none, because kustomize takes no empty one."""
    names = sorted(components)
    return {KUSTOMIZATION: _kustomization(KUSTOMIZATION, names, platform)} if names else {}


def _companions(component: str, paths: list[str], platform: str) -> Files:
    """A component's kustomization, and where it has Secrets the file that keeps them out of Git."""
    names = [path.rpartition("/")[2] for path in paths]
    where = f"{component}/{KUSTOMIZATION}"
    files = {where: _kustomization(where, names, platform)}
    hidden = [f"/{name}\n" for name in names if is_secret(name)]
    if hidden:
        where = f"{component}/{IGNORE}"
        files[where] = f"{mark(where, platform)}\n{''.join(hidden)}"
    return files


def _kustomization(path: str, resources: list[str], platform: str) -> str:
    # No order is asked for: kubectl, Flux and Argo CD all put namespaces and definitions before what needs them.
    content = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    return f"{mark(path, platform)}\n{to_yaml(content)}"


def to_yaml(obj: dict) -> str:
    """YAML that PyYAML and Go's parsers read alike, one line per value, keys in an order for people."""
    import yaml

    return yaml.dump(_ordered(obj), Dumper=_dumper(), sort_keys=False, default_flow_style=False, width=float("inf"), allow_unicode=True)


def _ordered(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        leading = [key for key in _LEADING_KEYS if key in value]
        return {key: _ordered(value[key]) for key in [*leading, *sorted(value.keys() - set(leading), key=str)]}
    if isinstance(value, (list, tuple)):
        return [_ordered(sub) for sub in value]
    return value


@functools.lru_cache(maxsize=1)
def _dumper() -> type:
    """PyYAML's pure Python dumper: libyaml's would write other bytes on some machines."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: t.Any) -> bool:
            return True

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text)))
    return Dumper


def _style(text: str) -> str | None:
    """Quotes wherever a reader could see anything but text: PyYAML alone leaves 1e3 and 0o14 bare, which Go reads as numbers."""
    if _PLAIN_TEXT.fullmatch(text):
        return None
    lines = text.split("\n")
    # A line that ends otherwise (U+0085, for one) would be read back as one that ends with a line feed.
    if len(lines) > 1 and not _OTHER_BREAKS.search(text) and lines[0] and not lines[0][0].isspace() and not any(line[-1:].isspace() for line in lines):
        return "|"
    return '"'
