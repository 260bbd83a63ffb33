"""Credentials: where the service is, and the key that opens it."""

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
    """Return what was given, the rest from what `twoviews up` left in `data_dir`.

    When no folder was given the environment comes before it: TWOVIEWS_URL and TWOVIEWS_KEY, then what was left in
    TWOVIEWS_DATA_DIR or ./twoviews-data. The key in a file is sent to the address in that file alone. Raises
    NoCredentials.
    """
    hint = "Give --key."
    if data_dir is None:
        url, key = url or os.environ.get("TWOVIEWS_URL"), key or os.environ.get("TWOVIEWS_KEY")
        hint = "Set TWOVIEWS_KEY or give --key."
    if url and key:
        return Credentials(url.rstrip("/"), key)
    path = (data_dir or default_dir()) / FILE_NAME
    kept = _read(path)
    if kept is None and data_dir is not None:
        raise NoCredentials(f"{path} is not there: start a service with `twoviews up --data {data_dir}`.")
    if kept is None:
        raise NoCredentials(f"The address {url} needs a key. {hint}" if url else "")
    if url and url.rstrip("/") != kept.url:
        raise NoCredentials(f"The key in {path} is for {kept.url}, not for {url}. {hint}")
    return Credentials(kept.url, key or kept.key)


def default_dir() -> Path:
    """Return where a local service keeps everything when nobody says where: TWOVIEWS_DATA_DIR, or ./twoviews-data."""
    return Path(os.environ.get("TWOVIEWS_DATA_DIR") or "twoviews-data")


def _read(path: Path) -> Credentials | None:
    try:
        content = json.loads(path.read_text())
        return Credentials(content["url"].rstrip("/"), content["key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCredentials(f"{path} cannot be read: {error}") from error
