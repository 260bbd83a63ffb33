"""Every recipe runs: those of each kind that need or give a model through the service, all others without it.

The images are real: small squares of scikit-learn's two photographs, one class each; or the first images of each class
in an archive given by `RECIPE_IMAGES=cifar10.tar.xz`, with the layout `<split>/<class>/…`.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from ssl_core import config
from ssl_core.data.pack import pack_folder
from ssl_core.events import Result
from ssl_core.inputs import Inputs
from ssl_core.recipes import RECIPES
from ssl_core.recipes.cifar10 import CIFAR10
from ssl_core.run import run
from tests.ssl_core.toys import SIDE, shrink_config, shrink_evaluation
from tests.test_end_to_end import up

TEACHERS = {"finetune": "simclr-imagenet", "distill": "simclrv2-finetune-10pct"}  # the recipe whose model a kind needs
# The API's tests submit every recipe; here a worker runs one or more of each kind, from a model of another one too.
SERVED = [recipe for recipe in RECIPES.values() if recipe.kind != "pretrain" or recipe.name in TEACHERS.values()]
OTHERS = [recipe for recipe in RECIPES.values() if recipe not in SERVED]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of real images: at most 20 training and 8 test images of each class."""
    folder = tmp_path_factory.mktemp("photos")
    if archive := os.environ.get("RECIPE_IMAGES"):
        shutil.unpack_archive(archive, folder, **({} if archive.endswith(".zip") else {"filter": "data"}))
        for images in filter(Path.is_dir, folder.glob("*/*")):
            for path in sorted(images.iterdir())[20 if images.parent.name == "train" else 8 :]:
                path.unlink()
    else:
        write_squares(folder)
    return folder


def write_squares(folder):
    """Write squares of two photographs, in the classes `temple` and `flower`."""
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        generator = np.random.default_rng(0)
        for number in range(28):
            top, left = (int(generator.integers(0, side - 2 * SIDE)) for side in photo.shape[:2])
            path = folder / ("train" if number < 20 else "test") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            square = Image.fromarray(photo[top : top + 2 * SIDE, left : left + 2 * SIDE])
            square.resize((SIDE, SIDE)).save(path)


@pytest.mark.timeout(900)
def test_recipes_run_through_the_service(photos, tmp_path):
    with up(tmp_path / "data") as service, service.client() as client:
        dataset = client.datasets.wait(client.datasets.upload(photos, name="photos"), timeout_seconds=60)
        assert set(dataset.report["classes"]) == {path.name for path in (photos / "train").iterdir() if path.is_dir()}
        listed = {recipe["name"]: recipe for recipe in client.recipes()}
        assert {name: recipe["config"] for name, recipe in listed.items()} == {
            name: recipe.config for name, recipe in RECIPES.items()
        }
        jobs = {}
        for recipe in SERVED:
            model = jobs.get(TEACHERS.get(recipe.kind))
            request = {"kind": recipe.kind, "config": shrink_config(recipe), "model": model}
            jobs[recipe.name] = client.jobs.submit(dataset=dataset, name=recipe.name, **request)
        for name, job in jobs.items():
            done = client.jobs.wait(job, timeout_seconds=800)
            assert done.status == "succeeded", (name, done.error)
            assert done.summary["steps"] >= 1


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed")
    pack_folder(photos, directory)
    return directory


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda recipe: recipe.name)
def test_other_recipes_run(recipe, packed, tmp_path):
    events = list(run(config.parse(shrink_config(recipe), recipe.kind), Inputs(packed), tmp_path))
    assert isinstance(events[-1], Result), events[-1]


@pytest.fixture(scope="module")
def model(packed, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pretrained")
    assert isinstance(list(run(config.parse(shrink_config(CIFAR10[0])), Inputs(packed), directory))[-1], Result)
    return directory / "model"


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES.values() if recipe.evaluation], ids=lambda recipe: recipe.name
)
def test_the_evaluation_of_a_recipe_runs(recipe, packed, model, tmp_path):
    config.parse(recipe.evaluation, "linear_eval")
    *_, last = run(config.parse(shrink_evaluation(recipe), "linear_eval"), Inputs(packed, model), tmp_path)
    assert isinstance(last, Result), last
    assert 0 <= last.summary["top1"] <= 1
