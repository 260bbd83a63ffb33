"""Reading weights files: safetensors and torch.save, without executing code in them.

Untrusted files may be anything: read them in a process with limited memory and time.
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

_MAX_TENSORS = 100_000
_MAX_NAME = 500  # characters
_MAX_DEPTH = 6
# Raised by torch.load for damaged files.
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
    """Return the file's format and its tensors, those of nested dicts under dotted names; other values are ignored.

    The format is that of the first bytes, not of the name. Raises BadWeights, MemoryError and OSError.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for name, matches, reader in (
        ("safetensors", head[8:9] == b"{", _read_safetensors),
        ("torch", head[:4] == b"PK\x03\x04", _read_torch_zip),
        ("torch_legacy", head[:1] == b"\x80", _read_torch_legacy),
    ):
        if matches:
            return name, _check(reader(path))
    raise BadWeights("not_weights", "The file is neither safetensors nor written by torch.save.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BadWeights("not_weights", f"The safetensors file is damaged: {error}".rstrip(".") + ".") from error


def _read_torch_zip(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, LookupError, NotImplementedError, struct.error) as error:
        raise _build_damage_error(error) from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BadWeights("bomb", "The file holds compressed entries; torch.save writes none.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BadWeights("bomb", "The entries of the file are larger than the file.")
    return _unpickle(path, mmap=path.suffix != ".safetensors")  # torch reads files of that name as safetensors


def _read_torch_legacy(path: Path) -> dict[str, Tensor]:
    return _unpickle(path, mmap=False)


def _unpickle(path: Path, *, mmap: bool) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            content = torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
        return dict(_iterate_tensors(content))
    except pickle.UnpicklingError as error:
        foreign = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if not foreign:
            raise _build_damage_error(error) from error
        detail = (
            f"The file holds {foreign[0][:200]}, which is not a tensor; only tensors are read. Save the weights alone:"
        )
        raise BadWeights("unsafe_pickle", f"{detail} torch.save(model.state_dict(), path).") from error
    except _DAMAGE as error:
        raise (MemoryError if is_out_of_memory(error) else _build_damage_error(error)) from error


def _build_damage_error(error: Exception) -> BadWeights:
    reason = str(error).partition("\n")[0][:200].rstrip(".")
    return BadWeights("not_weights", f"The file is damaged, or not written by torch.save: {reason}.")


def _iterate_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of nested dicts with its dotted name; a dict that occurs twice is visited once."""
    seen: set[int] = set()
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    while stack:
        prefix, group, depth = stack.pop()
        if not isinstance(group, dict) or id(group) in seen or depth > _MAX_DEPTH:
            continue
        seen.add(id(group))
        named = [(f"{prefix}{key}", value) for key, value in group.items() if isinstance(key, str)]
        yield from ((name, value) for name, value in named if isinstance(value, Tensor) and _is_plain(value))
        stack.extend((f"{name}.", value, depth + 1) for name, value in reversed(named))


def _is_plain(value: Tensor) -> bool:
    """Whether the tensor is dense, in memory and not quantised."""
    return value.layout == torch.strided and value.device.type == "cpu" and not (value.is_quantized or value.is_nested)


def _check(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not tensors:
        raise BadWeights("no_tensors", "The file holds no named tensor.")
    if len(tensors) > _MAX_TENSORS:
        raise BadWeights("too_many_tensors", f"The file holds more than {_MAX_TENSORS:,} tensors.")
    if any(len(name) > _MAX_NAME for name in tensors):
        raise BadWeights("not_weights", f"A tensor's name is longer than {_MAX_NAME} characters.")
    return tensors
