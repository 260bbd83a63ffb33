"""Faults of the database: PostgreSQL killed or its connections terminated, SQLite locked by another writer."""

import random
import signal
import sqlite3
import time

import psycopg
from sqlalchemy import text

from tests.faults.nemesis.experiment import BUSY_SECONDS, Experiment
from tests.faults.nemesis.faults.base import Fault, log_of, log_since, log_size


class KillServer(Fault):
    """Kill -9 of PostgreSQL's first process; the others end with it. It is restarted at once or after a second."""

    sentence: str | None = None

    def inject(self) -> bool:
        server = self.experiment.fleet.server
        if server is None or not self.experiment.held or not self.lock("database"):
            return False
        assert server.process is not None
        self.target = f"postgres {server.process.pid}"
        server.stop(signal.SIGKILL)
        self.sentence = _refusal(server)
        time.sleep(self.rng.random())
        server.start()
        return True

    def effect(self) -> str | None:
        return self.sentence


class TerminateConnections(Fault):
    """pg_terminate_backend for every connection of the service."""

    ended = 0

    def inject(self) -> bool:
        if not self.experiment.held or not self.lock("database"):
            return False
        self.target = "connections through the proxy"
        # The proxy connects over a Unix socket, as this process does, whose connections have a name.
        statement = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND application_name <> 'nemesis' AND pid <> pg_backend_pid()"
        )
        with self.experiment.workload.database.writing() as session:
            self.ended = session.execute(statement).scalar_one()
        return self.ended > 0

    def effect(self) -> str | None:
        return f"{self.ended} connections were terminated"


class HoldLock(Fault):
    """A writer that holds SQLite's lock for longer than the others wait: they log it, and go on afterwards."""

    def __init__(self, experiment: Experiment, rng: random.Random) -> None:
        super().__init__(experiment, rng)
        self.seconds = BUSY_SECONDS + 0.5 + rng.random()
        self.connection: sqlite3.Connection | None = None

    def inject(self) -> bool:
        if not self.experiment.held or not self.lock("database"):
            return False
        path = self.experiment.workload.database.engine.url.database
        self.target = "write lock"
        self.connection = sqlite3.connect(str(path), timeout=0.5, isolation_level=None)
        self.sizes = {slot.name: log_size(log_of(self.experiment, slot)) for slot in self.experiment.slots}
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # a transaction of the service takes long
            return False
        return True

    def effect(self) -> str | None:
        for slot in self.experiment.slots:
            added = log_since(log_of(self.experiment, slot), self.sizes[slot.name])
            line = next((line for line in added.splitlines() if "database is locked" in line), None)
            if line is not None:
                return f"{slot.name} logged: {line.strip()[-160:]}"
        return None

    def is_due(self) -> bool:
        return self.elapsed() >= self.seconds

    def heal(self) -> None:
        if self.connection is not None:
            self.connection.close()


def _refusal(server) -> str | None:
    """Return the error with which the server refuses connections, None if it accepts them."""
    try:
        server.connect_and_close()
    except psycopg.OperationalError as error:
        return f"connections are refused: {str(error).splitlines()[0][-120:]}"
    return None
