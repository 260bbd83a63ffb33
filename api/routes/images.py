"""Routes of /datasets/{dataset_id}/images: the images of a dataset, and their thumbnails, which the encoder draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response

from api import responses, schemas
from api.deps import Caller, ReadCaller
from api.encoder.client import EncoderClient
from api.json_body import JsonRoute
from api.parameters import filters
from api.responses import CLIENT_CLOSED_REQUEST, has_current_etag
from api.routes.datasets import DatasetId
from service import datasets, images
from service.disconnect import ClientDisconnected, cancel_on_disconnect

router = APIRouter(tags=["datasets"], route_class=JsonRoute)
_JPEG = "image/jpeg"
_MAX_ROW = 10**12  # the encoder reads numbers of 12 digits
_HEADERS = {"Cache-Control": "private, max-age=604800, immutable", "Vary": "Authorization"}


@dataclass(frozen=True, slots=True)
class _Query:
    """The parameters of a list."""

    dataset_id: str
    split: str | None
    label: str | None
    after: int | None
    limit: int
    sample: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class _Found:
    """The rows of a page, and what the encoder and the response need to know of their dataset."""

    owner: str
    path: str
    classes: Sequence[str]
    page: images.Page


@router.get("/datasets/{dataset_id}/images", response_model=schemas.ImageList, summary="List images by row")
async def list_(
    request: Request,
    dataset_id: DatasetId,
    caller: ReadCaller,
    split: Annotated[
        str | None, Query(max_length=64, description="A split.", json_schema_extra={"enum": [*images.SPLITS]})
    ] = None,
    label: Annotated[str | None, Query(alias="class", max_length=1000, description="The name of a class.")] = None,
    after: Annotated[int | None, Query(ge=0, lt=_MAX_ROW, description="`next` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    sample: Annotated[
        int | None, Query(ge=1, le=images.MAX_SAMPLE, description="So many of the images, drawn at random.")
    ] = None,
    seed: Annotated[int, Query(ge=0, lt=2**63, description="The same seed draws the same sample.")] = 0,
) -> Response:
    """Those of a split and a class, if they are given. 409 until the dataset is ready."""
    query = _Query(dataset_id, split, label, after, limit, sample, seed)
    found = await run_sync(_find_rows, caller, query)
    encoder: EncoderClient = request.app.state.encoder
    work = encoder.describe_images(found.path, found.page.rows, owner=found.owner)
    try:
        described = await cancel_on_disconnect(work, request.receive)
    except ClientDisconnected:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    data = [_serialize(image, dataset_id, found.classes) for image in described]
    return responses.page(data, found.page.has_more, found.page.next)


@router.head("/datasets/{dataset_id}/images/{row}", include_in_schema=False)
@router.get(
    "/datasets/{dataset_id}/images/{row}",
    response_class=Response,
    summary="Show a thumbnail of an image",
)
async def show(
    request: Request,
    dataset_id: DatasetId,
    row: Annotated[int, Path(ge=0, lt=_MAX_ROW)],
    caller: ReadCaller,
    size: Annotated[int, Query(ge=16, le=512, description="Of the longer side, in pixels, at most.")] = 128,
) -> Response:
    """A JPEG, smaller than the image or of its size. Deep images have the dataset's range; of images with more than 3
    channels the first 3 are red, green and blue. Datasets do not change: the response may be cached.
    """
    path, owner = await caller.read(
        lambda connection, identity: (
            datasets.get_path(connection, identity.tenant_id, dataset_id),
            identity.tenant_id,
        )
    )
    headers = _HEADERS | {"ETag": f'"{dataset_id}-{row}-{size}"'}
    if has_current_etag(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    encoder: EncoderClient = request.app.state.encoder
    try:
        work = encoder.draw_thumbnail(path, row, size, owner=owner)
        thumbnail = await cancel_on_disconnect(work, request.receive)
    except ClientDisconnected:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(len(thumbnail))}, media_type=_JPEG)
    return Response(thumbnail, headers=headers, media_type=_JPEG)


def _find_rows(caller: Caller, query: _Query) -> _Found:
    """Return the page of rows. The transaction ends before the request to the encoder."""
    with caller.reading() as unit:
        dataset = datasets.get_ready(unit.session, unit.tenant_id, query.dataset_id)
        report, path = dataset.report or {}, str(dataset.path)
        owner = unit.tenant_id
    classes = report["classes"]
    filters.check("split", query.split, images.SPLITS)
    filters.check("class", query.label, classes)
    label = None if query.label is None else classes.index(query.label)
    ranges = images.find_rows(report, query.split, label)
    rows = ranges if query.sample is None else [images.draw_sample(ranges, query.sample, query.seed)]
    return _Found(owner, path, classes, images.take_page(rows, query.after, query.limit))


def _serialize(image: dict[str, Any], dataset_id: str, classes: Sequence[str]) -> dict[str, Any]:
    label = image["label"]
    name = None if label is None else classes[label] if label < len(classes) else str(label)
    return {"object": "image", **image, "label": name, "url": f"/datasets/{dataset_id}/images/{image['row']}"}
