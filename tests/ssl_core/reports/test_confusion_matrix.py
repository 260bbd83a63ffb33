"""The confusion matrix figure."""

import errno
import io

import numpy as np
import pytest
from PIL import Image

from ssl_core import files
from ssl_core.events import Log
from ssl_core.reports import confusion_matrix


def image(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


@pytest.mark.parametrize("count", [2, 40])
def test_correct_predictions_make_a_dark_diagonal(count):
    right = image(confusion_matrix.draw((5 * np.eye(count, dtype=int)).tolist(), ["x"] * count, 1.0))
    wrong = image(confusion_matrix.draw((5 * np.eye(count, dtype=int)[::-1]).tolist(), ["x"] * count, 0.0))
    assert right.shape == wrong.shape
    half = np.array(right.shape) // 2  # the first cells lie above the middle and left of it
    assert right[: half[0], : half[1]].mean() < wrong[: half[0], : half[1]].mean()


def test_names_with_markup_and_control_characters_are_drawn():
    names = ["$x", "a\nb", "日本", "\x00", "long " * 50, ""]
    assert image(confusion_matrix.draw(np.zeros((6, 6), dtype=int).tolist(), names, 0.0)).size > 0


def test_without_a_matrix_no_figure_is_written(tmp_path):
    assert list(confusion_matrix.write({"per_class": []}, 0.5, tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    def raise_disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_atomic", raise_disk_full)
    details = {"confusion": [[1]], "per_class": [{"name": "x"}]}
    (log,) = confusion_matrix.write(details, 1.0, tmp_path)
    assert isinstance(log, Log)
    assert log.code == "storage_full"
