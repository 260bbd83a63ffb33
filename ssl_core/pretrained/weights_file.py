"""A file of weights: safetensors, or what torch.save wrote, read without running anything that is in it.

Bytes that nobody vouches for may be anything: read them in a process that has little memory and little time.
"""

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_core.errors import BadWeights, is_out_of_memory

_MOST_TENSORS = 100_000
_MOST_NAME = 500  # characters
_DEEPEST = 6
# What a damaged file makes torch's reader raise.
_DAMAGE = (
    RuntimeError,
    pickle.UnpicklingError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    AssertionError,
    ArithmeticError,
    ImportError,
    struct.error,
    zipfile.BadZipFile,
)


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the file's format and its tensors, those of nested dicts under dotted names; other values are passed over.

    The file is told by its first bytes, whatever it is called. Raises BadWeights, MemoryError and OSError.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for name, begins, reader in (
        ("safetensors", head[8:9] == b"{", _safetensors),
        ("torch", head[:4] == b"PK\x03\x04", _torch_zip),
        ("torch_legacy", head[:1] == b"\x80", _torch_legacy),
    ):
        if begins:
            return name, _checked(reader(path))
    raise BadWeights("not_weights", "The file is neither safetensors nor what torch.save writes.")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BadWeights("not_weights", f"The safetensors file is damaged: {error}".rstrip(".") + ".") from error


def _torch_zip(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, LookupError, NotImplementedError, struct.error) as error:
        raise _damaged(error) from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BadWeights("bomb", "The file holds compressed entries; torch.save writes none.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BadWeights("bomb", "The entries of the file take more room than the file.")
    return _unpickled(path, mmap=path.suffix != ".safetensors")  # by that name torch would take it for one


def _torch_legacy(path: Path) -> dict[str, Tensor]:
    return _unpickled(path, mmap=False)


def _unpickled(path: Path, *, mmap: bool) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            content = torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
        return dict(_tensors(content))
    except pickle.UnpicklingError as error:
        foreign = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if not foreign:
            raise _damaged(error) from error
        detail = (
            f"The file holds {foreign[0][:200]}, which is no tensor; only tensors are read. Save the weights alone:"
        )
        raise BadWeights("unsafe_pickle", f"{detail} torch.save(model.state_dict(), path).") from error
    except _DAMAGE as error:
        raise (MemoryError if is_out_of_memory(error) else _damaged(error)) from error


def _damaged(error: Exception) -> BadWeights:
    sentence = str(error).partition("\n")[0][:200].rstrip(".")
    return BadWeights("not_weights", f"The file is damaged, or not what torch.save writes: {sentence}.")


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of nested dicts with its dotted name; a dict that stands in two places is visited once."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        prefix, group, depth = waiting.pop()
        if not isinstance(group, dict) or id(group) in seen or depth > _DEEPEST:
            continue
        seen.add(id(group))
        named = [(f"{prefix}{key}", value) for key, value in group.items() if isinstance(key, str)]
        yield from ((name, value) for name, value in named if isinstance(value, Tensor) and _is_plain(value))
        waiting.extend((f"{name}.", value, depth + 1) for name, value in reversed(named))


def _is_plain(value: Tensor) -> bool:
    """Whether it is dense numbers in memory, as weights are."""
    return value.layout == torch.strided and value.device.type == "cpu" and not (value.is_quantized or value.is_nested)


def _checked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not tensors:
        raise BadWeights("no_tensors", "The file holds no tensor that has a name.")
    if len(tensors) > _MOST_TENSORS:
        raise BadWeights("too_many_tensors", f"The file holds more than {_MOST_TENSORS:,} tensors.")
    if any(len(name) > _MOST_NAME for name in tensors):
        raise BadWeights("not_weights", f"A tensor's name is longer than {_MOST_NAME} characters.")
    return tensors
