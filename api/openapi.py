"""The OpenAPI document: FastAPI's, in which the refusals of all routes refer to one schema of a problem, and each
operation names the scope that it needs."""

from typing import Any

from fastapi import FastAPI

from api.problems import MEDIA_TYPE
from api.schemas import Problem

_REFERENCE = {"$ref": "#/components/schemas/Problem"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused.", "content": {MEDIA_TYPE: {"schema": _REFERENCE}}}
}


def install(app: FastAPI) -> None:
    """Add the schema that RESPONSES refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if "Problem" not in document["components"]["schemas"]:
            document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            _describe_scopes(document)
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
