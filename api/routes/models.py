"""Models over HTTP: what finished runs left, and weights from elsewhere."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ValidationError

from api import responses, schemas, serializers, uploads
from api.deps import Caller, Known, SettingsDep, StorageDep, Unit
from api.idempotency import Idempotent, Made
from api.json_body import JsonRoute
from api.responses import JSONResponse
from api.uploads import Upload
from service import jobs, models
from service.errors import InvalidConfig, ModelDamaged
from ssl_core import config as run_config
from ssl_core.config import Import
from ssl_core.errors import Fault

router = APIRouter(tags=["models"], route_class=JsonRoute)
ModelId = Annotated[str, Path(description="A `mdl_` id, or the `job_` id of the run that made it.")]

_BINARY, _JSON = "application/octet-stream", "application/json"
_FILES = {
    "weights": ("weights.safetensors", _BINARY),
    "heads": ("heads.safetensors", _BINARY),
    "card": ("model.json", _JSON),
    "readme": ("README.md", "text/markdown; charset=utf-8"),
}


_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "A state dict as safetensors, or as torch.save writes it, with tensors alone.",
        },
        "name": {"type": "string", "maxLength": 200, "description": "The file's own name unless given."},
        "config": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": Import.model_json_schema(),
            "description": "What the weights do not tell, as JSON.",
        },
    },
}


async def _receive(request: Request, caller: Known, config: SettingsDep, storage: StorageDep) -> Upload:
    known = [name for name in _FORM["properties"] if name != uploads.FILE]
    return await uploads.receive(request, storage, caller.tenant_id, known, config.max_weights_bytes)


Received = Annotated[Upload, Depends(_receive)]


@router.post(
    "/models",
    status_code=202,
    response_model=schemas.Job,
    summary="Import weights",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
def create(upload: Received, caller: Caller, once: Idempotent) -> JSONResponse:
    """Receive weights that were trained elsewhere. The answer is the job that makes a model of them."""
    name = upload.fields.get("name") or upload.filename or "weights"
    config, sha256, size = _config(upload), upload.sha256, upload.size_bytes

    def make(unit: Unit) -> Made:
        job = models.submit_import(
            unit.session, unit.tenant_id, name=name, sha256=sha256, size_bytes=size, config=config
        )
        unit.queues.add(job.queue)
        return Made(serializers.job(job, jobs.transitions(unit.session, job.id)), f"/jobs/{job.id}")

    with caller.writing() as unit:
        return once(unit, [name, config.model_dump(mode="json"), sha256], make, 202)


@router.get("/models", response_model=schemas.ModelList, summary="List models, newest first")
def list_(
    caller: Caller,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JSONResponse:
    with caller.reading() as unit:
        found = models.list_(unit.session, unit.tenant_id, after, limit)
        return responses.page([serializers.model(row) for row in found.items], found.has_more, found.next)


@router.get("/models/{model_id}", response_model=schemas.Model, summary="Show a model")
def show(model_id: ModelId, caller: Caller) -> JSONResponse:
    with caller.reading() as unit:
        return JSONResponse(serializers.model(models.get(unit.session, unit.tenant_id, model_id)))


@router.get("/models/{model_id}/download", response_class=Response, summary="Fetch a model's file")
def download(
    request: Request,
    model_id: ModelId,
    caller: Caller,
    storage: StorageDep,
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
    return responses.file(request, path, media_type, f"{model.id}.{name}", model.sha256 if file == "weights" else None)


def _config(upload: Upload) -> Import:
    """Return what was said of the weights. Raises InvalidConfig."""
    try:
        return Import.model_validate_json(upload.fields.get("config") or "{}")
    except ValidationError as error:
        faults = [
            Fault(pointer="/config" + fault["pointer"], code=fault["code"], detail=fault["detail"])
            for fault in run_config.faults(error, None)
        ]
        raise InvalidConfig(f"{faults[0]['pointer']}: {faults[0]['detail']}", errors=faults) from error
