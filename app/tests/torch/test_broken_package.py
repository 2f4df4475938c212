"""Weights that are damaged, or that belong to another network, end the start with one clear line."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from genai_inference.model import ModelError
from genai_inference.settings import ModelConfig, read_settings
from genai_inference.torch_engine import TorchEngine


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that ships, to be broken."""
    return Path(shutil.copytree(read_settings().model_dir, tmp_path / "model"))


def refusal(package: Path) -> str:
    """What the error says after the folder."""
    with pytest.raises(ModelError) as caught:
        TorchEngine(ModelConfig(dir=package), 1).load()
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{package}/")


def rewrite(package: Path, weights: bytes | None = None, **changes: Any) -> None:  # noqa: ANN401
    """Changes the card; new weights come with their right digest."""
    card = yaml.safe_load((package / "model.yaml").read_text()) | changes
    if weights is not None:
        (package / "weights.safetensors").write_bytes(weights)
        card["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    (package / "model.yaml").write_text(yaml.safe_dump(card))


def changed(package: Path, name: str, tensor: torch.Tensor | None) -> bytes:
    """The weights with one tensor replaced, or left out."""
    tensors = safetensors.torch.load_file(package / "weights.safetensors")
    tensors.pop(name)
    content: bytes = safetensors.torch.save(tensors if tensor is None else {**tensors, name: tensor})
    return content


def test_no_safetensors(package: Path) -> None:
    rewrite(package, b"not safetensors at all")
    assert refusal(package).startswith("weights.safetensors: not a safetensors file: ")


def test_cut_off(package: Path) -> None:
    rewrite(package, (package / "weights.safetensors").read_bytes()[:-100])
    assert refusal(package).startswith("weights.safetensors: not a safetensors file: ")


def test_wrong_shape(package: Path) -> None:
    rewrite(package, changed(package, "scores.bias", torch.zeros(11)))
    assert "size mismatch for scores.bias" in refusal(package)


def test_missing_tensor(package: Path) -> None:
    rewrite(package, changed(package, "scores.bias", None))
    assert 'Missing key(s) in state_dict: "scores.bias"' in refusal(package)


def test_weights_that_are_no_numbers(package: Path) -> None:
    rewrite(package, changed(package, "scores.bias", torch.full((10,), torch.nan)))
    assert refusal(package) == "weights.safetensors: holds weights that are not finite numbers"


def test_unknown_architecture(package: Path) -> None:
    rewrite(package, architecture="transformer")
    known = "digits-cnn-v1, resnet18-v1, resnet50-v1"
    assert refusal(package) == f"model.yaml: architecture 'transformer' is not known (known: {known})"


def test_another_number_of_dimensions(package: Path) -> None:
    rewrite(package, input={"shape": [3, 8, 8], "minimum": 0.0, "maximum": 16.0})
    assert refusal(package) == "model.yaml: input.shape: digits-cnn-v1 takes 2 dimensions"


def test_a_gpu_that_is_not_there(package: Path) -> None:
    with pytest.raises(ModelError, match=r"device 'cuda:63' is not there \(GPUs: \d\)"):
        TorchEngine(ModelConfig(dir=package, device="cuda:63"), 1).load()


def test_the_process_ends_with_3_and_one_line(package: Path) -> None:
    (package / "weights.safetensors").write_bytes(b"damaged")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GENAI_MODEL_DIR": str(package)}
    command = [sys.executable, "-m", "genai_inference"]
    done = subprocess.run(
        command, env=environment | {"GENAI_PORT": "0"}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith(f"genai-inference: {package}/weights.safetensors: damaged, or of another version")
    assert done.stderr.count("\n") == 1
