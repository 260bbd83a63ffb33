"""Recording: hashes for the models that were saved before their cards had them, so that later damage is found."""

import hashlib
import json
from pathlib import Path
from typing import Any

from sqlalchemy import update

from service.db.models import Model
from service.db.session import Database
from service.verify.checks import CARD, WEIGHTS
from ssl_core.checksums import document
from ssl_core.files import write_atomic

_FILES = (WEIGHTS, "heads.safetensors", "README.md")


def record_model(database: Database, folder: Path, path: str) -> bool:
    """Add the SHA-256 and size of its files to a model's card, in its folder and in the database; seal the card.

    folder: of the model, whose weights have been compared with the database; path: the same, as in the database.
    Returns whether the card had no checksum before. Raises OSError, and Corrupt when the card cannot be read.
    """
    card = document.read(folder / CARD)
    if document.FIELD in card:
        return False
    files = {name: _describe(folder / name) for name in _FILES if (folder / name).is_file()}
    sealed = document.seal(card | {"files": files})
    write_atomic(folder / CARD, json.dumps(sealed, indent=1, allow_nan=False).encode())
    with database.writing() as session:
        session.execute(update(Model).where(Model.path == path).values(card=sealed))
    return True


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size_bytes": path.stat().st_size}
