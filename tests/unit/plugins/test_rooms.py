# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/how_it_works.md is true: its picture of the rooms is what the code imports, and its stations exist."""
from __future__ import annotations

import ast
import collections
import graphlib
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "plugins"
PAGE = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
OURS = ("ansible_collections", "genai", "platform", "plugins")
ROOMS = sorted(path.name for path in (PLUGINS / "module_utils").iterdir() if (path / "__init__.py").is_file())


def imports(path: pathlib.Path) -> set[pathlib.Path]:
    """The files of the collection that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = tuple(name.split(".")) if name else ()
            if isinstance(node, ast.ImportFrom) and node.level:
                parts = (*OURS, *path.relative_to(PLUGINS).parts[: -node.level], *parts)
            if parts[:4] != OURS:
                continue
            place = PLUGINS.joinpath(*parts[4:])
            if place.is_dir():  # `from .. import errors`
                found |= {place / f"{each.name}.py" for each in node.names}
            else:
                found.add(place.with_suffix(".py"))
    return found


FILES = {path: imports(path) for path in sorted(PLUGINS.rglob("*.py"))}


def room_of(path: pathlib.Path) -> str:
    parts = path.relative_to(PLUGINS).parts
    return parts[1] if parts[0] == "module_utils" else parts[0]


def arrows() -> dict[str, set[str]]:
    """{room: the rooms that it imports}, without the errors, which everybody may import."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for path, imported in FILES.items():
        found[room_of(path)] |= {room_of(other) for other in imported} - {room_of(path), "errors.py"}
    return {room: others for room, others in found.items() if room not in ("errors.py", "doc_fragments")}


def picture() -> dict[str, tuple[int, set[str]]]:
    """{room: (floor, the rooms that it imports)} as the page draws them."""
    return {name: (int(floor), set(others.split())) for floor, name, others in re.findall(r"^ +(\d) +(\w+) +->(.*)$", PAGE, re.MULTILINE)}


def test_every_import_leads_to_a_file():
    assert {other for imported in FILES.values() for other in imported if not other.is_file()} == set()


def test_the_picture_has_the_arrows_that_the_code_has():
    assert {room: others for room, (_floor, others) in picture().items()} == arrows()


def test_every_room_is_in_the_picture_and_says_what_it_is_for():
    assert len(ROOMS) > 5 and set(ROOMS) <= set(picture())
    for room in ROOMS:
        text = (PLUGINS / "module_utils" / room / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)) and len(ast.parse(text).body) == 1
        assert re.search(rf"^\| `{room}` \| \w", PAGE, re.MULTILINE)


def test_no_arrow_leads_upwards_or_sideways():
    floors = {room: floor for room, (floor, _others) in picture().items()}
    assert [(room, other) for room, others in arrows().items() for other in others if floors[other] >= floors[room]] == []


def test_a_room_stands_right_above_the_highest_that_it_imports():
    drawn = picture()
    assert {room: 1 + max((drawn[other][0] for other in others), default=0) for room, (_floor, others) in drawn.items()} == {
        room: floor for room, (floor, _others) in drawn.items()
    }


def test_no_file_imports_itself_through_others():
    assert len([*graphlib.TopologicalSorter(FILES).static_order()]) >= len(FILES)  # a circle is a CycleError


def test_the_errors_import_nothing():
    assert FILES[PLUGINS / "module_utils" / "errors.py"] == set()


def test_every_station_exists():
    stations = re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", PAGE)
    assert len(stations) > 20
    for file, name in stations:
        path = next((place / file for place in (PLUGINS / "module_utils", PLUGINS) if (place / file).is_file()), None)
        assert path, file
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for part in name.split(".") if name else ():
            node = next((node for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == part), None)
            assert node, f"{file}::{name}"
            body = node.body
    for path in re.findall(r"`(roles/[\w/.]+)`", PAGE):
        assert (ROOT / path).is_file(), path
