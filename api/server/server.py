"""The server: uvicorn's, with a drain, and exit code 0 after SIGTERM.

After SIGTERM it goes on accepting connections for `drain_seconds`, while /health/ready is 503, so that proxies notice.
Then it refuses new ones, and has the grace time for requests in progress; those that remain are answered with 503.
"""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from api.server.drain import Drain

_TICK_SECONDS = 0.1


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown."""

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds = drain_seconds

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        with self._signals_handled():
            super().run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain.begin()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.begin()  # also when there was no signal
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain_seconds
        while loop.time() < end and not self.force_exit:
            await self.on_tick(0)  # the header Date
            await asyncio.sleep(_TICK_SECONDS)
        await super().shutdown(sockets)

    @contextmanager
    def _signals_handled(self) -> Iterator[None]:
        """Handle signals before and after uvicorn does: at its end it raises them again, which would be fatal."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
