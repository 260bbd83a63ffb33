"""Differences of configs, field by field."""

import pytest

from service.comparison import differences


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"/b": {"x": 2, "y": 3}}),
        ({"a": 1}, {}, {"/a": {"x": 1}}),
        ({"m": {"name": "p", "t": 1}}, {"m": {"name": "q"}}, {"/m/name": {"x": "p", "y": "q"}, "/m/t": {"x": 1}}),
        ({"v": "auto"}, {"v": {"n": 2}}, {"/v": {"x": "auto"}, "/v/n": {"y": 2}}),
        ({"f": [0.1, 1]}, {"f": [0.1]}, {"/f": {"x": [0.1, 1], "y": [0.1]}}),
        ({"v": [{"n": 1}, {"n": 2}]}, {"v": [{"n": 1}, {"n": 3}]}, {"/v/1/n": {"x": 2, "y": 3}}),
        ({"v": [{"n": 1}]}, {"v": [{"n": 1}, {"n": 3}]}, {"/v/1/n": {"y": 3}}),
        ({"a": True}, {"a": 1}, {"/a": {"x": True, "y": 1}}),
        ({"a": None}, {}, {"/a": {"x": None}}),
        ({"a": {}}, {"a": []}, {"/a": {"x": {}, "y": []}}),
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a/b~": 1}, {"a/b~": 2}, {"/a~1b~0": {"x": 1, "y": 2}}),
    ],
)
def test_fields_that_differ_are_found(first, second, wanted):
    found = differences.find({"x": first, "y": second})
    assert {each["pointer"]: each["values"] for each in found} == wanted


def test_one_config_has_no_differences_and_of_long_lists_the_beginning_is_shown():
    assert differences.find({"x": {"a": 1}}) == []
    (found,) = differences.find({"x": {"rows": [*range(1000)]}, "y": {"rows": [*range(999)]}})
    assert found["values"]["x"] == found["values"]["y"] == [*range(differences.MAX_ITEMS)]
