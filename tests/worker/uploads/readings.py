"""Readings of uploads: what the readers yield for the bytes of a file."""

import numpy as np
import pytest

from ssl_core.config import Reading
from ssl_core.data.decode import decode
from ssl_core.data.items import Finding, Item, PackError
from worker.uploads import archives
from worker.uploads.limits import Limits, Meter

LIMITS = Limits(unpacked_bytes=2**30, ratio=200, images=1000, image_bytes=2**20, image_pixels=10**6)


def read(path, data, limits=LIMITS, **options):
    (path / "upload").write_bytes(data)
    with (path / "upload").open("rb") as file:
        return list(archives.read(file, Meter(limits, len(data)), Reading(**options), path))


def read_items(path, data, **options):
    """Return the items alone; anything but findings beside them is a fault."""
    found = read(path, data, **options)
    assert not [other for other in found if not isinstance(other, Item | Finding)]
    return [item for item in found if isinstance(item, Item)]


def read_findings(path, data, **options):
    """Return (code, example) of the findings."""
    return [(found.code, found.example) for found in read(path, data, **options) if isinstance(found, Finding)]


def read_error(path, data, limits=LIMITS, **options):
    with pytest.raises(PackError) as caught:
        read(path, data, limits, **options)
    assert caught.value.detail.endswith(".")
    return caught.value.code


def facts(items):
    """Return (split, label) of each item."""
    return [(item.split, item.label) for item in items]


def decoded(items):
    """Return the pixels, N×H×W×3."""
    return np.stack([decode(item.data) for item in items])
