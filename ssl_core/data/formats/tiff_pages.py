"""The pages of a TIFF file: its chain of directories, without masks, thumbnails and overviews."""

import struct

MAX_PAGES = 10_000
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE = 254, 255
_REDUCED, _MASK = 1, 4
_MAX_ENTRIES = 4096


def find(data: bytes) -> list[int]:
    """Return the numbers in the chain of the directories that are pages; damage and cycles end the chain.

    At most MAX_PAGES + 1 directories are looked at.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    pages: list[int] = []
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(order + offset_format, data, 8 if is_big else 4)
        while place and place not in seen and len(seen) <= MAX_PAGES:
            (entries,) = struct.unpack_from(order + count_format, data, place)
            if entries > _MAX_ENTRIES:
                break
            start = place + struct.calcsize(count_format)
            if not _is_extra(data, order, start, entries, entry_bytes):
                pages.append(len(seen))
            seen.add(place)
            (place,) = struct.unpack_from(order + offset_format, data, start + entries * entry_bytes)
    except struct.error:
        pass
    return pages or [0]


def _is_extra(data: bytes, order: str, start: int, entries: int, entry_bytes: int) -> bool:
    """Whether the directory is of a mask or of a reduced copy of another page."""
    for entry in range(start, start + entries * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_SUBFILE_TYPE, _OLD_SUBFILE_TYPE):
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + entry_bytes // 2 + 2)
            return bool(value & (_REDUCED | _MASK) if tag == _SUBFILE_TYPE else value == 2)
        if tag > _OLD_SUBFILE_TYPE:
            return False
    return False
