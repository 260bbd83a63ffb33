"""`python -m worker --queue train`: a worker that runs the jobs of one queue, one at a time. Start one per GPU."""

import argparse

from service import logs
from service.db import revisions
from service.doorbell import QUEUES
from worker import app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run the jobs of one queue.")
    parser.add_argument("--queue", choices=QUEUES, default=QUEUES[0], help="train: runs and evaluations; data: uploads")
    queue = parser.parse_args().queue
    settings = logs.start()
    revisions.require_newest(settings.database)
    app.run(settings, queue)


if __name__ == "__main__":
    main()
