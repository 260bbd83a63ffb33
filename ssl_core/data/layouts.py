"""Layouts: from the paths of a dataset's images to their splits and classes.

Supported are `<file>` (no labels), `<class>/…`, `<split>/<class>/…`, `<split>/<file>` and `<class>/<split>/…`. Folders
that wrap all images are looked through, and so is a folder in a split that repeats the split's name (`test/test/…`)
or says only that it has images (`val/images/…`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ssl_core.config.reading import Layout as Asked
from ssl_core.data.items import Finding, PackError
from ssl_core.data.split_names import Split, find_split, is_unlabelled, parse_split

SplitAndClass = tuple[Split, str | None]  # None: no label
Parts = list[str]  # of a path: its folders and the name of its file

_LEVELS = 4  # the first ones, among which splits are looked for
_LOOKED_THROUGH = 3  # folders in a split
_FILLERS = ("images", "image", "imgs", "img", "jpegimages", "jpegs", "jpeg", "jpg", "png", "pngs", "pictures", "files")
_NO_CLASSES = (*_FILLERS, "masks", "mask", "labels", "annotations", "annotation", "thumbnails", "thumbs", "previews")
_PART = re.compile(r"(^|[^a-z])(part|parts|shard|chunk|batch|volume|vol|images?|archive)[-_ .]?\d+$", re.IGNORECASE)
_SPLITS_SHOWN = 20

NO_TRAINING_IMAGES = (
    "All images are in val or test folders: there is no training split. With `layout` flat or classes all of them are"
    " for training."
)


@dataclass(frozen=True)
class Layout:
    """How paths were read."""

    assigned: list[SplitAndClass | None]  # for each path; None: outside the split folders
    reading: Literal["flat", "classes", "splits"]
    splits: dict[str, Split] = field(default_factory=dict)  # of each split folder, by its path
    findings: list[Finding] = field(default_factory=list)

    def to_report(self) -> dict[str, Any]:
        """Return it as `{reading, splits}`, with at most 20 split folders."""
        return {"reading": self.reading, "splits": dict(sorted(self.splits.items())[:_SPLITS_SHOWN])}


def parse_paths(paths: Sequence[str], asked: Asked = "auto") -> Layout:
    """Return the splits and the classes of the paths. Raises PackError when none is for training."""
    everything = [path.split("/") for path in paths]
    if asked == "flat":
        return Layout([("train", None)] * len(paths), "flat")
    wrapping = _count_wrapping_folders(everything)
    inner = [parts[wrapping:] for parts in everything]
    level = None if asked == "classes" else _find_split_level(inner)
    if level is not None:
        return _read_splits(inner, level, everything[0][:wrapping])
    if asked == "splits":
        raise PackError("no_splits", "No folder is called train: with `layout` splits one has to be.")
    tops = {parts[0] for parts in inner if len(parts) > 1}
    are_splits = tops and None not in {parse_split(top) for top in tops} and all(len(parts) > 1 for parts in inner)
    if asked == "auto" and are_splits:
        raise PackError("no_training_images", NO_TRAINING_IMAGES)
    return _read_classes(inner, may_be_parts=asked == "auto")


@dataclass(frozen=True)
class _SplitLevel:
    depth: int
    parse: Callable[[str], Split | None]


def _find_split_level(paths: list[Parts]) -> _SplitLevel | None:
    """Return the first level of folders that are splits, with one for training among them."""
    for depth in range(_LEVELS):
        names = {parts[depth] for parts in paths if len(parts) > depth + 1}
        others = {name for name in names if parse_split(name) is None and not is_unlabelled(name)}
        found = {parse_split(name) for name in names}
        if "train" in found and not others:
            return _SplitLevel(depth, parse_split)
        if "train" in found and depth == 0 and (len(found) > 2 or not _has_files(paths, _name_of(names, "train"))):
            return _SplitLevel(depth, parse_split)  # `others` lie outside
        loose = {find_split(name) for name in names if not is_unlabelled(name)}
        if None not in loose and "train" in loose and len(loose) > 1:
            return _SplitLevel(depth, find_split)
    return None


def _name_of(names: Iterable[str], split: Split) -> str:
    return next(name for name in sorted(names) if parse_split(name) == split)


def _has_files(paths: list[Parts], folder: str) -> bool:
    """Whether files lie directly in the top-level folder: beside others it is then a class, such as of vehicles."""
    return any(len(parts) == 2 and parts[0] == folder for parts in paths)


def _read_splits(paths: list[Parts], level: _SplitLevel, wrapping: Parts) -> Layout:
    depth, splits = level.depth, dict[str, Split]()
    inner: dict[tuple[str, ...], list[tuple[int, Parts]]] = {}  # of each split folder: numbers, parts in it
    assigned: list[SplitAndClass | None] = [None] * len(paths)
    unlabelled: Counter[str] = Counter()
    for number, parts in enumerate(paths):
        name = parts[depth] if len(parts) > depth + 1 else None
        if name is None:
            continue
        if is_unlabelled(name):
            assigned[number] = ("train", None)
            unlabelled[name] += 1
        elif level.parse(name) is not None:
            inner.setdefault(tuple(parts[: depth + 1]), []).append((number, parts[depth + 1 :]))
    for folder, members in inner.items():
        split = level.parse(folder[-1])
        assert split is not None
        splits["/".join((*wrapping, *folder))] = split
        inner[folder] = _look_through(members, split, level.parse)
    _strip_shared_folder(inner)
    before = {folder[:-1] for folder in inner}
    names_class = depth > 0 and len(before) > 1  # <class>/<split>/…
    nested: Counter[str] = Counter()
    for folder, members in inner.items():
        outer = folder[-2] if names_class else None
        for number, parts in members:
            assigned[number] = (splits["/".join((*wrapping, *folder))], parts[0] if len(parts) > 1 else outer)
            if len(parts) > 2 and parts[1].casefold() not in _FILLERS:
                nested["/".join(parts[:2])] += 1
    return Layout(
        assigned, "splits", splits, [*_warn_unlabelled(unlabelled), *_warn_of_classes(assigned, unlabelled, nested)]
    )


def _look_through(members: list[tuple[int, Parts]], split: Split, parse: Callable[[str], Split | None]) -> Any:
    """Strip folders that hold all of a split and repeat its name, or say only that they hold images."""
    for _ in range(_LOOKED_THROUGH):
        tops = {parts[0] if len(parts) > 1 else None for _, parts in members}
        only = next(iter(tops)) if len(tops) == 1 else None
        if only is None or not (parse(only) == split or parse_split(only) == split or only.casefold() in _FILLERS):
            break
        members = [(number, parts[1:]) for number, parts in members]
    return members


def _strip_shared_folder(inner: dict[tuple[str, ...], list[tuple[int, Parts]]]) -> None:
    """Strip a folder that holds all images of every split, and at least two folders and no file itself."""
    everything = [parts for members in inner.values() for _, parts in members]
    if len({parts[0] for parts in everything}) == 1 and _wraps_folders(everything):
        for folder, members in inner.items():
            inner[folder] = [(number, parts[1:]) for number, parts in members]


def _wraps_folders(paths: list[Parts]) -> bool:
    """Whether the first folder of the paths holds at least two folders and no file itself."""
    return all(len(parts) > 2 for parts in paths) and len({parts[1] for parts in paths}) > 1


def _read_classes(paths: list[Parts], *, may_be_parts: bool) -> Layout:
    inside = [parts for parts in paths if len(parts) > 1]
    depth = 1 if len({parts[0] for parts in inside}) == 1 and _wraps_folders(inside) else 0
    nested: Counter[str] = Counter()
    unlabelled: Counter[str] = Counter()
    assigned: list[SplitAndClass | None] = []
    for parts in paths:
        name = parts[depth] if len(parts) > depth + 1 else None
        if name is not None and is_unlabelled(name):
            unlabelled[name] += 1
            name = None
        assigned.append(("train", name))
        if len(parts) > depth + 2 and parts[depth + 1].casefold() not in _FILLERS:
            nested["/".join(parts[depth : depth + 2])] += 1
    names = {pair[1] for pair in assigned if pair is not None and pair[1] is not None}
    if may_be_parts and len(names) > 1 and all(_PART.search(name) for name in names):
        detail = "The folders are numbered parts of the dataset, and no classes; `layout` classes makes them classes."
        parts_found = Finding("parts", detail, min(names), len(names))
        return Layout([("train", None)] * len(paths), "flat", {}, [parts_found])
    findings = [*_warn_unlabelled(unlabelled), *_warn_of_classes(assigned, unlabelled, nested)]
    return Layout(assigned, "classes" if names else "flat", {}, findings)


def _warn_unlabelled(folders: Counter[str]) -> list[Finding]:
    detail = "The images of this folder are training images without labels."
    return [Finding("unlabelled_folder", detail, name, count) for name, count in folders.items()]


def _warn_of_classes(
    assigned: list[SplitAndClass | None], unlabelled: Counter[str], nested: Counter[str]
) -> list[Finding]:
    counts = Counter(pair[1] for pair in assigned if pair is not None and pair[0] == "train")
    found = []
    loose = counts[None] - unlabelled.total()
    if loose and len(counts) > 1:
        detail = "Training images beside the folders of the classes have no label."
        found.append(Finding("images_beside_classes", detail, count=loose))
    for name, count in nested.items():
        detail = "Folders within the folder of a class are no classes: the first folder is the label."
        found.append(Finding("nested_folders", detail, name, count))
    for name in sorted(name for name in counts if name is not None and name.casefold() in _NO_CLASSES):
        detail = "The name of this class is one that folders without classes usually have."
        found.append(Finding("unlikely_class", detail, name, counts[name]))
    return found


def _count_wrapping_folders(paths: list[Parts]) -> int:
    """Return the number of top-level folders that contain all paths and are not splits."""
    if not paths:
        return 0
    first, last = min(paths)[:-1], max(paths)[:-1]
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        if parse_split(first[depth]) is not None:
            break
        depth += 1
    return depth
