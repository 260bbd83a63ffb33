"""Model cards: the content of a model's README, and the fields that it omits."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ssl_core import config
from ssl_core.events import Model, Result
from ssl_core.inputs import Inputs
from ssl_core.models import other_libraries
from ssl_core.run import run
from ssl_core.serialization import model_card, provenance
from tests.ssl_core.digits import TINY, pack_digits

PROVENANCE = {
    "job": "job_01k",
    "name": "Gulls | v2",
    "dataset": {"id": "ds_01k", "name": "gulls <2024>", "licence": "CC BY 4.0"},
}
BARE = {
    "dim": 64,
    "layers": {"backbone": 64},
    "preprocessing": {"image_size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folders of a model and of one that starts from it."""
    folder = tmp_path_factory.mktemp("models")
    digits = pack_digits(folder / "digits")
    return [
        train(digits, folder / "a", None, PROVENANCE),
        train(digits, folder / "b", folder / "a" / "model", CHILD_PROVENANCE),
    ]


CHILD_PROVENANCE = {"dataset": {"name": "terns"}, "model": {"id": "mdl_01k", "name": "Gulls"}}


def train(digits, out, start, provenance):
    out.mkdir()
    asked = config.parse({"method": {"name": "simclr"}, "epochs": 2, **TINY})
    *_, model, last = run(asked, Inputs(digits, start, provenance=provenance), out)
    assert isinstance(last, Result)
    assert isinstance(model, Model)
    return out / model.path


def page(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_page_of_a_trained_model_has_data_config_metrics_and_provenance(models):
    text = page(models[0])
    assert text.startswith("# Gulls \\| v2\n\n")
    for part in ("gulls &lt;2024> (`ds_01k`)", "CC BY 4.0", "`job_01k`", "| epochs | 2 |", "SimCLR", "torch 2"):
        assert part in text
    row = next(line for line in text.splitlines() if line.startswith("| kNN accuracy"))
    assert re.search(r"\| 0\.\d+ \| cosine, k 200, .*at most 2,500 images of each split", row)
    assert "twoviews jobs list --kind linear_eval" in text


def test_the_readme_is_rendered_from_the_card(models):
    for folder in models:
        card = json.loads((folder / "model.json").read_text())
        assert page(folder) == model_card.render_markdown(card)


def test_a_model_that_starts_from_another_lists_it_and_its_dataset(models):
    card = json.loads((models[1] / "model.json").read_text())
    ancestor = {
        "id": "mdl_01k",
        "name": "Gulls",
        "method": "simclr",
        "dataset": {**PROVENANCE["dataset"], "images": 72},
    }
    assert card["lineage"] == [ancestor]
    assert "Gulls, SimCLR on 72 images of gulls &lt;2024> (CC BY 4.0)" in page(models[1])
    grandchild = provenance.build_card_fields({}, card)["lineage"]
    assert [entry.get("name") for entry in grandchild] == ["Gulls", None]


def test_missing_fields_have_no_section():
    text = model_card.render_markdown(BARE)
    assert "None" not in text.replace("image[None]", "")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# a network",
        "## Metrics",
        "## Provenance",
        "## Loading",
    ]


def test_every_row_of_a_table_has_the_same_number_of_cells(models):
    for table in re.findall(r"(?:^\|.*\n)+", page(models[0]), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_the_first_code_block_of_the_page_runs_beside_the_model(models, tmp_path, monkeypatch):
    shutil.copytree(models[0], tmp_path / "model")
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.findall(r"```python\n(.*?)```", page(models[0]), re.DOTALL)[0], names)
    assert names["features"].shape == (1, json.loads((models[0] / "model.json").read_text())["dim"])


@pytest.mark.parametrize("folder", [0, 1])
def test_the_python_on_the_page_compiles(models, folder):
    blocks = re.findall(r"```python\n(.*?)```", page(models[folder]), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_only_networks_that_a_library_has_come_with_its_code():
    own = {"name": "resnet18", "width": 1.0, "stem": "imagenet"}
    assert "torchvision.models.resnet18()" in model_card.render_markdown({**BARE, "backbone": own})
    assert "timm.create_model(model_name=" in model_card.render_markdown({**BARE, "backbone": own})
    for other in ({"width": 0.5}, {"layout": "google"}, {"selective_kernel": True}):
        shape = {**own, **other}
        assert other_libraries.write_torchvision_code(shape, "x") is None
        assert "torchvision.models" not in model_card.render_markdown({**BARE, "backbone": shape})
    assert (
        other_libraries.write_timm_code({"name": "torchvision_vit_b_16", "width": 1.0, "stem": "imagenet"}, "x") is None
    )


def test_a_distilled_model_lists_its_teacher_and_random_initial_weights():
    lineage = [{"id": "mdl_01k", "name": "Gulls"}]
    card = BARE | {"lineage": lineage, "config": {"kind": "distill", "backbone": {"weights": "random"}}}
    text = model_card.render_markdown(card)
    assert re.search(r"initial weights \| random", text)
    assert re.search(r"teacher \|.*Gulls", text)
    assert "ancestor" not in text
