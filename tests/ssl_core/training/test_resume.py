"""Resumption: a run that is killed at any point and goes on from its last checkpoint leaves the same bytes."""

import pytest

from ssl_core import config
from ssl_core.data import image_store
from ssl_core.events import Metrics, Model
from ssl_core.inputs import Inputs
from ssl_core.methods import METHODS
from ssl_core.run import run
from ssl_core.serialization import checkpoint_files
from tests.ssl_core.digits import pack_digits

TINY = {
    "backbone": {"name": "resnet10", "width": 0.125, "stem": "cifar"},
    "image_size": 8,
    "phases": [{"until": 0.5, "image_size": 8}, {"until": 1.0, "image_size": 12}],
    "batch_size": 16,
    "subset": 64,
    "epochs": 6,
    "device": "cpu",
    "precision": "fp32",
    "checkpoints": {"every_steps": 3},
    "pictures": False,
    "evaluation": {"every_epochs": 3, "knn_k": 5, "max_images": 40},
}

HEADS = {"projector": [32, 16]}
ITS_OWN = {"dino": {"prototypes": 32}, "moco_v2": {"queue": 40}}
POINTS = (1, 4, 9, 16, 23)  # before the first checkpoint, between two, on one, in another phase, before the last step


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("digits"))


def trained(asked, digits, directory, until=None):
    """The model's sha256; None when the run is left at the first metrics of step `until`, as a kill leaves it."""
    inputs = Inputs(digits, checkpoint=checkpoint_files.find_newest(directory))
    for event in run(asked, inputs, directory):
        if until is not None and isinstance(event, Metrics) and event.step >= until:
            return None
        if isinstance(event, Model):
            return event.sha256
    raise AssertionError("the run left no model")


def assert_same_after_stops(name, digits, folder, before_stops=lambda: None):
    """Train the method without a stop, call `before_stops`, and train it with stops to the same bytes."""
    asked = config.parse({"method": {"name": name, **HEADS, **ITS_OWN.get(name, {})}, **TINY})
    for part in ("whole", "stopped"):
        (folder / part).mkdir()
    whole = trained(asked, digits, folder / "whole")
    before_stops()
    for point in POINTS:
        assert trained(asked, digits, folder / "stopped", until=point) is None
    assert trained(asked, digits, folder / "stopped") == whole


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_stops_at_five_points_leaves_the_bytes_of_one_that_does_not(name, digits, tmp_path):
    assert_same_after_stops(name, digits, tmp_path)


@pytest.mark.parametrize("name", ["simclr", "moco_v2"])  # no method has a part in the decoding; moco_v2 keeps a queue
def test_so_does_a_run_whose_images_a_thread_decodes_ahead_of_the_step(name, digits, tmp_path, monkeypatch):
    assert_same_after_stops(
        name, digits, tmp_path, lambda: monkeypatch.setattr(image_store, "_memory_budget", lambda: 0.0)
    )
