"""The encoder server: its embeddings, its counters, and the requests that it rejects."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssl_core.data import decode
from ssl_core.serialization import saved_model
from tests.worker.encoder import pictures
from tests.worker.encoder.server import Server, features, problem


def encode_offline(folder: Path, blobs: list[bytes], *, model: str = "a", layer: str = "backbone") -> np.ndarray:
    """Return the features that the model computes in this process."""
    encoder = saved_model.load(folder / "models" / model)
    return encoder.encode(np.stack([encoder.prepare(decode.decode(blob)) for blob in blobs]), layer).numpy()


def test_health_counts_images_and_batches(encoder: Server) -> None:
    before = encoder.health()
    features(encoder.encode([pictures.png(0), pictures.png(1)]))
    after = encoder.health()
    assert after["status"] == "ok"
    assert after["images"] - before["images"] == 2
    assert after["batches"] - before["batches"] == 1
    assert after["waiting"] == 0
    assert "models/a" in after["models"]


def test_served_features_equal_those_of_the_saved_model(encoder: Server, model_folder: Path) -> None:
    blobs = [pictures.png(seed, height=30 + seed, width=90 - seed) for seed in range(10)]
    for model in ("a", "b"):
        for layer in ("backbone", "projection", "block2"):
            served = features(encoder.encode(blobs, model=f"models/{model}", layer=layer))
            expected = encode_offline(model_folder, blobs, model=model, layer=layer)
            np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["backbone", "projection", "block3"])
def test_a_batch_of_n_equals_n_singles(encoder: Server, layer: str) -> None:
    blobs = [pictures.png(seed) for seed in range(23)]  # 16, 4, 2 and 1; or 16 and 8, as they arrive
    together = features(encoder.encode(blobs, layer=layer))
    alone = np.concatenate([features(encoder.encode([blob], layer=layer)) for blob in blobs])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_a_single_image_gives_the_same_bytes_every_time(encoder: Server) -> None:
    answers = {encoder.encode([pictures.png(7)]).content for _ in range(5)}
    assert len(answers) == 1


def test_features_of_more_images_than_a_batch_are_in_order(encoder: Server, model_folder: Path) -> None:
    blobs = [pictures.png(seed) for seed in range(150)]
    np.testing.assert_allclose(
        features(encoder.encode(blobs)), encode_offline(model_folder, blobs), rtol=1e-4, atol=1e-5
    )


def test_every_image_format_gives_the_same_features(encoder: Server) -> None:
    files = pictures.formats(3)
    found = dict(zip(files, features(encoder.encode(list(files.values()))), strict=True))
    for name, row in found.items():
        same = found["png, grey" if "grey" in name else "png"]
        assert row @ same / np.linalg.norm(row) / np.linalg.norm(same) > 0.99, name


def test_concurrent_clients_share_batches_and_each_gets_its_own_features(encoder: Server, model_folder: Path) -> None:
    blobs = [pictures.png(seed) for seed in range(96)]
    before = encoder.health()
    with ThreadPoolExecutor(32) as clients:
        answers = np.concatenate([features(answer) for answer in clients.map(lambda b: encoder.encode([b]), blobs)])
    after = encoder.health()
    np.testing.assert_allclose(answers, encode_offline(model_folder, blobs), rtol=1e-4, atol=1e-5)
    assert after["images"] - before["images"] == 96
    assert after["batches"] - before["batches"] < 96


def test_every_invalid_image_of_a_request_is_named(encoder: Server) -> None:
    good = pictures.png(1)
    answer = encoder.encode([good, b"not an image", good, good[:200], b""])
    assert problem(answer) == (422, "not_an_image", ["/images/1", "/images/3", "/images/4"])


def test_an_image_with_too_many_pixels_is_refused(encoder: Server) -> None:
    bomb = pictures.encoded(pictures.Image.new("1", (12_000, 12_000)), "PNG")
    assert len(bomb) < 50_000
    assert problem(encoder.encode([bomb])) == (422, "not_an_image", ["/images/0"])


def test_an_image_of_one_owner_does_not_wait_for_the_large_images_of_another(encoder: Server) -> None:
    bomb = pictures.encoded(pictures.Image.new("1", (6000, 6000)), "PNG")
    features(encoder.encode([pictures.png(0)]))
    before = encoder.memory()
    with ThreadPoolExecutor(1) as clients:
        large = clients.submit(encoder.encode, [bomb] * 6)
        encoder.until(waiting=6)
        for _ in range(2):
            features(encoder.encode([pictures.png(1)], **{"X-Owner": "ten_b"}))
        assert not large.done()
        assert len(features(large.result())) == 6
    assert encoder.memory("VmHWM") - before < 150 * 2**20  # 36 million pixels, one byte each, and their strips
    assert encoder.memory() - before < 60 * 2**20


def test_bad_requests_do_not_affect_other_clients(encoder: Server, model_folder: Path) -> None:
    blobs = [pictures.png(seed) for seed in range(40)]
    ended = threading.Event()

    def send_bad_requests() -> int:
        refused = 0
        while not ended.is_set():
            refused += encoder.encode([pictures.png(0), b"rubbish"]).status_code == 422
            refused += encoder.encode([pictures.png(0)], layer="nowhere").status_code == 422
        return refused

    with ThreadPoolExecutor(12) as clients:
        refusals = [clients.submit(send_bad_requests) for _ in range(4)]
        answers = np.concatenate([features(answer) for answer in clients.map(lambda b: encoder.encode([b]), blobs)])
        ended.set()
        assert all(refusal.result() > 0 for refusal in refusals)
    np.testing.assert_allclose(answers, encode_offline(model_folder, blobs), rtol=1e-4, atol=1e-5)


def test_an_unknown_layer_is_refused_with_the_known_ones(encoder: Server) -> None:
    answer = encoder.encode([pictures.png(0)], layer="block9")
    assert problem(answer) == (422, "layer_not_found", [])
    assert "block1" in answer.json()["detail"]


@pytest.mark.parametrize("model", ["models/damaged", "models/flipped", "models/missing", "models"])
def test_a_model_that_is_missing_or_damaged_is_reported_as_corrupt(encoder: Server, model: str) -> None:
    assert problem(encoder.encode([pictures.png(0)], model=model)) == (409, "corrupt", [])


@pytest.mark.parametrize("model", ["../models/a", "/etc", "models/../../x", ""])
def test_a_path_outside_of_the_storage_is_refused(encoder: Server, model: str) -> None:
    assert problem(encoder.encode([pictures.png(0)], model=model)) == (422, "invalid_request", [])


@pytest.mark.parametrize("sizes", ["", "x", "-1", "1,", "3", "9999999", "1,2"])
def test_sizes_that_do_not_fit_the_body_are_refused(encoder: Server, sizes: str) -> None:
    answer = encoder.encode([pictures.png(0)], **{"X-Sizes": sizes})
    assert problem(answer) == (422, "invalid_request", [])


def test_other_paths_are_not_found(encoder: Server) -> None:
    assert problem(encoder.http.get("/encode")) == (404, "not_found", [])


@pytest.mark.parametrize("size", [2, 8, 32])
def test_at_one_batch_size_other_images_and_position_change_no_bit(model_folder: Path, size: int) -> None:
    encoder = saved_model.load(model_folder / "models" / "a")
    noise = np.random.default_rng(size)
    batch = noise.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
    half, order = size // 2, noise.permutation(size)
    filled = np.concatenate([batch[:half], np.zeros_like(batch[half:])])
    expected = encoder.encode(batch).numpy()
    np.testing.assert_array_equal(encoder.encode(batch[order]).numpy(), expected[order])
    np.testing.assert_array_equal(encoder.encode(filled).numpy()[:half], expected[:half])


def test_bf16_stays_close_to_fp32(model_folder: Path) -> None:
    blobs = [pictures.png(seed) for seed in range(24)]
    encoder = saved_model.load(model_folder / "models" / "a", precision="bf16")
    pixels = np.stack([encoder.prepare(decode.decode(blob)) for blob in blobs])
    for layer in encoder.layers:
        exact, fast = encode_offline(model_folder, blobs, layer=layer), encoder.encode(pixels, layer).numpy()
        cosines = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
        assert cosines.min() > 0.999
        alone = np.concatenate([encoder.encode(row[None], layer).numpy() for row in pixels])
        np.testing.assert_allclose(alone, fast, atol=0.02 * np.abs(fast).max())
