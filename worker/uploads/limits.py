"""Upload limits, and the meter that counts what an upload unpacks to against them and against the bytes that were sent.

An upload costs its worker 0.1 ms for each image and 20 ms for each million pixels, whatever their compressed size.
Images, entries and pixels are therefore limited by the size of the upload, as its bytes are. Uploads below the floors,
which take a few seconds, are never refused: a small set of blank or repeated images packs to almost nothing.
"""

from dataclasses import dataclass

from ssl_core.data.items import PackError

# An upload that unpacks to less is never a decompression bomb, whatever its ratio.
_HARMLESS_BYTES = 64 * 2**20
_HARMLESS_IMAGES = 20_000
_HARMLESS_PIXELS = 2**28
# The fewest bytes sent for each image of a larger upload. dSprites, an npz file of 737,280 binary shapes, has 36.
_BYTES_PER_IMAGE = 16
# Folders and other files count as entries, but not as images.
_SPARE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one upload; `ratio` is unpacked bytes, or pixels, over packed bytes."""

    unpacked_bytes: int
    ratio: float
    images: int
    image_bytes: int
    image_pixels: int


class LimitExceeded(PackError):
    """The upload is too large, for the service or for the bytes that were sent; nothing more of it is read."""


class Meter:
    """Counts the bytes, entries, images and pixels that are read, not those that an archive declares."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self.limits = limits
        self._packed_bytes = packed_bytes
        self._bytes = 0
        self._entries = 0
        self._pixels = 0
        self._images = 0
        self._max_images = max(_HARMLESS_IMAGES, packed_bytes // _BYTES_PER_IMAGE)

    def add_bytes(self, count: int) -> None:
        """Raises LimitExceeded when the upload unpacks to too many bytes."""
        self._bytes += count
        self.check_bytes(0)

    def check_bytes(self, declared: int) -> None:
        """Raises LimitExceeded when so many bytes more would be too many."""
        total = self._bytes + declared
        if total > self.limits.unpacked_bytes:
            raise LimitExceeded("too_much_data", f"It unpacks to more than {self.limits.unpacked_bytes:,} bytes.")
        if total > max(_HARMLESS_BYTES, self.limits.ratio * self._packed_bytes):
            raise LimitExceeded("bomb", f"It unpacks to more than {self.limits.ratio:g} times its own size.")

    def add_entry(self) -> None:
        """Raises LimitExceeded when the upload has too many entries."""
        self._entries += 1
        if self._entries > 2 * self.limits.images + _SPARE_ENTRIES:
            raise LimitExceeded("too_many_entries", f"It holds more than {self._entries - 1:,} files and folders.")
        if self._entries > 2 * self._max_images + _SPARE_ENTRIES:
            raise LimitExceeded("bomb", f"It holds more than {self._entries - 1:,} files and folders in so few bytes.")

    def add_images(self, count: int) -> None:
        """Count the rows of a table before they are read. Raises LimitExceeded when the upload has too many."""
        self._images += count
        if self._images > self.limits.images:
            raise LimitExceeded("too_many_images", f"There are more than {self.limits.images:,} images.")
        if self._images > self._max_images:
            allowed = f"at most {self._max_images:,} images are read from a file of {self._packed_bytes:,} bytes"
            raise LimitExceeded("bomb", f"It unpacks to {self._images:,} images; {allowed}.")

    def add_pixels(self, count: int) -> None:
        """Count the pixels of an image before they are decoded. Raises LimitExceeded when the upload has too many."""
        self._pixels += count
        if self._pixels > max(_HARMLESS_PIXELS, self.limits.ratio * self._packed_bytes):
            raise LimitExceeded(
                "bomb", f"Its images have more than {self.limits.ratio:g} pixels for each byte of the file."
            )
