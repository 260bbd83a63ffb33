"""Faults of the broker: killed, with or without its data, and silent."""

import random
import signal

from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.faults.base import Fault, send_signal

SILENT_SECONDS = 3.5  # longer than the timeout of a client


class _OfBroker(Fault):
    def lock_broker(self) -> bool:
        self.target = "broker"
        self.broker = self.experiment.fleet.broker
        return bool(self.experiment.unfinished) and self.lock("broker")

    def is_healed(self) -> bool:
        return self.broker.answers()


class KillBroker(_OfBroker):
    def __init__(self, experiment: Experiment, rng: random.Random, *, keeps_data: bool) -> None:
        super().__init__(experiment, rng)
        self.data = "kept" if keeps_data else "lost"
        self.down_seconds = rng.random() * 0.5

    def inject(self) -> bool:
        if not self.lock_broker():
            return False
        self.broker.kill(self.data)
        return True

    def effect(self) -> str | None:
        return None if self.broker.answers() else f"the broker refuses connections, its data is {self.data}"

    def is_due(self) -> bool:
        return self.elapsed() >= self.down_seconds

    def heal(self) -> None:
        self.broker.start()


class SilenceBroker(_OfBroker):
    """The broker's process is stopped: connections are accepted and nothing is answered."""

    def inject(self) -> bool:
        if not self.lock_broker() or self.broker.process is None:
            return False
        send_signal(signal.SIGSTOP, [self.broker.process.pid])
        return True

    def effect(self) -> str | None:
        return None if self.broker.answers() else "a PING was not answered within 0.5 s"

    def is_due(self) -> bool:
        return self.elapsed() >= SILENT_SECONDS

    def heal(self) -> None:
        assert self.broker.process is not None
        send_signal(signal.SIGCONT, [self.broker.process.pid])
