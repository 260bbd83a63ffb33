"""The OpenAPI document: FastAPI's, in which the refusals of all routes refer to one schema of a problem, and each
operation names the scope that it needs."""

from typing import Any

from fastapi import FastAPI

from api.parameters.patterns import WITHOUT_NUL
from api.problems import MEDIA_TYPE
from api.schemas import Problem
from ssl_core.config import Import

_SCHEMAS = "#/components/schemas/"
_REFERENCE = {"$ref": "#/components/schemas/Problem"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused.", "content": {MEDIA_TYPE: {"schema": _REFERENCE}}},
    "503": {"description": "The service is unavailable.", "content": {MEDIA_TYPE: {"schema": _REFERENCE}}},
}


def install(app: FastAPI) -> None:
    """Add the schema that RESPONSES refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if "Problem" not in document["components"]["schemas"]:
            for model in (Problem, Import):  # which FastAPI does not see
                schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
                document["components"]["schemas"] |= {**schema.pop("$defs", {}), model.__name__: schema}
            _describe_scopes(document)
            _forbid_null(document)
            _forbid_nul(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_scopes(document: dict[str, Any]) -> None:
    """Add the scope to the description of each operation; it also is in `security`, which Swagger UI does not show."""
    for item in document["paths"].values():
        for operation in item.values():
            for scope in (
                scope for item in operation.get("security", ()) for names in item.values() for scope in names
            ):
                sentence = f"Needs a key with the scope `{scope}`."
                operation["description"] = "\n\n".join(filter(None, (operation.get("description"), sentence)))


def _forbid_null(document: dict[str, Any]) -> None:
    """Remove null from the schemas of parameters and of forms, in which what has no value is left out."""
    for operation in (operation for item in document["paths"].values() for operation in item.values()):
        form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
        fields = form.get("properties", {})
        for schema in (*(parameter["schema"] for parameter in operation.get("parameters", ())), *fields.values()):
            options = [option for option in schema.pop("anyOf", ()) if option.get("type") != "null"]
            schema.update(options[0] if len(options) == 1 else {"anyOf": options} if options else {})
            if schema.get("default", "") is None:
                del schema["default"]


def _forbid_nul(document: dict[str, Any]) -> None:
    """Add a pattern to every text of a request that has none: NUL characters are refused everywhere."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    todo: list[Any] = [[part.get("parameters", []), part.get("requestBody", {})] for part in operations]
    seen: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            if node.get("type") == "string" and node.keys().isdisjoint({"pattern", "enum", "const", "format"}):
                node["pattern"] = WITHOUT_NUL
            reference = node.get("$ref", "")
            if isinstance(reference, str) and reference.startswith(_SCHEMAS) and reference not in seen:
                seen.add(reference)
                todo.append(document["components"]["schemas"][reference.removeprefix(_SCHEMAS)])
            todo += node.values()
