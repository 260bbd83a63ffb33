"""Disconnects: work that is cancelled when the client of its HTTP request disconnects."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ClientDisconnected(Exception):
    """The client disconnected before the response."""


async def cancel_on_disconnect(work: Coroutine[Any, Any, T], receive: Callable[[], Awaitable[Any]]) -> T:
    """Return the result of `work`; cancel it and raise ClientDisconnected when the client disconnects first.

    receive: ASGI's. What has not been read of the body is dropped.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((task, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()


async def _wait_for_disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
