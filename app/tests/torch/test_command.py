"""`package` writes a package that can be served, and refuses what it cannot write."""

from pathlib import Path

import pytest

from genai_inference.__main__ import main
from genai_inference.settings import ModelConfig
from genai_inference.torch_engine import TorchEngine


def test_a_random_package(tmp_path: Path) -> None:
    options = ["--architecture", "resnet18-v1", "--out", str(tmp_path), "--size", "32", "--labels", "5", "--name", "r"]
    assert main(["package", *options]) == 0
    card = TorchEngine(ModelConfig(dir=tmp_path), 1).load()
    assert (card.name, card.input.shape, card.labels, card.held_out) == ("r", [3, 32, 32], [0, 1, 2, 3, 4], None)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    shas = []
    for seed in ("1", "1", "2"):
        out = tmp_path / str(len(shas))
        command = ["package", "--architecture", "digits-cnn-v1", "--out", str(out), "--size", "8", "--seed", seed]
        assert main(command) == 0
        shas.append(TorchEngine(ModelConfig(dir=out), 1).load().weights.sha256)
    assert shas[0] == shas[1] != shas[2]


def test_an_unknown_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["package", "--architecture", "vgg", "--out", str(tmp_path / "out")]) == 3
    assert "architecture 'vgg' is not known" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
