"""WebDataset: files of one key that stand together in an archive are one sample, whose label is a file of its own.

The key is the path up to the first dot of the file's name: `0001.jpg` and `0001.cls` are a sample. Files of an archive
without such labels pass unchanged, so that a name like `a.b.jpg` means nothing.
"""

import json
from collections.abc import Iterable, Iterator

from ssl_core.config import Reading
from ssl_core.data.items import BadFile, Finding, Found, Item
from ssl_core.data.split_names import Split
from worker.uploads import formats, shards

_LABEL_FIELDS = ("label", "class", "target", "cls")
_LABEL_ENDINGS = ("cls", "cls.txt", "cls2")
_MAX_FILES = 16  # of a sample
_MAX_BYTES = 2**27
_MAX_LABEL_BYTES = 2**20
_EMPTY = (b"", b"{}", b"[]", b"null")  # fields that say nothing
_UNREAD = "Fields of WebDataset samples other than their image and their label are not read."

Label = str | int


def pair(
    files: Iterable[Found], reading: Reading, shard_split: Split | None = None, shard: str = ""
) -> Iterator[Found]:
    """Yield the files with the labels of their samples.

    shard_split: of samples whose path names none. shard: the archive's number, which makes the names of samples unique.
    """
    sample: list[Item] = []
    key, size = "", 0
    for file in files:
        if not isinstance(file, Item) or file.split is not None:
            if not isinstance(file, Finding) and _find_key(file.name) != key:
                yield from _read_sample(sample, reading, shard_split, shard)
                sample = []
            yield file
            continue
        if _find_key(file.name) != key or len(sample) == _MAX_FILES or size + len(file.data) > _MAX_BYTES:
            yield from _read_sample(sample, reading, shard_split, shard)
            sample, key, size = [], _find_key(file.name), 0
        sample.append(file)
        size += len(file.data)
    yield from _read_sample(sample, reading, shard_split, shard)


def _find_key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _read_sample(sample: list[Item], reading: Reading, shard_split: Split | None, shard: str) -> Iterator[Found]:
    fields = {item.name.rpartition("/")[2].partition(".")[2].lower(): item for item in sample}
    images = [ending for ending in fields if formats.is_image_name(f".{ending}")]
    image = next((ending for ending in images if "." not in ending), images[0] if images else None)
    read = None if image is None else _find_label(fields, reading)
    if image is None or read is None or len(fields) < len(sample):
        yield from sample
        return
    field, label = read
    item = fields[image]
    if isinstance(label, BadFile):
        yield label
        return
    folder, slash, base = item.name.rpartition("/")
    name = f"{folder}{slash}{shard}-{base}" if shard else item.name
    split = shards.find_split(folder) or shard_split or "train"
    yield Item(name, item.data, label, split)
    for ending, other in fields.items():
        if ending not in (image, field) and other.data.strip() not in _EMPTY:
            yield Finding("unread_fields", _UNREAD, ending)


def _find_label(fields: dict[str, Item], reading: Reading) -> tuple[str, Label | BadFile] | None:
    """Return the field with the label, and the label; None when the files are no sample of WebDataset."""
    if reading.label_column in fields:
        return reading.label_column, _parse_text(fields[reading.label_column])
    for ending in _LABEL_ENDINGS:
        if ending in fields:
            return ending, _parse_text(fields[ending])
    about = fields.get("json")
    if about is None or (
        "/" in about.name and reading.label_column is None
    ):  # a file beside an image in a class folder
        return None
    label = _find_json_label(about.data, reading)
    return None if label is None else ("json", label)


def _parse_text(item: Item) -> Label | BadFile:
    try:
        text = item.data[:_MAX_LABEL_BYTES].decode().strip()
    except UnicodeDecodeError:
        return BadFile(item.name, "wrong_label", "The label is not UTF-8 text.")
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text


def _find_json_label(data: bytes, reading: Reading) -> Label | None:
    try:
        about = json.loads(data[:_MAX_LABEL_BYTES])
    except (ValueError, RecursionError):
        return None
    if not isinstance(about, dict):
        return None
    names = _LABEL_FIELDS if reading.label_column is None else (reading.label_column,)
    labels = (about.get(name) for name in names)
    return next((label for label in labels if isinstance(label, str | int) and not isinstance(label, bool)), None)
