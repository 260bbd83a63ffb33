"""Upload limits, and the meter that counts unpacked bytes and entries against them."""

from dataclasses import dataclass

from ssl_core.data.pack import PackError

# An upload that unpacks to less is never a decompression bomb, whatever its ratio.
_HARMLESS_BYTES = 64 * 2**20
# Folders and other files count as entries, but not as images.
_SPARE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one upload; `ratio` is unpacked bytes over packed bytes."""

    unpacked_bytes: int
    ratio: float
    images: int
    image_bytes: int
    image_pixels: int


class Meter:
    """Counts the bytes and entries that are read, not those that an archive declares."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self.limits = limits
        self._packed_bytes = packed_bytes
        self._bytes = 0
        self._entries = 0

    def add_bytes(self, count: int) -> None:
        """Raises PackError when the upload unpacks to too many bytes."""
        self._bytes += count
        if self._bytes > self.limits.unpacked_bytes:
            raise PackError("too_much_data", f"It unpacks to more than {self.limits.unpacked_bytes:,} bytes.")
        if self._bytes > max(_HARMLESS_BYTES, self.limits.ratio * self._packed_bytes):
            raise PackError("bomb", f"It unpacks to more than {self.limits.ratio:g} times its own size.")

    def add_entry(self) -> None:
        """Raises PackError when the upload has too many entries."""
        self._entries += 1
        if self._entries > 2 * self.limits.images + _SPARE_ENTRIES:
            raise PackError("too_many_entries", f"It holds more than {self._entries - 1:,} files and folders.")
