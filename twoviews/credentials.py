"""Credentials: the URL of the service and an API key, from arguments, the environment or a file."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from twoviews.errors import NoCredentials

FILE_NAME = "credentials.json"


@dataclass(frozen=True, slots=True)
class Credentials:
    url: str
    key: str = field(repr=False)


def find(url: str | None = None, key: str | None = None, data_dir: Path | None = None) -> Credentials:
    """Return the arguments, with defaults from the file that `twoviews up` writes to `data_dir`.

    Without `data_dir`, defaults are TWOVIEWS_URL and TWOVIEWS_KEY, then the file in TWOVIEWS_DATA_DIR or
    ./twoviews-data. The key in a file is sent to no other URL than the one in that file. Raises NoCredentials.
    """
    hint = "Give --key."
    if data_dir is None:
        url, key = url or os.environ.get("TWOVIEWS_URL"), key or os.environ.get("TWOVIEWS_KEY")
        hint = "Set TWOVIEWS_KEY or give --key."
    if url and key:
        return Credentials(url.rstrip("/"), key)
    path = (data_dir or default_dir()) / FILE_NAME
    stored = _read(path)
    if stored is None and data_dir is not None:
        raise NoCredentials(f"{path} does not exist: start a service with `twoviews up --data {data_dir}`.")
    if stored is None:
        raise NoCredentials(f"The address {url} needs a key. {hint}" if url else "")
    if url and url.rstrip("/") != stored.url:
        raise NoCredentials(f"The key in {path} is for {stored.url}, not for {url}. {hint}")
    return Credentials(stored.url, key or stored.key)


def default_dir() -> Path:
    """Return the default data folder of a local service: TWOVIEWS_DATA_DIR, or ./twoviews-data."""
    return Path(os.environ.get("TWOVIEWS_DATA_DIR") or "twoviews-data")


def _read(path: Path) -> Credentials | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Credentials(content["url"].rstrip("/"), content["key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCredentials(f"{path} cannot be read: {error}") from error
