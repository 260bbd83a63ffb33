"""The schema of a request says what its texts may be, as the service checks it."""

import re

import pytest

from api.parameters import patterns
from service import text
from service.db import ids
from service.errors import InvalidRequest
from tests.api.responses import check_problem, get_pointers

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
REQUESTS = ("NewJob", "NewIndex", "NewSweep", "NewKey", "Import", "Pretrain", "Backbone")


def is_line(value):
    try:
        text.check_line(value, "/name")
    except InvalidRequest:
        return False
    return True


def texts(node):
    """Yield every schema of a text in the node."""
    if isinstance(node, dict):
        if node.get("type") == "string":
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from texts(part)


def test_the_pattern_of_a_line_is_what_the_service_accepts():
    for code in (*range(0x180), 0x378, 0x2028, 0x2029, 0x3000, 0xFFFE, 0x1F600):
        for value in (f"{chr(code)}{chr(code)}", f"a{chr(code)}b"):
            assert bool(re.search(patterns.LINE, value)) == is_line(value), hex(code)
            assert bool(re.search(patterns.PRINTABLE, value)) == text.is_printable(value), hex(code)


def test_the_pattern_of_a_cursor_is_that_of_ids():
    for value in (ids.new("ds"), ids.new("aud"), "ds_01k", "x", "", "ds_" + "A" * 26):
        assert bool(re.search(patterns.ID, value)) == ids.is_valid(value)


@on_sqlite
def test_every_text_of_a_request_has_a_pattern_an_enumeration_or_a_format(app):
    document = app.openapi()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    requests = [[item.get("parameters", []), item.get("requestBody", {})] for item in operations]
    found = [*texts(requests), *(each for name in REQUESTS for each in texts(document["components"]["schemas"][name]))]
    assert len(found) > 50
    assert [schema for schema in found if schema.keys().isdisjoint({"pattern", "enum", "const", "format"})] == []
    assert sum(schema.get("pattern") == patterns.ID for schema in texts(requests)) == 6  # `after` of six lists


@on_sqlite
def test_a_whole_number_is_an_integer_however_it_is_written(client):
    for days, status in (("30.0", 201), ("3e1", 201), ("30.5", 422), ("1e300", 422)):
        body = f'{{"name": "laptop", "expires_in_days": {days}}}'
        answer = client.post("/keys", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["/expires_in_days"]


@on_sqlite
def test_the_config_of_an_import_may_be_a_part_of_json(client):
    files = {"file": ("a.pt", b"bytes"), "config": (None, b'{"image_size": 96}', "application/json")}
    answer = client.post("/models", files=files)
    assert (answer.status_code, answer.json()["config"]["image_size"]) == (202, 96)
