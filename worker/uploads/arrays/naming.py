"""Names of arrays: which hold images, labels, splits or class names, and of which split they are."""

import re
from dataclasses import dataclass
from typing import Literal

from ssl_core.config import Reading
from ssl_core.data.split_names import SPLIT_NAMES, Split
from worker.uploads import shards

Role = Literal["images", "labels", "split", "classes"]

# In order of preference among arrays of one group.
_IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "data", "pixels", "pictures", "photos", "inputs", "input")
_LABEL_WORDS = ("labels", "label", "y", "targets", "target", "class", "classes", "category", "cls")
_LABEL_ADJECTIVES = {"fine", "class", "true"}
_GLUED = re.compile(r"^(?:([xy])(train|val|valid|test)|(train|val|valid|test)([xy]))$")
_FORMAT_WORDS = re.compile(r"^(idx\d*|ubyte|byte|int|short|float|double|gz|npy|npz)$")


@dataclass(frozen=True, slots=True)
class ArrayName:
    """What an array's name says. group: the other words of the name, which its images and labels share.

    rank: 0 for the most usual word for its role.
    """

    role: Role | None
    split: Split | None
    group: frozenset[str]
    rank: int = 0


def parse(name: str, reading: Reading) -> ArrayName:
    """Return what the name of the array says; `reading.label_column` and `split_column` name an array, or its part."""
    words: list[str] = [
        part for word in shards.split_words(name) for part in _unglue(word) if not _FORMAT_WORDS.match(part)
    ]
    split = next((found for word in words if (found := shards.find_split(word)) is not None), None)
    rest = [word for word in words if shards.find_split(word) is None]
    if _is_named(name, rest, reading.label_column):
        return ArrayName("labels", split, frozenset(), -1)
    if _is_named(name, rest, reading.split_column) or rest in (["split"], ["splits"]):
        return ArrayName("split", None, frozenset())
    if "names" in rest:
        return ArrayName("classes", None, frozenset())
    for role, known in (("labels", _LABEL_WORDS), ("images", _IMAGE_WORDS)):
        best = next((word for word in known if word in rest), None)
        if best is not None:
            kept = frozenset(rest) - {best} - (_LABEL_ADJECTIVES if role == "labels" else set())
            return ArrayName("labels" if role == "labels" else "images", split, kept, known.index(best))
    return ArrayName(None, split, frozenset(rest))


def _unglue(word: str) -> list[str]:
    match = _GLUED.match(word)
    return [part for part in match.groups() if part] if match else [word]


def _is_named(name: str, rest: list[str], column: str | None) -> bool:
    if column is None:
        return False
    wanted = [word for word in shards.split_words(column) if word not in SPLIT_NAMES]
    return name == column or (bool(wanted) and rest == wanted)
