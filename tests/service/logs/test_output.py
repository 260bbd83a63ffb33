"""Files of logs: renamed while processes write, no line is lost, cut or written twice."""

import os
import subprocess
import sys
from pathlib import Path

from tests import logs
from tests.processes import soon

ROOT = Path(__file__).parents[3]
LINES, PROCESSES, RENAMINGS = 1500, 2, 12
WRITER = f"""
import logging, os, sys
from service import logs
logs.start()
number, logger = int(sys.argv[1]), logging.getLogger("writer")
for line in range({LINES}):
    logger.info("x" * (line % 300), extra={{"line": number * {LINES} + line}})
os.write(2, b'{{"time": 0, "level": 0, "logger": 0, "message": "stderr", "line": -1}}\\n')
"""


def test_files_that_are_renamed_while_two_processes_write_have_every_line_once(tmp_path):
    log = tmp_path / "worker.log"
    command = [sys.executable, "-c", WRITER]
    environment = os.environ | {"TWOVIEWS_LOG_FILE": str(log)}
    writers = [subprocess.Popen([*command, str(n)], cwd=ROOT, env=environment) for n in range(PROCESSES)]
    for number in range(RENAMINGS):
        soon(lambda: log.exists() and log.stat().st_size > 20_000)
        log.rename(tmp_path / f"worker.log.{number}")
    assert [writer.wait() for writer in writers] == [0] * PROCESSES
    files = list(tmp_path.iterdir())
    assert len(files) > RENAMINGS
    found = sorted(record["line"] for file in files for record in logs.read(file))
    assert found == [*[-1] * PROCESSES, *range(LINES * PROCESSES)]
    assert logs.read(log)[-1]["message"] == "stderr"  # stderr itself follows the renaming


def test_a_log_that_cannot_be_opened_ends_the_process_with_a_sentence(tmp_path):
    environment = {"TWOVIEWS_LOG_FILE": str(tmp_path / "missing" / "log")}
    done = subprocess.run(
        [sys.executable, "-c", "from service import logs; logs.start()"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"The log {tmp_path}/missing/log cannot be opened: No such file or directory.\n"
