"""Training: the same version gives the same model, another version another one, and a poor model is not written."""

from pathlib import Path

import pytest

from genai_inference import train
from genai_inference.__main__ import main
from genai_inference.model import read_card
from genai_inference.settings import ModelConfig
from genai_inference.torch_engine import TorchEngine


@pytest.fixture(autouse=True)
def _good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 3)  # seconds matter, accuracy does not
    monkeypatch.setattr("genai_inference.__main__.MINIMUM_ACCURACY", 0.5)


def run(out: Path, version: str, *options: str) -> int:
    return main(["train", "--out", str(out), "--model-version", version, *options])


def test_what_is_trained_can_be_served(tmp_path: Path) -> None:
    assert run(tmp_path, "1.2.3") == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.yaml", "samples.json", "weights.safetensors"]
    card = TorchEngine(ModelConfig(dir=tmp_path), 1).load()
    assert (card.name, card.version, card.labels) == ("digits", "1.2.3", list(range(10)))
    assert card.held_out is not None
    assert card.held_out.accuracy > 0.5


def test_the_version_decides_the_weights(tmp_path: Path) -> None:
    runs = {"a": ("1.0.0",), "b": ("1.0.0",), "c": ("2.0.0",), "d": ("2.0.0", "--seed", str(train.seed_of("1.0.0")))}
    for name, arguments in runs.items():
        assert run(tmp_path / name, *arguments) == 0
    a, b, c, d = (read_card(tmp_path / name).weights.sha256 for name in runs)
    assert a == b == d != c


def test_a_poor_model_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genai_inference.__main__.MINIMUM_ACCURACY", 1.01)
    assert run(tmp_path / "model", "1.0.0") == 4
    assert not (tmp_path / "model").exists()
    assert capsys.readouterr().err == "genai-inference: accuracy is below 1.01, no package written\n"


def test_a_version_must_fit_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, "one two")
    assert "does not match" in capsys.readouterr().err
