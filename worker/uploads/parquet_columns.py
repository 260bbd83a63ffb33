"""Columns of Parquet files: which hold the images, their labels and their splits."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from ssl_core.config import Reading
from ssl_core.data.items import Finding, PackError

# In order of preference.
_IMAGE_NAMES = (
    *("image", "img", "images", "picture", "photo", "pixel_values", "pixels", "jpg", "jpeg", "png", "webp"),
    *("image_bytes", "bytes", "content", "data"),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "target", "category", "fine_label", "class_name", "label_name", "class_label"),
    *("class_id", "label_id", "cls", "y", "coarse_label"),
)
_EMBED = "the bytes of the images must be in the file (`embed_external_files` of Hugging Face datasets)"
_UNREAD = "Columns other than those of the images, labels and splits are not read."
_MULTIPLE = "Labels with several classes for an image are not read; the images are unlabelled."


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns that are read. classes: the names of numbered labels."""

    image: str
    label: str | None
    split: str | None
    classes: list[str]
    findings: list[Finding]


def choose(schema: pa.Schema, reading: Reading) -> Columns:
    """Return the columns to read. Raises PackError."""
    image = _find_image(schema)
    labels = _list_labels(schema, reading)
    split = _find_named(schema, reading.split_column) or ("split" if "split" in schema.names else None)
    findings = list(_describe_labels(labels, reading))
    for name in (image, *labels[:1], split):
        if schema.names.count(name) > 1:
            raise PackError("doubled_column", f"The column {name} is there more than once.")
    label = labels[0] if labels else None
    if label is not None and is_list(schema.field(label).type):
        findings.append(Finding("multiple_labels", _MULTIPLE, label))
        label = None
    _check_type(schema, label, integers=True)
    _check_type(schema, split, integers=False)
    for name in schema.names:
        if name not in (image, split, *labels[:1]):
            findings.append(Finding("unread_columns", _UNREAD, name))
    return Columns(image, label, split, _read_class_names(schema, label), findings)


def no_bytes(column: str) -> PackError:
    return PackError("images_not_embedded", f"The column {column} holds only paths of images; {_EMBED}.")


def is_list(kind: pa.DataType) -> bool:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _find_named(schema: pa.Schema, column: str | None) -> str | None:
    if column is not None and column not in schema.names:
        raise PackError("no_column", f"There is no column {column}; there are {', '.join(schema.names[:20])}.")
    return column


def _find_image(schema: pa.Schema) -> str:
    candidates: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    lists = [field.name for field in schema if is_list(field.type)]
    named = [name for name in _IMAGE_NAMES if name in candidates] + [name for name in _IMAGE_NAMES if name in lists]
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    for name in _IMAGE_NAMES:
        if name in schema.names and pa.types.is_string(schema.field(name).type):
            raise PackError("no_image_column", f"The column {name} holds text, such as paths; {_EMBED}.")
    raise PackError("no_image_column", "The Parquet file has no column `image` of bytes, or of structs with `bytes`.")


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type))
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _list_labels(schema: pa.Schema, reading: Reading) -> list[str]:
    """Return the columns that may be labels, the best first."""
    named = _find_named(schema, reading.label_column)
    return [named] if named is not None else [name for name in _LABEL_NAMES if name in schema.names]


def _describe_labels(labels: list[str], reading: Reading) -> Iterator[Finding]:
    if len(labels) > 1:
        detail = f"Several columns may be labels; {labels[0]} is read, unless `label_column` names another."
        for name in labels[1:]:
            yield Finding("several_label_columns", detail, name)


def _check_type(schema: pa.Schema, name: str | None, integers: bool) -> None:
    if name is None:
        return
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not text and not (integers and (pa.types.is_integer(kind) or pa.types.is_boolean(kind))):
        raise PackError("wrong_dtype", f"The column {name} has an unsupported type: {kind}.")


def _read_class_names(schema: pa.Schema, label: str | None) -> list[str]:
    """Return the class names as Hugging Face `datasets` stores them; empty when there are none."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
