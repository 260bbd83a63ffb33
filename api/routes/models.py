"""Routes of /models: import weights, list, show, download and delete."""

import pathlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ValidationError

from api import downloads, responses, schemas, serializers, uploads
from api.deps import ReadCaller, SettingsDep, StorageDep, TrainCaller, UnitOfWork
from api.downloads import Recorded
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.parameters.cursor import After
from api.parameters.patterns import LINE_OR_EMPTY
from api.responses import JSONResponse
from api.uploads import Upload
from service import jobs, models, text
from service.aliases import store as aliases
from service.deletion import models as deletion
from service.errors import Corrupt, InvalidConfig
from service.quotas import checks
from ssl_core import config as run_config
from ssl_core.checksums import document
from ssl_core.config import Import
from ssl_core.errors import Corrupt as CorruptFile
from ssl_core.errors import Fault

router = APIRouter(tags=["models"], route_class=JsonRoute)
ModelId = Annotated[str, Path(description="A `mdl_` id, an alias, or the `job_` id of the run that made it.")]

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
            "minLength": 1,
            "description": "A state dict as safetensors, or as written by torch.save, with tensors only.",
        },
        "name": {
            "type": "string",
            "maxLength": 200,
            "pattern": LINE_OR_EMPTY,
            "description": "Default: the name of the file.",
        },
        "config": {"$ref": "#/components/schemas/Import"},  # as JSON; api.openapi adds it
    },
}


def _parse(fields: dict[str, str], filename: str) -> tuple[str, Import]:
    """Return the model's name and the import config. Raises InvalidRequest and InvalidConfig."""
    return text.check_line(fields.get("name") or filename or "weights", "/name"), _parse_config(fields)


_CONTENT = {"schema": _FORM, "encoding": {"config": {"contentType": _JSON}}}
Received = Annotated[Upload, Depends(uploads.receiver(_FORM, lambda settings: settings.max_weights_bytes, _parse))]


@router.post(
    "/models",
    status_code=202,
    response_model=schemas.Job,
    summary="Import weights",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": _CONTENT}}},
)
def create(upload: Received, caller: TrainCaller, respond: Idempotent, settings: SettingsDep) -> JSONResponse:
    """Upload weights that were trained elsewhere. The response is the job that makes a model of them."""
    name, config = _parse(upload.fields, upload.filename)
    sha256, size = upload.sha256, upload.size_bytes

    def submit_import(unit: UnitOfWork) -> Created:
        checks.check_jobs(unit.session, unit.tenant_id, "data", settings)
        checks.check_bytes(unit.session, unit.tenant_id, settings, size)
        job = models.submit_import(
            unit.session, unit.tenant_id, name=name, sha256=sha256, size_bytes=size, config=config
        )
        unit.queues.add(job.queue)
        unit.record("model.import", job.id, name=name, sha256=sha256)
        return Created(serializers.job(job, jobs.transitions(unit.session, job.id)), f"/jobs/{job.id}")

    with caller.writing() as unit:
        return respond(unit, [name, config.model_dump(mode="json"), sha256], submit_import, 202)


@router.get("/models", response_model=schemas.ModelList, summary="List models, newest first")
def list_(
    caller: ReadCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JSONResponse:
    with caller.reading() as unit:
        page = models.list_(unit.session, unit.tenant_id, after, limit)
        names = aliases.list_by_model(unit.session, [row.id for row in page.items])
        return responses.page([serializers.model(row, names[row.id]) for row in page.items], page.has_more, page.next)


@router.get("/models/{model_id}", response_model=schemas.Model, summary="Show a model")
def show(model_id: ModelId, caller: ReadCaller) -> JSONResponse:
    with caller.reading() as unit:
        model = models.get(unit.session, unit.tenant_id, model_id)
        return JSONResponse(serializers.model(model, aliases.list_by_model(unit.session, [model.id])[model.id]))


@router.delete("/models/{model_id}", status_code=204, response_class=Response, summary="Delete a model")
def delete(model_id: ModelId, caller: TrainCaller) -> Response:
    """Its files are removed within minutes; the job that made it stays. Refused while a job that has not ended uses it,
    or an alias names it: `errors` names them.
    """
    with caller.writing() as unit:
        deleted = deletion.delete(unit.session, unit.tenant_id, model_id)
        unit.record("model.delete", deleted)
    return Response(status_code=204)


@router.head("/models/{model_id}/download", include_in_schema=False)
@router.get("/models/{model_id}/download", response_class=Response, summary="Download a file of a model")
def download(
    request: Request,
    model_id: ModelId,
    caller: ReadCaller,
    storage: StorageDep,
    file: Annotated[Literal["weights", "heads", "card", "readme"], Query(description="The file.")] = "weights",
) -> Response:
    """Weights and heads are safetensors, the card is JSON, the readme Markdown.

    HEAD and range requests are supported; the ETag is the file's SHA-256, except for the card, which has a checksum of
    its own.
    """
    with caller.reading() as unit:
        model = models.get(unit.session, unit.tenant_id, model_id)
        actor = unit.actor
    name, media_type = _FILES[file]
    path = storage.absolute(model.path) / name
    if not path.is_file():
        raise Corrupt(f"The stored file {name} is missing.")
    if file == "card":
        _check_card(path)
    recorded = Recorded.of(model.card.get("files", {}).get(name))
    recorded = Recorded(model.sha256, model.size_bytes) if file == "weights" else recorded
    response = downloads.file(request, path, media_type, f"{model.id}.{name}", recorded)
    if request.method == "GET":
        caller.uses.add_download(actor, "model.download", model.id, file=file)
    return response


def _check_card(path: pathlib.Path) -> None:
    """Compare a model's card with its checksum. Raises Corrupt."""
    try:
        document.read(path)
    except CorruptFile as error:
        raise Corrupt(str(error)) from error


def _parse_config(fields: dict[str, str]) -> Import:
    """Return the validated import config. Raises InvalidConfig."""
    try:
        return Import.model_validate_json(fields.get("config") or "{}")
    except ValidationError as error:
        faults = [
            Fault(pointer="/config" + fault["pointer"], code=fault["code"], detail=fault["detail"])
            for fault in run_config.faults(error, None)
        ]
        raise InvalidConfig(f"{faults[0]['pointer']}: {faults[0]['detail']}", errors=faults) from error
