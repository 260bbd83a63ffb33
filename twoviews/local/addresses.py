"""Addresses: a free port and Unix socket paths for local processes."""

import hashlib
import os
import secrets
import socket
from pathlib import Path

from twoviews.errors import TwoviewsError

MAX_SOCKET_PATH = 100  # the kernel allows 107 bytes


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free one when it is 0. Raises TwoviewsError when it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            detail = f"{host}:{port} cannot be used ({error.strerror}); choose another --host or --port."
            raise TwoviewsError(detail) from error
        return int(probe.getsockname()[1])


def socket_path(wanted: Path) -> Path:
    """Return `wanted`, or a path in a private folder of /tmp when it is too long for a Unix socket."""
    if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH:
        wanted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return wanted
    folder = Path("/tmp") / f"twoviews-{os.getuid()}-{hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise TwoviewsError(f"{folder} is accessible to other users; remove it, or choose a shorter --data.")
    return folder / wanted.name


def encoder_settings(data_dir: Path) -> dict[str, str]:
    """Return settings for an encoder on loopback TCP when its Unix socket path in `data_dir` is too long, else none."""
    if os.environ.get("TWOVIEWS_ENCODER_URL") or len(os.fsencode(data_dir / "encoder.sock")) <= MAX_SOCKET_PATH:
        return {}
    port = free_port("127.0.0.1", 0)
    return {"TWOVIEWS_ENCODER_URL": f"http://127.0.0.1:{port}", "TWOVIEWS_ENCODER_TOKEN": secrets.token_urlsafe()}
