"""An embed order: what a request to /embed asks for, read from multipart/form-data or from JSON."""

import binascii
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import orjson
from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from api.uploads import doubled
from service.errors import (
    BadRequest,
    EncoderBusy,
    Error,
    ImageTooLarge,
    InvalidRequest,
    TooLarge,
    TooManyImages,
    UnsupportedMedia,
)
from service.settings import Settings
from ssl_core.errors import Fault

MAX_FIELD_BYTES = 1000  # of model, layer and the like, in multipart


class EmbedRequest(BaseModel):
    """Images and what to make of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(max_length=100, description="A `mdl_` id, or the `job_` id of the run that made the model.")
    layer: str = Field(
        "backbone",
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]+$",  # it becomes a header
        description="`backbone`, `projection`, a block such as `block3`, or `logits` of a classifier.",
    )
    encoding_format: Literal["float", "base64", "npy"] = Field(
        "float", description="Lists of numbers; base64 of little-endian float32; or the whole answer as one .npy file."
    )
    images: list[bytes] = Field(min_length=1, description="Image files; in JSON, each as base64.")


class Room:
    """Room for the bodies that all requests hold at once, in bytes."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def borrowed(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes so many bytes more, until the block ends; it raises EncoderBusy."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._left:
                raise EncoderBusy(retry_after=1)
            self._left -= size
            taken += size

        try:
            yield take
        finally:
            self._left += taken


async def read(request: Request, settings: Settings, take: Callable[[int], None]) -> EmbedRequest:
    """Return the order. Raises the service's errors for one that is malformed or beyond the limits.

    take: called with the size of each piece of the body before it is kept.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    chunks = _chunks(request, _most_bytes(settings), take)
    try:
        if kind == b"multipart/form-data":
            fields = await _from_multipart(chunks, options.get(b"boundary", b""), settings)
        elif kind == b"application/json":
            fields = await run_sync(_from_json, [chunk async for chunk in chunks], settings)
        else:
            raise UnsupportedMedia("Send images as multipart/form-data, or as application/json with base64.")
    except ClientDisconnect as error:
        raise BadRequest("The body ended early.") from error
    try:
        return EmbedRequest.model_validate(fields)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from error


def _most_bytes(settings: Settings) -> int:
    per_image = settings.max_image_bytes * 4 // 3 + 1024  # base64, or the headers of a part
    return min(settings.embed_max_body_bytes, settings.embed_max_images * per_image + 65536)


async def _chunks(request: Request, most: int, take: Callable[[int], None]) -> AsyncIterator[bytes]:
    size, declared = 0, request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise TooLarge(f"The body is larger than {most} bytes.")
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge(f"The body is larger than {most} bytes.")
        take(len(chunk))
        yield chunk


def _from_json(chunks: list[bytes], settings: Settings) -> Any:
    try:
        fields = orjson.loads(b"".join(chunks))
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} (byte {error.pos}).") from error
    if isinstance(fields, dict) and isinstance(fields.get("images"), list):
        _check_count(len(fields["images"]), settings)
        fields["images"] = [_from_base64(index, text, settings) for index, text in enumerate(fields["images"])]
    return fields


def _from_base64(index: int, text: object, settings: Settings) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError("not a string")
        image = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        detail = "Must be an image file as base64."
        raise _at(InvalidRequest, index, "not_base64", detail) from error
    _check_size(index, len(image), settings)
    return image


def _check_count(count: int, settings: Settings) -> None:
    if count > settings.embed_max_images:
        raise TooManyImages(f"At most {settings.embed_max_images} images fit in one request.")


def _check_size(index: int, size: int, settings: Settings) -> None:
    if size > settings.max_image_bytes:
        detail = f"An image may have at most {settings.max_image_bytes} bytes."
        raise _at(ImageTooLarge, index, "image_too_large", detail)


def _at(kind: type[Error], index: int, code: str, detail: str) -> Error:
    pointer = f"/images/{index}"
    return kind(f"{pointer}: {detail}", errors=[Fault(pointer=pointer, code=code, detail=detail)])


async def _from_multipart(chunks: AsyncIterator[bytes], boundary: bytes, settings: Settings) -> dict[str, Any]:
    form = _Form(settings)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"The body is not multipart/form-data: {error}") from error
    if not form.ended:
        raise BadRequest("The body is not multipart/form-data: its last boundary is missing.")
    return form.fields


class _Form:
    """Gathers the parts as the parser meets them, each no further than its limit."""

    def __init__(self, settings: Settings) -> None:
        self.fields: dict[str, Any] = {}
        self.ended = False
        self._settings = settings
        self._header, self._value = bytearray(), bytearray()
        self._name = ""
        self._data = bytearray()

    def callbacks(self) -> dict[str, Any]:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        self._name, self._data = "", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")[:100]
        self._header, self._value = bytearray(), bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += memoryview(data)[start:end]
        if self._name == "images":
            _check_size(len(self.fields.get("images", ())), len(self._data), self._settings)
        elif len(self._data) > MAX_FIELD_BYTES:
            raise TooLarge(f"The field {self._name!r} is longer than {MAX_FIELD_BYTES} bytes.")

    def _part_end(self) -> None:
        if self._name == "images":
            images = self.fields.setdefault("images", [])
            images.append(bytes(self._data))
            _check_count(len(images), self._settings)
        elif self._name in self.fields:
            raise doubled(self._name)
        elif len(self.fields) < 10:  # one of the first ten is unknown if there are as many
            self.fields[self._name] = self._data.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True
