# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that are none of a role's options but look like one: a misspelt one would leave the default in force."""
from __future__ import annotations

import difflib
import fnmatch
import pathlib
import typing as t

import yaml

# How much a name has to resemble an option (see difflib's ratio): `namespace_list` and `namespaces_list` by 0.97.
LIKENESS = 0.88
# What Ansible and its controllers set themselves.
FOREIGN = ("_", "ansible_", "awx_", "tower_")


def options_of(role: pathlib.Path) -> set[str]:
    """Names of the options that a role documents, of all its entry points; none where it documents nothing."""
    spec_file = role / "meta" / "argument_specs.yml"
    if not spec_file.exists():
        return set()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    specs = yaml.load(spec_file.read_text(encoding="utf-8"), Loader=loader)["argument_specs"]  # a safe loader
    return {option for entry in specs.values() for option in entry.get("options") or {}}


def unknown_options(role: pathlib.Path, names: t.Iterable[str], others: t.Collection[str] = ()) -> list[str]:
    """A text for each name that begins with the role's and is no option of it. `others`: patterns of names that belong to somebody else."""
    known = options_of(role)
    prefix = f"{role.name}_"
    # A role may be called like the beginning of another: gpu_nodes_list is no business of a role named gpu.
    siblings = tuple(f"{sibling.name}_" for sibling in role.parent.iterdir() if sibling.name.startswith(prefix))
    mine = (name for name in names if name.startswith(prefix) and not name.startswith(siblings) and name not in known)
    wrong = sorted(name for name in mine if known and not _is_any(name, others))
    return [f"unknown variable {name}: the role {role.name} has no such option; {hint(name, known)}" for name in wrong]


def near_misses(role: pathlib.Path, names: t.Iterable[str], others: t.Collection[str] = ()) -> list[str]:
    """A text for each name that resembles an option of the role or its siblings, or is one of the role's without its prefix."""
    roles = {sibling.name: options_of(sibling) for sibling in role.parent.iterdir() if sibling.is_dir()}
    known = set().union(*roles.values())
    prefixes = tuple(f"{name}_" for name in roles)
    # One word alone, such as `wait`, is too likely to be somebody else's.
    bare = {option.removeprefix(f"{role.name}_"): option for option in roles[role.name] if option.count("_") > 1}
    found = []
    for name in sorted(set(names) - known):
        if name in roles or name.startswith((*FOREIGN, *prefixes)) or _is_any(name, others):
            continue  # with a role's prefix it is that role's to say
        close = [bare[name]] if name in bare else difflib.get_close_matches(name, [each for each in known if "_" in each], 1, LIKENESS)
        if close:
            found.append(f"unknown variable {name}: did you mean {close[0]}?")
    return found


def hint(name: str, known: t.Collection[str]) -> str:
    """What may have been meant, or all there is."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"


def _is_any(name: str, patterns: t.Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
