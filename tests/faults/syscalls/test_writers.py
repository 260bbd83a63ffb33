"""Every writer but the slow ones, with faults drawn for this run at its system calls.

`make syscalls` runs every fault at every call, of the slow writers too.
"""

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.syscalls.writers import WRITERS

ROOT = Path(__file__).parents[3]
CASES = 2  # of each writer
NAMES = [name for name, writer in WRITERS.items() if not writer.is_slow]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> dict[str, dict[str, Any]]:
    """The report of each writer, from one process that imports the product once and forks for each case."""
    asked = pytestconfig.getoption("--seed")
    seed = secrets.randbelow(10**6) if asked is None else asked
    command = [sys.executable, "-m", "tests.faults.syscalls", "--json", "--cases", str(CASES), "--seed", str(seed)]
    folder = tmp_path_factory.mktemp("syscalls")
    done = subprocess.run([*command, "--folder", folder, *NAMES], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1), done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(NAMES), done.stderr
    return {report["writer"]: report | {"seed": seed} for report in reports}


@pytest.mark.parametrize("name", NAMES)
def test_after_a_fault_at_a_system_call_all_is_whole_or_absent(found, name):
    report = found[name]
    assert report["fell"] == [], f"--seed {report['seed']}"
    assert report["cases"] >= CASES
    assert sum(report["states"].values()) == report["cases"]


def test_every_file_that_writes_has_a_writer():
    """The files of the product that create, rename or sync files by themselves, less those named here."""
    exempt = {
        "ssl_core/files.py": "its functions are those by which the others write",
        "ssl_core/data/image_spool.py": "its files have no name; the writer `dataset` fills them",
        "ssl_core/checksums/blocks.py": "the writer `dataset` writes the digests",
        "ssl_core/embedding/embed_dataset.py": "by write_artifact",
        "ssl_core/evaluation/projection.py": "by write_artifact",
        "worker/uploads/shelf.py": "its files have no name, and are read before the process ends",
        "worker/trainer/shard_feeder.py": "by write_atomic",
        "worker/keeper.py": "the heartbeat, which only the time of its last writing matters of",
        "worker/encoder/socket.py": "a socket",
        "service/monitoring/last_runs.py": "by write_atomic",
        "service/verify/record.py": "by write_atomic",
        "service/backup/copying.py": "tests/service/test_killed_backup.py kills it at drawn calls",
        "service/backup/manifest.py": "by write_atomic",
        "service/backup/restore.py": "tests/service/test_killed_backup.py kills it at drawn calls",
        "twoviews/cli/commands/datasets.py": "thumbnails, which another call draws again",
        "twoviews/upload.py": "a tar in the system's temporary folder",
        "twoviews/local/processes.py": "logs",
        "twoviews/local/up.py": "a lock",
        "twoviews/local/addresses.py": "folders of sockets",
        "twoviews/local/valkey.py": "the configuration of a broker, given as options",
    }
    signs = (
        "write_atomic(",
        "write_stream(",
        "write_artifact(",
        "make_durable(",
        "os.replace(",
        ".write_text(",
        ".write_bytes(",
    )
    signs += ('open("wb")', 'open("xb")', 'open("w")', 'open("ab")', "TemporaryFile(", "TemporaryDirectory(", "fsync(")
    rooms = ("ssl_core", "service", "api", "worker", "twoviews")
    files = {str(path.relative_to(ROOT)): path for room in rooms for path in (ROOT / room).rglob("*.py")}
    writing = {name for name, path in files.items() if any(sign in path.read_text() for sign in signs)}
    assert writing - exempt.keys() <= {writer.source for writer in WRITERS.values()}
