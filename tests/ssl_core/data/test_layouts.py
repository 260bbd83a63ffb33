"""Layouts: the folders in which people keep their images, and what they mean."""

import pytest

from ssl_core.data.items import PackError
from ssl_core.data.layouts import parse_paths

C, D = "cat", "dog"


def read(*paths, asked="auto"):
    return parse_paths(paths, asked)


def summarise(layout):
    """The number of images of each split and class."""
    counts = {}
    for pair in layout.assigned:
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def spread(*folders, count=2):
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]


LABELLED = {("train", C): 2, ("train", D): 2, ("test", C): 2, ("test", D): 2}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("brain/Training", "brain/Testing"),
        ("a/b/c/TRAIN", "a/b/c/TEST"),
        ("train", "test1"),
        ("train/train", "test/test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("data/seg_train", "data/seg_test"),
        ("images/train", "images/test"),
        ("train/images", "test/images"),
        ("training_set/training_set", "test_set/test_set"),
        ("train2017", "test2017"),
        ("train_images", "test_images"),
        ("TrainImages", "TestImages"),
        ("x/train/PetImages", "x/test/PetImages"),
        ("cifar-train", "cifar-test"),
        ("train data", "test data"),
        ("dataset/train/train", "dataset/test/test1"),
    ],
)
def test_splits_are_found(train, test):
    layout = read(*spread(*(f"{split}/{name}" for split in (train, test) for name in (C, D))))
    assert summarise(layout) == LABELLED
    assert (layout.reading, sorted(set(layout.splits.values())), layout.findings) == ("splits", ["test", "train"], [])


@pytest.mark.parametrize(
    "name", ["val", "valid", "validation", "Validation", "dev", "VALID", "val_set", "validation_set"]
)
def test_synonyms_of_val(name):
    assert ("val", C) in summarise(read(*spread(f"train/{C}", f"train/{D}", f"{name}/{C}")))


def test_a_class_folder_may_hold_the_splits():
    layout = read(*spread(*(f"{name}/{split}" for split in ("train", "test") for name in (C, D))))
    assert summarise(layout) == LABELLED


@pytest.mark.parametrize("filler", ["images", "Images", "imgs", "JPEGImages"])
def test_a_folder_that_says_only_images_is_no_class(filler):
    paths = spread(f"t/train/{C}/{filler}", f"t/train/{D}/{filler}", f"t/val/{filler}", f"t/test/{filler}")
    layout = read(*paths)
    assert summarise(layout) == {("train", C): 2, ("train", D): 2, ("val", None): 2, ("test", None): 2}
    assert not layout.findings


def test_a_filler_beside_other_folders_is_a_class_with_a_warning():
    layout = read(*spread("images", "masks"))
    assert summarise(layout) == {("train", "images"): 2, ("train", "masks"): 2}
    assert [(found.code, found.example) for found in layout.findings] == [
        ("unlikely_class", "images"),
        ("unlikely_class", "masks"),
    ]


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "unlabeled_images", "no_labels", "unsup"])
def test_unlabelled_folders_are_for_training(name):
    for folders in ([f"train/{C}", f"train/{D}", f"test/{C}", name], [C, D, name]):
        layout = read(*spread(*folders))
        assert summarise(layout)["train", None] == 2
        assert [(found.code, found.example, found.count) for found in layout.findings] == [
            ("unlabelled_folder", name, 2)
        ]


def test_images_to_predict_are_for_training_without_labels():
    folders = ["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat", "seg_pred/seg_pred"]
    layout = read(*spread(*folders))
    assert summarise(layout) == {("train", C): 2, ("train", D): 2, ("test", C): 2, ("train", None): 2}
    assert [(found.code, found.example) for found in layout.findings] == [("unlabelled_folder", "seg_pred")]


@pytest.mark.parametrize("others", [["bus", "car"], ["bus"]])
def test_a_class_may_be_called_train(others):
    layout = read(*spread("train", *others))
    assert summarise(layout) == {("train", name): 2 for name in ("train", *others)}


@pytest.mark.parametrize("names", [["train_station", "bus_station"], ["test", "control"], ["pre-test", "post-test"]])
def test_classes_with_words_of_splits_stay_classes(names):
    assert summarise(read(*spread(*names))) == {("train", name): 2 for name in names}


def test_stray_files_beside_a_wrapping_folder_do_not_hide_the_classes():
    layout = read("logo.png", *spread(f"set/{C}", f"set/{D}"))
    assert summarise(layout) == {("train", C): 2, ("train", D): 2, ("train", None): 1}
    assert [found.code for found in layout.findings] == ["images_beside_classes"]


def test_stray_files_beside_splits_are_outside():
    layout = read("logo.png", *spread(f"train/{C}", f"test/{C}"))
    assert layout.assigned[0] is None


def test_nested_folders_are_named():
    layout = read(*spread("animals/cat", "animals/dog", "cars/bus"))
    assert summarise(layout) == {("train", "animals"): 4, ("train", "cars"): 2}
    assert {(found.code, found.example) for found in layout.findings} == {
        ("nested_folders", name) for name in ("animals/cat", "animals/dog", "cars/bus")
    }


def test_numbered_parts_are_no_classes():
    layout = read(*spread("set/images_part_1", "set/images_part_2"))
    assert summarise(layout) == {("train", None): 4}
    assert [found.code for found in layout.findings] == ["parts"]
    assert summarise(read(*spread("0", "1"))) == {("train", "0"): 2, ("train", "1"): 2}


def test_the_asked_layout_decides():
    paths = spread(f"train/{C}", f"test/{C}")
    assert summarise(read(*paths, asked="flat")) == {("train", None): 4}
    assert summarise(read(*paths, asked="classes")) == {("train", "train"): 2, ("train", "test"): 2}
    with pytest.raises(PackError, match="No folder is called train"):
        read(*spread(C, D), asked="splits")
    assert summarise(read(*spread(f"train/{C}", f"train/{D}"), asked="splits")) == {("train", C): 2, ("train", D): 2}
