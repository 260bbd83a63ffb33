"""`python -m tests.faults.nemesis.launch MODULE …`: runs a module of the service under a control page.

TWOVIEWS_TEST_BUSY_SECONDS replaces the time for which a process waits for SQLite's write lock.
"""

import os
import runpy
import sys

from tests.faults.nemesis import control


def main() -> None:
    control.install("worker")
    if seconds := os.environ.get("TWOVIEWS_TEST_BUSY_SECONDS"):
        from service.db import session

        session.BUSY_SECONDS = float(seconds)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
