"""Credentials: where the service is, and the key that opens it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from twoviews.errors import NoCredentials

DATA_DIR = Path("twoviews-data")
FILE_NAME = "credentials.json"


@dataclass(frozen=True, slots=True)
class Credentials:
    url: str
    key: str = field(repr=False)


def find(url: str | None = None, key: str | None = None, data_dir: Path | None = None) -> Credentials:
    """Return what was given, else TWOVIEWS_URL and TWOVIEWS_KEY, else what `twoviews up` left in `data_dir`.

    The key in the file is sent to the address in the file alone. Raises NoCredentials.
    """
    url = url or os.environ.get("TWOVIEWS_URL")
    key = key or os.environ.get("TWOVIEWS_KEY")
    if url and key:
        return Credentials(url.rstrip("/"), key)
    path = (data_dir or Path(os.environ.get("TWOVIEWS_DATA_DIR") or DATA_DIR)) / FILE_NAME
    kept = _read(path)
    if kept is None:
        raise NoCredentials(f"The address {url} needs a key: set TWOVIEWS_KEY or give --key." if url else "")
    if url and url.rstrip("/") != kept.url:
        raise NoCredentials(f"The key in {path} is for {kept.url}, not for {url}: set TWOVIEWS_KEY or give --key.")
    return Credentials(kept.url, key or kept.key)


def _read(path: Path) -> Credentials | None:
    try:
        content = json.loads(path.read_text())
        return Credentials(content["url"].rstrip("/"), content["key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCredentials(f"{path} cannot be read: {error}") from error
