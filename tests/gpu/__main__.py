"""`python -m tests.gpu`: the core on a pretended GPU, and a table of the runs and of the operators of a plain step.

Exits with 1 when a run fails, or a step costs more than `tests.gpu.agreed` allows.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from rich.console import Console

from tests.gpu.pretended import hardware


def main() -> int:
    options = _parse_options()
    hardware.load(options.guard)
    from tests.gpu.pretended import cuda  # imports torch, which has to find the guard

    cuda.install()
    with tempfile.TemporaryDirectory(prefix="twoviews-gpu-") as folder:
        return _run(options, Path(folder))


def _run(options: argparse.Namespace, folder: Path) -> int:
    from tests.gpu import report, runs, steps
    from tests.gpu.workspace import Workspace

    console, workspace = Console(width=140), Workspace(folder)
    names = options.only or [*runs.RUNS, *steps.STEPS]
    warnings.simplefilter("ignore")  # torch's, of a CUDA that it was not built with
    if unknown := set(names) - {*runs.RUNS, *steps.STEPS}:
        console.print(f"There is no {', '.join(sorted(unknown))}; there are {', '.join([*runs.RUNS, *steps.STEPS])}.")
        return 2
    outcomes = []
    for outcome in runs.run_all(workspace, [name for name in names if name in runs.RUNS]):
        outcomes.append(outcome)
        console.print(f"{outcome.name}: {'failed' if outcome.error else 'ok'}, {outcome.seconds:.1f} s")
    counted = [*steps.count_all(workspace, [name for name in names if name in steps.STEPS])]
    report.print_runs(outcomes, console)
    report.print_steps(counted, console)
    report.print_errors(outcomes, counted, console)
    if options.report:
        report.write(outcomes, counted, options.report)
    return int(any(outcome.error for outcome in outcomes) or any(step.wrong for step in counted))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="runs, and steps such as step:simclr; default: all")
    parser.add_argument("--report", type=Path, metavar="FILE", help="JSON, with the places of all waits and copies")
    parser.add_argument("--guard", type=Path, help="the compiled guard; default: it is compiled now")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
