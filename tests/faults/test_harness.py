"""A short run of the harness; `python -m tests.faults.harness` is the long one."""

from pathlib import Path

from tests.faults import harness


def test_random_faults_lose_nothing_and_leave_nothing_behind(database_url: str, tmp_path: Path) -> None:
    report = harness.run(tmp_path, database_url, faults=12, jobs=6, real=1, seed=12)
    assert report.wrong == []
    assert report.happened == report.planned
    assert report.happened.total() == 12
