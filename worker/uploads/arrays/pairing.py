"""Pairing: from the arrays of an upload to its images with their labels and splits."""

from collections.abc import Generator, Iterator, Sequence
from functools import cache, partial

from ssl_core.config import Reading
from ssl_core.data.items import Finding, Found, Item, PackError
from ssl_core.data.split_names import Split
from worker.uploads.arrays import labels, naming, pixels
from worker.uploads.arrays.array import Array, Unreadable
from worker.uploads.arrays.naming import ArrayName
from worker.uploads.limits import Meter

_UNREAD = "Arrays that are neither the images nor their labels are not read."
_HOW = "call the array of the images `images`"


def read(
    arrays: Sequence[Array | Unreadable],
    meter: Meter,
    reading: Reading,
    split: Split | None = None,
) -> Iterator[Found]:
    """Yield the images. Raises PackError.

    split: of arrays whose name holds none.
    """
    named = [(array, naming.parse(array.name, reading)) for array in arrays]
    chosen = _choose_images(named)
    if not chosen:
        raise _no_images(arrays)
    used: set[str] = set()
    images = [array for array, _ in chosen if isinstance(array, Array)]
    find_factor = cache(partial(pixels.find_factor, images, reading))  # one for all, as their values mean the same
    for array, name in chosen:
        encoded = pixels.encode_rows(_require(array), meter, find_factor)
        used |= yield from _read_images(_require(array), encoded, name, named, len(chosen) == 1, split)
    for array in arrays:
        if array.name not in used:
            yield Finding("unread_arrays", _UNREAD, array.name)


def _choose_images(named: Sequence[tuple[Array | Unreadable, ArrayName]]) -> list[tuple[Array | Unreadable, ArrayName]]:
    """Return the arrays of images, one for each split and group: those with a telling name, else the only candidate."""
    best: dict[tuple[object, ...], tuple[Array | Unreadable, ArrayName]] = {}
    for array, name in named:
        if name.role == "images":
            key = (name.split, name.group)
            if key not in best or name.rank < best[key][1].rank:
                best[key] = (array, name)
    if best:
        return list(best.values())
    others = [
        pair for pair in named if pair[1].role is None and isinstance(pair[0], Array) and pixels.is_image_like(pair[0])
    ]
    splits = {name.split for _, name in others}
    return others if len(splits) == len(others) else []


def _read_images(
    array: Array,
    encoded: Iterator[bytes],
    name: ArrayName,
    named: Sequence[tuple[Array | Unreadable, ArrayName]],
    alone: bool,
    split: Split | None,
) -> Generator[Item | Finding, None, set[str]]:
    """Yield the encoded images of an array, and return the names of the arrays that were read."""
    count = array.shape[0] if array.shape else 0
    first = next(encoded, None)  # the images' own faults are raised before those of their labels
    used = {array.name}
    values: list[labels.Label] = [None] * count
    target = _find_labels(name, named, alone)
    if target is not None:
        values, finding = labels.read(target, count)
        used.add(target.name)
        if finding is not None:
            yield finding
    splits = [name.split or split or "train"] * count
    for other, about in named:
        if about.role == "split" and alone:
            splits = labels.read_splits(_require(other), count)
            used.add(other.name)
    names = _read_class_names(named, count, used)
    for number in range(count):
        data = first if number == 0 else next(encoded)
        if data is not None:
            label = values[number]
            if isinstance(label, int) and 0 <= label < len(names):
                label = names[label]
            yield Item(f"{array.name or 'images'}/{number:08d}", data, label, splits[number])
    return used


def _find_labels(name: ArrayName, named: Sequence[tuple[Array | Unreadable, ArrayName]], alone: bool) -> Array | None:
    """Return the labels of the split and group of the images, or the only labels there are."""
    targets = sorted((pair for pair in named if pair[1].role == "labels"), key=lambda pair: pair[1].rank)
    same = [array for array, about in targets if about.split == name.split and about.group in (name.group, frozenset())]
    if same:
        return _require(same[0])
    only = targets[0] if alone and len(targets) == 1 else None
    return _require(only[0]) if only is not None and only[1].split in (name.split, None) else None


def _read_class_names(named: Sequence[tuple[Array | Unreadable, ArrayName]], count: int, used: set[str]) -> list[str]:
    """Return the names in an array of class names, or of labels that are too few to be labels."""
    for array, about in named:
        spare = about.role == "labels" and array.name not in used
        if isinstance(array, Array) and (about.role == "classes" or spare) and array.shape != (count,):
            names = labels.read_names(array)
            if names:
                used.add(array.name)
                return names
    return []


def _require(array: Array | Unreadable) -> Array:
    if isinstance(array, Unreadable):
        raise array.error
    return array


def _no_images(arrays: Sequence[Array | Unreadable]) -> PackError:
    names = ", ".join(array.name for array in arrays[:5])
    for array in arrays:
        if isinstance(array, Unreadable):
            return array.error
    return PackError("no_images", f"It is not certain which array holds the images; {_HOW}. There are: {names}.")
