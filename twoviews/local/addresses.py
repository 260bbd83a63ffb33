"""Addresses: a port and Unix sockets for the processes of one machine."""

import hashlib
import os
import secrets
import socket
from pathlib import Path

from twoviews.errors import TwoviewsError

LONGEST_SOCKET_PATH = 100  # the kernel allows 107 bytes


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free one when it is 0. Raises TwoviewsError when somebody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            detail = f"{host}:{port} cannot be used ({error.strerror}); choose another --host or --port."
            raise TwoviewsError(detail) from error
        return int(door.getsockname()[1])


def socket_path(wanted: Path) -> Path:
    """Return `wanted`, or where it would be too long for a Unix socket, a path in a private folder of /tmp."""
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET_PATH:
        wanted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return wanted
    folder = Path("/tmp") / f"twoviews-{os.getuid()}-{hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise TwoviewsError(f"{folder} is not ours alone; remove it, or choose a shorter --data.")
    return folder / wanted.name


def encoder(data_dir: Path) -> dict[str, str]:
    """Return settings for an encoder on loopback, where its Unix socket in `data_dir` would have too long a path."""
    if os.environ.get("TWOVIEWS_ENCODER_URL") or len(os.fsencode(data_dir / "encoder.sock")) <= LONGEST_SOCKET_PATH:
        return {}
    port = free_port("127.0.0.1", 0)
    return {"TWOVIEWS_ENCODER_URL": f"http://127.0.0.1:{port}", "TWOVIEWS_ENCODER_TOKEN": secrets.token_urlsafe()}
