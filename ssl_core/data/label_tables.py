"""Label tables: documents of an upload as rows, and the columns that name images, labels and splits.

Read are CSV and TSV with or without a header, JSON lines, JSON (a list of objects, an object of names and labels or of
labels and lists of names, COCO's annotations) and text whose lines are a file, and perhaps a label (Tiny-ImageNet's
`val_annotations.txt`, Food-101's `train.txt`).
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_core.data.split_names import find_split, parse_split

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "class_label", "label_name", "category", "category_name",
    "target", "targets", "y", "diagnosis", "dx", "finding", "species", "breed", "tag", "cls", "classes",
    "categories", "fine_label", "class_id", "label_id", "category_id", "classid",
)  # fmt: skip
SPLIT_NAMES = ("split", "set", "subset", "partition", "data_split", "dataset_split", "data set", "usage", "purpose")
NO_LABELS = (  # names of columns that are never guessed to be labels
    "fold", "age", "width", "height", "size", "url", "date", "time", "year", "group", "patient", "patient_id",
    "source", "caption", "text", "description", "index", "count", "score", "weight", "x", "sha256", "md5", "license",
)  # fmt: skip
FILE_NAMES = (
    "file_name", "filename", "file", "filepath", "file_path", "path", "image_path", "image", "image_name",
    "image_id", "img", "img_name", "img_path", "imgpath", "images", "name", "id", "key",
)  # fmt: skip
MOST_BYTES = 64 * 2**20  # of a document
_CELLS, _CELLS_PER_KEY = 2**20, 20  # of a table of objects, as many as it has names
_HEADING = 3  # lines
_SAMPLE = 1000  # rows, of which the columns are recognised
_SOME = 3  # rows, whose numbers are not by chance those of images
_FEW = 20  # rows, of which each may have a label of its own
_DELIMITERS = ",;\t|"
_MOST = 0.5  # of them do, where only that shows that they are names
_ENOUGH = 0.05  # of the sampled rows name an image of the upload; others may be of images that are not in it
_NEARLY_ALL = 0.95  # of loose lines do, where they name it without its suffix

Matches = Callable[[str], tuple[bool, bool]]  # whether a value is an image's name, and its name without the suffix


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a document; `columns` is None where nothing names them."""

    document: str
    columns: list[str] | None
    rows: list[Sequence[Any]]
    has_loose_lines: bool = False  # of words: nothing but the images' names shows that it is no prose
    has_keys: bool = False  # the first column can only be that of the files


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions of a table's columns; `one_hot`: those of classes, of which each row has one."""

    file: int
    label: int | None
    split: int | None
    one_hot: tuple[int, ...] = ()

    @property
    def are_useful(self) -> bool:
        """Whether the table gives labels or splits."""
        return self.label is not None or self.split is not None or bool(self.one_hot)


def parse(document: str, data: bytes) -> Table | None:
    """Return the document's table, or None where it is none that is read."""
    text = _decode(data)
    suffix = document.casefold().rpartition(".")[2]
    try:
        if suffix in ("jsonl", "ndjson"):
            return _from_objects(document, [json.loads(line) for line in text.splitlines() if line.strip()])
        if suffix == "json":
            return _from_json(document, json.loads(text))
        return _from_lines(document, text, suffix)
    except (ValueError, RecursionError, csv.Error, KeyError, TypeError, AttributeError):
        return None


def find_columns(table: Table, matches: Matches, label: str | None = None, split: str | None = None) -> Columns | None:
    """Return the columns, by their content and their names; None when none names images.

    label, split: names of these columns, if they are known.
    """
    sample = table.rows[:: max(1, len(table.rows) // _SAMPLE)][:_SAMPLE]
    width = min((len(row) for row in sample), default=0)
    names = [_fold(name) for name in table.columns or [""] * width]
    places = range(1 if table.has_keys else width)
    scores = {place: _score(sample, place, names, matches) for place in places}
    if not scores:
        return None
    file = max(scores, key=lambda place: scores[place])
    exact, stem, *_ = scores[file]
    # Without its suffix a name may be a mere number, which may also be something else.
    are_many = len(sample) >= _SOME or _names_split(table.document)
    is_name = names[file] in FILE_NAMES or (stem >= _MOST and are_many)
    enough = _NEARLY_ALL if table.has_loose_lines else _ENOUGH
    if exact < _ENOUGH and (stem < enough or not is_name):
        return None
    others = [place for place in range(width) if place != file]
    split_place = _find_split_column(names, sample, others, split)
    others = [place for place in others if place != split_place]
    label_place = _find_label_column(names, others, label)
    if label_place is None and label is None and others and (len(others) == 1 or table.columns is None):
        # Of a file and a label, and perhaps more behind them.
        is_none = names[others[0]] in (*NO_LABELS, *SPLIT_NAMES) or _is_about_splits(table.document)
        is_guess = not is_none and _repeats(sample, others[0])
        label_place = others[0] if is_guess else None
    one_hot = () if label_place is not None or label is not None else _find_one_hot(sample, others)
    return Columns(file, label_place, split_place, one_hot)


def _score(sample: Sequence[Sequence[Any]], place: int, names: list[str], matches: Matches) -> tuple[float, ...]:
    values = [str(row[place]) for row in sample]
    found = [matches(value) for value in values]
    distinct = len(set(values)) / len(values)
    known = names[place] in FILE_NAMES
    exact = sum(whole for whole, _ in found) / len(values)
    stem = distinct * sum(part for _, part in found) / len(values)
    return exact, stem, known, distinct, -place


def _find_label_column(names: list[str], others: Sequence[int], label: str | None) -> int | None:
    if label is not None:
        return next((place for place in others if names[place] == _fold(label)), None)
    known = [place for name in LABEL_NAMES for place in others if names[place] == name]
    return known[0] if known else None


def _repeats(sample: Sequence[Sequence[Any]], place: int) -> bool:
    """Whether the values of a column could be labels: of many rows, not nearly all have different ones."""
    return len(sample) < _FEW or len({str(row[place]) for row in sample}) <= len(sample) / 2


def _find_split_column(
    names: list[str], sample: Sequence[Sequence[Any]], others: Sequence[int], split: str | None
) -> int | None:
    wanted = SPLIT_NAMES if split is None else (_fold(split),)
    for place in others:
        values = {str(row[place]) for row in sample}
        if names[place] in wanted and (split is not None or all(parse_split(value) for value in values)):
            return place
    if split is not None:
        return None
    return next((place for place in others if all(parse_split(str(row[place])) for row in sample)), None)


def _find_one_hot(sample: Sequence[Sequence[Any]], others: Sequence[int]) -> tuple[int, ...]:
    """The columns of which each row has a 1 in one and a 0 in all others."""
    if len(others) < 2:
        return ()
    for row in sample:
        values = [to_number(row[place]) for place in others]
        if any(value not in (0, 1) for value in values) or sum(value or 0 for value in values) != 1:
            return ()
    return tuple(others)


def to_number(value: Any) -> float | None:
    """Return the value as a number, or None where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _from_json(document: str, found: Any) -> Table | None:
    if isinstance(found, list):
        return _from_objects(document, found)
    if not isinstance(found, dict):
        return None
    if {"images", "annotations", "categories"} <= found.keys():
        return _from_coco(document, found)
    lists = [value for value in found.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1:
        return _from_objects(document, lists[0])
    if found and all(isinstance(value, str | int) for value in found.values()):
        return Table(document, None, list(found.items()), has_keys=True)
    return _from_lists(document, found)


def _from_lists(document: str, found: dict[str, Any]) -> Table | None:
    """An object of columns, or of lists of the images of each class or of each split."""
    if {_fold(key) for key in found}.intersection(FILE_NAMES):
        lengths = {len(value) if isinstance(value, list) else -1 for value in found.values()}
        is_table = len(lengths) == 1 and -1 not in lengths
        return Table(document, list(found), list(map(list, zip(*found.values(), strict=True)))) if is_table else None
    texts = {key: value for key, value in found.items() if _is_list_of_texts(value)}
    kind = "split" if any(map(parse_split, texts)) else "label"
    chosen = {key: files for key, files in texts.items() if kind == "label" or parse_split(key)}
    rows: list[Sequence[Any]] = [(file, key) for key, files in chosen.items() for file in files]
    return Table(document, ["file_name", kind], rows) if rows and (kind == "split" or texts == found) else None


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _from_coco(document: str, found: dict[str, Any]) -> Table:
    """A row for each image and category of it."""
    names = {each["id"]: str(each["name"]) for each in found["categories"]}
    files = {each["id"]: str(each["file_name"]) for each in found["images"]}
    pairs = dict.fromkeys((each["image_id"], each["category_id"]) for each in found["annotations"])
    rows = [(files[image], names[category]) for image, category in pairs if image in files and category in names]
    return Table(document, ["file_name", "category"], list(rows))


def _from_objects(document: str, found: list[Any]) -> Table | None:
    objects = [each for each in found if isinstance(each, dict)]
    if not objects or len(objects) < len(found):
        return None
    columns = list(dict.fromkeys(name for each in objects for name in each))
    if len(columns) * len(objects) > _CELLS_PER_KEY * sum(map(len, objects)) + _CELLS:
        return None  # each object has names of its own: nothing that a table could be
    return Table(document, [str(name) for name in columns], [[each.get(name) for name in columns] for each in objects])


def _from_lines(document: str, text: str, suffix: str) -> Table | None:
    head = "\n".join(text.split("\n", 6)[:5])
    delimiter = "\t" if suffix == "tsv" else max(_DELIMITERS, key=head.count)
    if not head.count(delimiter):
        return _from_words(document, text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    lines: list[Sequence[Any]] = [row for row in rows if any(row)]
    if not lines or len(lines[0]) < 2:
        return None
    width = len(lines[0])
    lines = [row[:width] for row in lines if len(row) >= width]
    if suffix == "txt" and not any(map(_is_data, lines[:_SAMPLE])):
        return None  # prose
    if suffix == "txt" or _is_data(lines[0]):
        return Table(document, None, lines, has_loose_lines=suffix == "txt")
    return Table(document, [str(name).strip() for name in lines[0]], lines[1:]) if len(lines) > 1 else None


def _from_words(document: str, text: str) -> Table | None:
    """A list of files, or lines of a file and one or more words, which are one column where their number differs."""
    lines: list[Sequence[Any]] = [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    first = next((place for place, row in enumerate(lines[:_HEADING]) if _is_data(row)), 0)
    lines = lines[first:]  # behind a heading, such as CelebA's number of images and names of columns
    widths = {len(row) for row in lines}
    is_regular = len(widths) == 1 and widths != {1}
    if not (is_regular or _names_split(document) or any(map(_is_data, lines[:_SAMPLE]))):
        return None  # prose
    if len(widths) > 1:
        lines = [(row[0], " ".join(row[1:])) for row in lines]
    elif _fold(lines[0][0]) in FILE_NAMES and len(lines) > 1:
        return Table(document, list(lines[0]), lines[1:], has_loose_lines=True)
    return Table(document, None, lines, has_loose_lines=True)


def _is_about_splits(document: str) -> bool:
    """Whether a second column beside the images is their split, in numbers or words that are not known."""
    name = document.rpartition("/")[2].casefold()
    return any(word in name for word in ("partition", "split", "fold"))


def _names_split(document: str) -> bool:
    return find_split(document.rpartition("/")[2].rpartition(".")[0]) is not None


def _is_data(row: Sequence[Any]) -> bool:
    """Whether the first row of a table is one of values: one of them looks like a file."""
    return any(
        re.search(r"\.(jpe?g|png|tiff?|bmp|gif|webp|ppm|pgm|avif|jp2)$", str(cell), re.IGNORECASE) for cell in row
    )


def _decode(data: bytes) -> str:
    for encoding in ("utf-8-sig", "utf-16") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("cp1252", "replace")


def _fold(name: str) -> str:
    return name.strip().casefold()
