"""The label efficiency figure: when it is written, its content, and a full disk."""

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
    """The rows and columns of the pixels of the model's line."""
    red, green, sky = np.moveaxis(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int), -1, 0)
    return np.nonzero((red < 60) & (sky > 170) & (green < 140))


def test_a_rising_accuracy_is_drawn_as_a_rising_line():
    down, across = blue(label_efficiency.draw(rows((0.2, 0.5, 0.9)), "the val split")["png"])
    assert len(down) > 200
    plot = down > 120  # below the title
    down, across = down[plot], across[plot]
    first, last = down[across < across.min() + 5].mean(), down[across > across.max() - 5].mean()
    assert last < first - 100  # rows count from the top


def test_the_svg_names_the_baselines_and_the_test_images():
    text = label_efficiency.draw([*rows((0.2, 0.5, 0.9)), *rows((0.1, 0.2, 0.3), "pixels")], "the val split")[
        "svg"
    ].decode()
    assert "raw pixels" in text
    assert "random network" not in text
    assert "3 for each fraction below 1" in text
    assert "on the val split" in text


def test_one_fraction_makes_no_figure(tmp_path):
    assert list(label_efficiency.write(rows((0.2, 0.5, 0.9))[:1], "", tmp_path)) == []


def test_both_files_are_written_and_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    events = list(label_efficiency.write(rows((0.2, 0.5, 0.9)), "", tmp_path))
    assert [(event.name, event.media_type) for event in events if isinstance(event, Artifact)] == [
        ("labels.png", "image/png"),
        ("labels.svg", "image/svg+xml"),
    ]
    assert all((tmp_path / event.path).stat().st_size == event.size_bytes for event in events)

    def raise_disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_atomic", raise_disk_full)
    (log,) = label_efficiency.write(rows((0.2, 0.5, 0.9)), "", tmp_path)
    assert isinstance(log, Log)
    assert log.code == "storage_full"
    monkeypatch.setattr(files, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        list(label_efficiency.write(rows((0.2, 0.5, 0.9)), "", tmp_path))
