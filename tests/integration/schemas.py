# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random objects of every built-in kind, drawn by hypothesis from the API server's own OpenAPI v3 schemas."""
from __future__ import annotations

import json
import re
import typing as t

import hypothesis
import hypothesis.strategies as st
from forms import BASE64, BESIDE, CHOICES, FIXED, FORMS, KEYS, LEFT_OUT, NEEDED, NEVER, OBJECTS, ONE_OF, QUANTITIES, TIMES, TYPES, WHOLE, WORDS
from live import Api, Kind

# How many optional fields of an object are drawn, at least and at most, by its depth.
SOME = ((3, 6), (2, 7), (2, 8), (1, 6), (1, 6), (0, 4), (0, 3), (0, 2), (0, 2), (0, 0))
# Of a hundred, as many are an explicit null: fields that are not drawn (there are many, but not below a depth), and texts in maps of texts.
NULL_FIELDS, NULL_DEPTH, NULL_TEXTS = 4, 5, 15
BUILT_IN = re.compile(r"api/v1|apis/([a-z]+|[a-z.]+\.k8s\.io)/v\d+")  # the path of a group's version; groups of others come and go meanwhile
ROOT = ("apiVersion", "kind", "status")
QUALIFIED = ("labels", "annotations", "matchLabels", "nodeSelector", "selector")  # maps whose keys may have a prefix

Schema = t.Dict[str, t.Any]
Draw = t.Callable[[st.SearchStrategy], t.Any]
T = t.TypeVar("T")


class Schemas:
    """What the server says of its built-in kinds. `types`: {name: schema}; `kinds`: {kind that can be created and applied: its type}."""

    def __init__(self, api: Api) -> None:
        self.types: dict[str, Schema] = {}
        self.kinds: dict[Kind, str] = {}
        for group in filter(BUILT_IN.fullmatch, _read(api, "")["paths"]):
            answer = _read(api, f"/{group}")
            self.types.update(answer["components"]["schemas"])
            self.kinds.update((kind, name) for kind, name in _kinds(answer) if kind.kind not in LEFT_OUT)

    def drawn(self, kind: Kind, number: int) -> list[dict]:
        """Objects of a kind, without names: the same ones each time."""

        @st.composite
        def objects(draw: Draw) -> dict:
            return {"apiVersion": kind.api_version, "kind": kind.kind, **Drawing(self.types, draw).object(self.kinds[kind])}

        return examples(objects(), number)


def _read(api: Api, path: str) -> dict:
    """The server says of some of this JSON that it is text."""
    return json.loads(api.pool.request("GET", f"/openapi/v3{path}").data)


def _kinds(answer: dict) -> t.Iterator[tuple[Kind, str]]:
    """(kind, its type) for each kind of a group's version that its paths let one create and apply."""
    of = {_gvk(each): name for name, schema in answer["components"]["schemas"].items() for each in schema.get("x-kubernetes-group-version-kind", [])}
    for path, verbs in answer["paths"].items():
        collection, _slash, last = path.rpartition("/")
        if last == "{name}" and "patch" in verbs and "post" in answer["paths"][collection]:
            group, version, kind = gvk = _gvk(verbs["patch"]["x-kubernetes-group-version-kind"])
            yield Kind(kind, f"{group}/{version}".lstrip("/"), collection.rpartition("/")[2], "{namespace}" in path), of[gvk]


def _gvk(of: dict) -> tuple[str, str, str]:
    return of["group"], of["version"], of["kind"]


def examples(strategy: st.SearchStrategy, number: int) -> list:
    """As many examples of a strategy: the same ones each time, from the simplest one on."""
    found: list = []

    @hypothesis.settings(
        max_examples=number, derandomize=True, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(strategy)
    def collect(example: t.Any) -> None:
        found.append(example)

    collect()
    return found[:number]


class Drawing:
    """Draws one object."""

    def __init__(self, types: dict[str, Schema], draw: Draw) -> None:
        self._types, self._draw = types, draw

    def object(self, name: str, depth: int = 0, keys: t.Collection[str] = ()) -> t.Any:
        """A value of the type `name`. `keys`: the fields by which it is known in a list."""
        special = _of(TYPES, name, None)
        if special is not None:
            return self._draw(special)
        short, properties = name.rpartition(".")[2], self._types[name].get("properties", {})
        chosen, others = self._choice(name, properties)
        fixed = {**{field: value for field, value in chosen.items() if value is not None}, **_of(FIXED, name, {})}
        spec = ("spec",) if depth == 0 and "spec" in properties else ()
        wanted = dict.fromkeys((*self._types[name].get("required", ()), *_of(NEEDED, name, ()), *spec, *keys, *chosen))
        left = [field for field in properties if field not in (*wanted, *others, *fixed, *_of(NEVER, name, ()), *ROOT)]
        some = self._some(left, *SOME[min(depth, len(SOME) - 1)])
        body = {field: self._value(properties[field], f"{short}.{field}", depth + 1) for field in (*wanted, *some) if field not in fixed}
        nulls = [field for field in left if field not in some and depth <= NULL_DEPTH and self._is_null(NULL_FIELDS)]
        return {**body, **dict.fromkeys(nulls), **fixed}

    def _some(self, fields: list[str], least: int, most: int) -> list[str]:
        return self._draw(st.lists(st.sampled_from(fields), unique=True, min_size=min(least, len(fields)), max_size=most)) if fields and most else []

    def _choice(self, name: str, properties: Schema) -> tuple[dict[str, t.Any], list[str]]:
        """({field: its value, None where it is to be drawn}, the other fields there were to choose from)."""
        if _of(ONE_OF, name, False):
            found = [field for field, schema in properties.items() if _reference(schema) and field not in BESIDE]
            return {self._draw(st.sampled_from(found)): None}, found
        field, options = _of(CHOICES, name, ("", {}))
        if not options:
            return {}, []
        value = self._draw(st.sampled_from([*options]))
        return {**({field: value} if field else {}), **({options[value]: None} if options[value] else {})}, [*options.values()]

    def _value(self, schema: Schema, path: str, depth: int) -> t.Any:
        """A value of the field at `path`, which is Type.field."""
        if path in WHOLE:
            return self._draw(WHOLE[path])
        if schema.get("type") == "array":
            return self._list(schema, path, depth)
        if "additionalProperties" in schema:
            return self._map(schema["additionalProperties"], path, depth)
        if _reference(schema):
            return self.object(_reference(schema), depth)
        form = FORMS.get(path, FORMS.get(path.rpartition(".")[2]))
        return self._draw(_plain(schema) if form is None else form)

    def _list(self, schema: Schema, path: str, depth: int) -> list:
        keys, name = schema.get("x-kubernetes-list-map-keys", []), _reference(schema["items"])
        number = self._draw(st.integers(1, 2 if depth < 6 else 1))
        found = [self.object(name, depth, keys) if name else self._value(schema["items"], path, depth) for _each in range(number)]
        return [*{json.dumps([item.get(key) for key in keys] if keys else item): item for item in found}.values()]

    def _map(self, schema: Schema, path: str, depth: int) -> dict:
        names = KEYS if path.rpartition(".")[2] in QUALIFIED else WORDS
        if _reference(schema).endswith(".Quantity"):
            names = st.sampled_from(["cpu", "memory", "example.com/gpu"])
        keys = self._draw(st.lists(names, unique=True, min_size=1, max_size=2))
        return {key: None if schema.get("type") == "string" and self._is_null(NULL_TEXTS) else self._value(schema, path, depth) for key in keys}

    def _is_null(self, of_a_hundred: int) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 - of_a_hundred


def _of(table: t.Mapping[str, T], name: str, default: t.Any) -> T:
    """What a table says of a type, known by the end of its name: `core.v1.Event` or, where there is only one, `Volume`."""
    parts = name.split(".")
    return table.get(".".join(parts[-3:]), table.get(parts[-1], default))


def _reference(schema: Schema) -> str:
    """The type that a schema refers to; '' for none."""
    return schema.get("allOf", [schema])[0].get("$ref", "").rpartition("/")[2]


def _plain(schema: Schema) -> st.SearchStrategy:
    if "enum" in schema:
        return st.sampled_from([each for each in schema["enum"] if each])
    numbers = st.integers(1, 9) | st.integers(1, 2**31 - 1)
    table = {"boolean": st.booleans(), "integer": numbers, "number": st.floats(-1e6, 1e6) | st.integers(0, 9), "object": OBJECTS}
    return {"byte": BASE64, "date-time": TIMES}.get(schema.get("format", ""), table.get(schema.get("type", ""), WORDS))
