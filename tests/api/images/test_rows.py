"""Which rows of a dataset are asked for."""

from pathlib import Path

import numpy as np
import pytest

from service import images
from ssl_core.data.dataset import Dataset
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from ssl_core.data.split_names import SPLITS
from tests.pictures import png

COUNTS = {
    ("train", None): 3,
    ("train", "a"): 4,
    ("train", "c"): 2,
    ("val", "b"): 5,
    ("test", None): 1,
    ("test", "c"): 6,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset with COUNTS images of each split and class."""
    folder: Path = tmp_path_factory.mktemp("dataset")
    items = [
        Item(f"{split}-{label}-{number}.png", png(number), split=split, label=label)
        for (split, label), count in COUNTS.items()
        for number in range(count)
    ]
    pack(items, folder)
    return Dataset.open(folder)


@pytest.mark.parametrize("split", [None, *SPLITS])
@pytest.mark.parametrize("label", [None, 0, 1, 2])
def test_the_rows_of_a_split_and_class_are_those_whose_columns_say_so(dataset: Dataset, split, label) -> None:
    assert dataset.classes == ["a", "b", "c"]
    assert images.SPLITS == SPLITS
    chosen = np.ones(len(dataset), bool) if split is None else dataset.splits == SPLITS.index(split)
    chosen &= True if label is None else dataset.labels == label
    found = [row for rows in images.find_rows(dataset.report, split, label) for row in rows]
    assert found == np.flatnonzero(chosen).tolist()


def test_pages_follow_each_other_over_ranges() -> None:
    ranges = [range(2, 5), range(5, 5), range(9, 12)]
    page = images.take_page(ranges, None, 4)
    assert (page.rows, page.has_more, page.next) == ([2, 3, 4, 9], True, 9)
    page = images.take_page(ranges, page.next, 4)
    assert (page.rows, page.has_more, page.next) == ([10, 11], False, None)
    assert images.take_page(ranges, 7, 1).rows == [9]
    assert images.take_page(ranges, 100, 1).rows == []


def test_a_sample_draws_each_row_equally_often() -> None:
    ranges = [range(10, 15), range(20, 25)]
    drawn = [row for seed in range(2000) for row in images.draw_sample(ranges, 3, seed)]
    rows, counts = np.unique(drawn, return_counts=True)
    assert rows.tolist() == [*range(10, 15), *range(20, 25)]
    assert np.abs(counts - 600).max() < 100  # about five standard deviations


def test_a_page_of_ten_million_images_reads_no_more_than_it_has() -> None:
    part = {"images": 10**7, "labelled": 10**7, "per_class": [5 * 10**6, 5 * 10**6]}
    empty = {"images": 0, "labelled": 0, "per_class": [0, 0]}
    report = {"splits": {"test": empty, "train": part, "val": empty}}
    ranges = images.find_rows(report, None, 1)
    assert images.take_page(ranges, 9_999_990, 3).rows == [9_999_991, 9_999_992, 9_999_993]
    assert len(images.draw_sample(ranges, 100, 1)) == 100
