"""A short run of the nemesis on each database; `make nemesis` is the long one."""

from pathlib import Path

import pytest

from tests.faults.nemesis.run import fresh_database, run


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_faults_lose_nothing_and_double_nothing(kind: str, tmp_path: Path) -> None:
    with fresh_database(kind, tmp_path) as (url, server):
        report = run(tmp_path, url, faults=12, jobs=8, seed=14, gap=0.1, server=server)
    assert report.wrong == []
    assert sum(record.happened for record in report.faults) == 12
