"""Sample archives: small uploads of every supported format."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.pictures import jpeg, png

FILES = {
    "train/cat/1.png": png(1),
    "train/cat/2.png": png(2),
    "train/dog/1.jpg": jpeg(3),
    "test/dog/1.png": png(4),
    "train/.DS_Store": b"x",
    "labels.csv": b"a,b",
}


def make_zip(
    files: Mapping[str, bytes] = FILES,
    method: int = zipfile.ZIP_DEFLATED,
    modes: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """`modes` are Unix modes, with the file type."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = modes.get(name, 0o600) << 16
            archive.writestr(info, data, method)
    return target.getvalue()


def make_tar_entry(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def make_tar(
    files: Mapping[str, bytes] = FILES, *special: tarfile.TarInfo, tar_format: int = tarfile.PAX_FORMAT
) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format) as archive:
        for name, data in files.items():
            archive.addfile(make_tar_entry(name, size=len(data)), io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return target.getvalue()


def compress_gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def compress_xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def compress_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def make_npz(**arrays: Any) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)
    return target.getvalue()


def make_parquet(columns: Mapping[str, Any] | pa.Table, metadata: dict[bytes, bytes] | None = None) -> bytes:
    target = pa.BufferOutputStream()
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    pq.write_table(table.replace_schema_metadata(metadata), target)
    return bytes(target.getvalue().to_pybytes())


def make_npy(array: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def make_idx(array: Any) -> bytes:
    """Return a uint8 array of up to four dimensions as an idx file."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def make_cifar_pickle(planes: Any, **fields: Any) -> bytes:
    """Return a batch as Python 2 pickled it: texts and the bytes of the array (N×3072) as byte strings."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(" + b"".join(
        f"I{side}\n".encode() for side in planes.shape
    )
    array += (
        b"tcnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\n"
        + _pickle_text(planes.tobytes())
        + b"tb"
    )
    pairs = _pickle_text(b"data") + array
    for key, values in fields.items():
        items = (f"I{value}\n".encode() if isinstance(value, int) else _pickle_text(value.encode()) for value in values)
        pairs += _pickle_text(key.encode()) + b"(" + b"".join(items) + b"l"
    return b"\x80\x02}(" + pairs + b"u."


def _pickle_text(data: bytes) -> bytes:
    return b"T" + struct.pack("<I", len(data)) + data


EVERY_KIND = {
    "zip": make_zip(),
    "zip stored": make_zip(method=zipfile.ZIP_STORED),
    "zip bzip2": make_zip(method=zipfile.ZIP_BZIP2),
    "zip lzma": make_zip(method=zipfile.ZIP_LZMA),
    "tar": make_tar(),
    "tar gnu": make_tar(tar_format=tarfile.GNU_FORMAT),
    "tar ustar": make_tar(tar_format=tarfile.USTAR_FORMAT),
    "tar.gz": compress_gzip(make_tar()),
    "tar.bz2": bz2.compress(make_tar()),
    "tar.xz": compress_xz(make_tar()),
    "tar.zst": compress_zstd(make_tar()),
}
