"""Dataset packing: from a stream of images to the packed dataset that training reads.

The folder gets `images.arrow` (one row per image, sorted by split, class and name), `pixels.npy` when all images share
one small size, `blocks.sha256` with the checksums of both, and last `dataset.json`, which marks the dataset as
complete. The same images give the same bytes.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_core.checksums import blocks, document
from ssl_core.checksums.blocks import BlockWriter
from ssl_core.config.reading import Pages, Reading
from ssl_core.data import clean_names, decode, label_tables, labelling, leftovers
from ssl_core.data.decode import CountPixels
from ssl_core.data.formats.pages import split, stack
from ssl_core.data.formats.value_range import FoundRange, RangeFinder, stated
from ssl_core.data.image_spool import ImageFacts, ImageSpool, inspect_image
from ssl_core.data.items import BadFile, Finding, Found, Item, PackError, Warnings
from ssl_core.data.layouts import NO_TRAINING_IMAGES
from ssl_core.data.split_names import SPLITS
from ssl_core.files import make_folder, remove_durably, write_atomic

FORMAT = 1
DEFAULTS = Reading()
DOCUMENT = "dataset.json"
MAX_CLASSES = 100_000
SCHEMA = pa.schema(
    [
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("split", pa.int8(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("name", pa.string(), nullable=False),
    ]
)
_DOCUMENTS = 1000
PAGES_LEFT_OUT = "Only the first page or frame of a file is read; `pages` reads all, as images or as channels."
NARROW = (
    "The images use little of the range of their depth; they are scaled by the 0.1th and 99.9th percentiles of their"
    " values. `low` and `high` state another range."
)
_FAULTS_REPORTED = 1000
_FAULTS_IN_ERROR = 100
_FEW_IMAGES, _NEARLY_ALL = 20, 0.9
_SIZES_REPORTED = 50
_BATCH_ROWS = 4096
_BATCH_BYTES = 16 * 2**20


def pack(
    items: Iterable[Found],
    directory: Path,
    *,
    reading: Reading = DEFAULTS,
    max_images: int = 10_000_000,
    max_pixels: int = decode.MAX_PIXELS,
) -> dict[str, Any]:
    """Pack the images into the directory and return the report, which is also its `dataset.json`. Raises PackError."""
    with Packer(directory, reading=reading, max_images=max_images, max_pixels=max_pixels) as packer:
        for item in items:
            packer.add(item)
        return packer.finish()


def pack_folder(folder: Path, directory: Path, *, reading: Reading = DEFAULTS) -> dict[str, Any]:
    """Pack a folder of image files. Raises PackError."""
    return pack(_read_folder(folder), directory, reading=reading)


class Packer:
    """Builds a packed dataset: `add` every image, then `finish`."""

    def __init__(
        self,
        directory: Path,
        *,
        reading: Reading,
        max_images: int,
        max_pixels: int,
        count_pixels: CountPixels | None = None,
    ) -> None:
        """count_pixels: called with the size of each image before it is decoded; what it raises ends `add`."""
        make_folder(directory)
        self._directory = directory
        self._reading = reading
        self._warnings = Warnings()
        self._max_images = max_images
        self._max_pixels = max_pixels
        self._count_pixels = count_pixels
        self._spool = ImageSpool(directory)
        self._faults: list[BadFile] = []
        self._fault_count = 0
        self._ignored = 0
        self._documents: dict[str, bytes] = {}  # by their names; in memory
        self._document_room = 2 * label_tables.MOST_BYTES
        self._channels = None if reading.channels == "auto" else reading.channels
        self._range_finder = RangeFinder()
        self._range: FoundRange | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, item: Found) -> None:
        """Decode an image and append it to the spool. Raises PackError when there are too many."""
        if isinstance(item, Finding):
            self._warnings.add(item)
            return
        if leftovers.is_leftover(item.name):
            self._ignored += 1
            return
        if isinstance(item, BadFile):
            self._record_bad_file(item)
            return
        try:
            for image in _split_pages(item, self._reading.pages, self._max_pixels):
                facts = inspect_image(image.data, self._max_pixels, self._count_pixels, self._channels)
                self._append(image, facts)
        except decode.BadImage as error:
            if not self._keep_document(item):
                self._record_bad_file(BadFile(item.name, error.code, error.detail))

    def finish(self) -> dict[str, Any]:
        """Write the dataset and return its report. Raises PackError."""
        rows = self._select_images()
        if self._fault_count and self._reading.on_bad_file == "reject":
            raise self._bad_files_error()
        if not rows.order.size:
            raise PackError("no_images", self._explain_no_images(), self._faults[:_FAULTS_IN_ERROR])
        if not np.any(rows.splits == 0):
            raise PackError("no_training_images", NO_TRAINING_IMAGES)
        for finding in rows.find_oddities(self._spool):
            self._warnings.add(finding)
        self._range = _scale_deep_images(self._spool, self._range_finder, self._reading, self._warnings)
        if self._reading.strict and (warnings := self._warnings.to_report()):
            raise PackError("warnings", f"With `strict` a warning fails the dataset: {warnings[0]['detail']}")
        remove_durably(self._directory / DOCUMENT)  # of an earlier dataset, whose files are replaced
        written = {"images.arrow": _write_arrow(self._directory / "images.arrow", self._spool, rows)}
        report = self._report(rows)
        if report["pixels"]:
            file = report["pixels"]["file"]
            written[file] = _write_pixels(self._directory / file, self._spool, rows)
        report["blocks"] = blocks.write_digests(self._directory, written)
        files = (*written, report["blocks"]["file"])
        report["size_bytes"] = sum((self._directory / file).stat().st_size for file in files)
        report = document.seal(report)
        text = json.dumps(report, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        write_atomic(self._directory / DOCUMENT, text.encode())
        return report

    def _append(self, item: Item, facts: ImageFacts) -> None:
        if len(self._spool) >= self._max_images:
            raise PackError("too_many_images", f"There are more than {self._max_images:,} images.")
        self._spool.append(item.name, item.label, item.split, item.data, facts)
        if facts.pages > 1:
            self._warnings.add(Finding("pages_left_out", PAGES_LEFT_OUT, item.name, facts.pages - 1))
        if facts.deep is not None:
            self._range_finder.add(facts.deep, facts.sha256)

    def _keep_document(self, item: Item) -> bool:
        """Whether the file is a document; one that may hold labels is kept until `finish`."""
        if not leftovers.is_document(item.name):
            return False
        self._ignored += 1
        size = len(item.data)
        is_table = item.name.casefold().endswith(label_tables.SUFFIXES) and size <= label_tables.MOST_BYTES
        if is_table:
            is_kept = size <= self._document_room and len(self._documents) < _DOCUMENTS
            self._documents[item.name] = item.data if is_kept else b""
            self._document_room -= size if is_kept else 0
        elif leftovers.may_hold_labels(item.name):
            self._warnings.add(Finding("unread_document", labelling.UNREAD, item.name))
        return True

    def _record_bad_file(self, fault: BadFile) -> None:
        if leftovers.is_document(fault.name):
            self._ignored += 1
            if leftovers.may_hold_labels(fault.name):
                self._warnings.add(Finding("unread_document", labelling.UNREAD, fault.name))
            return
        self._fault_count += 1
        if len(self._faults) < _FAULTS_REPORTED:
            self._faults.append(fault)

    def _select_images(self) -> "_SelectedImages":
        """Return the rows to write, in order, with their splits and classes; record the others as bad files."""
        spool = self._spool
        dropped = set(spool.find_duplicate_names())
        for row in sorted(dropped):
            self._record_bad_file(
                BadFile(spool.names[row], "duplicate_name", "Another file has this name, up to case or Unicode form.")
            )
        labelled = labelling.assign(spool.names, spool.labels, spool.splits, self._documents, self._reading)
        for finding in labelled.findings:
            self._warnings.add(finding)
        assigned = labelled.assigned
        for row, pair in enumerate(assigned):
            if pair is None and row not in dropped:
                dropped.add(row)
                self._record_bad_file(
                    BadFile(spool.names[row], "misplaced", "The file lies outside the train, val and test folders.")
                )
        labels = [None if pair is None else _clean_class_name(pair[1]) for pair in assigned]
        classes = _sort_classes({label for row, label in enumerate(labels) if label is not None and row not in dropped})
        numbers = {name: number for number, name in enumerate(classes)}
        return _SelectedImages(
            classes=classes,
            splits=np.array([0 if pair is None else SPLITS.index(pair[0]) for pair in assigned], np.int8),
            labels=np.array([-1 if label is None else numbers.get(label, -1) for label in labels], np.int32),
            names=spool.names,
            dropped=dropped,
            layout=labelled.report,
        )

    def _bad_files_error(self) -> PackError:
        first = self._faults[0]
        count = f"{self._fault_count:,} files" if self._fault_count > 1 else "One file"
        detail = f"{count} cannot be part of the dataset, first {first.name}: {first.detail}"
        return PackError("bad_files", detail, self._faults[:_FAULTS_IN_ERROR])

    def _explain_no_images(self) -> str:
        if self._fault_count:
            return f"None of the {self._fault_count:,} files is a readable image."
        return "There are no images."

    def _report(self, rows: "_SelectedImages") -> dict[str, Any]:
        spool = self._spool
        mean, std = _compute_mean_and_std(*spool.sum_moments(rows.order[rows.splits[rows.order] == 0]))
        sizes = Counter(spool.shape(row) for row in rows.order.tolist())
        small = spool.small_size
        shape = [len(rows.order), small[1], small[0], *spool.channels] if small else None
        return {
            "format": FORMAT,
            "classes": rows.classes,
            "splits": {split: rows.summary(number) for number, split in enumerate(SPLITS)},
            "channels": len(mean),
            "range": self._range.to_json() if self._range else None,
            "mean": mean,
            "std": std,
            "sizes": [
                {"width": width, "height": height, "images": count}
                for (width, height), count in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[
                    :_SIZES_REPORTED
                ]
            ],
            "skipped": [asdict(fault) for fault in self._faults],
            "skipped_count": self._fault_count,
            "ignored": self._ignored,
            "converted": spool.count_notes(rows.order),
            "duplicates": len(rows.order) - spool.count_distinct(rows.order),
            "layout": rows.layout,
            "warnings": self._warnings.to_report(),
            "pixels": {"file": "pixels.npy", "shape": shape} if shape else None,
        }


class _SelectedImages:
    """The rows of a spool to write, in order; `splits` and `labels` (−1: none) are indexed by the spool's rows."""

    def __init__(
        self,
        *,
        classes: list[str],
        splits: NDArray[np.int8],
        labels: NDArray[np.int32],
        names: list[str],
        dropped: set[int],
        layout: dict[str, Any],
    ) -> None:
        self.layout, self.names = layout, names
        self.classes = classes
        self.splits = splits
        self.labels = labels
        rank = np.empty(len(names), np.int64)
        rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        order = np.lexsort((rank, labels, splits))
        self.order: NDArray[np.int64] = order[~np.isin(order, list(dropped))] if dropped else order

    def find_oddities(self, spool: ImageSpool) -> Iterator[Finding]:
        """Yield what is odd about the classes and splits: what evaluations would suffer from in silence."""
        splits, labels = self.splits[self.order], self.labels[self.order]
        taught = np.bincount(labels[(splits == 0) & (labels >= 0)], minlength=len(self.classes))
        judged = np.bincount(labels[(splits != 0) & (labels >= 0)], minlength=len(self.classes))
        detail = "No training image has this class: its images in val and test cannot be recognised."
        for number in np.flatnonzero((taught == 0) & (judged > 0)):
            yield Finding("class_without_training_images", detail, self.classes[number], int(judged[number]))
        if taught.sum() >= _FEW_IMAGES and np.count_nonzero(taught) > 1 and taught.max() > _NEARLY_ALL * taught.sum():
            detail = "One class holds more than 90 % of the labelled training images."
            yield Finding("one_class_holds_nearly_all", detail, self.classes[taught.argmax()], int(taught.max()))
        detail = "An image of val or test is, byte for byte, a training image too: accuracies on it are too high."
        digests = {spool.sha256(row) for row in self.order[splits == 0].tolist()} if np.any(splits != 0) else set()
        for row in self.order[splits != 0].tolist():
            if spool.sha256(row) in digests:
                yield Finding("same_image_in_two_splits", detail, self.names[row])

    def summary(self, split: int) -> dict[str, Any]:
        labels = self.labels[self.order][self.splits[self.order] == split]
        labelled = labels[labels >= 0]
        return {
            "images": len(labels),
            "labelled": len(labelled),
            "per_class": np.bincount(labelled, minlength=len(self.classes)).tolist(),
        }


def _read_folder(folder: Path) -> Iterator[Found]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not leftovers.is_leftover(name))
        for name in sorted(files):
            path = Path(parent, name)
            try:
                relative = clean_names.clean_path(path.relative_to(folder).as_posix())
            except clean_names.UnsafePath as error:
                yield BadFile(str(error), "unsafe_path", "The file's name looks like an absolute path.")
                continue
            if not path.is_file():  # or a link to one
                yield BadFile(relative, "not_a_file", "The entry is not a regular file, or is a broken link.")
                continue
            yield Item(relative, path.read_bytes())


def _scale_deep_images(
    spool: ImageSpool, finder: RangeFinder, reading: Reading, warnings: Warnings
) -> FoundRange | None:
    """Find the range of the deep images and compute their pixels; None without any. The spool can be read then.

    Raises PackError when images have several numbers of channels.
    """
    if len(spool.channels) > 1:
        raise PackError("mixed_channels", _describe_mixed_channels(spool.channels))
    spool.flush()
    if not finder.images:
        if reading.low is not None:
            warnings.add(Finding("range_not_used", "`low` and `high` are not used: no image has more than 8 bits."))
        return None
    (channels,) = spool.channels
    if reading.low is not None and reading.high is not None:
        found = stated(reading.low, reading.high)
    else:
        found = finder.find(channels)
    for pair in found.narrow:
        warnings.add(Finding("narrow_range", NARROW, pair))
    spool.rescale(found.values, channels)
    return found


def _describe_mixed_channels(counts: Mapping[int, int]) -> str:
    """Return the sentence for images of several numbers of channels; greys and colours are 3."""
    parts = ", ".join(f"{images:,} of {channels} channels" for channels, images in sorted(counts.items()))
    return (
        f"All images of a dataset have the same number of channels; there are {parts} (greys and colours count as 3)."
    )


def _split_pages(item: Item, pages: Pages, max_pixels: int) -> Iterator[Item]:
    """The images of a file: its first page, every page, or one with the pages as channels. Raises BadImage."""
    if pages == "first":
        yield item
    elif pages == "channels":
        yield replace(item, data=stack(item.data, max_pixels))
    else:
        for number, data in enumerate(split(item.data, max_pixels), 1):
            yield item if data is item.data else replace(item, name=f"{item.name}#{number:04d}", data=data)


def _clean_class_name(label: str | int | None) -> str | None:
    if label is None or (isinstance(label, int) and label < 0):
        return None
    return clean_names.clean_text(str(label)) or None


def _sort_classes(names: set[str]) -> list[str]:
    """Return the class names in order: numbers by value, anything else as text."""
    if len(names) > MAX_CLASSES:
        raise PackError("too_many_classes", f"There are {len(names):,} classes; at most {MAX_CLASSES:,} are allowed.")
    numeric = all(name.isascii() and name.isdigit() and len(name) < 20 for name in names)
    ordered = sorted(names, key=lambda name: (int(name) if numeric else 0, name))
    seen: dict[str, str] = {}
    for name in ordered:
        other = seen.setdefault(clean_names.fold_name(name), name)
        if other != name:
            raise PackError("duplicate_class", f"The classes {other} and {name} differ only in case or Unicode form.")
    return ordered


def _compute_mean_and_std(count: int, sums: list[int], squares: list[int]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel on [0, 1]; exact up to the last division."""
    mean = [total / (255 * count) for total in sums]
    variance = [
        (count * square - total * total) / (255 * count) ** 2 for total, square in zip(sums, squares, strict=True)
    ]
    return mean, [math.sqrt(value) for value in variance]


def _write_arrow(path: Path, spool: ImageSpool, rows: _SelectedImages) -> BlockWriter:
    with path.open("wb") as file:
        hashed = BlockWriter(file)
        with pa.ipc.new_file(hashed, SCHEMA) as writer:
            for batch in _split_into_batches(spool, rows.order):
                writer.write_batch(_make_record_batch(spool, rows, batch))
        _flush_to_disk(file)
    return hashed


def _split_into_batches(spool: ImageSpool, order: NDArray[np.int64]) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for row in order.tolist():
        batch.append(row)
        size += spool.image_bytes(row)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _make_record_batch(spool: ImageSpool, rows: _SelectedImages, batch: list[int]) -> pa.RecordBatch:
    labels = rows.labels[batch]
    shapes = [spool.shape(row) for row in batch]
    columns = [
        pa.array([spool.read_image(row) for row in batch], pa.large_binary()),
        pa.array(labels, pa.int32(), mask=labels < 0),
        pa.array(rows.splits[batch], pa.int8()),
        pa.array([width for width, _ in shapes], pa.int32()),
        pa.array([height for _, height in shapes], pa.int32()),
        pa.array([spool.sha256(row) for row in batch], pa.binary(32)),
        pa.array([spool.names[row] for row in batch], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _write_pixels(path: Path, spool: ImageSpool, rows: _SelectedImages) -> BlockWriter:
    width, height = spool.shape(int(rows.order[0]))
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows.order), height, width, *spool.channels)}
    with path.open("wb") as file:
        hashed = BlockWriter(file)
        np.lib.format.write_array_header_1_0(hashed, header)
        for row in rows.order.tolist():
            hashed.write(spool.read_small_image(row))
        _flush_to_disk(file)
    return hashed


def _flush_to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
