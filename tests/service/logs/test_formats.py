"""Formats of logs: fields of a record, exceptions, ids of the context, and secrets."""

import logging
import re
import subprocess
import sys
import threading
from contextvars import copy_context
from pathlib import Path

import pytest

from service.logs import context, redaction
from service.logs.formats import TextLines
from service.settings import Settings
from tests import logs

log = logging.getLogger("service.test")
KEY = "tv_" + "aB3-_" * 8


def text(message, *arguments, **named):
    record = log.makeRecord(log.name, logging.WARNING, "file", 1, message, arguments, None, **named)
    return TextLines(redaction.build(Settings())).format(record)


def test_a_record_has_its_time_in_utc_level_logger_message_and_the_ids_of_its_context():
    with logs.captured() as records, context.bound(job="job_1", attempt=2):
        log.warning("%d images", 3, extra={"owner": "ten_1"})
    (record,) = records
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {
        "level": "WARNING",
        "logger": "service.test",
        "message": "3 images",
        "owner": "ten_1",
        "job": "job_1",
        "attempt": 2,
    }


def test_an_exception_is_a_field_of_one_line():
    with logs.captured() as records:
        try:
            raise ValueError("bad\nvalue")
        except ValueError:
            log.exception("It failed")
    assert records[0]["message"] == "It failed"
    assert records[0]["traceback"].startswith("Traceback (most recent call last):\n")
    assert records[0]["traceback"].endswith("ValueError: bad\nvalue")


def test_ids_hold_within_their_block_and_in_threads_that_run_with_its_context():
    with logs.captured() as records:
        with context.bound(request="req_1"):
            ids = copy_context()
            thread = threading.Thread(target=ids.run, args=(context.add, "owner", "ten_1"))
            thread.start()
            thread.join()
            log.info("inside")
        log.info("outside")
    assert [(record.get("request"), record.get("owner")) for record in records] == [("req_1", "ten_1"), (None, None)]


def test_a_message_in_a_text_log_cannot_forge_a_line_of_its_own():
    line = text("GET %s", "/a\n2026-01-01 ERROR\x1b[2J")
    assert line.count("\n") == 0
    assert line.endswith(r"WARNING service.test: GET /a\n2026-01-01 ERROR\x1b[2J")
    with context.bound(request="req_1"):
        assert text("x").endswith("service.test: x [request=req_1]")


@pytest.mark.parametrize(
    "written",
    [
        f"Authorization: Bearer {KEY}",
        "authorization: bearer abcdef.ghijkl",
        f'{{"key": "{KEY}"}}',
        "redis://:hunter22@broker:6379/0 does not answer",
        "postgresql+psycopg://me:p%40ss%22word@db/twoviews",
        'password is p@ss"word',
        "token swordfish-1",
    ],
)
def test_no_line_has_a_key_a_token_or_a_password(written):
    settings = Settings(
        database_url="postgresql+psycopg://me:p%40ss%22word@db/twoviews",
        broker_url="redis://:hunter22@broker:6379/0",
        encoder_token="swordfish-1",
    )
    secrets = (KEY, "abcdef", "hunter22", "p%40ss", 'p@ss"word', "swordfish")
    assert [secret for secret in secrets if secret in written]
    with logs.captured(settings) as records:
        log.error("%s", written, extra={"detail": written})
        try:
            raise ConnectionError(written)
        except ConnectionError:
            log.exception("x")
    lines = [str(list(record.values())) for record in records]
    lines += [value for record in records for value in record.values()]
    lines.append(redaction.build(settings)(written))
    assert [(line, secret) for line in lines for secret in secrets if secret in line] == []
    assert all("[secret]" in line for line in (records[0]["message"], records[1]["traceback"], lines[-1]))


def test_an_unhandled_exception_of_a_process_or_a_thread_is_one_record(tmp_path):
    program = (
        "import threading, warnings; from service import logs; logs.start(); warnings.warn('careful');"
        "thread = threading.Thread(target=lambda: 1 / 0, name='spare'); thread.start(); thread.join();"
        "raise ValueError('gone')"
    )
    environment = {"TWOVIEWS_LOG_FILE": str(tmp_path / "log"), "TWOVIEWS_LEASE_SECOND": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[3], capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    unknown, warned, thread, process = logs.read(tmp_path / "log")
    assert "did you mean TWOVIEWS_LEASE_SECONDS?" in unknown["message"]
    assert "careful" in warned["message"]
    assert (thread["level"], thread["message"]) == (
        "ERROR",
        "The thread spare ends: ZeroDivisionError: division by zero",
    )
    assert (process["level"], process["message"]) == ("CRITICAL", "The process ends: ValueError: gone")
    assert process["traceback"].endswith("ValueError: gone")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
