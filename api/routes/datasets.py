"""Routes of /datasets: upload, list, show and delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import ValidationError

from api import responses, schemas, serializers, uploads
from api.deps import ReadCaller, SettingsDep, TrainCaller, UnitOfWork
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.parameters import filters
from api.parameters.cursor import After
from api.parameters.patterns import LINE_OR_EMPTY
from api.responses import JSONResponse
from api.uploads import Upload
from service import datasets, text
from service.db.statuses import DatasetStatus
from service.errors import InvalidRequest
from service.quotas import checks
from ssl_core.config import Reading, faults

router = APIRouter(tags=["datasets"], route_class=JsonRoute)
DatasetId = Annotated[str, Path(description="A `ds_` id.", examples=["ds_01k"])]
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "dependentRequired": {"low": ["high"], "high": ["low"]},
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "minLength": 1,
            "description": "zip, tar (.gz, .xz, .zst), npz or Parquet; folders `<class>/…` or `<split>/<class>/…`.",
        },
        "name": {
            "type": "string",
            "maxLength": 200,
            "pattern": LINE_OR_EMPTY,
            "description": "Default: the name of the file.",
        },
        **Reading.model_json_schema()["properties"],
    },
}


def _parse(fields: dict[str, str], filename: str) -> tuple[str, Reading]:
    """Return the dataset's name and how the upload is read. Raises InvalidRequest."""
    return text.check_line(fields.get("name") or filename or "dataset", "/name"), _parse_reading(fields)


Received = Annotated[Upload, Depends(uploads.receiver(_FORM, lambda settings: settings.max_upload_bytes, _parse))]


@router.post(
    "/datasets",
    status_code=202,
    response_model=schemas.Dataset,
    summary="Upload images",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
def create(upload: Received, caller: TrainCaller, respond: Idempotent, settings: SettingsDep) -> JSONResponse:
    """Upload an archive and queue its validation. An archive that was validated before is ready at once."""
    name, reading = _parse(upload.fields, upload.filename)
    sha256, size = upload.sha256, upload.size_bytes

    def create_dataset(unit: UnitOfWork) -> Created:
        checks.check_jobs(unit.session, unit.tenant_id, "data", settings)
        checks.check_bytes(unit.session, unit.tenant_id, settings, size)
        dataset = datasets.create(
            unit.session, unit.tenant_id, name=name, sha256=sha256, size_bytes=size, reading=reading
        )
        unit.queues.add("data")
        unit.record("dataset.create", dataset.id, name=name, sha256=sha256)
        return Created(serializers.dataset(dataset), f"/datasets/{dataset.id}")

    with caller.writing() as unit:
        options = datasets.other_options(reading)
        return respond(unit, [name, reading.on_bad_file, sha256, *([options] if options else [])], create_dataset, 202)


@router.get("/datasets", response_model=schemas.DatasetList, summary="List datasets, newest first")
def list_(
    caller: ReadCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: Annotated[str | None, filters.one_of(DatasetStatus)] = None,
) -> JSONResponse:
    filters.check("status", status, [*DatasetStatus])
    with caller.reading() as unit:
        page = datasets.list_(unit.session, unit.tenant_id, after, limit, status)
        return responses.page([serializers.dataset(row) for row in page.items], page.has_more, page.next)


@router.get("/datasets/{dataset_id}", response_model=schemas.Dataset, summary="Show a dataset")
def show(dataset_id: DatasetId, caller: ReadCaller) -> JSONResponse:
    with caller.reading() as unit:
        return JSONResponse(serializers.dataset(datasets.get(unit.session, unit.tenant_id, dataset_id)))


@router.delete("/datasets/{dataset_id}", status_code=204, response_class=Response, summary="Delete a dataset")
def delete(dataset_id: DatasetId, caller: TrainCaller) -> Response:
    """Its files are removed within minutes. Refused while a job that has not ended uses it."""
    with caller.writing() as unit:
        datasets.delete(unit.session, unit.tenant_id, dataset_id)
        unit.record("dataset.delete", dataset_id)
    return Response(status_code=204)


def _parse_reading(fields: dict[str, str]) -> Reading:
    given = {name: value for name, value in fields.items() if name in Reading.model_fields and value}
    try:
        return Reading.model_validate_strings(given)
    except ValidationError as error:
        found = faults(error, None, Reading)
        sentences = (f"{fault['pointer'][1:]}: {fault['detail']}".removeprefix(": ") for fault in found[:3])
        raise InvalidRequest("; ".join(sentences), errors=found) from error
