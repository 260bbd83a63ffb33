"""The request body of a search, read from multipart/form-data or JSON: a row, a vector or an image, and filters."""

import struct
from typing import Annotated, Any, Self

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect

from api import json_body
from api.encoder import base64_text
from api.encoder.body_memory import Allocation
from api.encoder.request import JSON_COPIES, MAX_FIELD_BYTES, read_chunks
from api.multipart import MultipartForm, duplicate_field, invalid_field, parse_content_type
from api.problems import describe_unknown
from service.errors import BadRequest, ImageTooLarge, InvalidRequest, UnsupportedMedia
from service.indexes.queries import MAX_CHARACTERS, MAX_K, Nearest, Row, Split
from service.settings import Settings
from ssl_core.errors import Fault

MAX_DIM = 65_536
_MAX_FIELDS_BYTES = 2**21  # of a body without its image: a vector of MAX_DIM numbers
_LARGEST = 3e38  # of a number of a vector: the vectors of an index are float32
_IMAGE = "image"


class SearchRequest(BaseModel):
    """One of a row of the index, a vector, and an image; and what is looked for."""

    model_config = ConfigDict(title="SearchOrder", extra="forbid", frozen=True, allow_inf_nan=False)

    row: Row | None = Field(None, description="A row of the index, whose neighbours are found.")
    vector: list[Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]] | None = Field(
        None, min_length=1, max_length=MAX_DIM, description="As many numbers as the vectors of the index have."
    )
    image: bytes | None = Field(
        None, min_length=1, description="An image file; in JSON as base64 or as a data URI. Needs the scope `embed`."
    )
    k: int = Field(10, ge=1, le=MAX_K, description="How many images are found at most.")
    split: Split | None = Field(None, description="Only images of this split.")
    label: str | None = Field(None, max_length=MAX_CHARACTERS, description="Only images of the class of this name.")
    exclude_self: bool = Field(True, description="Whether `row` itself is left out.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(given is not None for given in (self.row, self.vector, self.image)) != 1:
            raise ValueError("give one of `row`, `vector` and `image`")
        return self

    def to_query(self) -> Nearest:
        """Return the query for the encoder, without the vector and the image."""
        body: Any = "image" if self.image is not None else "vector" if self.vector is not None else ""
        fields = {"k": self.k, "split": self.split, "label": self.label, "row": self.row, "body": body}
        return Nearest(**fields, exclude_self=self.exclude_self)

    def to_body(self) -> bytes:
        """Return the image, or the vector as little-endian float64, or nothing."""
        if self.vector is not None:
            return struct.pack(f"<{len(self.vector)}d", *self.vector)
        return self.image or b""


async def read(request: Request, settings: Settings, memory: Allocation) -> SearchRequest:
    """Read and validate the body. Raises the service's errors when it is malformed or exceeds the limits.

    memory: grows by what is held: the body as it arrives, and what JSON needs to be parsed.
    """
    media_type, boundary = parse_content_type(request)
    limit = settings.max_image_bytes * 3 // 2 + _MAX_FIELDS_BYTES
    try:
        if media_type == b"multipart/form-data":
            form = _Form(boundary, settings)
            async for chunk in read_chunks(request, limit, memory):
                form.feed(chunk)
            form.check_ended()
            fields: Any = form.fields
            is_strict = False  # every field of a form is a text
        elif media_type == b"application/json":
            fields = await _read_json(request, limit, settings, memory)
            is_strict = True
        else:
            raise UnsupportedMedia("Send a search as application/json, or an image as multipart/form-data.")
    except ClientDisconnect as error:
        raise BadRequest("The body ended early.") from error
    try:
        return SearchRequest.model_validate(fields, strict=is_strict)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from error


async def _read_json(request: Request, limit: int, settings: Settings, memory: Allocation) -> Any:
    body = bytearray()
    async for chunk in read_chunks(request, limit, memory):
        body += chunk
    working = (JSON_COPIES - 1) * len(body) + await run_sync(json_body.check_structure, body)
    memory.grow(working)
    return await run_sync(_parse_json, body, settings)


def _parse_json(body: bytearray, settings: Settings) -> Any:
    fields = json_body.to_integers(json_body.parse(body))
    if not isinstance(fields, dict) or fields.get(_IMAGE) is None:
        return fields
    try:
        image = base64_text.decode(fields[_IMAGE])
    except ValueError as error:
        detail = f"Must be an image file as base64. {error}"
        raise InvalidRequest(detail, errors=[Fault(pointer="/image", code="not_base64", detail=detail)]) from error
    _check_size(len(image), settings)
    return {**fields, _IMAGE: image}


def _check_size(size: int, settings: Settings) -> None:
    if size > settings.max_image_bytes:
        detail = f"An image can have at most {settings.max_image_bytes} bytes."
        raise ImageTooLarge(detail, errors=[Fault(pointer="/image", code="image_too_large", detail=detail)])


class _Form(MultipartForm):
    """A form with an image and the fields of a search, but for `vector`, which only JSON has."""

    def __init__(self, boundary: bytes, settings: Settings) -> None:
        super().__init__(boundary)
        self.fields: dict[str, Any] = {}
        self._settings = settings
        self._name = ""
        self._data = bytearray()

    def begin_part(self, name: str, filename: str) -> None:
        known = [field for field in SearchRequest.model_fields if field != "vector"]
        if name not in known:
            raise invalid_field(name, "extra_forbidden", describe_unknown("field", name, known))
        if name in self.fields:
            raise duplicate_field(name)
        self._name, self._data = name, bytearray()

    def add_data(self, data: memoryview) -> None:
        self._data += data
        if self._name == _IMAGE:
            _check_size(len(self._data), self._settings)
        elif len(self._data) > MAX_FIELD_BYTES:
            raise invalid_field(self._name, "too_long", f"A field can have at most {MAX_FIELD_BYTES} bytes.")

    def end_part(self) -> None:
        data = bytes(self._data)
        self.fields[self._name] = data if self._name == _IMAGE else data.decode("utf-8", "replace")
