"""Configs: what is refused, where the fault is said to be, and in which words."""

import math

import pytest
from pydantic import ValidationError

from ssl_core import config
from ssl_core.config.methods import METHODS

SIMCLR = {"method": {"name": "simclr"}}
SIZE = {"image_size": 32}
NETWORK = {"name": "resnet18", "width": 1.0, "stem": "cifar", "zero_init_residual": True}
OPTIMIZERS = [{"name": name, "lr": 0.1, "decay_norm_and_bias": True} for name in ("sgd", "adamw", "lars")]
RUN = {
    "backbone": NETWORK,
    "image_size": 32,
    "phases": [{"until": 0.5, "image_size": 16}, {"until": 1.0, "image_size": 32}],
    "epochs": 10,
    "subset": 1000,
    "schedule": {"warmup_epochs": 1.0},
    "evaluation": {"every_epochs": 1},
    "checkpoints": {"every_steps": 100},
    "early_stop": {"metric": "knn", "min_delta": 0.5},
}
HEADS = {"simclr": {"projector": [64, 32]}, "simsiam": {"projector": [64, 64], "predictor_hidden": 16}}
WHOLE = {
    **{
        f"pretrain {name} {optimizer['name']}": (
            {**RUN, "method": {"name": name, **HEADS.get(name, {})}, "optimizer": optimizer},
            "pretrain",
        )
        for name in METHODS
        for optimizer in OPTIMIZERS
    },
    "pretrain by minutes": ({**SIMCLR, "minutes": 10.0, "early_stop": {}}, "pretrain"),
    "linear_eval": ({"subset": 1000, "baselines": ["pixels"], "label_rows": [0, 7]}, "linear_eval"),
    "knn_eval": ({"subset": 1000, "baselines": ["random"]}, "knn_eval"),
    "embed_dataset": ({"splits": ["test"], "rows_per_shard": 100, "dtype": "float16"}, "embed_dataset"),
    "project": ({"split": "test", "methods": ["umap", "pca"]}, "project"),
}
whole = pytest.mark.parametrize("case", WHOLE)


def refusal(data, kind="pretrain"):
    """The faults of a config that must have some."""
    with pytest.raises(ValidationError) as caught:
        config.parse(data, kind)
    return config.faults(caught.value, kind)


def complete(case):
    """The case with every field that it did not name, as plain JSON values; and its kind."""
    data, kind = WHOLE[case]
    return config.parse(data, kind).model_dump(mode="json"), kind


def leaves(value, place=()):
    """Every place in plain JSON values at which there is neither a list nor an object, and what is there."""
    if not isinstance(value, dict | list):
        yield place, value
        return
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(inner, (*place, name))


def objects(value, place=()):
    """Every place at which there is an object."""
    if isinstance(value, dict):
        yield place, value
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    ):
        yield from objects(inner, (*place, name))


def replaced(value, place, new):
    """The same values, with another one at that place."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(copy[place[0]] if len(place) > 1 else None, place[1:], new)
    return copy


def pointer(place):
    return "".join(f"/{part}" for part in place)


# --- what holds for every field ---------------------------------------------------------------------------------------


@whole
def test_a_whole_config_says_nothing_new_when_it_is_read_again(case):
    data, kind = complete(case)
    assert config.parse(data, kind).model_dump(mode="json") == data


@whole
def test_unknown_fields_are_refused_at_every_level_with_the_nearest_name(case):
    data, kind = complete(case)
    for place, there in objects(data):
        for name in there:
            (fault,) = refusal(replaced(data, (*place, f"{name}x"), 1), kind)
            assert (fault["pointer"], fault["code"]) == (pointer((*place, f"{name}x")), "extra_forbidden")
            assert fault["detail"] == f"There is no field `{name}x` here; did you mean `{name}`?"


@whole
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_may_be_nan_or_infinite(case, value):
    data, kind = complete(case)
    for place, there in leaves(data):
        if isinstance(there, int | float):
            (fault,) = refusal(replaced(data, place, value), kind)
            assert fault["pointer"] == pointer(place)
            assert fault["code"] in ("finite_number", "int_type", "bool_type")


@whole
def test_every_number_has_bounds(case):
    data, kind = complete(case)
    for place, there in leaves(data):
        if isinstance(there, int | float) and not isinstance(there, bool):
            for value in (type(there)(-1e12), type(there)(1e12)):
                (fault,) = refusal(replaced(data, place, value), kind)
                assert fault["code"].startswith(("greater_than", "less_than", "value_error")), (place, fault)
                assert pointer(place).startswith(fault["pointer"])


@whole
def test_nothing_is_turned_into_another_type(case):
    data, kind = complete(case)
    for place, there in leaves(data):
        for value in ({"a": 1}, [], f"{there}!"):
            (fault, *_) = refusal(replaced(data, place, value), kind)
            at, told = pointer(place), fault["pointer"]
            # A tag's fault is its object's; an object or a list may have it at what it holds or lacks.
            assert told in (at, pointer(place[:-1])) or told.startswith(f"{at}/"), (place, value)


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        config.parse(SIMCLR).batch_size = 1


# --- case by case -----------------------------------------------------------------------------------------------------


def phases(*ends):
    return {"phases": [{"until": end, "image_size": 8} for end in ends]}


BAD = {
    "no method": ({}, ["/method"], "required"),
    "method without a name": ({"method": {}}, ["/method"], "name"),
    "method that does not exist": ({"method": {"name": "simclrr"}}, ["/method"], "simclr"),
    "method that is its name": ({"method": "simclr"}, ["/method"], "object"),
    "config that is a list": ([], [""], "object"),
    "text that is no Unicode": ({"method": {"name": "\ud800"}}, [""], "JSON"),
    "field that is like no other": ({**SIMCLR, "zzz": 1}, ["/zzz"], "no field `zzz` here."),
    "field whose name needs escapes": ({**SIMCLR, "a/b~c": 1}, ["/a~1b~0c"], "a/b~c"),
    "field of another method": (
        {"method": {"name": "simsiam", "temperature": 0.1}},
        ["/method/temperature"],
        "no field",
    ),
    "field of another optimizer": (
        {**SIMCLR, "optimizer": {"name": "sgd", "betas": [0.9, 0.99]}},
        ["/optimizer/betas"],
        "no field",
    ),
    "decay that never ends": (
        {**SIMCLR, "optimizer": {"name": "adamw", "betas": [0.9, 1.0]}},
        ["/optimizer/betas/1"],
        "1",
    ),
    "optimizer that does not exist": ({**SIMCLR, "optimizer": {"name": "adam"}}, ["/optimizer"], "adamw"),
    "kind of another run": ({**SIMCLR, "kind": "knn_eval"}, ["/kind"], "pretrain"),
    "truth for a number": ({**SIMCLR, "epochs": True}, ["/epochs"], "integer"),
    "number for a truth": (
        {"method": {"name": "simclr", "projector_batch_norm": 1}},
        ["/method/projector_batch_norm"],
        "",
    ),
    "whole epochs as a float": ({**SIMCLR, "epochs": 3.0}, ["/epochs"], "integer"),
    "number beyond every float": ({**SIMCLR, "minutes": 10**400}, ["/minutes"], "finite"),
    "word that is not auto": ({**SIMCLR, "image_size": "big"}, ["/image_size"], "integer"),
    "null where nothing is no value": ({**SIMCLR, "batch_size": None}, ["/batch_size"], "integer"),
    "one end of a range": ({**SIMCLR, "views": {"crop_area": [0.2]}}, ["/views/crop_area/1"], "required"),
    "all that is wrong at once": (
        {"method": {"name": "simclr", "temperature": 0}, "epochs": 0, "subset": 1, "seed": -1},
        ["/seed", "/subset", "/epochs", "/method/temperature"],
        "greater than or equal to 0",
    ),
    # the network
    "backbone that does not exist": ({**SIMCLR, "backbone": {"name": "resnet19"}}, ["/backbone/name"], "`resnet18`"),
    "backbone that is like no other": ({**SIMCLR, "backbone": {"name": "zzz"}}, ["/backbone/name"], "`zzz`"),
    "backbone that is a path": ({**SIMCLR, "backbone": {"name": "../x"}}, ["/backbone/name"], "pattern"),
    "head of no layers": ({"method": {"name": "simclr", "projector": []}}, ["/method/projector"], "at least 1"),
    "head of no width": ({"method": {"name": "simclr", "projector": [0]}}, ["/method/projector/0"], "equal to 1"),
    # the views
    "crop that descends": (
        {**SIMCLR, "views": {"crop_area": [0.9, 0.2]}},
        ["/views"],
        "crop_area must be two ascending",
    ),
    "crop of nothing": ({**SIMCLR, "views": {"crop_area": [0.0, 0.2]}}, ["/views"], "crop_area"),
    "ratio that descends": ({**SIMCLR, "views": {"crop_ratio": [2.0, 1.0]}}, ["/views"], "crop_ratio"),
    "temperature that no number divides by": (
        {"method": {"name": "simclr", "temperature": 1e-300}},
        ["/method/temperature"],
        "0.001",
    ),
    "zoom to nothing": ({**SIMCLR, "views": {"scale": [1e-300, 1.0]}}, ["/views"], "scale"),
    "blur below nothing": ({**SIMCLR, "views": {"blur_sigma": [-1.0, 1.0]}}, ["/views"], "blur_sigma"),
    "scale beyond ten": ({**SIMCLR, "views": {"scale": [1.0, 10.5]}}, ["/views"], "scale"),
    # the length
    "two lengths": ({**SIMCLR, "epochs": 1, "minutes": 1.0}, [""], "not both"),
    "early stop on what is not measured": (
        {**SIMCLR, "early_stop": {"metric": "knn"}, "evaluation": {"every_epochs": 0}},
        [""],
        "every_epochs",
    ),
    "no patience": ({**SIMCLR, "early_stop": {"patience": 0}}, ["/early_stop/patience"], "equal to 1"),
    "no phases": ({**SIMCLR, "phases": []}, ["/phases"], "at least 1"),
    "phase that is none": ({**SIMCLR, "phases": [3]}, ["/phases/0"], "object"),
    "phases that descend": ({**SIMCLR, **phases(0.7, 0.4, 1.0)}, [""], "phases must ascend"),
    "phase of no length": ({**SIMCLR, **phases(0.5, 0.5, 1.0)}, [""], "phases must ascend"),
    "phases that end early": ({**SIMCLR, **phases(0.5, 0.9)}, [""], "end at 1"),
    "batch larger than the subset": ({**SIMCLR, "subset": 100, "batch_size": 101}, [""], "batch_size 101 is larger"),
}
BAD_EVALUATIONS = {
    "layer that does not exist": ({"layer": "block5"}, ["/layer"], "pattern"),
    "baseline that does not exist": ({"baselines": ["pixel"]}, ["/baselines/0"], "'pixels'"),
    "too many baselines": ({"baselines": ["pixels"] * 3}, ["/baselines"], "at most 2"),
    "no labels": ({"label_fractions": [0.0]}, ["/label_fractions/0"], "greater than 0"),
    "no fractions": ({"label_fractions": []}, ["/label_fractions"], "at least 1"),
    "more labels than there are": ({"label_fractions": [0.1, 1.1]}, ["/label_fractions/1"], "less than or equal to 1"),
    "all held out": ({"validation_fraction": 1.0}, ["/validation_fraction"], "less than 1"),
    "nothing to judge": ({"test_fraction": 0.0}, ["/test_fraction"], "greater than 0"),
    "row given twice": ({"label_rows": [3, 4, 3]}, ["/label_rows"], "once"),
    "row before the first": ({"label_rows": [3, -1]}, ["/label_rows/1"], "equal to 0"),
    "rows and shares": ({"label_rows": [3, 4], "label_fractions": [0.1]}, [""], "not both"),
    "field of another kind": ({"temperature": 0.1}, ["/temperature"], "no field"),
    "kind of another run": ({"kind": "pretrain"}, ["/kind"], "linear_eval"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_pretrained_is_refused_where_it_stands(case):
    data, places, hint = BAD[case]
    found = refusal(data)
    assert [fault["pointer"] for fault in found] == places
    assert hint in found[0]["detail"]


@pytest.mark.parametrize("case", BAD_EVALUATIONS)
def test_what_cannot_be_evaluated_is_refused_where_it_stands(case):
    data, places, hint = BAD_EVALUATIONS[case]
    found = refusal(data, "linear_eval")
    assert [fault["pointer"] for fault in found] == places
    assert hint in found[0]["detail"]


@pytest.mark.parametrize(
    "data",
    [
        {**SIMCLR, "views": {"crop_area": None}},
        {**SIMCLR, "views": {"crop_area": [1.0, 1.0], "scale": [10, 10]}},
        {**SIMCLR, **phases(0.5, 1)},
        {**SIMCLR, "subset": 256},
        {**SIMCLR, "minutes": 1},
    ],
)
def test_what_stands_at_a_bound_is_taken(data):
    config.parse(data)


def test_of_very_many_faults_a_hundred_are_told():
    for many in ({f"epoch{i}": 0 for i in range(5000)}, {"method": {"name": "simclr", "projector": [0] * 5000}}):
        with pytest.raises(ValidationError) as caught:
            config.parse({**SIMCLR, **many})
        assert len(config.faults(caught.value, "pretrain")) == 100


def test_a_very_long_name_is_not_told_back_whole():
    with pytest.raises(ValidationError) as caught:
        config.parse({**SIMCLR, "x" * 100_000: 1})
    (fault,) = config.faults(caught.value, "pretrain")
    assert len(fault["pointer"] + fault["detail"]) < 300
