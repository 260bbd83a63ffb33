"""The command line of the acceptance: its options, and the stages one after the other."""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.acceptance import report
from benchmarks.acceptance.parts import Part
from benchmarks.acceptance.process import Outcome, run_stage
from benchmarks.acceptance.setup import Setup

_EPOCHS, _TINY_EPOCHS = 200, 2


def main(parts: Mapping[str, Part], arguments: Sequence[str] | None = None) -> int:
    """Run a part of the acceptance and return the exit status: 1 if a stage failed, 2 for wrong options."""
    options = _parse_options(parts, arguments)
    setup, stages = _make_setup(options), parts[options.part]
    path, about = setup.out / f"{options.part}.json", {"device": setup.device, "tiny": setup.tiny}
    outcomes: list[Outcome] = []
    for name in options.only or stages:
        outcomes.append(run_stage(name, stages[name], setup))
        report.write(outcomes, path, about)
        print(f"{name}: {'failed' if outcomes[-1].failed else 'done'}, {outcomes[-1].seconds:.1f} s", flush=True)
    report.print_table(outcomes, f"{options.part}, {setup.device}{', tiny' if setup.tiny else ''}: {path}")
    return int(any(outcome.failed for outcome in outcomes))


def _make_setup(options: argparse.Namespace) -> Setup:
    tiny = options.device == "cpu" if options.tiny is None else options.tiny
    epochs = options.epochs or (_TINY_EPOCHS if tiny else _EPOCHS)
    options.out.mkdir(parents=True, exist_ok=True)
    return Setup(options.device, tiny, options.images, options.out, epochs)


def _parse_options(parts: Mapping[str, Part], arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.acceptance",
        description="Run the core on a GPU, or in small on a CPU, and compare it with its goals.",
    )
    parser.add_argument("part", choices=parts)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if shutil.which("nvidia-smi") else "cpu")
    parser.add_argument("--tiny", action=argparse.BooleanOptionalAction, help="the default on a CPU")
    parser.add_argument("--images", type=Path, help="an archive or a packed dataset; default: synthetic images")
    parser.add_argument("--out", type=Path, default=Path("acceptance"), help="folder of the results")
    parser.add_argument("--epochs", type=int, help=f"of the long run, {_EPOCHS} by default")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help=_list_stages(parts))
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - parts[options.part].keys():
        parser.error(f"{options.part} has no stage {', '.join(sorted(unknown))}")
    return options


def _list_stages(parts: Mapping[str, Part]) -> str:
    return "; ".join(f"{name}: {', '.join(stages)}" for name, stages in parts.items())
