"""The picture of accuracy over labels: when there is one, what it shows, and a full disk."""

import errno
import io

import numpy as np
import pytest
from PIL import Image

from ssl_core import files
from ssl_core.events import Artifact, Log
from ssl_core.reports import label_efficiency

SHARES = (0.01, 0.1, 1.0)


def rows(top1, features="model", draws=3):
    return [
        {
            "features": features,
            "label_fraction": share,
            "labels": 1000 * share,
            "draws": draws if share < 1 else 1,
            "top1": value,
            "top1_interval": [value - 0.02, value + 0.02],
        }
        for share, value in zip(SHARES, top1, strict=True)
    ]


def blue(data):
    """Where the model's line is: the places of its pixels, rows and columns."""
    red, green, sky = np.moveaxis(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int), -1, 0)
    return np.nonzero((red < 60) & (sky > 170) & (green < 140))


def test_a_line_that_rises_is_drawn_rising_from_few_labels_to_all():
    down, across = blue(label_efficiency.draw(rows((0.2, 0.5, 0.9)), "the val split")["png"])
    assert len(down) > 200
    plot = down > 120  # below the title
    down, across = down[plot], across[plot]
    first, last = down[across < across.min() + 5].mean(), down[across > across.max() - 5].mean()
    assert last < first - 100  # rows count from the top


def test_what_it_is_judged_beside_is_in_the_svg_by_name():
    told = label_efficiency.draw([*rows((0.2, 0.5, 0.9)), *rows((0.1, 0.2, 0.3), "pixels")], "the val split")[
        "svg"
    ].decode()
    assert "raw pixels" in told
    assert "random network" not in told
    assert "each smaller share has 3" in told
    assert "on the val split" in told


def test_one_share_makes_no_curve(tmp_path):
    assert list(label_efficiency.write(rows((0.2, 0.5, 0.9))[:1], "", tmp_path)) == []


def test_both_files_are_left_and_a_full_disk_costs_the_pictures_alone(tmp_path, monkeypatch):
    left = list(label_efficiency.write(rows((0.2, 0.5, 0.9)), "", tmp_path))
    assert [(event.name, event.media_type) for event in left if isinstance(event, Artifact)] == [
        ("labels.png", "image/png"),
        ("labels.svg", "image/svg+xml"),
    ]
    assert all((tmp_path / event.path).stat().st_size == event.size_bytes for event in left)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_atomic", full)
    (told,) = label_efficiency.write(rows((0.2, 0.5, 0.9)), "", tmp_path)
    assert isinstance(told, Log)
    assert told.code == "storage_full"
    monkeypatch.setattr(files, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        list(label_efficiency.write(rows((0.2, 0.5, 0.9)), "", tmp_path))
