"""The shard feeder: claims shards of a job and hands them to the trainer, one ahead of the one that it computes.

When none is left, a job that shares another's shards ends. The shared job itself waits until all are done, takes over
those whose holder has lost its lease, and then has the trainer write the index.
"""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service.db.session import Database, is_unreachable
from service.embedding import shards
from service.leases import Claim
from ssl_core.config.embedding import ShardRange
from ssl_core.events import Event, Progress, Shard
from ssl_core.files import describe, write_atomic
from worker.trainer.event_writer import EventWriter
from worker.trainer.process import TrainerProcess

DONE_FILE = "shards.json"
_AHEAD = 2  # shards handed out and not written: the present one, and the next, whose images are decoded meanwhile
_POLL_SECONDS = 1.0  # between looks for a shard while there is none
_log = logging.getLogger(__name__)


class ShardFeeder:
    """The shards of one attempt. `feed` is called again and again while the trainer runs."""

    def __init__(self, claim: Claim, folder: Path, database: Database) -> None:
        assert claim.shards_of is not None
        self._claim, self._shared_id = claim, claim.shards_of
        self._folder = folder
        self._database = database
        self._computing = 0  # shards handed out
        self._has_ended = False
        self._due_at = 0.0
        self._progress = Progress(0, 1, 0, 0, 0.0, 0.0)

    def observe(self, event: Event) -> None:
        """Take note of an event of the trainer."""
        if isinstance(event, Shard):
            self._computing -= 1
            self._due_at = 0.0
        elif isinstance(event, Progress):
            self._progress = event

    def feed(self, process: TrainerProcess, events: EventWriter) -> None:
        """Hand out the shards that the trainer has room for, or let it end."""
        if self._has_ended or self._computing >= _AHEAD or time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + _POLL_SECONDS
        try:
            while self._computing < _AHEAD and (shard := self._claim_shard()) is not None:
                self._computing += 1
                _send(process, {"shard": shard.number, "first_row": shard.first_row, "rows": shard.rows})
            if not self._computing:
                self._end(process, events)
        except OSError as error:
            _log.warning("The list of shards cannot be written: %s", describe(error))
        except SQLAlchemyError as error:
            if not is_unreachable(error):
                raise
            _log.warning("The database is unreachable, no shard is claimed: %s", str(error).partition("\n")[0])

    def _claim_shard(self) -> ShardRange | None:
        with self._database.writing() as session:
            return shards.claim(session, self._shared_id, self._claim.job_id, self._claim.attempt)

    def _end(self, process: TrainerProcess, events: EventWriter) -> None:
        """No shard can be claimed, and the trainer computes none."""
        if self._shared_id != self._claim.job_id:
            self._has_ended = True
            process.close_stdin()
            return
        with self._database.reading() as session:
            done = shards.find_done(session, self._shared_id)
        events.add(self._progress)  # stored with that of the others
        if done is None:  # they compute the rest
            return
        write_atomic(self._folder / DONE_FILE, json.dumps(asdict(done)).encode())
        self._has_ended = True
        _send(process, {"finish": DONE_FILE})


def _send(process: TrainerProcess, line: dict[str, Any]) -> None:
    process.send(json.dumps(line).encode() + b"\n")
