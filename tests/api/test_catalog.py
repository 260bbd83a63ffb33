"""Routes of the catalogue, and the OpenAPI document."""

import pytest

from api import schemas
from ssl_core import config
from ssl_core.config.methods import METHODS
from ssl_core.recipes import RECIPES
from tests.api.responses import check_body
from tests.service import given

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_submitted(client, database, tenant, name):
    recipe = next(
        item for item in check_body(schemas.RecipeList, client.get("/recipes"))["data"] if item["name"] == name
    )
    assert all(recipe[field] for field in ("description", "source", "hardware", "duration", "result"))
    parsed = config.parse(recipe["config"], recipe["kind"])
    dataset = given.create_ready_dataset(database, tenant, images=10_000)
    model = given.submit_job(database, tenant, dataset).id if recipe["kind"] in ("finetune", "distill") else None
    requested = {"kind": recipe["kind"], "dataset": dataset, "config": recipe["config"], "model": model}
    job = check_body(schemas.Job, client.post("/jobs", json=requested), 202)
    assert job["config"] == parsed.model_dump(mode="json")


PUBLISHED = {
    "simclr-cifar10": {
        "backbone.name": "resnet18",
        "batch_size": 512,
        "epochs": 1000,
        "optimizer": ("lars", 1.0, 1e-4),
        "schedule.lr_scaling": "linear",
        "method.temperature": 0.5,
        "method.projector": [512, 512, 128],
        "views.jitter_strength": 0.5,
        "evaluation": (0.2, 0.0, 100),  # 0.1 for 256 images, in batches of 512
    },
    "simclr-imagenet": {
        "backbone.name": "resnet50",
        "batch_size": 4096,
        "epochs": 100,
        "optimizer": ("lars", 0.075, 1e-4),
        "schedule.lr_scaling": "sqrt",
        "method.temperature": 0.1,
        "views.jitter_strength": 1.0,
        "evaluation": (1.6, 1e-6, 90),  # 0.1 for 256 images, in batches of 4096
    },
    **{
        f"simclrv2-finetune-{percent}pct": {
            "label_fraction": percent / 100,
            "ft_proj_selector": 1,
            "fine_tune_after_block": -1,
            "optimizer": ("lars", 0.005, 0.0),
            "schedule.lr_scaling": "sqrt",
            "schedule.warmup_epochs": 0.0,
            "epochs": 60,
            "batch_size": 1024,
            "views.jitter": 0.0,
            "views.grey": 0.0,
        }
        for percent in (1, 10)
    },
    "simclrv2-distill": {"label_weight": 0.0},
    "simclr-imagenet5-as-published": {
        "backbone.name": "resnet50",
        "image_size": 224,
        "batch_size": 64,
        "epochs": 200,
        "views.crop_area": None,
        "views.jitter": 0.8,
        "views.jitter_strength": 1.0,
        "method.projector": [256, 128, 50],
        "method.projector_batch_norm": False,
        "method.temperature": 0.1,
        "optimizer": ("sgd", 0.1, 0.0),
        "optimizer.momentum": 0.0,
        "schedule.decay_steps": 1000,
    },
    "simclr-cifar10-r50-imagenet-init": {
        "backbone.name": "resnet50",
        "backbone.weights": "imagenet_v1",
        "batch_size": 128,
        "epochs": 100,
        "optimizer.lr": 0.2,
        "schedule.lr_scaling": "none",
        "schedule.warmup_epochs": 10.0,
        "views.grey": 0.0,
        "normalisation": "dataset",
    },
    "infonce-cifar10-tanh": {
        "backbone.name": "resnet50",
        "normalisation": "half",
        "views.crop_area": [28**2 / 32**2] * 2,
        "views.brightness": 0.5,
        "views.contrast_range": [0.1, 0.9],
        "method.projector": [256, 128],
        "method.temperature": 0.5,
        "method.same_view_negatives": False,
    },
    "simsiam-flowers-as-published": {
        "backbone.name": "resnet50",
        "image_size": 224,
        "batch_size": 64,
        "epochs": 50,
        "views.crop_area": None,
        "views.translation": 0.125,
        "views.jitter_strength": 0.5,
        "method.projector": [2048, 2048],
        "method.projector_relu_first": True,
        "method.predictor_hidden": 512,
        "optimizer": ("sgd", 0.01, 0.0),
        "optimizer.momentum": 0.6,
        "schedule.decay_steps": 500,
    },
}


def get_value(recipe, path):
    """Return the value at a dotted path of the recipe's config; of an optimizer or evaluation the published values."""
    if path == "evaluation":
        found = recipe.evaluation
        return found["learning_rates"][0], found["weight_decays"][0], found["epochs"]
    value = recipe.config
    for name in path.split("."):
        value = value[name]
    return tuple(value[name] for name in ("name", "lr", "weight_decay")) if path == "optimizer" else value


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_have_published_values(name):
    recipe = RECIPES[name]
    assert {path: get_value(recipe, path) for path in PUBLISHED[name]} == PUBLISHED[name]


def test_digits_recipe_rotates_and_shears_but_never_flips():
    digits = config.parse(RECIPES["simclr-digits"].config).views
    assert (digits.flip, digits.crop_area, digits.jitter, digits.grey) == (0, None, 0, 0)
    assert (digits.rotation, digits.shear, digits.scale) == (12, 0.2, (0.6, 1.1))


@on_sqlite
def test_methods_have_complete_defaults_and_schema(client):
    methods = check_body(schemas.MethodList, client.get("/methods"))["data"]
    assert [method["name"] for method in methods] == list(METHODS)
    for method in methods:
        assert config.parse({"method": method["defaults"]}).method == METHODS[method["name"]]()
        assert method["schema"]["properties"].keys() == method["defaults"].keys()


@on_sqlite
def test_listed_backbones_can_be_built(client):
    from ssl_core.models import backbones  # loads torch

    items = check_body(schemas.BackboneList, client.get("/backbones"))["data"]
    assert [item["name"] for item in items] == list(config.BACKBONES)
    for name, item in zip(config.BACKBONES, items, strict=True):
        requested = config.Backbone(**item["defaults"])
        assert requested == config.Backbone(name=name)
        assert item["schema"]["properties"].keys() == item["defaults"].keys()
        if not name.startswith("torchvision_"):
            backbones.build(requested.model_copy(update={"width": 0.125, "stem": "cifar", "zero_init_residual": False}))


@on_sqlite
def test_openapi_documents_routes_problems_and_authentication(anonymous, app):
    document = anonymous.get("/openapi.json").json()
    assert document["info"]["title"] == "Twoviews"
    assert len(document["paths"]) >= 20
    for place, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["tags"], (method, place)
            assert operation["summary"][0].isupper(), (method, place)
            assert "application/problem+json" in operation["responses"]["4XX"]["content"], (method, place)
            is_public = place.startswith("/health/") or place == "/sessions"
            assert ("security" in operation) != is_public, (method, place)
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "multipart/form-data" in document["paths"]["/datasets"]["post"]["requestBody"]["content"]
    assert anonymous.get("/docs").status_code == 200


@on_sqlite
def test_openapi_documents_every_config_field(anonymous):
    document = anonymous.get("/openapi.json").json()
    shown = document["components"]["schemas"]
    kinds = [resolve(document, item["$ref"]) for item in shown["NewJob"]["properties"]["config"]["anyOf"]]
    assert [kind["properties"]["kind"]["const"] for kind in kinds] == list(config.KINDS)
    assert [kind["properties"].keys() for kind in kinds] == [kind.model_fields.keys() for kind in config.KINDS.values()]
    for reference in references(document):
        resolve(document, reference)
    below = {reference.rsplit("/", 1)[1] for kind in kinds for reference in references(kind)}
    assert {method.__name__ for method in METHODS.values()} | {
        "Backbone",
        "Views",
        "SGD",
        "Schedule",
    } <= below


def references(node):
    """Yield every `$ref` below a node."""
    if isinstance(node, list):
        return {found for item in node for found in references(item)}
    if not isinstance(node, dict):
        return set()
    return {found for name, item in node.items() for found in ({item} if name == "$ref" else references(item))}


def resolve(document, reference):
    """Return the node that a `$ref` refers to."""
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document
