"""Labelling: the split and the label of each image of an upload, from readers, folders and label tables."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ssl_core.config.reading import Reading
from ssl_core.data import label_tables, layouts, leftovers
from ssl_core.data.items import Finding, PackError
from ssl_core.data.label_tables import Columns, Table
from ssl_core.data.layouts import Layout
from ssl_core.data.split_names import Split, find_split, parse_split

Label = str | int | None
Documents = dict[str, bytes]  # by their paths

UNREAD = "The document is not read: it has no column with the images of the upload, or none with their labels."
_UNREAD_COLUMN = "The column is not read."
_SEVERAL_SPLITS = "Documents named after splits list the image for several: their lists are not used."
_SEVERAL = "The image has several labels in a document, and gets none."
_NO_IMAGE = "The document has a row of an image that is not in the upload."
_FOLDERS_WIN = "The labels in the document are not used: the folders give the classes; `label_column` prefers these."
_PARTS = 3  # of a path, by which it is found
_TRIED = 100  # images that a value may mean, at most
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv")  # of Hugging Face's ImageFolder: they go before folders


@dataclass
class Labelling:
    """The splits and labels of the images, in their order, and how they were found."""

    assigned: list[tuple[Split, Label] | None]  # None: outside the split folders
    findings: list[Finding] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)  # reading, splits, labels (folders, tables, given), tables


def assign(
    names: Sequence[str],
    labels: Sequence[Label],
    splits: Sequence[Split | None],
    documents: Documents,
    reading: Reading,
) -> Labelling:
    """Return the split and label of each image; `labels` and `splits` are those that its reader knows.

    Raises PackError when no image is for training, or a stated column or layout is not there.
    """
    places = [row for row, split in enumerate(splits) if split is None]
    layout = layouts.parse_paths([names[row] for row in places], reading.layout) if places else None
    assigned: list[tuple[Split, Label] | None] = [
        None if split is None else (split, label) for split, label in zip(splits, labels, strict=True)
    ]
    for row, pair in zip(places, layout.assigned if layout else (), strict=True):
        assigned[row] = pair if pair is None or labels[row] is None else (pair[0], labels[row])
    found = Labelling(assigned, list(layout.findings) if layout else [], layout.to_report() if layout else {})
    if reading.label_column is not None and not documents and all(label is None for label in labels):
        raise PackError("no_such_column", f"Nothing in the upload has a column {reading.label_column}.")
    from_tables = _read_tables([names[row] for row in places], documents, reading, found.findings)
    _apply(from_tables, places, labels, layout, found)
    found.report["labels"] = from_tables.source or _name_source(assigned, labels)
    found.report["tables"] = from_tables.used[:20]
    return found


def _name_source(assigned: Sequence[Any], labels: Sequence[Label]) -> str | None:
    if any(label is not None for label in labels):
        return "files"
    return "folders" if any(pair is not None and pair[1] is not None for pair in assigned) else None


@dataclass
class _FromTables:
    names: Sequence[str]
    labels: dict[int, tuple[Label, bool]] = field(default_factory=dict)  # and whether it goes before folders
    splits: dict[int, Split] = field(default_factory=dict)
    file_splits: dict[int, set[Split]] = field(default_factory=dict)  # by the names of the tables that list the image
    trainval: set[int] = field(default_factory=set)  # images in a list of both: for training where no other has them
    several: set[int] = field(default_factory=set)  # images with several labels, which get none
    used: list[str] = field(default_factory=list)
    source: str | None = None


def _apply(
    tables: _FromTables, places: Sequence[int], labels: Sequence[Label], layout: Layout | None, found: Labelling
) -> None:
    """Complete the folders' splits and labels by those of the tables."""
    has_splits = layout is not None and layout.reading == "splits"
    splits = tables.splits or ({} if has_splits else _choose_splits(tables, found.findings))
    unused = 0
    for place, row in enumerate(places):
        pair = found.assigned[row]
        if pair is None:
            continue
        split, label = pair
        if not has_splits or place in tables.splits:
            split = splits.get(place, split)
        if place in tables.labels and labels[row] is None:
            value, goes_first = tables.labels[place]
            if label is None or goes_first:
                tables.source, label = "tables", value
            else:
                unused += str(label) != str(value)
        found.assigned[row] = (split, label)
    if unused:
        found.findings.append(Finding("labels_not_used", _FOLDERS_WIN, ", ".join(tables.used[:3]), unused))


def _choose_splits(tables: _FromTables, findings: list[Finding]) -> dict[int, Split]:
    """The splits by the names of tables: none where they contradict each other, or name most images and no training."""
    listed: dict[int, set[Split]] = {place: {"train"} for place in tables.trainval}
    listed |= tables.file_splits
    several = [place for place, splits in listed.items() if len(splits) > 1]
    findings.extend(Finding("several_splits", _SEVERAL_SPLITS, tables.names[place]) for place in several)
    splits: dict[int, Split] = {} if several else {place: split for place, (split,) in listed.items()}
    return splits if "train" in splits.values() or len(splits) <= len(tables.names) / 2 else {}


def _read_tables(names: Sequence[str], documents: Documents, reading: Reading, findings: list[Finding]) -> _FromTables:
    result, columns_seen = _FromTables(names), set[str]()
    if not names:  # the readers know the splits and labels
        findings.extend(
            Finding("unread_document", UNREAD, name) for name in documents if leftovers.may_hold_labels(name)
        )
        return result
    index: _NameIndex | None = None  # takes memory for each image, and a README needs none
    unread: list[str] = []
    mentioning = set[str]()  # of these, those that name images
    for document, data in sorted(documents.items()):
        table = label_tables.parse(document, data) if "submission" not in document.casefold() else None
        columns = None
        if table is not None:
            columns_seen.update(table.columns or ())
            index = index or _NameIndex(names)
            if not (table.has_loose_lines and index.matches(_stem(document))[1]):  # not that of one image
                columns = label_tables.find_columns(table, index.matches, reading.label_column, reading.split_column)
        if table is None or columns is None or not (columns.are_useful or find_split(_stem(document))):
            unread.append(document)
            mentioning |= {document} if columns is not None else set()
            continue
        assert index is not None
        result.used.append(document)
        findings.extend(_warn_unread(table, columns))
        goes_first = reading.label_column is not None or PurePosixPath(document).name.casefold() in _METADATA
        _read_rows(table, columns, index, goes_first, result, findings)
    described = {_stem(document) for document in unread}.intersection(map(_stem, names)) if unread else set()
    for document in unread:
        if leftovers.may_hold_labels(document) or document in mentioning or _stem(document) in described:
            findings.append(Finding("unread_document", UNREAD, document))
    if documents:
        _check_columns(reading, columns_seen)
    return result


def _check_columns(reading: Reading, seen: set[str]) -> None:
    """Raise PackError for a stated column that no document has."""
    folded = {name.strip().casefold() for name in seen}
    for field_name in ("label_column", "split_column"):
        asked = getattr(reading, field_name)
        if asked is not None and asked.strip().casefold() not in folded:
            known = ", ".join(sorted(seen)[:20]) or "none"
            raise PackError(
                "no_such_column", f"No document has a column {asked} for `{field_name}`; there are: {known}."
            )


def _warn_unread(table: Table, columns: Columns) -> Iterator[Finding]:
    read = {columns.file, columns.label, columns.split, *columns.one_hot}
    for place, name in enumerate(table.columns or ()):
        if place not in read:
            yield Finding("unread_columns", _UNREAD_COLUMN, f"{table.document}: {name}")


def _read_rows(
    table: Table, columns: Columns, index: "_NameIndex", goes_first: bool, result: _FromTables, findings: list[Finding]
) -> None:
    folder = str(PurePosixPath(table.document).parent)
    own_split, is_trainval = find_split(_stem(table.document)), "trainval" in _stem(table.document).casefold()
    several, missing = set[int](), Counter[str]()
    for row in table.rows:
        place = index.find(str(row[columns.file]), "" if folder == "." else folder, own_split)
        if place is None:
            missing[str(row[columns.file])] += 1
            continue
        if is_trainval:
            result.trainval.add(place)
        elif own_split is not None:
            result.file_splits.setdefault(place, set()).add(own_split)
        if columns.split is not None:
            if (split := parse_split(str(row[columns.split]))) is None:
                detail = f"{table.document} has a split {row[columns.split]}, which is none of train, val and test."
                raise PackError("unknown_split", detail)
            result.splits[place] = split
        label = _read_label(row, table, columns)
        before = result.labels.get(place)
        if isinstance(label, list) or (before is not None and label is not None and str(before[0]) != str(label)):
            several.add(place)
        elif label is not None and place not in result.several:
            result.labels[place] = (label, goes_first)
    for place in several - result.several:
        result.labels.pop(place, None)
        findings.append(Finding("several_labels", _SEVERAL, index.names[place]))
    result.several |= several
    for name in missing:
        findings.append(Finding("rows_without_image", _NO_IMAGE, f"{table.document}: {name[:200]}"))


def _read_label(row: Sequence[Any], table: Table, columns: Columns) -> Label | list[Any]:
    if columns.one_hot:
        hot = [place for place in columns.one_hot if label_tables.to_number(row[place]) == 1]
        if len(hot) != 1:
            return hot or None
        return table.columns[hot[0]] if table.columns else hot[0]
    value = row[columns.label] if columns.label is not None else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | dict):
        return [value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = "" if value is None else str(value).strip()
    if text.casefold() in ("", "nan"):
        return None
    return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text


class _NameIndex:
    """The images by their paths, and by the last one to three parts of these, with and without suffix."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._paths = {name: place for place, name in enumerate(names)}
        self._tails: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            parts = name.split("/")[-_PARTS:]
            for count in range(1, len(parts) + 1):
                tail = "/".join(parts[-count:])
                for key in {tail, _without_suffix(tail)}:
                    self._tails.setdefault(key, []).append(place)

    def matches(self, value: str) -> tuple[bool, bool]:
        """Whether an image's file has this name, and whether one has it without its suffix."""
        file = _last_part(value)
        places = self._tails.get(file, [])
        return any(_last_part(self.names[place]) == file for place in places[:_TRIED]), bool(places)

    def find(self, value: str, folder: str, split: Split | None) -> int | None:
        """Return the image of a value in a document that lies in `folder`; None when there is none, or several.

        The folders in the value, as far as an image's path has as many, have to be the image's.
        """
        path = "/".join(part for part in value.strip().replace("\\", "/").split("/") if part not in ("", "."))
        for whole in (f"{folder}/{path}" if folder else path, path):
            if whole in self._paths:
                return self._paths[whole]
        parts = path.split("/")[-_PARTS:]
        for count in range(len(parts), 0, -1):
            found = self._tails.get("/".join(parts[-count:]), [])
            if found and count < len(parts):  # these images have fewer folders, or others, which contradict the value
                found = [place for place in found[:_TRIED] if self.names[place].count("/") < count]
            if found:
                return self._choose(found, folder, split)
        return None

    def _choose(self, places: list[int], folder: str, split: Split | None) -> int | None:
        """The one image in the document's folder, or of the split that the document's name says."""
        if len(places) > _TRIED:
            return None
        if len(places) > 1 and folder:
            places = [place for place in places if self.names[place].startswith(f"{folder}/")] or places
        if len(places) > 1 and split is not None:
            places = [p for p in places if split in map(parse_split, self.names[p].split("/")[:-1])]
        return places[0] if len(places) == 1 else None


def _without_suffix(path: str) -> str:
    folder, slash, file = path.rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)


def _stem(path: str) -> str:
    """The file's name without its suffix: a document beside an image has the image's."""
    return _without_suffix(path.rpartition("/")[2])


def _last_part(value: str) -> str:
    return value.strip().replace("\\", "/").rpartition("/")[2]
