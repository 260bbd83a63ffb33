"""The OpenAPI document: FastAPI's, in which the refusals of all routes refer to one schema of a problem."""

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
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
