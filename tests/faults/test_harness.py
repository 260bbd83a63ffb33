"""A short run of the chaos harness; `python -m tests.faults.harness` is the long one."""

from pathlib import Path

from tests.faults import harness


def test_random_faults_lose_no_job_and_leave_no_process_or_file(database_url: str, tmp_path: Path) -> None:
    real = 1 if database_url.startswith("sqlite") else 0
    report = harness.run(tmp_path, database_url, faults=12, jobs=6, real=real, seed=12, gap=0.4)
    assert report.wrong == []
    assert report.happened == report.planned
    assert report.happened.total() == 12
