"""A cut network: connections that are reset, a server that cannot be reached, and one that stays silent."""

import random

from tests.faults.fleet import trainer_of
from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.faults.base import Fault, LostLease
from tests.faults.nemesis.network import Server
from tests.processes import alive


class ResetLink(Fault):
    """RST of every connection of one process to a server."""

    before = 0

    def __init__(self, experiment: Experiment, rng: random.Random, *, server: Server) -> None:
        super().__init__(experiment, rng)
        self.server = server

    def inject(self) -> bool:
        network = self.experiment.network
        slot = self.lock_one([*self.experiment.workers, *self.experiment.keepers, self.experiment.api])
        if network is None or slot is None or not (counts := network.counts(slot.name, self.server)).open:
            return False
        self.before, self.target = counts.reset, f"{slot.name}, {self.server}"
        self.after = network.set_mode(slot.name, self.server, "pass", reset=True).reset
        return True

    def effect(self) -> str | None:
        return f"{self.after - self.before} connections were reset" if self.after > self.before else None


class RefuseBroker(Fault):
    """The broker cannot be reached by one keeper: its connection is reset, and new ones are too.

    A worker would notice it only once it has run all queued jobs.
    """

    seconds = 1.0
    effect_seconds = 30.0

    def inject(self) -> bool:
        slot = self.lock_one(self.experiment.keepers)
        if slot is None or self.experiment.network is None or "broker" in self.experiment.locked:
            return False
        self.slot, counts = slot.name, self.experiment.network.counts(slot.name, "broker")
        if not counts.open:
            return False
        self.before = counts.refused
        self.experiment.network.set_mode(self.slot, "broker", "refuse", reset=True)
        return True

    def effect(self) -> str | None:
        refused = self.experiment.network.counts(self.slot, "broker").refused - self.before
        return f"{refused} connections were refused" if refused else None

    def is_due(self) -> bool:
        return self.elapsed() >= self.seconds

    def heal(self) -> None:
        self.experiment.network.set_mode(self.slot, "broker", "pass")

    def is_healed(self) -> bool:
        """Whether the keeper has connected again."""
        return self.experiment.network.counts(self.slot, "broker").open > 0


class SilenceDatabase(LostLease):
    """A worker's statements get no answer until its lease has expired and another worker may have its job."""

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None or self.experiment.network is None:
            return False
        slot, self.job = found
        self.slot, self.trainer = slot.name, trainer_of(slot.process)
        if self.trainer is None:
            return False
        self.before = self.experiment.network.counts(self.slot, "database").swallowed
        self.experiment.network.set_mode(self.slot, "database", "silent")
        return True

    def effect(self) -> str | None:
        swallowed, loss = self.experiment.network.counts(self.slot, "database").swallowed - self.before, self.loss()
        return f"{swallowed} bytes were swallowed, and {loss}" if swallowed and loss else None

    def heal(self) -> None:
        self.experiment.network.set_mode(self.slot, "database", "pass", reset=True)

    def is_healed(self) -> bool:
        """Whether the trainer of the lost attempt has been killed."""
        return not alive(self.trainer.pid)


class SilenceDatabaseOfApi(Fault):
    """The API gets no answer to the statements of a POST; the client gives up and sends the request again."""

    def inject(self) -> bool:
        experiment = self.experiment
        if experiment.network is None or "database" in experiment.locked or not self.lock("api"):
            return False
        self.target = "api, database"
        self.before = experiment.network.counts("api", "database").swallowed
        experiment.network.set_mode("api", "database", "silent")
        was_accepted = experiment.try_to_submit()
        self.swallowed = experiment.network.counts("api", "database").swallowed - self.before
        experiment.network.set_mode("api", "database", "pass", reset=True)
        return not was_accepted

    def effect(self) -> str | None:
        return f"a POST got no answer, {self.swallowed} bytes were swallowed" if self.swallowed else None
