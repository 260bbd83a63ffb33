"""The request body of /embed, read from multipart/form-data or JSON."""

import io
import re
from collections.abc import AsyncIterator
from typing import Any, Literal

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from api import json_body
from api.encoder import base64_text
from api.encoder.body_memory import Allocation
from api.multipart import (
    MultipartForm,
    duplicate_field,
    invalid_field,
    is_declared_larger,
    parse_content_type,
)
from api.problems import describe_unknown
from service.errors import (
    BadRequest,
    Error,
    ImageTooLarge,
    InvalidRequest,
    TooLarge,
    TooManyImages,
    UnsupportedMedia,
)
from service.settings import Settings
from ssl_core.errors import Fault

MAX_FIELD_BYTES = 1000  # of a text field in multipart
MAX_WIDE_BYTES = 2**20  # of JSON with characters other than ASCII: one such character widens a whole string fourfold
JSON_COPIES = 3  # of a JSON body while it is parsed: the body, the parser's copy, and the strings
_WIDE_ESCAPE = re.compile(rb"\\u(?!00[0-7])")


class EmbedRequest(BaseModel):
    """Images, and the model and layer that embed them."""

    # The title of every earlier openapi.json, after which generated clients name their classes.
    model_config = ConfigDict(title="EmbedOrder", extra="forbid", frozen=True)

    model: str = Field(
        max_length=100, description="A `mdl_` id, an alias, or the `job_` id of the run that made the model."
    )
    layer: str = Field(
        "backbone",
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]+$",  # sent to the encoder as a header
        description="`backbone`, `projection`, a block such as `block3`, or `logits` of a classifier.",
    )
    encoding_format: Literal["float", "base64", "npy"] = Field(
        "float",
        description="Lists of numbers; base64 of little-endian float32; or the whole response as one .npy file.",
    )
    images: list[bytes] = Field(min_length=1, description="Image files; in JSON, each as base64 or as a data URI.")


async def read(request: Request, settings: Settings, memory: Allocation) -> EmbedRequest:
    """Read and validate the body. Raises the service's errors when it is malformed or exceeds the limits.

    memory: grows by what is held: the body as it arrives, and what JSON needs to be parsed.
    """
    media_type, boundary = parse_content_type(request)
    limit = _max_bytes(settings)
    try:
        if media_type == b"multipart/form-data":
            form = _Form(boundary, settings, _too_large(limit) if is_declared_larger(request, limit) else None)
            fields = await _read_form(read_chunks(request, limit, memory), form)
        elif media_type == b"application/json":
            limit = min(limit, (settings.embed_held_bytes - json_body.MAX_STRUCTURE_BYTES) // JSON_COPIES)
            if is_declared_larger(request, limit):
                raise _too_large(limit)
            fields = await _read_json(read_chunks(request, limit, memory), settings, memory)
        else:
            raise UnsupportedMedia("Send images as multipart/form-data, or as application/json with base64.")
    except ClientDisconnect as error:
        raise BadRequest("The body ended early.") from error
    try:
        return EmbedRequest.model_validate(fields)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from error


def _max_bytes(settings: Settings) -> int:
    per_image = settings.max_image_bytes * 3 // 2 + 1024  # base64 in lines, or the headers of a part
    return min(settings.embed_max_body_bytes, settings.embed_max_images * per_image + 65536)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


async def read_chunks(request: Request, limit: int, memory: Allocation) -> AsyncIterator[bytes]:
    """Yield the body. Raises TooLarge after what exceeds the limit, which may be refused for another reason."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        memory.grow(len(chunk))
        yield chunk
        if size > limit:
            raise _too_large(limit)


async def _read_json(chunks: AsyncIterator[bytes], settings: Settings, memory: Allocation) -> Any:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    working = (JSON_COPIES - 1) * len(body) + await run_sync(json_body.check_structure, body)
    memory.grow(working)
    fields = await run_sync(_parse_json, body, settings)
    memory.shrink(working)  # the body is freed, and the images are smaller than it
    return fields


def _parse_json(body: bytearray, settings: Settings) -> Any:
    """Return the fields of a JSON body, with the images decoded; the body is emptied as soon as it is parsed."""
    if len(body) > MAX_WIDE_BYTES and (not body.isascii() or _WIDE_ESCAPE.search(body)):
        raise BadRequest(f"A body of more than {MAX_WIDE_BYTES} bytes may have ASCII characters only.")
    fields = json_body.parse(body)
    body.clear()
    if isinstance(fields, dict) and isinstance(images := fields.get("images"), list):
        _check_count(len(images), settings)
        for index, text in enumerate(images):
            images[index] = _decode_image(index, text, settings)
    return fields


_SPARE_LETTERS = 2048  # of an image as base64, in addition to two for each of its bytes: a data URI's head


def _decode_image(index: int, text: object, settings: Settings) -> bytes:
    if isinstance(text, str):  # before it is decoded, which takes memory for forms other than the usual one
        _check_size(index, (len(text) - _SPARE_LETTERS) // 2, settings)
    try:
        image = base64_text.decode(text)
    except ValueError as error:
        detail = f"Must be an image file as base64. {error}"
        raise _image_error(InvalidRequest, index, "not_base64", detail) from error
    _check_size(index, len(image), settings)
    return image


def _check_count(count: int, settings: Settings) -> None:
    if count > settings.embed_max_images:
        raise TooManyImages(f"A request can have at most {settings.embed_max_images} images.")


def _check_size(index: int, size: int, settings: Settings) -> None:
    if size > settings.max_image_bytes:
        detail = f"An image can have at most {settings.max_image_bytes} bytes."
        raise _image_error(ImageTooLarge, index, "image_too_large", detail)


def _image_error(kind: type[Error], index: int, code: str, detail: str) -> Error:
    pointer = f"/images/{index}"
    return kind(f"{pointer}: {detail}", errors=[Fault(pointer=pointer, code=code, detail=detail)])


async def _read_form(chunks: AsyncIterator[bytes], form: "_Form") -> dict[str, Any]:
    async for chunk in chunks:
        form.feed(chunk)
    form.check_ended()
    return form.fields


class _Form(MultipartForm):
    """An embed form: collects the images and the text fields in `fields`, within their limits."""

    def __init__(self, boundary: bytes, settings: Settings, too_large: TooLarge | None) -> None:
        """too_large: raised at the first image, of a body whose declared size is too large."""
        super().__init__(boundary)
        self._too_large = too_large
        self.fields: dict[str, Any] = {}
        self._settings = settings
        self._name = ""
        self._data = io.BytesIO()  # its value is taken without a copy

    def begin_part(self, name: str, filename: str) -> None:
        if name not in EmbedRequest.model_fields:
            raise invalid_field(name, "extra_forbidden", _describe_unknown(name))
        if name in self.fields and name != "images":
            raise duplicate_field(name)
        if name == "images" and self._too_large is not None:
            raise self._too_large
        self._name, self._data = name, io.BytesIO()

    def add_data(self, data: memoryview) -> None:
        self._data.write(data)
        if self._name == "images":
            _check_size(len(self.fields.get("images", ())), self._data.tell(), self._settings)
        elif self._data.tell() > MAX_FIELD_BYTES:
            raise invalid_field(self._name, "too_long", f"A field can have at most {MAX_FIELD_BYTES} bytes.")

    def end_part(self) -> None:
        if self._name == "images":
            images = self.fields.setdefault("images", [])
            images.append(self._data.getvalue())
            _check_count(len(images), self._settings)
        else:
            self.fields[self._name] = self._data.getvalue().decode("utf-8", "replace")


def _describe_unknown(name: str) -> str:
    sentence = describe_unknown("field", name, list(EmbedRequest.model_fields))
    return sentence if "`images`?" in sentence else f"{sentence} The images go in `images`."
