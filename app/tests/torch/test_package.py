"""The model package that ships is as good as it says, and the engine answers exactly what the bare network does."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from waiting import eventually

from genai_inference import codec
from genai_inference.api import create_app
from genai_inference.model import SAMPLES_FILE, ModelCard
from genai_inference.network import load_network, probabilities
from genai_inference.settings import ModelConfig, Settings, read_settings
from genai_inference.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings()


@pytest.fixture(scope="module")
def engine(settings: Settings) -> TorchEngine:
    return TorchEngine(ModelConfig(dir=settings.model_dir), 1)


@pytest.fixture(scope="module")
def card(engine: TorchEngine) -> ModelCard:
    return engine.load()


@pytest.fixture(scope="module")
def samples(settings: Settings) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((settings.model_dir / SAMPLES_FILE).read_text())
    return content


def test_samples_belong_to_the_model(card: ModelCard, samples: dict[str, Any]) -> None:
    assert card.held_out is not None
    assert (samples["model"], samples["version"]) == (card.name, card.version)
    assert len(samples["labels"]) == len(samples["instances"]) == card.held_out.count >= 100
    assert set(samples["labels"]) == set(card.labels)


def test_accuracy_is_what_the_card_says_and_enough(
    engine: TorchEngine, card: ModelCard, samples: dict[str, Any]
) -> None:
    labels = codec.labels_of(card, engine.predict(codec.from_instances(card.input, samples["instances"])))
    accuracy = float(np.mean(np.array(labels) == np.array(samples["labels"])))
    assert accuracy >= 0.97
    assert card.held_out is not None
    assert abs(accuracy - card.held_out.accuracy) <= 1 / len(labels)  # another CPU may round one digit over


def test_prediction_is_that_of_the_bare_network(
    settings: Settings, engine: TorchEngine, card: ModelCard, samples: dict[str, Any]
) -> None:
    images = np.array(samples["instances"][:32], dtype=np.float32).reshape(-1, 8, 8) / 16
    expected = probabilities(load_network(settings.model_dir, card), images)
    found = engine.predict(codec.from_instances(card.input, samples["instances"][:32]))
    np.testing.assert_allclose(found, expected, atol=1e-6)  # the layout in memory is another one
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def test_over_http(settings: Settings, samples: dict[str, Any]) -> None:
    with TestClient(create_app(settings, partial(TorchEngine, threads=1))) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        body = client.post("/v1/predict", json={"instances": samples["instances"][:32]}).json()
        assert client.get("/version").json()["framework"].startswith("torch 2.")
    labels = [prediction["label"] for prediction in body["predictions"]]
    assert sum(a == b for a, b in zip(labels, samples["labels"], strict=False)) >= 31
    assert body["model"] == {"name": samples["model"], "version": samples["version"]}


def test_the_package_is_readable_by_any_user(settings: Settings) -> None:
    assert all(Path(file).stat().st_mode & 0o004 for file in settings.model_dir.iterdir())


def test_the_engine_is_called_as_the_configuration_says(settings: Settings, card: ModelCard) -> None:
    renamed = TorchEngine(ModelConfig(dir=settings.model_dir, name="other"), 1).load()
    assert renamed == card.model_copy(update={"name": "other"})
