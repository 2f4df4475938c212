"""On a GPU, where there is one; test_exact.py has its numbers. Without one, all of this is skipped, and says so."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.engine import Batch, Probabilities
from genai_inference.fetch import put_in_place
from genai_inference.model import ModelCard
from genai_inference.network import load_network, probabilities
from genai_inference.packages import write_random
from genai_inference.settings import ModelConfig, Settings
from genai_inference.torch_engine import TorchEngine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

TOLERANCE = {"float32": 2e-3, "float16": 2e-2, "bfloat16": 5e-2}
MOST = 8


def package(folder: Path, version: str) -> tuple[Path, ModelCard]:
    card = write_random(folder, "resnet18-v1", version, name="random", size=32, labels=7, seed=int(version[0]))
    return folder, card


def layers(found: tuple[Path, ModelCard], images: Batch) -> Probabilities:
    """What the layers say on a CPU."""
    folder, card = found
    return probabilities(load_network(folder, card), images, maximum=255.0)


@pytest.fixture
def images() -> Batch:
    return np.random.default_rng(0).integers(0, 256, (MOST, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_it_says_what_a_cpu_says(tmp_path: Path, images: Batch, dtype: str) -> None:
    found = package(tmp_path / "model", "1.0.0")
    engine = TorchEngine(ModelConfig(dir=found[0], dtype=dtype, max_batch_size=MOST), 1)
    engine.load()
    assert engine.device == "cuda:0"
    expected = layers(found, images)
    for size in (*range(1, MOST + 1), 1):
        np.testing.assert_allclose(engine.predict(images[:size]), expected[:size], atol=TOLERANCE[dtype], rtol=0)


def test_a_version_is_switched_while_another_computes(tmp_path: Path, images: Batch) -> None:
    first, target = package(tmp_path / "first", "1.0.0"), tmp_path / "model"
    expected = {"1.0.0": layers(first, images)}
    put_in_place(first[0], target)
    second = package(tmp_path / "second", "2.0.0")
    expected["2.0.0"] = layers(second, images)
    settings = Settings(model_dir=target, max_batch_size=MOST, max_queue=1000, reload_seconds=0.1)
    file = io.BytesIO()
    np.save(file, images[:3])
    stop, seen = threading.Event(), set()

    def ask(client: TestClient) -> None:
        while not stop.is_set():
            answer = client.post("/v1/predict", content=file.getvalue(), headers={"content-type": "application/x-npy"})
            assert answer.status_code == 200, answer.text
            said = answer.json()
            version = said["model"]["version"]
            rows = [each["probabilities"] for each in said["predictions"]]
            np.testing.assert_allclose(rows, expected[version][:3], atol=TOLERANCE["float32"], rtol=0)
            seen.add(version)

    with TestClient(create_app(settings, partial(TorchEngine, threads=1))) as client, ThreadPoolExecutor(4) as pool:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        asking = [pool.submit(ask, client) for _ in range(4)]
        try:
            eventually(lambda: "1.0.0" in seen, "an answer of the first version")
            put_in_place(second[0], target)
            eventually(lambda: "2.0.0" in seen, "an answer of the second version")
        finally:
            stop.set()
        for each in asking:
            each.result()
        metrics = client.get("/metrics").text
    assert seen == set(expected)
    assert 'genai_device_memory_bytes{device="cuda:0"} ' in metrics
    memory = float(metrics.split('genai_device_memory_bytes{device="cuda:0"} ')[1].split("\n")[0])
    assert memory > 0
