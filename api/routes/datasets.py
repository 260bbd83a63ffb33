"""Datasets over HTTP: uploading, looking, forgetting."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api import responses, schemas, serializers, uploads
from api.deps import Caller, Known, SettingsDep, StorageDep, Unit
from api.idempotency import Idempotent, Made
from api.json_body import JsonRoute
from api.responses import JSONResponse
from api.uploads import Upload
from service import datasets
from service.errors import InvalidRequest
from ssl_core.errors import Fault

router = APIRouter(tags=["datasets"], route_class=JsonRoute)
DatasetId = Annotated[str, Path(description="A `ds_` id.", examples=["ds_01k"])]
POLICIES: tuple[datasets.OnBadFile, ...] = ("reject", "skip")

_FORM = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "zip, tar (.gz, .xz, .zst), npz or Parquet; folders `<class>/…` or `<split>/<class>/…`.",
        },
        "name": {"type": "string", "maxLength": 200, "description": "The file's own name unless given."},
        "on_bad_file": {
            "type": "string",
            "enum": list(POLICIES),
            "default": "reject",
            "description": "What one unreadable image does: fails the dataset, or is left out and reported.",
        },
    },
}


async def _receive(request: Request, caller: Known, config: SettingsDep, storage: StorageDep) -> Upload:
    known = [name for name in _FORM["properties"] if name != uploads.FILE]  # type: ignore[attr-defined]
    return await uploads.receive(request, storage, caller.tenant_id, known, config.max_upload_bytes)


Received = Annotated[Upload, Depends(_receive)]


@router.post(
    "/datasets",
    status_code=202,
    response_model=schemas.Dataset,
    summary="Upload images",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
def create(upload: Received, caller: Caller, once: Idempotent) -> JSONResponse:
    """Receive an archive, whose validation is then queued. Bytes that are ready already are ready at once."""
    name = upload.fields.get("name") or upload.filename or "dataset"
    policy, sha256, size = _policy(upload), upload.sha256, upload.size_bytes

    def make(unit: Unit) -> Made:
        dataset = datasets.create(
            unit.session, unit.tenant_id, name=name, sha256=sha256, size_bytes=size, on_bad_file=policy
        )
        unit.queues.add("data")
        return Made(serializers.dataset(dataset), f"/datasets/{dataset.id}")

    with caller.writing() as unit:
        return once(unit, [name, policy, sha256], make, 202)


@router.get("/datasets", response_model=schemas.DatasetList, summary="List datasets, newest first")
def list_(
    caller: Caller,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: Annotated[str | None, Query(max_length=64)] = None,
) -> JSONResponse:
    with caller.reading() as unit:
        found = datasets.list_(unit.session, unit.tenant_id, after, limit, status)
        return responses.page([serializers.dataset(row) for row in found.items], found.has_more, found.next)


@router.get("/datasets/{dataset_id}", response_model=schemas.Dataset, summary="Show a dataset")
def show(dataset_id: DatasetId, caller: Caller) -> JSONResponse:
    with caller.reading() as unit:
        return JSONResponse(serializers.dataset(datasets.get(unit.session, unit.tenant_id, dataset_id)))


@router.delete("/datasets/{dataset_id}", status_code=204, response_class=Response, summary="Forget a dataset")
def delete(dataset_id: DatasetId, caller: Caller) -> Response:
    """Its files go with the next sweep. Refused while a job that has not ended uses it."""
    with caller.writing() as unit:
        datasets.delete(unit.session, unit.tenant_id, dataset_id)
    return Response(status_code=204)


def _policy(upload: Upload) -> datasets.OnBadFile:
    asked = upload.fields.get("on_bad_file", POLICIES[0])
    for policy in POLICIES:
        if policy == asked:
            return policy
    detail = f"on_bad_file must be one of {', '.join(POLICIES)}."
    raise InvalidRequest(detail, errors=[Fault(pointer="/on_bad_file", code="enum", detail=detail)])
