"""The image store, centre crops, and prefetching."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import Views
from ssl_core.data import image_store
from ssl_core.data.centre_crop import centre_crop
from ssl_core.data.dataset import Dataset
from ssl_core.data.decode import encode_png
from ssl_core.data.image_batch import CanvasGroup, ImageBatch
from ssl_core.data.image_store import ImageStore, limit_sizes, read_centre_crops
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from ssl_core.data.prefetch import prefetch

CPU = torch.device("cpu")
ENOUGH = 2**30  # bytes
SIZES = [(70, 90), (100, 64), (33, 40), (120, 120), (70, 90), (20, 200)]


def photo(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def ragged(tmp_path: Path) -> Dataset:
    """Images of several sizes."""
    items = [Item(f"{n}.png", encode_png(photo(n, *SIZES[n])), None, "train") for n in range(len(SIZES))]
    pack(items, tmp_path / "ragged")
    return Dataset.open(tmp_path / "ragged")


@pytest.fixture
def even(tmp_path: Path) -> Dataset:
    """Ten images of 16×16."""
    items = [Item(f"{n}.png", encode_png(photo(n, 16, 16)), None, "train") for n in range(10)]
    pack(items, tmp_path / "even")
    return Dataset.open(tmp_path / "even")


def test_images_of_one_small_size_are_not_resized(even):
    rows = np.array([2, 3, 5, 7, 8])
    images = ImageStore(even, rows, 16, CPU)
    batch = images.batch(torch.tensor([7, 2, 8]))
    (group,) = batch.groups
    assert group.sizes is None
    assert np.array_equal(group.gather().numpy(), np.stack([even.read_image(row) for row in (7, 2, 8)]))


@pytest.mark.parametrize("budget", [ENOUGH, 0])
def test_images_of_several_sizes_are_padded_to_canvases_with_their_sizes(ragged, budget, monkeypatch):
    monkeypatch.setattr(image_store, "_memory_budget", lambda: budget)
    images = ImageStore(ragged, np.arange(6), 64, CPU)
    assert images.is_in_memory == (budget == ENOUGH)
    batch = images.batch(torch.tensor([3, 0, 4, 5]))
    assert batch.sizes().tolist() == [[96, 96], [70, 90], [70, 90], [20, 200]]
    for group in batch.groups:
        for place, canvas, (height, width) in zip(
            group.indices.tolist(), group.gather(), group.sizes.tolist(), strict=True
        ):
            row = (3, 0, 4, 5)[place]
            if row != 3:  # the one that is downscaled
                assert np.array_equal(canvas[:height, :width].numpy(), ragged.read_image(row))
            assert canvas[height:].sum() == canvas[:, width:].sum() == 0


def test_cached_and_decoded_images_have_bitwise_equal_views(ragged, even, monkeypatch):
    for dataset in (ragged, even):
        rows, order = np.arange(len(dataset)), torch.arange(len(dataset) - 1, -1, -1)
        maker = ViewMaker(Views(), 24, 0)
        views = []
        for budget in (ENOUGH, 0):
            monkeypatch.setattr(image_store, "_memory_budget", lambda budget=budget: budget)
            views.append(maker(ImageStore(dataset, rows, 24, CPU).batch(order), order, 0, 0))
        assert torch.equal(*views)


def test_images_of_different_canvases_are_decoded_at_the_same_time(ragged, monkeypatch):
    rows = np.array([0, 1, 2, 5])  # each on a canvas of its own
    monkeypatch.setattr(image_store, "_memory_budget", lambda: 0)
    monkeypatch.setattr(image_store, "count_processors", lambda: len(rows))
    all_are_read = threading.Barrier(len(rows))

    class Watched(Dataset):
        def read_image(self, row):
            all_are_read.wait(timeout=30)
            return super().read_image(row)

    images = ImageStore(Watched(**vars(ragged)), rows, 64, CPU)
    assert len(images.batch(torch.from_numpy(rows)).groups) == len(rows)


def test_the_padding_is_blank_in_memory_that_held_other_images(ragged, monkeypatch):
    monkeypatch.setattr(image_store, "_memory_budget", lambda: 0)
    monkeypatch.setattr(torch, "empty", lambda *size, **options: torch.full(size, 255, dtype=options["dtype"]))
    for group in ImageStore(ragged, np.arange(6), 64, CPU).batch(torch.arange(6)).groups:
        for canvas, (height, width) in zip(group.gather(), group.sizes.tolist(), strict=True):
            assert canvas[height:].sum() == canvas[:, width:].sum() == 0


def test_shorter_sides_are_limited_to_one_and_a_half_image_sizes():
    sizes = np.array([[300, 400], [90, 1000], [50, 60]])
    assert limit_sizes(sizes, 64).tolist() == [[96, 128], [90, 1000], [50, 60]]


def test_taking_from_a_batch_returns_each_image_with_its_size():
    first = CanvasGroup(torch.tensor([0, 2]), torch.full((2, 4, 4, 3), 1, dtype=torch.uint8))
    second = CanvasGroup(torch.tensor([1]), torch.full((1, 8, 4, 3), 2, dtype=torch.uint8), torch.tensor([[7, 3]]))
    taken = ImageBatch((first, second), 3).take(torch.tensor([1, 2, 1]))
    assert len(taken) == 3
    assert taken.sizes().tolist() == [[7, 3], [4, 4], [7, 3]]
    assert values(taken) == [2, 1, 2]
    assert values(taken.take(torch.tensor([2, 1])).take(torch.tensor([1, 0, 1]))) == [1, 2, 1]


def values(batch: ImageBatch) -> list[int]:
    """The largest value of each image."""
    found = {
        int(place): int(image.max())
        for group in batch.groups
        for place, image in zip(group.indices, group.gather(), strict=True)
    }
    return [found[place] for place in range(len(batch))]


def test_a_centre_crop_is_the_central_square_resized():
    image = photo(0, 20, 30)
    assert np.array_equal(centre_crop(image, 20), image[:, 5:25])
    shrunk = np.asarray(Image.fromarray(image[:, 5:25]).resize((10, 10), Image.Resampling.BILINEAR)).astype(int)
    inner = slice(1, -1)  # at the border the filter of the crop also reads pixels outside of it
    assert np.abs(centre_crop(image, 10).astype(int) - shrunk)[inner, inner].max() <= 1
    assert centre_crop(image, 32).shape == (32, 32, 3)


def test_an_image_of_the_right_size_is_returned_unchanged():
    image = photo(0, 16, 16)
    assert np.array_equal(centre_crop(image, 16), image)


def test_centre_crops_of_many_rows_equal_those_of_single_images(ragged, even):
    for dataset in (ragged, even):
        rows = np.array([4, 0, 3])
        for side in (16, 24):
            made = read_centre_crops(dataset, rows, side).numpy()
            assert np.array_equal(made, np.stack([centre_crop(dataset.read_image(row), side) for row in rows]))
    assert read_centre_crops(ragged, np.array([], dtype=np.int64), 8).shape == (0, 8, 8, 3)


def test_prefetching_yields_the_same_items():
    assert list(prefetch(range(20), depth=3)) == list(range(20))


def test_an_error_is_raised_in_place_of_its_item():
    def items():
        yield 1
        raise KeyError("bad")

    made = prefetch(items())
    assert next(made) == 1
    with pytest.raises(KeyError, match="bad"):
        next(made)


def test_closing_the_generator_ends_the_thread():
    before = threading.active_count()
    made = prefetch(iter(int, 1), depth=1)
    assert next(made) == 0
    made.close()
    assert threading.active_count() == before
