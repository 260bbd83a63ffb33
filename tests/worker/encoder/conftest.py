"""Fixtures: a folder with saved models, and encoder servers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.servers import free_port
from tests.worker.encoder import models, server
from tests.worker.encoder.server import Server

TOKEN = "a token of the tests"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with models/a, models/b, models/damaged, whose weights are cut short, and models/flipped, in whose
    weights one bit is flipped.
    """
    folder = server.data_folder(tmp_path_factory.mktemp("data"))
    for seed, name in enumerate(("a", "b", "damaged")):
        models.make(folder / "models" / name, seed=seed)
    weights = folder / "models" / "damaged" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    weights = shutil.copytree(folder / "models" / "b", folder / "models" / "flipped") / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 0x40
    weights.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def encoder(model_folder: Path) -> Iterator[Server]:
    """An encoder server on a Unix socket, with default settings."""
    with server.running(Settings(data_dir=model_folder)) as running:
        yield running


@pytest.fixture(scope="module")
def small_encoder(model_folder: Path) -> Iterator[Server]:
    """An encoder server on TCP that admits four images, of 20,000 pixels, and waits 20 s for a full batch of four.

    A WebP image may have 1,000 pixels.
    """
    settings = Settings(
        data_dir=model_folder,
        encoder_url=f"http://127.0.0.1:{free_port()}",
        encoder_token=TOKEN,
        embed_queue_images=4,
        embed_max_pixels=20_000,
        embed_max_costly_pixels=1_000,
        embed_max_batch=4,
        embed_wait_ms=20_000,
    )
    with server.running(settings) as running:
        yield running
