"""Benchmark of the API beside another version of it, in one run: requests per second as a ratio.

    git clone . /tmp/other && git -C /tmp/other checkout ce4df91
    python -m benchmarks.api_beside /tmp/other [--turns 80] [--clients 8]

Both servers run as by default, with the access log if the version has one, on SQLite. The load changes between them
every quarter of a second, so that what else the machine does slows down both; the ratio is that of all responses.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.api import build_reads, run_clients, until_live
from tests.servers import free_port, valkey

_TURN_SECONDS = 0.25
_PREPARE = """
import json, sys
from pathlib import Path
from benchmarks import api
from service.settings import Settings
prepare = getattr(api, "prepare", None) or api._prepare  # as older versions name it
print(json.dumps(prepare(Settings(data_dir=Path(sys.argv[1]), broker_url=sys.argv[2]))))
"""


@dataclass(frozen=True, slots=True)
class _Version:
    """A running API, and its requests by name, each with the expected status."""

    port: int
    requests: dict[str, tuple[bytes, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="checkout of the other version")
    parser.add_argument("--turns", type=int, default=80, help="of each version and request")
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(valkey(folder))
        checkouts = {"other": arguments.other.resolve(), "this": Path(__file__).parents[1]}
        versions = {
            name: stack.enter_context(_serving(checkout, folder / name, broker)) for name, checkout in checkouts.items()
        }
        for request in versions["this"].requests:
            rates = _measure(versions, request, arguments.turns, arguments.clients)
            figures = (
                f"{rates['this']:6.0f}/s, other {rates['other']:6.0f}/s, {rates['this'] / rates['other']:.2f} of it"
            )
            print(f"{request:34} {figures}")


def _measure(versions: dict[str, _Version], request: str, turns: int, clients: int) -> dict[str, float]:
    """Return the responses per second of each version, over all turns."""
    responses: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for turn in range(turns):
        for name in sorted(versions, reverse=bool(turn % 2)):
            version = versions[name]
            started = time.perf_counter()
            times = uvloop.run(run_clients(version.port, *version.requests[request], clients, _TURN_SECONDS))
            seconds[name] += time.perf_counter() - started
            responses[name] += len(times)
    return {name: responses[name] / seconds[name] for name in versions}


@contextmanager
def _serving(checkout: Path, folder: Path, broker: str) -> Iterator[_Version]:
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", _PREPARE, str(folder), broker]
    prepared = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, check=True, text=True)
    place = json.loads(prepared.stdout)
    port = free_port()
    names = {"TWOVIEWS_DATA_DIR": str(folder), "TWOVIEWS_BROKER_URL": broker}
    command = [sys.executable, "-m", "api", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment | names, cwd=checkout, stderr=log)
    try:
        until_live(port)
        yield _Version(port, build_reads(port, place))
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
