"""The command line of a run: `python -m ssl_core run CONFIG.json --data DIR --out DIR`.

With --events it is the service's training process: events as JSON lines on stdout and nothing else there, and old
checkpoints are left to the service. Without, it shows a progress bar and a final table. Exit status: 0 success; 1 the
run failed; 2 the command or the config is invalid; 70 an internal error, and another attempt may succeed; 75 stopped at
a checkpoint.

Also: `python -m ssl_core import-simclr CHECKPOINT --out DIR` and `import-weights FILE --out DIR`, with 0, 1 or 2.
"""

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssl_core import config
from ssl_core.config import Import, RunConfig, TrainingRun
from ssl_core.data.items import PackError
from ssl_core.data.pack import pack_folder
from ssl_core.device import keep_freed_memory
from ssl_core.distributed import process_group
from ssl_core.distributed.parent_death import die_with_parent
from ssl_core.embedding import requests
from ssl_core.errors import BadWeights, RunFailure
from ssl_core.events import Event, Failed, Stopped, to_line
from ssl_core.files import make_folder
from ssl_core.inputs import Inputs
from ssl_core.pretrained.simclr_tensorflow import import_simclr
from ssl_core.pretrained.weights import import_weights
from ssl_core.reports.progress_bar import ProgressBar
from ssl_core.run import run
from ssl_core.serialization import checkpoint_files

DONE, FAILED, USAGE, RETRY, STOPPED = 0, 1, 2, 70, 75
PACKED_FOLDER = "packed"


class Unusable(Exception):
    """The request cannot be run; the text is the reason."""

    def __init__(self, message: str, event: str = "") -> None:
        """event: the reason without paths of this machine, for an event."""
        super().__init__(message)
        self.event = event or message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    asked = _parser().parse_args(arguments)
    keep_freed_memory()
    status: int = asked.do(asked)
    return status


def _run(asked: argparse.Namespace) -> int:
    try:
        run_config = _read_config(asked.config)
        make_folder(asked.out)
        inputs = _inputs(asked, asked.out / run_config.checkpoint_folder)
        if isinstance(run_config, TrainingRun):
            process_group.launch(run_config.devices, run_config.device)
    except Unusable as error:
        return _refuse(error.event if asked.events else str(error), as_event=asked.events)
    except OSError as error:
        return _refuse(error.strerror or "" if asked.events else str(error), as_event=asked.events)
    if process_group.is_launched():
        _join_processes()
    with closing(_catch_errors(run(run_config, inputs, asked.out))) as events:
        try:
            last = _write_events(events) if asked.events else ProgressBar(run_config.kind).show(events)
        except BrokenPipeError:  # the reader is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return RETRY
    return _status(last)


def _join_processes() -> None:
    """Die with torchrun, which starts each process in a session of its own; only the first one writes events."""
    die_with_parent(os.getppid())
    if process_group.is_follower():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _import_simclr(asked: argparse.Namespace) -> int:
    try:
        report = import_simclr(asked.checkpoint, asked.out)
    except (RunFailure, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    sys.stdout.write(f"{report.to_text()}\nmodel: {asked.out}\n")
    return DONE


def _import_weights(asked: argparse.Namespace) -> int:
    try:
        given = {name: value for name in Import.model_fields if (value := getattr(asked, name)) is not None}
        wanted = Import.model_validate_json(json.dumps(given))
        _, card = import_weights(asked.file, asked.out, wanted)
    except ValidationError as error:
        return _refuse("\n".join(_sentences(error, None)), as_event=False)
    except OSError as error:
        return _refuse(str(error), as_event=False)
    except BadWeights as error:
        named = (f"{fault['pointer']}: {fault['detail']}" for fault in error.errors)
        sys.stderr.write("\n".join([f"{asked.file} cannot become a model. {error.detail}", *named]) + "\n")
        return FAILED
    sys.stdout.write(
        json.dumps({"backbone": card["backbone"], "dim": card["dim"], **card["imported"]}, indent=1) + "\n"
    )
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssl_core", description="Self-supervised training without the service."
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="run a config on a dataset")
    command.set_defaults(do=_run)
    command.add_argument("config", type=Path, help="the config as JSON; its `kind` is pretrain by default")
    command.add_argument("--data", type=Path, required=True, help="a packed dataset, or a folder of images")
    command.add_argument("--out", type=Path, required=True, help="where checkpoints and the model are written")
    command.add_argument("--model", type=Path, help="the model folder to start from, or to evaluate")
    command.add_argument("--resume", type=Path, help="the checkpoint to resume from; the newest in --out by default")
    command.add_argument("--provenance", type=Path, help="where the run comes from, for the model's card, as JSON")
    command.add_argument(
        "--requests", action="store_true", help="embed the shards that lines on stdin ask for, instead of all"
    )
    command.add_argument(
        "--events", action="store_true", help="events as JSON lines instead of a progress bar; all checkpoints are kept"
    )
    command = commands.add_parser("import-simclr", help="convert a checkpoint of google-research/simclr to a model")
    command.set_defaults(do=_import_simclr)
    command.add_argument("checkpoint", type=Path, help="TensorFlow's (prefix, file or folder), or a .npz of the same")
    command.add_argument("--out", type=Path, required=True, help="the model's folder")
    command = commands.add_parser("import-weights", help="convert weights trained elsewhere to a model")
    command.set_defaults(do=_import_weights)
    command.add_argument("file", type=Path, help="safetensors, or a file written by torch.save")
    command.add_argument("--out", type=Path, required=True, help="the model's folder")
    kinds: dict[str, dict[str, Any]] = {"image_size": {"type": int}, "mean": {"type": float, "nargs": "+"}}
    kinds["std"] = kinds["mean"]
    for name, field in Import.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        command.add_argument(flag, help=field.description, **kinds.get(name, {}))
    return parser


def _read_config(path: Path) -> RunConfig:
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind", "pretrain") not in config.KINDS:
        raise Unusable(f"{path} must be an object whose `kind` is one of {', '.join(config.KINDS)}.")
    kind = data.get("kind", "pretrain")
    try:
        return config.parse(data, kind)
    except ValidationError as error:
        raise Unusable("\n".join([f"{path} is not a {kind} config.", *_sentences(error, kind)])) from error


def _sentences(error: ValidationError, kind: str | None) -> list[str]:
    return [f"{fault['pointer'] or '/'}: {fault['detail']}" for fault in config.faults(error, kind)]


def _inputs(asked: argparse.Namespace, checkpoints: Path) -> Inputs:
    stop = threading.Event()

    def request_stop(number: int, _: object) -> None:
        stop.set()
        if not process_group.is_launched():  # else torchrun forwards the signal a second time
            signal.signal(number, signal.SIG_DFL)  # a second signal ends the process without a checkpoint

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    saved = asked.resume or checkpoint_files.find_newest(checkpoints)
    provenance = _read_provenance(asked.provenance) if asked.provenance else {}
    return Inputs(
        _packed(asked.data, asked.out / PACKED_FOLDER),
        asked.model,
        saved,
        stop.is_set,
        provenance,
        asked.events,
        requests.read_lines(sys.stdin.fileno()) if asked.requests else None,
    )


def _read_provenance(path: Path) -> dict[str, Any]:
    try:
        provenance = json.loads(path.read_bytes())
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: {error}") from error
    objects: list[Any] = [None]
    if isinstance(provenance, dict):
        objects = [provenance, *(provenance.get(name) or {} for name in ("dataset", "model"))]
    if not all(isinstance(part, dict) for part in objects):
        raise Unusable(f"{path} must be an object, and so must its `dataset` and its `model`.")
    return dict(provenance)


def _packed(data: Path, packed: Path) -> Path:
    """The folder itself when it is a packed dataset; else the dataset that it is packed into, once."""
    if (data / "dataset.json").is_file():
        return data
    if not data.is_dir():
        raise Unusable(f"There is no folder {data}.", event="The folder of the dataset is missing.")
    if not (packed / "dataset.json").is_file():
        try:
            pack_folder(data, packed)
        except PackError as error:
            named = (f"{fault['pointer']}: {fault['detail']}" for fault in error.errors)
            raise Unusable("\n".join([f"{data} cannot become a dataset. {error.detail}", *named])) from error
    return packed


def _catch_errors(events: Iterator[Event]) -> Generator[Event, None, None]:
    """The events, with an internal error as a Failed that may be retried; the traceback goes to stderr."""
    try:
        yield from events
    except Exception as error:  # noqa: BLE001 - the outermost frame of the process
        traceback.print_exc()
        yield Failed("crashed", f"The training process failed: {type(error).__name__}: {error}", retry=True)


def _write_events(events: Iterator[Event]) -> Event | None:
    """Write each event as a line at once and return the last."""
    last: Event | None = None
    for last in events:
        sys.stdout.write(to_line(last))
        sys.stdout.flush()
    return last


def _refuse(message: str, *, as_event: bool) -> int:
    if not as_event:
        sys.stderr.write(message + "\n")
        return USAGE
    _write_events(iter([Failed("bad_request", message)]))
    return FAILED


def _status(last: Event | None) -> int:
    if isinstance(last, Failed):
        return RETRY if last.retry else FAILED
    return STOPPED if isinstance(last, Stopped) else DONE


if __name__ == "__main__":
    sys.exit(main())
