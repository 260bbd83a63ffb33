"""Routes of /indexes: indexes of embeddings, and what the encoder finds in them."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response

from api import responses, schemas, serializers
from api.deps import Caller, ReadCaller, ReadIdentity, SettingsDep, TrainCaller, UnitOfWork
from api.encoder import query as search_query
from api.encoder.body_memory import BodyMemory
from api.encoder.client import EncoderClient
from api.encoder.query import SearchRequest
from api.idempotency import Created, Idempotent
from api.json_body import JsonRoute
from api.parameters import filters
from api.parameters.cursor import After
from api.parameters.patterns import BASE64
from api.responses import CLIENT_CLOSED_REQUEST, JSONResponse
from service.db.session import Database
from service.db.statuses import IndexStatus
from service.disconnect import ClientDisconnected, cancel_on_disconnect
from service.errors import InvalidRequest, ModelNotFound
from service.indexes import queries, registry
from service.indexes.queries import Duplicates, Labels, Outliers, Selection, Split
from service.indexes.registry import Searched
from service.quotas import checks
from ssl_core.errors import Fault

router = APIRouter(tags=["indexes"], route_class=JsonRoute)
uploads = APIRouter(tags=["indexes"])  # whose bodies are JSON or forms
_SplitFilter = Annotated[str | None, filters.one_of(get_args(Split))]
_LabelFilter = Annotated[str | None, Query(max_length=queries.MAX_CHARACTERS, description="The name of a class.")]
_Limit = Annotated[int, Query(ge=1, le=queries.MAX_LISTED)]
_Row = Annotated[int | None, Query(ge=0, lt=queries.MAX_ROW)]


@router.post("/indexes", status_code=202, response_model=schemas.Index, summary="Build an index")
def create(body: schemas.NewIndex, caller: TrainCaller, respond: Idempotent, settings: SettingsDep) -> JSONResponse:
    """Index the embeddings that an `embed_dataset` job has left. It is `building` until a worker has built it."""

    def create_index(unit: UnitOfWork) -> Created:
        checks.check_jobs(unit.session, unit.tenant_id, "data", settings)
        checks.check_bytes(unit.session, unit.tenant_id, settings)
        index = registry.create(unit.session, unit.tenant_id, body.job, name=body.name, metadata=body.metadata)
        unit.queues.add("data")
        unit.record("index.create", index.id, job=index.job_id, name=index.name)
        return Created(serializers.index(index), f"/indexes/{index.id}")

    with caller.writing() as unit:
        return respond(unit, body.model_dump(exclude_unset=True), create_index, 202)


@router.get("/indexes", response_model=schemas.IndexList, summary="List indexes, newest first")
def list_(
    caller: ReadCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: Annotated[str | None, filters.one_of(IndexStatus)] = None,
    dataset: Annotated[str | None, Query(max_length=64, description="Of this dataset.")] = None,
) -> JSONResponse:
    with caller.reading() as unit:
        filters.check("status", status, [*IndexStatus])
        page = registry.list_(unit.session, unit.tenant_id, after, limit, status=status, dataset=dataset)
        return responses.page([serializers.index(row) for row in page.items], page.has_more, page.next)


@router.get("/indexes/{index_id}", response_model=schemas.Index, summary="Show an index")
def show(index_id: str, caller: ReadCaller) -> JSONResponse:
    with caller.reading() as unit:
        return JSONResponse(serializers.index(registry.get(unit.session, unit.tenant_id, index_id)))


@router.delete("/indexes/{index_id}", status_code=204, summary="Delete an index")
def delete(index_id: str, caller: TrainCaller) -> Response:
    """The embeddings stay with their job. An index that is being built is deleted too."""
    with caller.writing() as unit:
        registry.delete(unit.session, unit.tenant_id, index_id)
        unit.record("index.delete", index_id)
    return Response(status_code=204)


def _describe_body() -> dict[str, Any]:
    form, order = SearchRequest.model_json_schema(), SearchRequest.model_json_schema()
    form["title"] = "SearchForm"
    del form["properties"]["vector"]
    for schema in (form, order):
        targets = [name for name in ("row", "vector", "image") if name in schema["properties"]]
        schema["oneOf"] = [{"required": [name]} for name in targets]
        for name in targets:
            field = schema["properties"][name]
            field |= field.pop("anyOf")[0]  # one that is null is none
            del field["default"]
    order["properties"]["image"] |= {"contentEncoding": "base64", "pattern": BASE64}
    del order["properties"]["image"]["format"]
    return {
        "required": True,
        "content": {"application/json": {"schema": order}, "multipart/form-data": {"schema": form}},
    }


@uploads.post(
    "/indexes/{index_id}/search",
    summary="Find the nearest images",
    response_model=schemas.Found,
    openapi_extra={"requestBody": _describe_body()},
)
async def search(
    request: Request, index_id: str, identity: ReadIdentity, caller: ReadCaller, settings: SettingsDep
) -> Response:
    """Those with the greatest cosine similarity to a row of the index, a vector or an image, nearest first.

    An image is embedded by the model and the layer of the index, which needs a key with the scope `embed` too.
    """
    held: BodyMemory = request.app.state.embed_memory
    with held.allocation(identity.tenant_id) as memory:
        body = await search_query.read(request, settings, memory)
        if body.image is not None:
            caller.require(identity, "embed")
        database: Database = request.app.state.database
        index = await run_sync(_find, database, identity.tenant_id, index_id)
        _check_search(body, index)
        return await _ask(request, index, "search", body.to_query(), body.to_body(), identity.tenant_id)


@router.get("/indexes/{index_id}/duplicates", response_model=schemas.Pairs, summary="List near-duplicates")
async def duplicates(
    request: Request,
    index_id: str,
    caller: ReadCaller,
    threshold: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="Least cosine similarity.")] = 0.95,
    limit: _Limit = 100,
    across_splits: Annotated[bool, Query(description="Only pairs of images in different splits.")] = False,
) -> Response:
    """Pairs of images whose vectors are nearly the same, the most similar first.

    Each image is compared with its 32 nearest: of more copies of one image not every pair is listed.
    """
    query = Duplicates(threshold=threshold, limit=limit, across_splits=across_splits)
    return await _answer(request, caller, index_id, "duplicates", query)


@router.get("/indexes/{index_id}/outliers", response_model=schemas.FarImages, summary="List outliers")
async def outliers(
    request: Request,
    index_id: str,
    caller: ReadCaller,
    k: Annotated[int, Query(ge=1, le=queries.MAX_NEIGHBOURS)] = 10,
    limit: _Limit = 100,
    split: _SplitFilter = None,
    label: _LabelFilter = None,
) -> Response:
    """Images by their mean distance to their k nearest others of the whole index, the farthest first."""
    filters.check("split", split, get_args(Split))
    query = Outliers.model_validate({"k": k, "limit": limit, "split": split, "label": label})
    return await _answer(request, caller, index_id, "outliers", query)


@router.get("/indexes/{index_id}/select", response_model=schemas.Selected, summary="Select images to label")
async def select(
    request: Request,
    index_id: str,
    caller: ReadCaller,
    n: Annotated[int, Query(ge=1, le=queries.MAX_SELECTED)] = 100,
    seed: Annotated[int, Query(ge=0, lt=2**63, description="Draws the first image, unless there is a `start`.")] = 0,
    start: _Row = None,
    split: _SplitFilter = None,
    unlabelled: Annotated[
        bool, Query(description="Only images without a label; those with one count as selected before.")
    ] = False,
) -> Response:
    """Images that cover the others: each is the one farthest from all that were selected before (k-centre greedy)."""
    filters.check("split", split, get_args(Split))
    given = {"n": n, "seed": seed, "start": start, "split": split, "unlabelled": unlabelled}
    return await _answer(request, caller, index_id, "select", Selection.model_validate(given))


@router.get("/indexes/{index_id}/labels", response_model=schemas.LabelledImages, summary="Predict labels")
async def labels(
    request: Request,
    index_id: str,
    caller: ReadCaller,
    k: Annotated[int, Query(ge=1, le=queries.MAX_K)] = 20,
    temperature: Annotated[float, Query(ge=0.001, le=10, allow_inf_nan=False, description="Of the votes.")] = 0.1,
    limit: _Limit = 100,
    after: Annotated[int | None, Query(ge=0, lt=queries.MAX_ROW, description="`next` of the previous page.")] = None,
    split: _SplitFilter = None,
    rows: Annotated[
        list[Annotated[int, Query(ge=0, lt=queries.MAX_ROW)]] | None,
        Query(max_length=queries.MAX_LISTED, description="These rows, whether they have a label or not; repeated."),
    ] = None,
) -> Response:
    """Labels for images without one, by the vote of their k nearest labelled images, as in kNN evaluation."""
    filters.check("split", split, get_args(Split))
    given = {"k": k, "temperature": temperature, "limit": limit, "after": after, "split": split}
    query = Labels.model_validate(given | {"rows": None if rows is None else tuple(rows)})
    return await _answer(request, caller, index_id, "labels", query)


async def _answer(request: Request, caller: Caller, index_id: str, verb: str, query: queries.Query) -> Response:
    """Return the encoder's answer to a query of the caller's index."""
    index, owner = await run_sync(_find_of, caller, index_id)
    return await _ask(request, index, verb, query, b"", owner)


def _find_of(caller: Caller, index_id: str) -> tuple[Searched, str]:
    with caller.reading() as unit:
        return registry.get_searched(unit.session, unit.tenant_id, index_id), unit.tenant_id


def _find(database: Database, tenant_id: str, index_id: str) -> Searched:
    """Return the index. The transaction ends before the request to the encoder."""
    with database.reading() as session:
        return registry.get_searched(session, tenant_id, index_id)


async def _ask(request: Request, index: Searched, verb: str, query: queries.Query, body: bytes, owner: str) -> Response:
    encoder: EncoderClient = request.app.state.encoder
    try:
        found = await cancel_on_disconnect(encoder.search(index, verb, query, body, owner=owner), request.receive)
    except ClientDisconnected:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    for image in _list_images(found["data"]):
        row = image["row"]
        image["urls"] = {"thumbnail": index.dataset_id and f"/datasets/{index.dataset_id}/images/{row}"}
    return JSONResponse({"object": "list", "index": index.id, **found})


def _list_images(data: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in data:
        yield from item.get("images", [item])


def _check_search(body: SearchRequest, index: Searched) -> None:
    """Raise InvalidRequest for a vector that the index cannot have; ModelNotFound for an image without the model."""
    if body.vector is not None and len(body.vector) != index.dim:
        raise _invalid("/vector", "wrong_dim", f"The vectors of the index have {index.dim} numbers.")
    if body.vector is not None and not any(body.vector):
        raise _invalid("/vector", "zero", "A vector of zeros has no direction.")
    if body.image is not None and index.model_path is None:
        detail = "The model of the index was deleted, so that no image can be embedded; search by a row or a vector."
        raise ModelNotFound(detail, errors=[Fault(pointer="/image", code="model_not_found", detail=detail)])


def _invalid(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=[Fault(pointer=pointer, code=code, detail=detail)])
