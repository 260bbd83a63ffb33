"""`python -m tests.gpu.pretended PROGRAM …`: runs Python files on the pretended GPU.

Prints a line of JSON for each program: the error that it ended in, if any, and how often each kind of thing happened.
"""

import argparse
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from tests.gpu.pretended import hardware


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.pretended", description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs="+", metavar="PROGRAM", type=Path)
    parser.add_argument("--guard", type=Path, help="the compiled guard; default: it is compiled now")
    options = parser.parse_args()
    hardware.load(options.guard)
    from tests.gpu.pretended import cuda  # imports torch, which has to find the guard

    cuda.install()
    for program in options.programs:
        print(json.dumps(_run(program)), flush=True)  # noqa: T201
    return 0


def _run(program: Path) -> dict[str, Any]:
    from tests.gpu.pretended.record import RECORD, Kind

    RECORD.take()
    error = None
    try:
        runpy.run_path(str(program))
    except Exception as raised:  # noqa: BLE001 - the program's, and printed
        error = f"{type(raised).__name__}: {raised}"
    counts = RECORD.take()
    return {"program": program.stem, "error": error, **{kind: counts.count(kind) for kind in Kind}}


if __name__ == "__main__":
    sys.exit(main())
