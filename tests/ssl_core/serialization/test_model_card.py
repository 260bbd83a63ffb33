"""Model cards: what a model's README says, and what it leaves out."""

import json
import re

import pytest

from ssl_core import config
from ssl_core.events import Model, Result
from ssl_core.inputs import Inputs
from ssl_core.models import other_libraries
from ssl_core.run import run
from ssl_core.serialization import model_card, provenance
from tests.ssl_core.digits import TINY, pack_digits

TOLD = {
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
    return [trained(digits, folder / "a", None, TOLD), trained(digits, folder / "b", folder / "a" / "model", CHILD)]


CHILD = {"dataset": {"name": "terns"}, "model": {"id": "mdl_01k", "name": "Gulls"}}


def trained(digits, out, start, told):
    out.mkdir()
    asked = config.parse({"method": {"name": "simclr"}, "epochs": 2, **TINY})
    *_, model, last = run(asked, Inputs(digits, start, provenance=told), out)
    assert isinstance(last, Result)
    assert isinstance(model, Model)
    return out / model.path


def page(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_trained_model_tells_its_data_recipe_numbers_and_origin(models):
    text = page(models[0])
    assert text.startswith("# Gulls \\| v2\n\n")
    for said in ("gulls &lt;2024> (`ds_01k`)", "CC BY 4.0", "`job_01k`", "| epochs | 2 |", "SimCLR", "torch 2"):
        assert said in text
    row = next(line for line in text.splitlines() if line.startswith("| kNN accuracy"))
    assert re.search(r"\| 0\.\d+ \| cosine, k 200, .*at most 2,500 images of each split", row)
    assert "twoviews jobs list --kind linear_eval" in text


def test_the_page_is_that_of_the_card_beside_it(models):
    for folder in models:
        card = json.loads((folder / "model.json").read_text())
        assert page(folder) == model_card.markdown(card)


def test_a_model_that_started_from_another_names_it_and_its_data(models):
    card = json.loads((models[1] / "model.json").read_text())
    ancestor = {"id": "mdl_01k", "name": "Gulls", "method": "simclr", "dataset": {**TOLD["dataset"], "images": 72}}
    assert card["lineage"] == [ancestor]
    assert "Gulls, SimCLR on 72 images of gulls &lt;2024> (CC BY 4.0)" in page(models[1])
    grandchild = provenance.about({}, card)["lineage"]
    assert [entry.get("name") for entry in grandchild] == ["Gulls", None]


def test_a_card_that_says_little_makes_a_short_page():
    text = model_card.markdown(BARE)
    assert "None" not in text.replace("image[None]", "")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# a network",
        "## Numbers",
        "## Where it comes from",
        "## How to load it",
    ]


def test_every_table_has_cells_of_one_number(models):
    for table in re.findall(r"(?:^\|.*\n)+", page(models[0]), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


@pytest.mark.parametrize("folder", [0, 1])
def test_the_python_on_the_page_compiles(models, folder):
    blocks = re.findall(r"```python\n(.*?)```", page(models[folder]), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_only_networks_that_a_library_has_come_with_its_lines():
    own = {"name": "resnet18", "width": 1.0, "stem": "imagenet"}
    assert "torchvision.models.resnet18()" in model_card.markdown({**BARE, "backbone": own})
    assert "timm.create_model(model_name=" in model_card.markdown({**BARE, "backbone": own})
    for other in ({"width": 0.5}, {"layout": "google"}, {"selective_kernel": True}):
        shape = {**own, **other}
        assert other_libraries.write_torchvision_code(shape, "x") is None
        assert "torchvision.models" not in model_card.markdown({**BARE, "backbone": shape})
    assert (
        other_libraries.write_timm_code({"name": "torchvision_vit_b_16", "width": 1.0, "stem": "imagenet"}, "x") is None
    )


def test_a_distilled_models_teacher_gave_answers_and_no_weights():
    lineage = [{"id": "mdl_01k", "name": "Gulls"}]
    card = BARE | {"lineage": lineage, "config": {"kind": "distill", "backbone": {"weights": "random"}}}
    text = model_card.markdown(card)
    assert re.search(r"first weights \| random", text)
    assert re.search(r"teacher \|.*Gulls", text)
    assert "ancestor" not in text
