"""A proxy between processes of the service and their servers, whose links can be cut, reset or made silent.

`python -m tests.faults.nemesis.proxy` reads a command per line from stdin, as JSON, and answers each with a line. Every
link listens on a loopback TCP port of its own and forwards to a Unix socket.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["pass", "silent", "refuse"]
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass
class _Link:
    upstream: str
    mode: Mode = "pass"
    swallowed: int = 0  # bytes
    refused: int = 0  # connections
    reset: int = 0
    open: set["_Side"] = field(default_factory=set)


class _Side(asyncio.Protocol):
    """One of the two connections of a client; `peer` is the other."""

    def __init__(self, link: _Link, peer: "_Side | None" = None) -> None:
        self.link, self.peer = link, peer
        self.is_client = peer is None
        self.transport: Any = None
        self.early: list[bytes] = []  # received before the peer was connected
        self.connecting: asyncio.Task | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.is_client:
            self.link.open.add(self)
            if self.link.mode == "refuse":
                self.link.refused += 1
                self.abort()
            else:
                self.connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        assert self.peer is not None
        self.peer.peer = self
        for data in self.peer.early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.link.mode == "silent":
            self.link.swallowed += len(data)
        elif self.peer is None:
            self.early.append(data)
        else:
            self.peer.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.link.open.discard(self)
        if self.peer is not None:
            self.peer.transport.close()

    def abort(self) -> None:
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.transport.abort()

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: _Side(self.link, self), self.link.upstream)
        except OSError:
            self.abort()


class _Server:
    def __init__(self) -> None:
        self.links: dict[str, _Link] = {}

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            answer = await self.execute(**command)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    async def execute(self, name: str, upstream: str = "", mode: Mode | None = None, reset: bool = False) -> Any:
        """Add a link and return its port, or change one and return its counts."""
        if upstream:
            link = self.links[name] = _Link(upstream)
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: _Side(link), "127.0.0.1", 0)
            return server.sockets[0].getsockname()[1]
        link = self.links[name]
        link.mode = mode or link.mode
        if reset:
            link.reset += len(link.open)
            for side in list(link.open):
                side.abort()
        return {"open": len(link.open), "swallowed": link.swallowed, "refused": link.refused, "reset": link.reset}


@dataclass(frozen=True)
class Counts:
    """Of a link: open connections, bytes swallowed, connections refused and reset."""

    open: int
    swallowed: int
    refused: int
    reset: int


class Proxy:
    """A running proxy process; `spawn` starts a child with pipes."""

    def __init__(self, spawn: Callable[..., subprocess.Popen]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = spawn("proxy", [sys.executable, "-m", "tests.faults.nemesis.proxy"], **pipes)

    def add(self, name: str, upstream: Path) -> int:
        """Add a link to the server at that Unix socket; return its loopback port."""
        return int(self._execute(name=name, upstream=str(upstream)))

    def set_mode(self, name: str, mode: Mode, *, reset: bool = False) -> Counts:
        """Pass data on, swallow it, or refuse new connections; `reset` ends the open connections by RST."""
        return Counts(**self._execute(name=name, mode=mode, reset=reset))

    def counts(self, name: str) -> Counts:
        return Counts(**self._execute(name=name))

    def close(self) -> None:
        """End the process; does nothing the second time."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.kill()
        self._process.wait()

    def _execute(self, **command: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


if __name__ == "__main__":
    asyncio.run(_Server().serve())
