"""Every kind of fault by name: its class, its weight in a plan, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from errno import EIO, ENOSPC
from functools import partial

from tests.faults.nemesis.faults import broker, clock, database, disk, freeze, kill, network, steer, stop
from tests.faults.nemesis.faults.base import Fault


@dataclass(frozen=True)
class Kind:
    """A kind of fault. needs: "postgresql", "sqlite" or "encoder"; empty: nothing."""

    build: Callable[..., Fault]
    weight: int
    needs: str = ""


KINDS: dict[str, Kind] = {
    "kill: trainer": Kind(kill.KillTrainer, 12),
    "kill: celery child": Kind(kill.KillChild, 8),
    "kill: worker": Kind(kill.KillWorker, 2),
    "kill: data worker": Kind(kill.KillDataWorker, 1),
    "kill: upload reader": Kind(kill.KillReader, 2),
    "kill: keeper": Kind(kill.KillKeeper, 2),
    "kill: api in a POST": Kind(kill.KillApi, 2),
    "kill: encoder": Kind(kill.KillEncoder, 1, "encoder"),
    "stop: worker": Kind(stop.StopWorker, 1),
    "stop: celery child": Kind(stop.StopChild, 3),
    "stop: keeper": Kind(stop.StopKeeper, 1),
    "stop: api": Kind(stop.StopApi, 1),
    "stop: cancelled job": Kind(stop.CancelJob, 4),
    "stop: cancelled job, retried": Kind(steer.RetryJob, 3),
    "stop: paused job": Kind(steer.PauseJob, 4),
    "broker: killed, data kept": Kind(partial(broker.KillBroker, keeps_data=True), 3),
    "broker: killed, data lost": Kind(partial(broker.KillBroker, keeps_data=False), 3),
    "broker: silent": Kind(broker.SilenceBroker, 4),
    "database: server killed": Kind(database.KillServer, 4, "postgresql"),
    "database: connections terminated": Kind(database.TerminateConnections, 5, "postgresql"),
    "database: locked": Kind(database.HoldLock, 6, "sqlite"),
    "freeze: celery child": Kind(partial(freeze.FreezeWorker, with_trainer=False), 5),
    "freeze: worker and trainer": Kind(partial(freeze.FreezeWorker, with_trainer=True), 5),
    "network: broker connections reset": Kind(partial(network.ResetLink, server="broker"), 5),
    "network: broker unreachable": Kind(network.RefuseBroker, 4),
    "network: database connections reset": Kind(partial(network.ResetLink, server="database"), 6, "postgresql"),
    "network: database silent past the lease": Kind(network.SilenceDatabase, 4, "postgresql"),
    "network: database silent in a POST": Kind(network.SilenceDatabaseOfApi, 3, "postgresql"),
    "disk: trainer, ENOSPC": Kind(partial(disk.FailTrainerWrites, number=ENOSPC), 6),
    "disk: trainer, EIO": Kind(partial(disk.FailTrainerWrites, number=EIO), 5),
    "disk: worker, ENOSPC": Kind(partial(disk.FailWorkerWrites, number=ENOSPC), 4),
    "disk: worker, EIO": Kind(partial(disk.FailWorkerWrites, number=EIO), 3),
    "clock: worker one hour ahead": Kind(partial(clock.ShiftClock, seconds=3600.0), 4),
    "clock: worker one hour behind": Kind(partial(clock.ShiftClock, seconds=-3600.0), 4),
}
