"""Log files of the local service: rotation while a process writes, the number of files, lines as text."""

import json
import os
import sys

import pytest

from service.settings import Settings
from tests import logs
from tests.processes import soon
from twoviews.local import log_files, processes, up
from twoviews.local.log_files import Limits
from twoviews.local.processes import Child

WRITER = """
import itertools, logging, os, time
from service import logs
logs.start()
path = os.environ["TWOVIEWS_LOG_FILE"]
for line in itertools.count():
    is_last = os.path.exists(path + ".3") and line > 500
    logging.getLogger("writer").info("x" * 100, extra={"line": line, "last": is_last})
    if is_last:
        1 / 0
    time.sleep(0.0005)
"""


@pytest.mark.parametrize("files", [3, 1000])
def test_a_childs_log_is_rotated_while_it_writes(tmp_path, files):
    log = tmp_path / "api.log"
    child = Child("api", [sys.executable, "-c", WRITER], os.environ | {"TWOVIEWS_LOG_FILE": str(log)}, log)
    child.start()

    def has_ended():
        log_files.rotate(log, Limits(8_000, files))
        return not child.is_running

    soon(has_ended)
    child.kill()
    child.log_line("ended with 1")
    found = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
    assert 3 < len(found) <= files + 1
    if files == 1000:
        records = [record for path in found for record in logs.read(path)]
        written = sorted((record["line"], record["last"]) for record in records if record["logger"] == "writer")
        assert written == [(line, line == len(written) - 1) for line in range(len(written))]
        (crash,) = (record for record in records if record["level"] == "CRITICAL")
        shown = log_files.to_text(json.dumps(crash)).splitlines()
        assert shown[0].endswith("CRITICAL service.process: The process ends: ZeroDivisionError: division by zero")
        assert shown[-1] == "ZeroDivisionError: division by zero"
    assert child.read_tail().endswith("WARNING twoviews.up: api ended with 1")
    assert found[0] == log


def test_defaults_are_those_of_the_settings():
    defaults = {name: Settings.model_fields[name].default for name in ("log_bytes", "log_files")}
    assert list(defaults.values()) == [log_files.DEFAULT_BYTES, log_files.DEFAULT_FILES]
    assert Limits.of({}) == Limits()
    assert Limits.of({"TWOVIEWS_LOG_BYTES": "2048", "TWOVIEWS_LOG_FILES": "1"}) == Limits(2048, 1)


def test_the_local_service_rotates_the_files_of_all_its_processes(tmp_path):
    service = up.LocalService(up.Options(tmp_path, "127.0.0.1", 8000), 8000)
    service._log_limits = Limits(10, 1)
    (tmp_path / "logs").mkdir()
    for child in service.children.values():
        child.log.write_text("x" * 10)
    service.restart_ended()
    names = ("api", "encoder", "keeper", "valkey", "worker-data", "worker-train")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [f"{name}.log.1" for name in names]


def test_files_below_the_size_and_files_that_are_missing_stay(tmp_path):
    log = tmp_path / "api.log"
    log_files.rotate(log, Limits(10, 2))
    log.write_text("x" * 9)
    log_files.rotate(log, Limits(10, 2))
    assert list(tmp_path.iterdir()) == [log]


def test_lines_of_the_parent_are_text_in_a_log_of_text(tmp_path):
    log = tmp_path / "api.log"
    environment = {"TWOVIEWS_LOG_FILE": str(log), "TWOVIEWS_LOG_FORMAT": "text"}
    Child("api", [], environment, log).log_line("ended")
    assert log.read_text().endswith("Z WARNING twoviews.up: api ended\n")
    assert processes.log_files.to_text("no JSON {") == "no JSON {"
