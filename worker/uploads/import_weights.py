"""The importer: from uploaded weights to a model, in a process that may do little else.

`python -m worker.uploads.import_weights UPLOAD --out DIR` is a child of the supervisor, as `worker.uploads.ingest` is; the model is
`DIR/model`. torch is loaded first, and what it takes does not count.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.settings import Settings
from ssl_core.config import Import
from ssl_core.errors import BadWeights
from ssl_core.events import Event, Model, Result
from ssl_core.pretrained.weights import import_weights
from worker.uploads import process, sandbox

MODEL_FOLDER = "model"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _options(arguments)
    process.heed()
    memory = sandbox.taken_bytes() + options.import_memory_bytes
    sandbox.enter(sandbox.Allowance(memory, int(options.import_seconds), 2 * options.max_weights_bytes))
    events = process.guarded(_importing(options.upload, options.out, options.config, options.provenance), BadWeights)
    return process.tell(events, None if options.events else _sentence)


def _importing(upload: Path, out: Path, asked: Import, told: dict[str, Any]) -> Iterator[Event]:
    weights, card = import_weights(upload, out / MODEL_FOLDER, asked, told)
    yield Model(MODEL_FOLDER, weights.sha256, weights.size_bytes, card["dim"], card)
    yield Result(card["imported"])


def _sentence(event: Model | Result) -> str:
    if isinstance(event, Model):
        return f"{event.card['backbone']['name']}, {event.dim} features\n"
    return f"{event.summary['matched']:,} tensors taken, {event.summary['left_out_count']:,} left out\n"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    settings = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m worker.uploads.import_weights", description="Turn weights into a model."
    )
    parser.add_argument("upload", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where the folder of the model is made")
    parser.add_argument("--config", type=Import.model_validate_json, default=Import(), help="an Import, as JSON")
    parser.add_argument(
        "--provenance", type=json.loads, default={}, help="its origin (`ssl_core.serialization.provenance`), as JSON"
    )
    parser.add_argument("--events", action="store_true", help="say how it goes as JSON lines")
    for name in ("max_weights_bytes", "import_memory_bytes", "import_seconds"):
        default = getattr(settings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
