# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as kubectl and the API server's other clients in Go read it (sigs.k8s.io/yaml), not as PyYAML does: 12:30 and a date are texts,
1e3, 0o17 and 08 are numbers, y and n truth values. Each word of it is held against kubectl by a test on a cluster."""
from __future__ import annotations

import re
import typing as t

import yaml

_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset("y Y yes Yes YES true True TRUE on On ON".split())
_FALSE = frozenset("n N no No NO false False FALSE off Off OFF".split())
_INT = re.compile(r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[1-9][0-9_]*|0)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9_]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Builds plain Python values. A key may stand only once."""

    yaml_implicit_resolvers: t.ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # the manifest check names a key that is no string
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int | float | str:
        text = node.value.replace("_", "")
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", text)
        try:
            number = int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)
        except ValueError:
            return node.value  # `0x_`
        return number if -(2**63) <= number < 2**64 else float(number)

    def construct_number(self, node: yaml.ScalarNode) -> int | float | str:
        text = node.value.replace("_", "").lower()
        try:
            number = float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text))
        except ValueError:
            return node.value  # `1e_`
        return int(number) if number.is_integer() and abs(number) < 2**53 else number

    def construct_truth(self, node: yaml.ScalarNode) -> bool:
        return node.value in _TRUE


for _name, _pattern, _first in (
    ("bool", re.compile("(?:" + "|".join(sorted(_TRUE | _FALSE)) + r")\Z"), "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<\Z"), "<"),
):
    Loader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
Loader.add_constructor(_TAG + "bool", Loader.construct_truth)
Loader.add_constructor(_TAG + "int", Loader.construct_integer)
Loader.add_constructor(_TAG + "float", Loader.construct_number)
Loader.add_constructor(_TAG + "merge", Loader.construct_yaml_str)  # as a value; a key of that name merges
