"""A trainer's lines in the log: how many, and how long."""

from tests import logs
from worker.trainer.trainer_log import MAX_LINE_BYTES, MAX_LINES, TrainerLog


def test_the_lines_of_a_trainer_in_the_log_are_limited() -> None:
    with logs.captured() as records:
        trainer_log = TrainerLog()
        trainer_log.add_stderr(b"x" * 10 * MAX_LINE_BYTES)
        trainer_log.add_stderr(b"\n" + b"y\n" * (MAX_LINES + 6))
        trainer_log.close()
    assert len(records) == MAX_LINES + 1
    assert len(records[0]["message"]) == MAX_LINE_BYTES
    assert records[-1]["message"] == "7 more lines of the trainer are not logged"
