"""A persistent HTTP/1.1 connection to the encoder, for one request at a time.

Not httpx: with sixty concurrent requests its pool takes ten times as long for each as the rest of the call, since it
iterates over all connections at the start and end of every request.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(slots=True)
class Reply:
    """A response: its status, its headers by lower-case name, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """A protocol for `loop.create_connection`. `open` until either side closes it."""

    def __init__(self) -> None:
        self.open = False
        self.idle_since = 0.0  # by the loop's clock; set by EncoderClient
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._reply: asyncio.Future[Reply] | None = None

    async def request(self, head: bytes, body: Sequence[bytes]) -> Reply:
        """Send a request and return the response. Raises ConnectionError when the connection is lost."""
        if not self.open or self._transport is None:
            raise ConnectionResetError
        self._headers, self._body = {}, []
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.writelines([head, *body])
        try:
            return await self._reply
        finally:
            self._reply = None

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.open = self.open and self._parser.should_keep_alive()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def _fail(self) -> None:
        self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionResetError())
