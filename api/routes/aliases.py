"""Routes of /aliases: names of models, which may be moved from one to another."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import WithJsonSchema

from api import responses, schemas, serializers
from api.deps import ReadCaller, TrainCaller
from api.json_body import JsonRoute
from api.responses import JSONResponse
from service.aliases import names, store

router = APIRouter(tags=["models"], route_class=JsonRoute)
_SCHEMA = {"type": "string", "pattern": names.PATTERN, "title": "Alias"}
Name = Annotated[
    str,
    Path(description="A small letter, then at most 62 of a-z, 0-9, `.`, `_` and `-`.", examples=["prod"]),
    WithJsonSchema(_SCHEMA),
]
After = Annotated[str | None, Query(max_length=64, description="`next` of the previous page."), WithJsonSchema(_SCHEMA)]


@router.get("/aliases", response_model=schemas.AliasList, summary="List aliases by name")
def list_(
    caller: ReadCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JSONResponse:
    with caller.reading() as unit:
        page = store.list_(unit.session, unit.tenant_id, after, limit)
        return responses.page([serializers.alias(row) for row in page.items], page.has_more, page.next)


@router.put("/aliases/{alias}", response_model=schemas.Alias, summary="Give a model an alias, or move it there")
def put(alias: Name, body: schemas.AliasTarget, caller: TrainCaller) -> JSONResponse:
    """The alias stands for the model wherever a model is asked for, from the next request on. Idempotent."""
    with caller.writing() as unit:
        found = store.put(unit.session, unit.tenant_id, alias, body.model)
        unit.record("alias.put", found.name, model=found.model_id)
        return JSONResponse(serializers.alias(found))


@router.delete("/aliases/{alias}", status_code=204, response_class=Response, summary="Delete an alias")
def delete(alias: Name, caller: TrainCaller) -> Response:
    """The model stays."""
    with caller.writing() as unit:
        model_id = store.delete(unit.session, unit.tenant_id, alias)
        unit.record("alias.delete", alias, model=model_id)
    return Response(status_code=204)
