"""The space of a sweep: grids, draws, and the configs that they make."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from service.sweeps.space import MAX_TRIALS, Space, SpaceError, Values, apply, check_size, expand


def parse(space):
    return TypeAdapter(Space).validate_python(space)


def grid(space, trials=None):
    return expand(parse(space), "grid", trials, 0)


def draws(space, trials, seed=0):
    return expand(parse(space), "random", trials, seed)


def column(params, pointer):
    return [each[pointer] for each in params]


def test_a_grid_is_the_product_with_the_last_field_varying_fastest():
    found = grid({"/seed": {"values": [1, 2]}, "/method/name": {"values": ["simclr", "byol", "dino"]}})
    assert column(found, "/seed") == [1, 1, 1, 2, 2, 2]
    assert column(found, "/method/name") == ["simclr", "byol", "dino"] * 2


@pytest.mark.parametrize(
    ("choices", "numbers"),
    [
        ({"low": 0, "high": 1, "points": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"low": 0.001, "high": 1.0, "log": True, "points": 4}, [0.001, 0.01, 0.1, 1]),
        ({"low": 2, "high": 5, "integer": True}, [2, 3, 4, 5]),
        ({"low": 16, "high": 256, "log": True, "integer": True, "points": 5}, [16, 32, 64, 128, 256]),
        ({"low": 1, "high": 3, "integer": True, "points": 9}, [1, 2, 3]),
    ],
)
def test_a_grid_of_a_range_is_spaced_evenly_on_its_scale(choices, numbers):
    found = column(grid({"/x": choices}), "/x")
    assert found == numbers
    assert {type(number) for number in found} == {int if choices.get("integer") else float}


def test_draws_are_the_same_for_a_seed_and_lie_in_their_ranges():
    space = {
        "/rate": {"low": 0.001, "high": 1.0, "log": True},
        "/batch": {"low": 1, "high": 4, "integer": True},
        "/width": {"low": 8, "high": 512, "integer": True, "log": True},
        "/name": {"values": ["a", "b"]},
    }
    found = draws(space, 500)
    assert found == draws(space, 500)
    assert found != draws(space, 500, seed=1)
    assert found[:100] == draws(space, 100)
    rates = column(found, "/rate")
    assert all(0.001 <= rate <= 1 for rate in rates)
    assert sum(rate < 0.01 for rate in rates) == pytest.approx(500 / 3, abs=50)
    assert {number: column(found, "/batch").count(number) > 80 for number in (1, 2, 3, 4)} == dict.fromkeys(
        (1, 2, 3, 4), True
    )
    widths = column(found, "/width")
    assert all(isinstance(width, int) and 8 <= width <= 512 for width in widths)
    assert sum(math.log2(width) < 6 for width in widths) == pytest.approx(250, abs=50)
    assert set(column(found, "/name")) == {"a", "b"}


def test_a_small_space_has_fewer_draws_and_none_twice():
    found = draws({"/seed": {"values": [1, 2, 3]}}, 10)
    assert sorted(column(found, "/seed")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("space", "trials", "field", "code"),
    [
        ({"/x": {"low": 0, "high": 1}}, None, "/x", "points_needed"),
        ({"/x": {"low": 1, "high": 10**6, "integer": True}}, None, "/x", "points_needed"),
        ({"/x": {"low": 1, "high": 8, "integer": True, "log": True}}, None, "/x", "points_needed"),
        ({"/x": {"values": [1]}}, 5, None, "trials_of_a_grid"),
        ({f"/{name}": {"values": [*range(101)]} for name in "ab"}, None, None, "too_many_trials"),
    ],
)
def test_a_grid_that_cannot_be_made_is_refused(space, trials, field, code):
    with pytest.raises(SpaceError) as refusal:
        grid(space, trials)
    assert (refusal.value.field, refusal.value.code) == (field, code)


def test_a_huge_product_is_counted_and_not_made():
    space = {f"/f{number}": {"values": [*range(MAX_TRIALS)]} for number in range(20)}
    with pytest.raises(SpaceError, match="at most 1,000"):
        grid(space)


def test_random_search_needs_a_number_of_trials():
    with pytest.raises(SpaceError, match="needs `trials`"):
        expand({"/x": Values(values=[1])}, "random", None, 0)


@pytest.mark.parametrize(
    "choices",
    [
        {"low": 1, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 0.5, "high": 2, "integer": True},
        {"low": 0, "high": 1, "points": 1},
        {"values": []},
        {"values": [1], "low": 0},
        {"low": 0},
        {"low": 0, "high": 1e300},
        {"low": -1e300, "high": 1e300, "integer": True, "points": 2},
        {"values": ["x" * 20_000]},
        {},
        [1, 2],
        7,
    ],
)
def test_invalid_choices_are_refused(choices):
    with pytest.raises(ValidationError):
        parse({"/x": choices})


def test_parameters_are_put_in_their_places():
    config = {"epochs": 3, "method": {"name": "simclr", "temperature": 0.5}}
    params = {"/method/temperature": 0.1, "/optimizer/name": "lars", "/epochs": 5}
    assert apply(config, params) == {
        "epochs": 5,
        "method": {"name": "simclr", "temperature": 0.1},
        "optimizer": {"name": "lars"},
    }
    assert config == {"epochs": 3, "method": {"name": "simclr", "temperature": 0.5}}


def test_a_section_is_replaced_before_its_fields():
    params = {"/method/temperature": 0.1, "/method": {"name": "simclr"}}
    assert apply({"method": {"name": "byol", "momentum": 0.9}}, params) == {
        "method": {"name": "simclr", "temperature": 0.1}
    }
    assert params["/method"] == {"name": "simclr"}


@pytest.mark.parametrize(
    "pointer", ["epochs", "", "/", "/method//name", "/a b", "/method/", "/" + "a/" * 9 + "a", "/0"]
)
def test_what_is_no_pointer_is_refused(pointer):
    with pytest.raises(SpaceError) as refusal:
        apply({}, {pointer: 1})
    assert (refusal.value.field, refusal.value.code) == (pointer, "not_a_pointer")


def test_a_pointer_through_a_value_is_refused():
    with pytest.raises(SpaceError) as refusal:
        apply({"epochs": 3}, {"/epochs/name": 1})
    assert refusal.value.code == "not_a_section"


def test_numbers_have_six_digits_and_stay_in_the_range():
    found = column(draws({"/x": {"low": 1 / 3, "high": 0.3333334}}, 20), "/x")
    assert all(1 / 3 <= number <= 0.3333334 for number in found)


def test_configs_that_are_too_large_together_are_refused():
    trials = [{"/seed": seed} for seed in range(1000)]
    check_size({"epochs": 3}, trials)
    with pytest.raises(SpaceError, match="at most 20,000,000"):
        check_size({"label_rows": [*range(10_000)]}, trials)


def test_the_whole_range_of_whole_numbers_can_be_drawn():
    choices = {"low": -1e15, "high": 1e15, "integer": True}
    assert all(isinstance(number, int) for number in column(draws({"/x": choices}, 20), "/x"))
    assert column(grid({"/x": choices | {"points": 2}}), "/x") == [-(10**15), 10**15]
    assert max(column(draws({"/x": {"low": 1, "high": 1e15, "integer": True, "log": True}}, 50), "/x")) <= 10**15
