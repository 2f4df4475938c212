"""Small model packages, and what becomes of fetching one."""

import hashlib
import subprocess
from pathlib import Path

import yaml
from stub import CARD


def write(folder: Path, version: str = "1.0.0", weights: bytes = b"weights" * 4096) -> None:
    """Writes a whole package."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(weights)
    described = {"version": version, "weights": {"sha256": hashlib.sha256(weights).hexdigest()}}
    (folder / "model.yaml").write_text(yaml.safe_dump({**CARD.model_dump(), **described}))
    (folder / "samples.json").write_text("{}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pin(source: Path) -> str:
    """The SHA-256 of a package's model.yaml."""
    return hashlib.sha256((source / "model.yaml").read_bytes()).hexdigest()


def refused(result: "subprocess.CompletedProcess[str]", reason: str) -> None:
    """Exit code 3, and one line that ends in this."""
    assert result.returncode == 3, result.stdout + result.stderr
    assert result.stderr.startswith("genai-inference: ")
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr


def nothing_left(target: Path) -> None:
    """Beside the target is no rest of a fetch."""
    assert [path.name for path in target.parent.iterdir() if path != target] == []
