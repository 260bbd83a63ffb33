"""POST /embed: features of images. The API checks the key, the limits and the model; the encoder computes them."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request, Response

from api import schemas
from api.deps import EmbedIdentity, SettingsDep
from api.encoder import request as embed_request
from api.encoder.body_memory import BodyMemory
from api.encoder.client import EncoderClient, Features
from api.encoder.request import EmbedRequest
from api.parameters.patterns import BASE64
from api.responses import CLIENT_CLOSED_REQUEST, JSONResponse
from service import models
from service.db.session import Database
from service.disconnect import ClientDisconnected, cancel_on_disconnect
from service.errors import LayerNotFound
from service.settings import Settings
from ssl_core.config.requirements import no_such_layer


@asynccontextmanager
async def _with_encoder(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.embed_memory = BodyMemory(settings.embed_held_bytes)
    async with EncoderClient(settings) as app.state.encoder:
        yield


router = APIRouter(lifespan=_with_encoder, tags=["embed"])


def _describe_body() -> dict[str, Any]:
    """Return the body's schemas, whose titles differ: generated clients name a class after each."""
    form, order = EmbedRequest.model_json_schema(), EmbedRequest.model_json_schema()
    form["title"] = "EmbedForm"
    order["properties"]["images"]["items"] = {"type": "string", "contentEncoding": "base64", "pattern": BASE64}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": order}}
    return {"required": True, "content": content}


_NPY = "application/x-npy"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Embeddings, "content": {_NPY: {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post("/embed", summary="Embed images", responses=_RESPONSES, openapi_extra={"requestBody": _describe_body()})
async def embed(request: Request, caller: EmbedIdentity, settings: SettingsDep) -> Response:
    """Return the feature vector of each image, by one of your models."""
    state = request.app.state
    encoder: EncoderClient = state.encoder
    with state.embed_memory.allocation(caller.tenant_id) as memory:
        body = await embed_request.read(request, settings, memory)
        model = await run_sync(_find_model, state.database, caller.tenant_id, body)
        encoding = encoder.encode(model.path, body.layer, body.images, owner=caller.tenant_id)
        try:
            features = await cancel_on_disconnect(encoding, request.receive)
        except ClientDisconnected:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
    return _build_response(body, model.id, features)


@dataclass(frozen=True, slots=True)
class _Model:
    id: str
    path: str


def _find_model(database: Database, tenant_id: str, body: EmbedRequest) -> _Model:
    """Return the model. The transaction ends before the request to the encoder."""
    with database.reading() as session:
        model = models.get(session, tenant_id, body.model)
        layers = model.card.get("layers")
        if layers is not None and body.layer not in layers:
            raise LayerNotFound(no_such_layer(body.layer, sorted(layers)))
        return _Model(model.id, model.path)


def _build_response(body: EmbedRequest, model_id: str, features: Features) -> Response:
    if body.encoding_format == "npy":
        return Response(_to_npy(features), media_type=_NPY)
    rows: list[Any]
    size = features.dim * 4
    if body.encoding_format == "base64":
        rows = [base64.b64encode(features.data[start : start + size]).decode() for start in _row_offsets(features)]
    else:
        rows = [memoryview(features.data)[start : start + size].cast("f").tolist() for start in _row_offsets(features)]
    data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
    return JSONResponse({"object": "list", "model": model_id, "dim": features.dim, "data": data})


def _row_offsets(features: Features) -> range:
    return range(0, len(features.data), features.dim * 4)


def _to_npy(features: Features) -> bytes:
    """Return the features as an .npy file, version 1.0 (numpy.lib.format): the API imports no numpy."""
    shape = (len(_row_offsets(features)), features.dim)
    description = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padding = -(10 + len(description) + 1) % 64
    header = description + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + features.data
