"""Split names: the split that the name of a folder, a file, a column or a value stands for."""

import re
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "trainset", "traindata", "learn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "valset", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "testdata", "holdout"), "test"),
}
UNLABELLED = ("unlabeled", "unlabelled", "unsup", "unsupervised", "nolabel", "nolabels")
_PREDICTED = ("pred", "predict", "prediction", "predictions")  # images whose labels are what a contest asks for

_ADDED = ("set", "split", "data", "dataset", "images", "image", "imgs", "img", "folder", "full", "sub")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def parse_split(name: str) -> Split | None:
    """Return the split whose name this is, with digits and words such as `set` or `images` beside it; or None."""
    words = [word for word in _find_words(name) if word not in _ADDED]
    return SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


def find_split(name: str) -> Split | None:
    """Return the one split that a word of the name stands for (`seg_train`, `cifar-test-0001`), or None."""
    words = _find_words(name)
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 and "partition" not in words else None


def is_unlabelled(name: str) -> bool:
    """Return whether the name is that of a folder of images without labels."""
    words = [word for word in _find_words(name) if word not in _ADDED]
    return "".join(words) in UNLABELLED or any(word in _PREDICTED for word in words)


def _find_words(name: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(name)]
