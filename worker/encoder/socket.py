"""The listening socket of the encoder server: a Unix socket in the data folder, or TCP."""

import ipaddress
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from service.settings import Settings


def listen(settings: Settings) -> socket.socket:
    """Return a bound socket. Raises ValueError for invalid settings, OSError for an address in use."""
    if not settings.encoder_url:
        return _bind_unix(settings.data_dir.absolute() / "encoder.sock")
    if not settings.encoder_token.get_secret_value():
        raise ValueError("over TCP, TWOVIEWS_ENCODER_TOKEN must be set.")
    parts = urlsplit(settings.encoder_url)
    if parts.scheme != "http" or parts.port is None:
        raise ValueError("TWOVIEWS_ENCODER_URL must look like http://host:port.")
    return _bind_tcp(parts.hostname or "", parts.port)


def _bind_unix(path: Path) -> socket.socket:
    """Bind to a temporary path and rename it, which replaces an earlier server's socket atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    old_umask = os.umask(0o177)
    try:
        listener.bind(str(temporary))
        temporary.replace(path)
    except OSError as error:
        listener.close()
        raise OSError(f"{path}: {error}; TWOVIEWS_DATA_DIR may be too long for a Unix socket") from error
    finally:
        os.umask(old_umask)
    return listener


def _bind_tcp(host: str, port: int) -> socket.socket:
    """Bind to `host` if it is an IP address, and to all addresses if it is a name."""
    if host == "localhost":
        host = "127.0.0.1"
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        host, version = "0.0.0.0", 4
    listener = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener
