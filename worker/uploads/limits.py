"""The meter: how much an upload has unpacked to, counted as it is read, and the limits of that."""

from dataclasses import dataclass

from ssl_core.data.pack import PackError

# Below this much nothing is a bomb, however well it was packed.
_HARMLESS_BYTES = 64 * 2**20
# Folders and documents count as entries too, but not as images.
_SPARE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upload may hold; `ratio` is unpacked bytes over packed ones."""

    unpacked_bytes: int
    ratio: float
    images: int
    image_bytes: int
    image_pixels: int


class Meter:
    """Counts real bytes and entries, whatever an archive declares."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self.limits = limits
        self._packed_bytes = packed_bytes
        self._bytes = 0
        self._entries = 0

    def add_bytes(self, count: int) -> None:
        """Raises PackError when the upload has unpacked to too much."""
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
