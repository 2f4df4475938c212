"""A model package that is missing, damaged or mixed up is refused by name; no torch needed to see it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub import CARD

from genai_inference.model import ModelCard, ModelError, read_card, read_weights

WEIGHTS = b"weights"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "weights.safetensors").write_bytes(WEIGHTS)
    write_card(tmp_path, {"weights": {"sha256": hashlib.sha256(WEIGHTS).hexdigest()}})
    return tmp_path


def write_card(folder: Path, changes: dict[str, Any]) -> None:
    (folder / "model.yaml").write_text(yaml.safe_dump({**CARD.model_dump(), **changes}))


def refusal(folder: Path) -> str:
    """What the error says after the folder."""
    with pytest.raises(ModelError) as caught:
        read_weights(folder, read_card(folder))
    return str(caught.value).removeprefix(f"{folder}/")


def test_a_whole_package(package: Path) -> None:
    card = read_card(package)
    assert isinstance(card, ModelCard)
    assert read_weights(package, card) == WEIGHTS


def test_a_package_under_another_name(package: Path) -> None:
    own, renamed = read_card(package), read_card(package, "other")
    assert renamed == own.model_copy(update={"name": "other"}) != own


@pytest.mark.parametrize("name", ["model.yaml", "weights.safetensors"])
def test_missing_file(package: Path, name: str) -> None:
    (package / name).unlink()
    assert refusal(package) == f"{name}: no such file or directory"


def test_folder_in_place_of_a_file(package: Path) -> None:
    (package / "model.yaml").unlink()
    (package / "model.yaml").mkdir()
    assert refusal(package) == "model.yaml: is a directory"


def test_damaged_weights(package: Path) -> None:
    (package / "weights.safetensors").write_bytes(WEIGHTS[:-1])
    assert refusal(package).startswith("weights.safetensors: damaged, or of another version")


CONTENT = {
    "empty": (b"", "model.yaml: content: Input should be a valid dictionary"),
    "not YAML": (b"name: [", "model.yaml: not valid YAML: "),
    "not text": (b"\xff\xfe\x00", "model.yaml: not valid YAML: "),
    "code": (b"!!python/object/apply:os.getcwd []", "model.yaml: not valid YAML: could not determine a constructor"),
}


@pytest.mark.parametrize(("content", "reason"), CONTENT.values(), ids=CONTENT)
def test_unreadable_card(package: Path, content: bytes, reason: str) -> None:
    (package / "model.yaml").write_bytes(content)
    assert refusal(package).startswith(reason)
    assert "\n" not in refusal(package)


CHANGES = {
    "a version that YAML reads as a number": ({"version": 1.0}, "version: Input should be a valid string"),
    "a version unfit for a label": ({"version": "1.0 beta"}, "version: String should match pattern"),
    "no sizes": ({"input": {"shape": [8], "minimum": 0.0, "maximum": 1.0}}, "input.shape: List should have at least 2"),
    "a maximum of 0": ({"input": {"shape": [8, 8], "minimum": 0.0, "maximum": 0.0}}, "input.maximum: "),
    "one label": ({"labels": [1]}, "labels: List should have at least 2 items"),
    "labels twice": ({"labels": [1, 1]}, "content: Value error, labels are not distinct"),
    "an accuracy in percent": ({"held_out": {"accuracy": 99.0, "count": 1}}, "held_out.accuracy: "),
    "an unknown field": ({"licence": "?"}, "licence: Extra inputs are not permitted"),
}


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=CHANGES)
def test_senseless_card(package: Path, changes: dict[str, Any], reason: str) -> None:
    write_card(package, changes)
    assert refusal(package).startswith(f"model.yaml: {reason}")
