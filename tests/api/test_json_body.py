"""JSON bodies: what is refused before its values are built."""

import tracemalloc

import orjson
import pytest

from api import json_body
from service.errors import TooLarge
from tests.api.responses import check_problem

JSON = {"Content-Type": "application/json"}
SIZE = 60_000
DOCUMENTS = {
    "objects": b"[" + b"{}," * (SIZE // 3) + b"1]",
    "lists": b"[" + b"[0]," * (SIZE // 4) + b"1]",
    "nested": b"[" + b",".join([b"[" * 100 + b"]" * 100] * (SIZE // 201)) + b"]",
    "pairs": b"[" + b'{"a":1},' * (SIZE // 8) + b"1]",
    "strings": b"[" + b'"ab",' * (SIZE // 5) + b"1]",
    "integers": b"[" + b"300," * (SIZE // 4) + b"1]",
    "fields": b"{" + b",".join(b'"%x":"ab"' % number for number in range(SIZE // 11)) + b"}",
}


def measure(body: bytes) -> int:
    """Return the bytes of the document's values."""
    tracemalloc.start()
    try:
        value = orjson.loads(body)
        size = tracemalloc.get_traced_memory()[0]
        assert value
        return size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS)
def test_the_estimate_is_an_upper_bound_of_the_memory(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "MAX_STRUCTURE_BYTES", 2**40)
    assert measure(body) <= json_body.check_structure(body) + len(body)


def test_the_longest_config_is_accepted_and_a_body_of_empty_objects_is_not() -> None:
    json_body.check_structure(orjson.dumps({"label_rows": list(range(200_000))}))
    with pytest.raises(TooLarge):
        json_body.check_structure(b"{}," * 100_000)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("path", "mib"), [("/jobs", 1), ("/embed", 4)])
def test_a_body_of_empty_objects_is_413_in_little_memory(client, path: str, mib: int) -> None:
    body = b'{"x":[' + b"{}," * ((mib * 2**20 - 10) // 3) + b"1]}"
    tracemalloc.start()
    try:
        check_problem(client.post(path, content=body, headers=JSON), 413, "too_large")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body) + 2**22
    finally:
        tracemalloc.stop()
