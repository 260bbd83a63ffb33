"""A listener: the socket that the encoder serves on, a Unix one in the data folder or TCP."""

import ipaddress
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from service.settings import Settings


def listen(settings: Settings) -> socket.socket:
    """Return a bound socket. Raises ValueError for settings that allow none, OSError for an address that is taken."""
    if not settings.encoder_url:
        return _unix(settings.data_dir.absolute() / "encoder.sock")
    if not settings.encoder_token.get_secret_value():
        raise ValueError("over TCP, TWOVIEWS_ENCODER_TOKEN must be set.")
    parts = urlsplit(settings.encoder_url)
    if parts.scheme != "http" or parts.port is None:
        raise ValueError("TWOVIEWS_ENCODER_URL must look like http://host:port.")
    return _tcp(parts.hostname or "", parts.port)


def _unix(path: Path) -> socket.socket:
    """Bind under a name of our own and rename: whoever served here before is replaced in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{os.getpid()}")
    mine.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        door.bind(str(mine))
        mine.replace(path)
    except OSError as error:
        door.close()
        raise OSError(f"{path}: {error}; TWOVIEWS_DATA_DIR may be too long for a Unix socket") from error
    finally:
        os.umask(mask)
    return door


def _tcp(host: str, port: int) -> socket.socket:
    """An address is bound as it is; a name is how others find us, so behind it every address is."""
    if host == "localhost":
        host = "127.0.0.1"
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        host, version = "0.0.0.0", 4
    door = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind((host, port))
    return door
