"""The command line of a run: `python -m ssl_core run CONFIG.json --data DIR --out DIR`.

With --events it is the service's training process: events as JSON lines on stdout and nothing else there. Without, it
shows a progress bar and a closing table. Exit status: 0 done; 1 the run failed; 2 the command or the config is wrong;
70 the machinery failed, and another attempt may do; 75 stopped at a checkpoint.

Besides: `python -m ssl_core import-simclr CHECKPOINT --out DIR` and `import-weights FILE --out DIR`, with 0, 1 or 2.
"""

import argparse
import ctypes
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
from ssl_core.data.pack import PackError, pack_folder
from ssl_core.device import keep_freed_memory
from ssl_core.distributed import process_group
from ssl_core.errors import BadWeights, RunFailure
from ssl_core.events import Event, Failed, Stopped, to_line
from ssl_core.inputs import Inputs
from ssl_core.pretrained.simclr_tensorflow import import_simclr
from ssl_core.pretrained.weights import import_weights
from ssl_core.reports.progress_bar import ProgressBar
from ssl_core.run import run
from ssl_core.serialization import checkpoint

DONE, FAILED, USAGE, RETRY, STOPPED = 0, 1, 2, 70, 75
PACKED_FOLDER = "packed"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Unusable(Exception):
    """What was asked for cannot be run; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for and return the exit status."""
    asked = _parser().parse_args(arguments)
    keep_freed_memory()
    status: int = asked.do(asked)
    return status


def _run(asked: argparse.Namespace) -> int:
    try:
        run_config = _read_config(asked.config)
        asked.out.mkdir(parents=True, exist_ok=True)
        inputs = _inputs(asked, asked.out / run_config.checkpoint_folder)
        if isinstance(run_config, TrainingRun):
            process_group.launch(run_config.devices, run_config.device)
    except (Unusable, OSError) as error:
        return _refuse(str(error), as_event=asked.events)
    if process_group.is_launched():
        _be_one_of_several()
    with closing(_guarded(run(run_config, inputs, asked.out))) as events:
        try:
            last = _speak(events) if asked.events else ProgressBar(run_config.kind).show(events)
        except BrokenPipeError:  # nobody listens any more, so there is nobody to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return RETRY
    return _status(last)


def _be_one_of_several() -> None:
    """Die with torchrun, which starts each process in a session of its own; only the first one speaks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
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
    command.add_argument("config", type=Path, help="the run as JSON; its `kind` is pretrain unless it says otherwise")
    command.add_argument("--data", type=Path, required=True, help="a packed dataset, or a folder of images")
    command.add_argument("--out", type=Path, required=True, help="where checkpoints and the model are written")
    command.add_argument("--model", type=Path, help="the model folder to start from, or to judge")
    command.add_argument(
        "--resume", type=Path, help="the checkpoint to go on from; the newest of the kind in --out by default"
    )
    command.add_argument("--provenance", type=Path, help="what the model's card is to say of its origin, as JSON")
    command.add_argument("--events", action="store_true", help="events as JSON lines instead of a progress bar")
    command = commands.add_parser("import-simclr", help="make a model of a checkpoint of google-research/simclr's")
    command.set_defaults(do=_import_simclr)
    command.add_argument("checkpoint", type=Path, help="TensorFlow's (prefix, file or folder), or a .npz of the same")
    command.add_argument("--out", type=Path, required=True, help="the folder that becomes the model")
    command = commands.add_parser("import-weights", help="make a model of weights that were trained elsewhere")
    command.set_defaults(do=_import_weights)
    command.add_argument("file", type=Path, help="safetensors, or what torch.save writes")
    command.add_argument("--out", type=Path, required=True, help="the model's folder")
    kinds: dict[str, dict[str, Any]] = {"image_size": {"type": int}, "mean": {"type": float, "nargs": 3}}
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
        raise Unusable(f"{path} has to be an object whose `kind` is one of {', '.join(config.KINDS)}.")
    kind = data.get("kind", "pretrain")
    try:
        return config.parse(data, kind)
    except ValidationError as error:
        raise Unusable("\n".join([f"{path} is not a {kind} config.", *_sentences(error, kind)])) from error


def _sentences(error: ValidationError, kind: str | None) -> list[str]:
    return [f"{fault['pointer'] or '/'}: {fault['detail']}" for fault in config.faults(error, kind)]


def _inputs(asked: argparse.Namespace, checkpoints: Path) -> Inputs:
    stop = threading.Event()

    def heed(number: int, _: object) -> None:
        stop.set()
        if not process_group.is_launched():  # else torchrun passes on what has come already
            signal.signal(number, signal.SIG_DFL)  # who asks twice does not want to wait for the checkpoint

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heed)
    saved = asked.resume or checkpoint.find_newest(checkpoints)
    told = _read_provenance(asked.provenance) if asked.provenance else {}
    return Inputs(_packed(asked.data, asked.out / PACKED_FOLDER), asked.model, saved, stop.is_set, told)


def _read_provenance(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: {error}") from error
    objects = [told, *(told.get(name) or {} for name in ("dataset", "model"))] if isinstance(told, dict) else [None]
    if not all(isinstance(part, dict) for part in objects):
        raise Unusable(f"{path} has to be an object, and so have its `dataset` and its `model`.")
    return told


def _packed(data: Path, packed: Path) -> Path:
    """The folder itself when it is a packed dataset; else what it packs into, once."""
    if (data / "dataset.json").is_file():
        return data
    if not data.is_dir():
        raise Unusable(f"There is no folder {data}.")
    if not (packed / "dataset.json").is_file():
        try:
            pack_folder(data, packed)
        except PackError as error:
            named = (f"{fault['pointer']}: {fault['detail']}" for fault in error.errors)
            raise Unusable("\n".join([f"{data} cannot become a dataset. {error.detail}", *named])) from error
    return packed


def _guarded(events: Iterator[Event]) -> Generator[Event, None, None]:
    """The events, with a fault of ours as a Failed that another attempt may mend; the trace goes to stderr."""
    try:
        yield from events
    except Exception as error:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
        yield Failed("crashed", f"The training process failed: {type(error).__name__}: {error}", retry=True)


def _speak(events: Iterator[Event]) -> Event | None:
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
    _speak(iter([Failed("bad_request", message)]))
    return FAILED


def _status(last: Event | None) -> int:
    if isinstance(last, Failed):
        return RETRY if last.retry else FAILED
    return STOPPED if isinstance(last, Stopped) else DONE


if __name__ == "__main__":
    sys.exit(main())
