"""Weight import: converts uploaded weights to a saved model, in a sandboxed process.

`python -m worker.uploads.import_weights UPLOAD --out DIR` is a child of the supervisor, as `worker.uploads.ingest` is.
The model is `DIR/model`. The memory limit does not count what torch takes when it is loaded.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from service.settings import Settings
from ssl_core.config import Import
from ssl_core.errors import BadWeights
from ssl_core.events import Event, Model, Result
from ssl_core.pretrained.weights import import_weights
from worker.uploads import process, sandbox

MODEL_FOLDER = "model"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parse_options(arguments)
    process.stop_on_sigterm()
    memory = sandbox.address_space_bytes() + options.import_memory_bytes
    sandbox.enter(sandbox.ResourceLimits(memory, int(options.import_seconds), 2 * options.max_weights_bytes))
    events = process.catch_errors(_import(options), BadWeights)
    return process.write_events(events, None if options.events else _format_event)


def _import(options: argparse.Namespace) -> Iterator[Event]:
    process.check_sha256(options.upload, options.sha256)
    folder = options.out / MODEL_FOLDER
    weights, card = import_weights(options.upload, folder, options.config, options.provenance)
    yield Model(MODEL_FOLDER, weights.sha256, weights.size_bytes, card["dim"], card)
    yield Result(card["imported"])


def _format_event(event: Model | Result) -> str:
    if isinstance(event, Model):
        return f"{event.card['backbone']['name']}, {event.dim} features\n"
    return f"{event.summary['matched']:,} tensors loaded, {event.summary['left_out_count']:,} left out\n"


def _parse_options(arguments: list[str] | None) -> argparse.Namespace:
    settings = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m worker.uploads.import_weights", description="Convert weights to a saved model."
    )
    parser.add_argument("upload", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder in which the model's folder is created")
    parser.add_argument("--sha256", help="of the upload, which is compared with it first")
    parser.add_argument("--config", type=Import.model_validate_json, default=Import(), help="an Import, as JSON")
    parser.add_argument(
        "--provenance",
        type=json.loads,
        default={},
        help="the model card's provenance, as JSON",
    )
    parser.add_argument("--events", action="store_true", help="write events as JSON lines")
    for name in ("max_weights_bytes", "import_memory_bytes", "import_seconds"):
        default = getattr(settings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
