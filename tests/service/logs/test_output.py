"""Files of logs: renamed while processes write, no line is lost, cut or written twice."""

import os
import subprocess
import sys
from pathlib import Path

from tests import logs
from tests.processes import soon

ROOT = Path(__file__).parents[3]
PROCESSES, RENAMINGS = 2, 12
WRITER = """
import itertools, logging, os, sys, time
from service import logs
logs.start()
number, stop = sys.argv[1:]
for line in itertools.count():
    is_last = os.path.exists(stop)  # after the last renaming
    logging.getLogger("writer").info("x" * (line % 300), extra={"writer": number, "line": line})
    if is_last:
        break
    time.sleep(0.0002)
os.write(2, b'{"time": 0, "level": 0, "logger": 0, "message": "stderr"}\\n')
with open(f"{stop}.{number}", "w") as file:
    file.write(str(line + 1))
"""


def test_files_that_are_renamed_while_two_processes_write_have_every_line_once(tmp_path):
    log = tmp_path / "worker.log"
    command = [sys.executable, "-c", WRITER]
    environment = os.environ | {"TWOVIEWS_LOG_FILE": str(log)}
    stop = tmp_path / "stop"
    arguments = [[*command, str(number), str(stop)] for number in range(PROCESSES)]
    writers = [subprocess.Popen(words, cwd=ROOT, env=environment) for words in arguments]
    try:
        for number in range(RENAMINGS):
            soon(lambda: log.exists() and log.stat().st_size > 20_000)
            log.rename(tmp_path / f"worker.log.{number}")
    finally:
        stop.touch()
        ended = [writer.wait() for writer in writers]
    assert ended == [0] * PROCESSES
    records = [record for file in tmp_path.glob("worker.log*") for record in logs.read(file)]
    for number in range(PROCESSES):
        lines = int((tmp_path / f"stop.{number}").read_text())
        found = sorted(record["line"] for record in records if record.get("writer") == str(number))
        assert found == list(range(lines))
    assert [record["message"] for record in records].count("stderr") == PROCESSES
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
