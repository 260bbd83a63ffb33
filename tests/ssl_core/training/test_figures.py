"""What a run leaves to be looked at, on real digits."""

import errno
import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_core import config, files
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device
from ssl_core.events import Artifact, Checkpoint, Log, Model, Resolved, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.reports import style, tensorboard, training_curves, view_grid
from ssl_core.reports.history import History
from ssl_core.run import run
from ssl_core.training import figures
from ssl_core.training.learner import Learner
from ssl_core.training.resolve import resolve
from ssl_core.training.training_data import TrainingData
from tests.ssl_core.digits import TINY, pack_digits
from tests.ssl_core.test_run import kinds

START, END = ["views.png"], ["curves.png", "curves.svg", tensorboard.NAME]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Pictures of few pixels, which are drawn sooner."""
    monkeypatch.setattr(style, "_DPI", 30)


def asked(**fields):
    return config.parse({"method": {"name": "simclr"}, "epochs": 2, **TINY, "pictures": True, **fields})


def go(digits, directory, inputs=None, **fields):
    directory.mkdir(exist_ok=True)
    return list(run(asked(**fields), Inputs(digits, **(inputs or {})), directory))


@pytest.fixture
def drawn(monkeypatch):
    """The series of every curves that are drawn."""
    seen, draw = [], training_curves.draw

    def watched(series, *given):
        seen.append({name: (one.step, one.value) for name, one in series.items()})
        return draw(series, *given)

    monkeypatch.setattr(training_curves, "draw", watched)
    return seen


def learner(digits, **fields):
    dataset = Dataset.open(digits)
    resolved = resolve(asked(**fields), dataset.report, Device("cpu", False))
    data = TrainingData.of(dataset, resolved)
    return Learner(resolved, data), data


def test_a_run_leaves_views_at_its_start_and_curves_before_its_model(digits, tmp_path):
    events = go(digits, tmp_path)
    assert [event.name for event in kinds(events, Artifact)] == START + END
    assert isinstance(events[0], Resolved)
    assert events[1].name == "views.png"
    assert [type(event) for event in events[-6:]] == [Checkpoint, *[Artifact] * 3, Model, Result]
    for event in kinds(events, Artifact):
        data = (tmp_path / event.path).read_bytes()
        assert (event.sha256, event.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert [event.media_type for event in kinds(events, Artifact)] == [
        "image/png", "image/png", "image/svg+xml", "application/octet-stream",
    ]  # fmt: skip
    for name in ("views.png", "curves.png"):
        image = Image.open(tmp_path / name)
        assert image.width > 180
        assert len(np.unique(np.asarray(image).reshape(-1, image.width, 4)[::2, ::2], axis=None)) > 8
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()


def test_pictures_do_not_change_the_weights_and_can_be_left_out(digits, tmp_path):
    without = go(digits, tmp_path / "a", pictures=False)
    assert kinds(without, Artifact) == []
    assert kinds(go(digits, tmp_path / "b"), Model)[0].sha256 == kinds(without, Model)[0].sha256


def test_curves_of_a_run_that_was_stopped_are_those_of_one_that_was_not(digits, tmp_path, drawn):
    go(digits, tmp_path / "whole")
    calls = iter(range(100))
    first = go(digits, tmp_path / "first", {"stop": lambda: next(calls) == 5})
    assert isinstance(first[-1], Stopped)
    assert [event.name for event in kinds(first, Artifact)] == START
    rest = go(digits, tmp_path / "rest", {"checkpoint": tmp_path / "first" / first[-2].path})
    assert [event.name for event in kinds(rest, Artifact)] == END
    whole, resumed = drawn
    assert whole.keys() == resumed.keys() > {"train/loss", "online/knn"}
    for name in whole.keys() - {"train/images_per_second", "train/data_wait"}:
        assert whole[name] == resumed[name]


def test_a_run_that_diverges_leaves_the_curves_that_lead_there(digits, tmp_path, drawn):
    wild = {"optimizer": {"name": "sgd", "lr": 1000, "weight_decay": 1.0}}
    schedule = {"lr_scaling": "none", "warmup_epochs": 3.9}
    method = {"name": "simclr", "projector_batch_norm": False}
    events = go(digits, tmp_path, epochs=12, method=method, schedule=schedule, precision="fp32", **wild)
    assert events[-1].code == "diverged"
    assert [event.name for event in events[-4:-1]] == END
    assert len(drawn[0]["train/loss"][0]) > 1


@pytest.mark.parametrize("name", START + END[1:])
def test_a_full_disk_costs_a_picture_and_not_the_run(name, digits, tmp_path, monkeypatch):
    write = files.write_atomic

    def full(path, data):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(files, "write_atomic", full)
    events = go(digits, tmp_path, epochs=1)
    assert [event.code for event in kinds(events, Log)] == ["storage_full"]
    assert name not in [event.name for event in kinds(events, Artifact)]
    assert isinstance(events[-1], Result)


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(digits, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ValueError("no such font")

    monkeypatch.setattr(style, "to_bytes", broken)
    events = go(digits, tmp_path, epochs=1)
    assert [event.code for event in kinds(events, Log)] == ["picture_failed"] * 2
    assert [event.name for event in kinds(events, Artifact)] == [tensorboard.NAME]
    assert isinstance(events[-1], Result)
    assert "no such font" in capsys.readouterr().err


def test_the_views_shown_are_those_that_the_run_sees(digits, monkeypatch):
    shown = {}
    monkeypatch.setattr(view_grid, "draw", lambda rows, epochs, *_: shown.update(rows=rows, epochs=epochs))
    monkeypatch.setattr(style, "to_bytes", lambda *_: b"png")
    it, data = learner(digits, epochs=4)
    assert dict(figures._views(it, data)) == {"views.png": b"png"}
    assert shown["epochs"] == [0, 1, 2, 3]
    assert [views[0].shape for views in shown["rows"][0].views] == [(8, 8, 3), (8, 8, 3), (16, 16, 3), (16, 16, 3)]
    seen = {}
    for given in it.inputs(data.images):
        seen |= {
            (it.step // it.steps_per_epoch, row): [view[place] for view in it._views(given)]
            for place, row in enumerate(given.rows.tolist())
        }
        it.step += 1
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (it.preprocessing.mean, it.preprocessing.std))
    compared = 0
    for row, sight in zip(figures._sample_rows(data, it.resolved).tolist(), shown["rows"], strict=True):
        for epoch, views in zip(shown["epochs"], sight.views, strict=True):
            for picture, tensor in zip(views, seen.get((epoch, row), ()), strict=False):
                pixels = (tensor * std + mean).permute(1, 2, 0).mul(255).numpy()
                assert np.abs(pixels - picture).max() <= 0.51
                compared += 1
    assert compared >= 30  # an image may be left out of an epoch whose last batch is dropped


@pytest.mark.parametrize("fields", [{"epochs": 1}, {"epochs": 9}, {"phases": [{"until": 1.0, "image_size": 16}]}])
def test_every_image_size_is_shown_where_there_is_room(fields, digits):
    it, _ = learner(digits, **fields)
    stages = figures._sample_epochs(it)
    assert list(stages) == sorted(stages)
    assert all(0 <= epoch < it.resolved.epochs for epoch in stages)
    assert 1 <= len(stages) <= 4
    assert stages[max(stages)] == 16


def test_captions_name_the_class_where_there_is_one(digits, tmp_path):
    plain = Dataset.open(pack_digits(tmp_path / "plain", labels=False))
    assert figures._caption(plain, 0) == "16 × 16 px"
    dataset = Dataset.open(digits)
    name = dataset.classes[dataset.labels[0]]
    assert figures._caption(dataset, 0) == f"{name}, 16 × 16 px"


def histories():
    """Histories of runs that differ in what they measured."""
    short, bare, long, gaps = History(), History(), History(), History()
    short.add(1, 0.0, {"train/loss": 1.0, "train/lr": 0.1})
    for step in range(1, 200):
        bare.add(step, 0.0, {"train/loss": 1 / step, "train/lr": 0.1, "train/std": 1.0, "train/grad_norm": 2.0})
        long.add(step, 0.0, {f"train/{name}": 1 / step for name in ("loss", "lr", "std", "rankme", "grad_norm")})
        long.add(step, 0.0, {"online/knn": 0.5, "online/linear": 0.6})
        gaps.add(step, 0.0, {"train/loss": None if step > 3 else 1.0})
    return {"one point": short, "no labels": bare, "everything": long, "gaps": gaps}


@pytest.mark.parametrize("case", histories())
def test_no_panel_is_empty(case):
    with style.figure_style():
        drawn = training_curves.draw(histories()[case].series, 10, {0.0: 8, 10.0: 16}, "A run", "A note.")
        style.to_bytes(drawn, "png")
    assert drawn.axes
    for axes in drawn.axes:
        assert axes.get_title(loc="left")
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
        assert any(np.isfinite(line.get_ydata().astype(float)).any() for line in axes.get_lines()[:1])


def test_a_run_without_points_has_no_curves():
    assert training_curves.draw({}, 10, {}, "A run", "A note.") is None


@pytest.mark.parametrize("name", ["$\\frac{", "a\nb\x00c", "猫", "_hidden", "x" * 99, ""])
def test_a_class_may_have_any_name(name):
    image = np.zeros((8, 8, 3), np.uint8)
    with style.figure_style():
        drawn = view_grid.draw([view_grid.GridRow(image, name, [[image, image]])], [0], "Views", "A note.")
        data = style.to_bytes(drawn, "png")
    assert Image.open(io.BytesIO(data)).format == "PNG"
