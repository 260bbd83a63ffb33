"""The encoder's client: one HTTP hop from the API to `worker.encoder`, over its Unix socket or TCP."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from service.errors import (
    EncoderAway,
    EncoderBusy,
    EncoderFailed,
    Error,
    LayerNotFound,
    ModelDamaged,
    NotAnImage,
)
from service.settings import Settings

CONNECT_SECONDS = 2
IDLE_SECONDS = 30  # less than the encoder keeps an idle connection
RETRY_SECONDS = 2
log = logging.getLogger(__name__)

# What the encoder may say about a request. Anything else is between the two of us, and for the log.
_ERRORS = {kind().code: kind for kind in (NotAnImage, LayerNotFound, ModelDamaged, EncoderBusy, EncoderFailed)}


@dataclass(frozen=True, slots=True)
class Features:
    """N×dim little-endian float32, row by row."""

    dim: int
    data: bytes


class EncoderClient:
    """A pool of connections; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        token = settings.encoder_token.get_secret_value()
        socket = None if settings.encoder_url else str(settings.data_dir.absolute() / "encoder.sock")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_SECONDS)
        self._http = httpx.AsyncClient(
            base_url=settings.encoder_url or "http://encoder",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(settings.embed_answer_seconds, connect=CONNECT_SECONDS),
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=limits),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def encode(self, model_path: str, layer: str, images: Sequence[bytes]) -> Features:
        """Return the features of N encoded images.

        Raises NotAnImage, LayerNotFound, ModelDamaged, EncoderBusy, EncoderFailed; EncoderAway when nobody answers.
        Cancelled: the connection is closed, and the encoder drops what it has not begun.
        """
        headers = {
            "X-Model-Path": model_path,
            "X-Layer": layer,
            "X-Sizes": ",".join(str(len(image)) for image in images),
        }
        try:
            answer = await self._http.post("/encode", headers=headers, content=b"".join(images))
        except httpx.TransportError as error:
            raise EncoderAway(retry_after=RETRY_SECONDS) from error
        if answer.status_code == 200:
            return Features(int(answer.headers["X-Dim"]), answer.content)
        raise _error(answer)


def _error(answer: httpx.Response) -> Error:
    try:
        problem: dict[str, Any] = orjson.loads(answer.content)
        kind = _ERRORS[problem["code"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        log.error("the encoder answered %d: %s", answer.status_code, answer.text[:500])
        return EncoderAway(retry_after=RETRY_SECONDS)
    wait = answer.headers.get("Retry-After", "")
    return kind(problem["detail"], errors=problem["errors"], retry_after=int(wait) if wait.isdigit() else None)
