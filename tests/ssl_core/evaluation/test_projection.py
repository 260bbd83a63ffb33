"""Projection runs on real digits: coordinates, figures, and failures."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from ssl_core import config
from ssl_core.config import Project
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.evaluation import projection
from ssl_core.evaluation.features import extract_features
from ssl_core.events import Artifact, Failed, Progress, Resolved, Result, Stopped
from ssl_core.inputs import Inputs
from ssl_core.reports import projection_map, style
from ssl_core.run import run
from ssl_core.serialization import saved_model
from tests.ssl_core.digits import TINY, pack_digits
from tests.ssl_core.test_run import kinds

FAST = {"methods": ["pca"]}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Figures at a low resolution, which are rendered faster."""
    monkeypatch.setattr(style, "_DPI", 30)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def model(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    events = list(run(config.parse({"method": {"name": "simclr"}, "epochs": 1, **TINY}), Inputs(digits), out))
    assert isinstance(events[-1], Result)
    return out / "model"


def go(digits, model, directory, stop=None, **fields):
    directory.mkdir(exist_ok=True)
    inputs = Inputs(digits, model=model, **({"stop": stop} if stop else {}))
    return list(run(config.parse(fields, "project"), inputs, directory))


def coordinates(directory):
    return json.loads((directory / "coordinates.json").read_text())


def test_a_projection_writes_coordinates_and_figures(digits, model, tmp_path):
    events = go(digits, model, tmp_path)
    assert isinstance(events[0], Resolved)
    assert isinstance(events[-1], Result)
    names = ["coordinates.json", "projection.png", "thumbnails.png"]
    assert [event.name for event in kinds(events, Artifact)] == names
    last = kinds(events, Progress)[-1]
    assert (last.step, last.eta_seconds) == (last.total_steps, 0)
    found = coordinates(tmp_path)
    assert (found["split"], found["images"], found["layer"]) == ("test", 40, "backbone")
    assert found["methods"]["tsne"] == {"perplexity": pytest.approx(40 / 3)}
    assert found["classes"] == Dataset.open(digits).classes
    dataset = Dataset.open(digits)
    for point in found["points"]:
        assert dataset.labels[point["row"]] == point["label"]
        assert np.isfinite([point["tsne"], point["pca"]]).all()
    assert [point["row"] for point in found["points"]] == dataset.indices("test").tolist()


@pytest.mark.parametrize(("method", "title"), [("moco_v2", "MoCo v2"), ("finetune", "finetune"), (None, "imported")])
def test_the_note_names_the_model_by_its_methods_title(method, title):
    card = {"method": method, "backbone": {"name": "resnet10", "width": 0.5}}
    note = projection._describe_model(card, {"layer": "backbone", "dim": 256})
    assert note == f"Model: {title} resnet10, width 0.5; layer backbone (256 features)."


def test_pca_equals_the_svd_of_the_models_unit_features(digits, model, tmp_path):
    go(digits, model, tmp_path, **FAST, layer="projection", precision="fp32")
    dataset, encoder = Dataset.open(digits), saved_model.load(model)
    found = (
        extract_features(encoder, read_centre_crops(dataset, dataset.indices("test"), 16), "projection")
        .double()
        .numpy()
    )
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    expected = (unit - unit.mean(0)) @ np.linalg.svd(unit - unit.mean(0), full_matrices=False)[2][:2].T
    got = np.array([point["pca"] for point in coordinates(tmp_path)["points"]])
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=2e-4)
    variance = PCA().fit(unit).explained_variance_ratio_[:2]
    np.testing.assert_allclose(coordinates(tmp_path)["methods"]["pca"]["explained_variance"], variance, atol=1e-4)


def test_projections_are_reproducible(digits, model, tmp_path):
    for name in ("a", "b"):
        go(digits, model, tmp_path / name, images=20, seed=3)
    names = ("coordinates.json", "projection.png", "thumbnails.png")
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    go(digits, model, tmp_path / "c", **FAST, images=20, seed=4)
    rows = [{point["row"] for point in coordinates(tmp_path / name)["points"]} for name in ("a", "c")]
    assert rows[0] != rows[1]


def test_umap_keeps_neighbours_of_one_class_and_is_reproducible(model, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # to compile UMAP takes far longer than to interpret it for few images
    many = pack_digits(tmp_path / "many", train=30, test=40)
    found, threads = [], torch.get_num_threads()
    for name in ("a", "b"):
        events = go(many, model, tmp_path / name, methods=["umap"])
        assert isinstance(events[-1], Result), events[-1]
        found.append(coordinates(tmp_path / name))
    assert torch.get_num_threads() == threads
    assert found[0] == found[1]
    assert found[0]["methods"]["umap"] == {"neighbours": 15}
    points = np.array([point["umap"] for point in found[0]["points"]])
    labels = np.array([point["label"] for point in found[0]["points"]])
    distance = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(len(points), np.inf))
    assert (labels[distance.argmin(1)] == labels).mean() > 0.3  # by chance it would be below 0.1


def test_images_are_drawn_evenly_from_the_classes(digits, model, tmp_path):
    go(digits, model, tmp_path, **FAST, images=20)
    labels = [point["label"] for point in coordinates(tmp_path)["points"]]
    assert [labels.count(label) for label in range(10)] == [2] * 10


@pytest.mark.parametrize(("split", "images"), [("train", 72), ("test", 40)])
def test_the_split_can_be_chosen(split, images, digits, model, tmp_path):
    go(digits, model, tmp_path, **FAST, split=split)
    assert {point["split"] for point in coordinates(tmp_path)["points"]} == {split}
    assert coordinates(tmp_path)["images"] == images


def test_without_a_test_split_another_one_is_used(model, tmp_path):
    only = pack_digits(tmp_path / "only", train=30, test=0)
    go(only, model, tmp_path, **FAST)
    assert coordinates(tmp_path)["split"] == "train"


def test_labels_are_optional(model, tmp_path):
    plain = pack_digits(tmp_path / "plain", labels=False)
    assert isinstance(go(plain, model, tmp_path)[-1], Result)
    assert {point["label"] for point in coordinates(tmp_path)["points"]} == {None}


@pytest.mark.parametrize("after", range(3))
def test_a_projection_stops_between_steps(after, digits, model, tmp_path):
    calls = iter(range(100))
    events = go(digits, model, tmp_path, stop=lambda: next(calls) == after)
    assert events[-1] == Stopped(after + 1)
    assert kinds(events, Artifact) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layer": "block4", "split": "val"}, "the val split has 0"),
        ({"methods": ["umap"]}, "pip install"),
    ],
)
def test_invalid_projections_fail(fields, words, digits, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not installed
    failed = go(digits, model, tmp_path, **fields)[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retry) == ("config_unfit", False)
    assert words in failed.message


def test_a_missing_layer_is_refused(digits, model, tmp_path):
    assert "no layer head5" in go(digits, model, tmp_path, layer="head5")[-1].message


def test_a_projection_needs_a_model(digits, tmp_path):
    assert go(digits, None, tmp_path)[-1].code == "config_unfit"


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_constant_features_can_be_projected(method):
    found = projection.METHODS[method](np.full((12, 8), 8**-0.5, np.float32), Project())
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize("classes", [0, 1, 10, 11, 1000])
def test_any_number_of_classes_can_be_drawn(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 300) if classes else np.full(300, -1)
    points = rng.normal(size=(300, 2)).astype(np.float32)
    names = [f"class ${number}" for number in range(classes)]
    with style.figure_style():
        drawn = projection_map.draw_scatter(
            {"tsne": projection_map.Panel(points, {"perplexity": 30.0})}, labels, names, "300 images", "A model."
        )
        assert Image.open(io.BytesIO(style.to_bytes(drawn, "png"))).format == "PNG"
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    count = len(set(labels.tolist()))
    assert len(names) == min(count, projection_map._MAX_LEGEND)
    assert names[-1] == (f"and {count - len(names) + 1} more" if count > len(names) else names[-1])
    assert sum(len(collection.get_offsets()) for collection in drawn.axes[0].collections) == 300


def test_of_overlapping_images_the_one_nearest_to_the_cells_centre_is_drawn():
    points = np.array([[0, 0], [0.12, 0.12], [4, 0], [0, 4], [4, 4]], np.float32)
    cells = projection_map._assign_cells(points)
    assert len(cells) == 4
    assert cells[3, 0] == 1
    assert {cells[3, 3], cells[0, 0], cells[0, 3]} == {2, 3, 4}


def test_thumbnails_have_frames_in_the_colour_of_their_class():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 2)).astype(np.float32)
    images = np.full((60, projection_map.THUMBNAIL, projection_map.THUMBNAIL, 3), 7, np.uint8)
    groups = list(projection_map._build_groups(np.zeros(60, int), ["one"]))
    cells = projection_map._assign_cells(points)
    canvas = projection_map._draw_canvas(cells, images, groups)
    assert (canvas == 7).all(-1).sum() == len(cells) * projection_map.THUMBNAIL**2
    blue = np.round(np.array(groups[0].colour[:3]) * 255)
    framed = (projection_map.THUMBNAIL + 2 * projection_map._FRAME) ** 2 - projection_map.THUMBNAIL**2
    assert (canvas == blue).all(-1).sum() == len(cells) * framed


def test_a_repeated_method_is_refused():
    with pytest.raises(ValueError, match="twice"):
        config.parse({"methods": ["pca", "pca"]}, "project")
