"""Models over HTTP: what finished runs left."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from api import answers, render, schemas
from api.answers import Answer
from api.bodies import JsonRoute
from api.deps import Caller, Files
from service import models
from service.errors import ModelDamaged

router = APIRouter(tags=["models"], route_class=JsonRoute)
ModelId = Annotated[str, Path(description="A `mdl_` id, or the `job_` id of the run that made it.")]

_BINARY, _JSON = "application/octet-stream", "application/json"
_FILES = {
    "weights": ("weights.safetensors", _BINARY),
    "heads": ("heads.safetensors", _BINARY),
    "card": ("model.json", _JSON),
    "readme": ("README.md", "text/markdown; charset=utf-8"),
}


@router.get("/models", response_model=schemas.ModelList, summary="List models, newest first")
def list_(
    caller: Caller,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Answer:
    with caller.reading() as unit:
        found = models.list_(unit.session, unit.tenant_id, after, limit)
        return answers.page([render.model(row) for row in found.items], found.has_more, found.next)


@router.get("/models/{model_id}", response_model=schemas.Model, summary="Show a model")
def show(model_id: ModelId, caller: Caller) -> Answer:
    with caller.reading() as unit:
        return Answer(render.model(models.get(unit.session, unit.tenant_id, model_id)))


@router.get("/models/{model_id}/download", response_class=Response, summary="Fetch a model's file")
def download(
    request: Request,
    model_id: ModelId,
    caller: Caller,
    storage: Files,
    file: Annotated[Literal["weights", "heads", "card", "readme"], Query(description="Which of the four.")] = "weights",
) -> Response:
    """Weights and heads are safetensors, the card is JSON, the readme Markdown.

    Ranges are served; the weights' ETag is their SHA-256.
    """
    with caller.reading() as unit:
        model = models.get(unit.session, unit.tenant_id, model_id)
    name, media_type = _FILES[file]
    path = storage.absolute(model.path) / name
    if not path.is_file():
        raise ModelDamaged
    return answers.file(request, path, media_type, f"{model.id}.{name}", model.sha256 if file == "weights" else None)
