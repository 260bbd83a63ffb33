"""The OpenAPI document, as generators of clients and browsers read it."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from api import app
from service.settings import Settings
from tests.api.conftest import TestClient


@pytest.fixture(scope="module")
def api():
    return app.create(Settings(data_dir=Path("unused"), _env_file=None))


def objects(node):
    """Yield every schema of an object with properties, at any depth."""
    if isinstance(node, dict):
        if "properties" in node and node.get("type") == "object":
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from objects(part)


def test_every_schema_has_a_name_and_a_title_of_its_own(api):
    document = api.openapi()
    named = document["components"]["schemas"]
    assert {name for name, schema in named.items() if schema["title"] != name} == set()
    titles = Counter(schema["title"] for schema in objects(document) if "title" in schema)
    assert titles.keys() >= named.keys()
    assert [title for title, count in titles.items() if count > 1] == []


def test_a_client_is_generated_without_a_warning(api, tmp_path):
    (tmp_path / "openapi.json").write_text(json.dumps(api.openapi()), encoding="utf-8")
    (tmp_path / "config.yaml").write_text("post_hooks: []", encoding="utf-8")
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    places = ["--path", "openapi.json", "--output-path", "client", "--config", "config.yaml"]
    done = subprocess.run([*generate, *places], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    models = {path.stem for path in (tmp_path / "client" / "models").glob("*.py")}
    assert {"job", "job_list", "supervised", "supervised_baseline", "problem", "model", "dataset"} <= models


def test_no_parameter_admits_null_which_a_url_or_a_header_cannot_say(api):
    operations = [operation for item in api.openapi()["paths"].values() for operation in item.values()]
    schemas = [parameter["schema"] for operation in operations for parameter in operation.get("parameters", ())]
    assert len(schemas) > 20
    assert [schema for schema in schemas if "null" in json.dumps(schema.get("anyOf", schema.get("type")))] == []
    assert [schema for schema in schemas if schema.keys().isdisjoint({"type", "anyOf", "enum", "$ref"})] == []


def test_each_format_of_embeddings_is_described(api):
    content = api.openapi()["paths"]["/embed"]["post"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "application/x-npy"}
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/Embeddings"}


def test_streams_and_each_format_of_metrics_are_described(api):
    paths = api.openapi()["paths"]
    content = paths["/jobs/{job_id}/metrics"]["get"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "application/x-ndjson", "text/csv"}
    for path, event in (("/jobs/{job_id}/metrics/stream", "metrics"), ("/jobs/{job_id}/events/stream", "event")):
        operation = paths[path]["get"]
        assert {"after", "last-event-id"} <= {parameter["name"] for parameter in operation["parameters"]}
        (item,) = operation["responses"]["200"]["content"].values()
        assert item["itemSchema"]["properties"]["event"]["enum"] == [event, "done"]


def test_the_page_of_the_document_loads_nothing_from_other_hosts(api):
    client = TestClient(api)
    page = client.get("/docs").text
    assert re.findall(r"(?:\w+:)?//\w[^\s'\"<>]*", page) == []
    assert "url: 'openapi.json'" in page
    files = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    answers = [client.get(f"/{file}") for file in files]
    kinds = {"text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/png"}
    assert {answer.headers["Content-Type"] for answer in answers} == kinds
    assert all(answer.status_code == 200 and answer.content for answer in answers)
    missing = client.get("/docs/__init__.py")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert client.get("/redoc").status_code == 404
