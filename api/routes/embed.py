"""POST /embed: images in, features out. The API checks who, how much and which model; the encoder does the rest."""

import asyncio
import base64
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request, Response

from api import embed_request
from api.deps import Known, SettingsDep
from api.embed_request import EmbedRequest, Room
from api.encoder_client import EncoderClient, Features
from api.responses import JSONResponse
from service import models
from service.db.session import Database
from service.errors import LayerNotFound
from service.settings import Settings
from ssl_core.config.requirements import no_such_layer

T = TypeVar("T")
CLIENT_CLOSED_REQUEST = 499  # nobody reads it but the counters


@asynccontextmanager
async def _with_encoder(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.embed_room = Room(settings.embed_held_bytes)
    async with EncoderClient(settings) as app.state.encoder:
        yield


router = APIRouter(lifespan=_with_encoder, tags=["embed"])


_SCHEMA = EmbedRequest.model_json_schema()
_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": _SCHEMA}, "application/json": {"schema": _SCHEMA}},
}


@router.post("/embed", summary="Embed images", openapi_extra={"requestBody": _BODY})
async def embed(request: Request, caller: Known, settings: SettingsDep) -> Response:
    """Return one vector for each image, by a model of yours."""
    state = request.app.state
    encoder: EncoderClient = state.encoder
    with state.embed_room.borrowed() as take:
        order = await embed_request.read(request, settings, take)
        model = await run_sync(_find, state.database, caller.tenant_id, order)
        features = await _unless_gone(request, encoder.encode(model.path, order.layer, order.images))
    return Response(status_code=CLIENT_CLOSED_REQUEST) if features is None else _answer(order, model.id, features)


@dataclass(frozen=True, slots=True)
class _Model:
    id: str
    path: str


def _find(database: Database, tenant_id: str, order: EmbedRequest) -> _Model:
    """Look the model up in a transaction that is over before the encoder is asked."""
    with database.reading() as session:
        model = models.get(session, tenant_id, order.model)
        layers = model.card.get("layers")
        if layers is not None and order.layer not in layers:
            raise LayerNotFound(no_such_layer(order.layer, sorted(layers)))
        return _Model(model.id, model.path)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns, or None when the client hangs up first: then the work is cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: the next message is that nobody listens
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()


def _answer(order: EmbedRequest, model_id: str, features: Features) -> Response:
    if order.encoding_format == "npy":
        return Response(_npy(features), media_type="application/x-npy")
    rows: list[Any]
    size = features.dim * 4
    if order.encoding_format == "base64":
        rows = [base64.b64encode(features.data[start : start + size]).decode() for start in _starts(features)]
    else:
        rows = [memoryview(features.data)[start : start + size].cast("f").tolist() for start in _starts(features)]
    data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
    return JSONResponse({"object": "list", "model": model_id, "dim": features.dim, "data": data})


def _starts(features: Features) -> range:
    return range(0, len(features.data), features.dim * 4)


def _npy(features: Features) -> bytes:
    """The features as an .npy file, version 1.0 (numpy.lib.format): the API has no numpy."""
    shape = (len(_starts(features)), features.dim)
    about = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padding = -(10 + len(about) + 1) % 64
    header = about + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + features.data
