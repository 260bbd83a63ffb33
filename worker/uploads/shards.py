"""Shards: what the names of files that hold images say about their split, and where their images belong."""

import re

from ssl_core.data import split_names
from ssl_core.data.split_names import UNLABELLED, Split

_SUFFIX = re.compile(r"\.(zip|npz|npy|parquet|bin|tar|tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz|tzst|gz)$", re.IGNORECASE)
_NUMBER = re.compile(r"[-_.]?(\d{3,}(-of-\d+)?|\d+-of-\d+)$")
_SHORT_NUMBER = re.compile(
    r"^(train|training|val|valid|validation|test|part|shard|images?|data|batch)[-_.]?(\d+)$", re.I
)
_OTHER_SPLITS: dict[str, Split] = {"t10k": "test", **dict.fromkeys(UNLABELLED, "train")}


def find_split(path: str) -> Split | None:
    """Return the one split that a word of the file's name stands for, else the nearest folder's; None without one."""
    for part in reversed(_SUFFIX.sub("", path).split("/")):
        others = [_OTHER_SPLITS[word] for word in split_words(part) if word in _OTHER_SPLITS]
        split = split_names.find_split(part) or (others[0] if others else None)
        if split is not None:
            return split
    return None


def split_words(text: str) -> list[str]:
    """Return the words of a name in lower case: `xTrain`, `x_train` and `train-x` have two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def find_folder(path: str) -> tuple[str, str]:
    """Return the folder that the images of an archive within the archive belong to, and its number as a shard.

    `dogs.zip` stands for a folder `dogs`, `train-000012.tar` for a part of a folder `train`.
    """
    parent, slash, base = path.rpartition("/")
    stem = _SUFFIX.sub("", base)
    short = _SHORT_NUMBER.match(stem)
    if short is not None:
        return parent + slash + short[1], short[2]
    number = _NUMBER.search(stem)
    if number is None or (stem[0].isalpha() and number[0][0].isdigit()):  # such as n01440764
        return parent + slash + stem, ""
    folder = stem[: number.start()]
    return (parent + slash + folder if folder else parent), number[1]
