"""What a client gets is what the bare network says: for every size of a batch, every format, any concurrency.

Alone and in the same batch the numbers are the same bit for bit. In another batch a convolution may add up in another
order: there the difference is at most TOLERANCE of a probability (float32). A GPU's convolutions round their factors to
ten bits (TF32, torch's default), so it gets nearer to the layers on a CPU, and to itself in another batch, only by
TOLERANCE of its own. These tests use a GPU where there is one.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from waiting import eventually

from genai_inference.api import create_app
from genai_inference.engine import Batch, Probabilities
from genai_inference.model import ModelCard
from genai_inference.network import find_device, load_network, place, probabilities, use_threads
from genai_inference.packages import write_random
from genai_inference.settings import ModelConfig, Settings
from genai_inference.torch_engine import TorchEngine

DEVICE = find_device("auto")
TOLERANCE = 1e-5 if DEVICE.type == "cpu" else 2e-3
HALF_TOLERANCE = 0.05
SIZE = 32
MOST = 8
ARCHITECTURES = ("digits-cnn-v1", "resnet18-v1", "resnet50-v1")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, write_random(folder, request.param, "0.0.0", name="random", size=SIZE, labels=7, seed=3)


@pytest.fixture(scope="module")
def images(package: tuple[Path, ModelCard]) -> Batch:
    return np.random.default_rng(0).integers(0, 256, (64, *package[1].input.shape), dtype=np.uint8)


def bare(package: tuple[Path, ModelCard], images: Batch) -> Probabilities:
    """What the network says that serves, with nothing around it."""
    folder, card = package
    use_threads(1)  # of this thread: with another number the sums are made in another order
    network = place(load_network(folder, card), DEVICE, "float32", False, card.input.shape)
    return probabilities(network, images, maximum=255.0)


def ask(client: TestClient, images: Batch) -> Probabilities:
    file = io.BytesIO()
    np.save(file, images)
    headers = {"content-type": "application/x-npy"}
    answer: httpx.Response = client.post("/v1/predict", content=file.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    rows = [prediction["probabilities"] for prediction in answer.json()["predictions"]]
    return np.array(rows).astype(np.float32)


def test_the_answers_tell_images_apart(package: tuple[Path, ModelCard], images: Batch) -> None:
    found = bare(package, images)
    assert found.std(axis=0).max() > 100 * TOLERANCE  # else the tests below would say nothing


def test_the_graph_says_what_the_layers_say_on_a_cpu(package: tuple[Path, ModelCard], images: Batch) -> None:
    folder, card = package
    layers = load_network(folder, card)
    for size in (1, 2, 3, MOST):
        expected = probabilities(layers, images[:size], maximum=255.0)
        np.testing.assert_allclose(bare(package, images[:size]), expected, atol=TOLERANCE, rtol=0)


def test_every_size_of_a_batch(package: tuple[Path, ModelCard], images: Batch) -> None:
    whole = bare(package, images)
    settings = Settings(model_dir=package[0], max_batch_size=MOST, max_body_bytes=2**24)
    with TestClient(create_app(settings, partial(TorchEngine, threads=1))) as client:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        for size in range(1, MOST + 1):
            found = ask(client, images[:size])
            np.testing.assert_array_equal(found, bare(package, images[:size]))
            np.testing.assert_allclose(found, whole[:size], atol=TOLERANCE, rtol=0)
        listed = client.post("/v1/predict", json={"instances": images[:2].tolist()}).json()["predictions"]
        found = np.array([prediction["probabilities"] for prediction in listed]).astype(np.float32)
        np.testing.assert_array_equal(found, bare(package, images[:2]))


def test_any_concurrency(package: tuple[Path, ModelCard], images: Batch) -> None:
    whole = bare(package, images)
    settings = Settings(model_dir=package[0], max_batch_size=MOST, max_queue=1000, max_body_bytes=2**24)
    with TestClient(create_app(settings, partial(TorchEngine, threads=1))) as client, ThreadPoolExecutor(16) as pool:
        eventually(lambda: client.get("/ready").status_code == 200, "ready")
        parts = [(start, start + 1 + start % 3) for start in range(60)]
        answers = list(pool.map(lambda part: ask(client, images[part[0] : part[1]]), parts))
        metrics = client.get("/metrics").text
    for (start, end), found in zip(parts, answers, strict=True):
        np.testing.assert_allclose(found, whole[start:end], atol=TOLERANCE, rtol=0)
    batches = float(metrics.split('genai_batch_size_count{model="random"} ')[1].split("\n")[0])
    assert batches < len(parts)  # some were computed together, or this test says nothing


def test_bfloat16_is_close(package: tuple[Path, ModelCard], images: Batch) -> None:
    # Two images and no warm-up: where torch has no fast code for this type, each takes seconds.
    engine = TorchEngine(ModelConfig(dir=package[0], dtype="bfloat16", warm_up=0), 1)
    engine.load()
    found = engine.predict(images[:2])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, bare(package, images[:2]), atol=HALF_TOLERANCE)
    assert not np.array_equal(found, bare(package, images[:2]))  # it really was another type


def test_inputs_are_left_as_they_were(package: tuple[Path, ModelCard], images: Batch) -> None:
    engine = TorchEngine(ModelConfig(dir=package[0]), 1)
    engine.load()
    numbers = images[:2].astype(np.float32)
    engine.predict(numbers)
    np.testing.assert_array_equal(numbers, images[:2].astype(np.float32))
