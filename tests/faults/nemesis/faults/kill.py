"""Kill -9 of a process: trainer, worker, its child, keeper, API, encoder, and those that read uploads."""

import socket
import time

import psutil

from tests.faults.fleet import child_of, kill, reader_of, trainer_of
from tests.faults.nemesis.experiment import Slot
from tests.faults.nemesis.faults.base import EndedAttempt, Fault, kill_living
from tests.processes import alive


class KillTrainer(EndedAttempt):
    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None:
            return False
        slot, self.job = found
        trainer = trainer_of(slot.process)
        return trainer is not None and kill_living(trainer.pid)


class KillChild(EndedAttempt):
    """The worker's Celery child; the kernel kills its trainer, and Celery starts another child."""

    trainer: psutil.Process | None

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None:
            return False
        self.slot, self.job = found
        self.trainer, child = trainer_of(self.slot.process), child_of(self.slot.process)
        return self.trainer is not None and child is not None and kill_living(child.pid)

    def is_healed(self) -> bool:
        return not alive(self.trainer.pid) and child_of(self.slot.process) is not None


class KillWorker(EndedAttempt):
    slot: Slot

    def inject(self) -> bool:
        found = self.lock_busy_worker()
        if found is None:
            return False
        self.slot, self.job = found
        self.trainer = trainer_of(self.slot.process)
        if self.trainer is None or not kill_living(self.slot.pid):
            return False
        self.experiment.replace(self.slot)
        return True

    def is_healed(self) -> bool:
        return not alive(self.trainer.pid) and child_of(self.slot.process) is not None


class _OfUpload(EndedAttempt):
    """A fault while an upload is read; it uploads one if none is."""

    slot: Slot

    def find_upload(self) -> psutil.Process | None:
        """Lock the data worker and return its reader, if it has one."""
        slots = self.experiment.data_workers
        slot = self.lock_one(slots)
        if slot is None:
            return None
        self.slot = slot
        reader = reader_of(slot.process)
        job = next((job for job in self.experiment.held if (job.worker or "").endswith(f":{slot.pid}")), None)
        if reader is None or job is None:
            if "ingest" not in self.experiment.unfinished.values():
                self.experiment.add_job("ingest")
                self.experiment.try_to_submit()
            return None
        self.job, self.target = job, f"{slot.name}, attempt {job.attempt} at {job.id}"
        return reader


class KillReader(_OfUpload):
    def inject(self) -> bool:
        reader = self.find_upload()
        return reader is not None and kill_living(reader.pid)


class KillDataWorker(_OfUpload):
    def inject(self) -> bool:
        reader = self.find_upload()
        if reader is None or not kill_living(self.slot.pid):
            return False
        self.reader = reader
        self.experiment.replace(self.slot)
        return True

    def is_healed(self) -> bool:
        return not alive(self.reader.pid)


class _Kill(Fault):
    """A fault whose effect is the end of a process; another takes its place."""

    killed = 0

    def effect(self) -> str | None:
        return None if alive(self.killed) else f"process {self.killed} has ended"


class KillKeeper(_Kill):
    def inject(self) -> bool:
        keeper = self.lock_one(self.experiment.keepers) if self.experiment.unfinished else None
        if keeper is None:
            return False
        self.killed = keeper.pid
        if not kill_living(keeper.pid):
            return False
        self.experiment.replace(keeper)
        return True


class KillApi(_Kill):
    """Killed after it has read a request for a job and before its response; the client retries."""

    answer_seconds = 0.02  # estimated time between the request and the response; of all faults of the kind

    def inject(self) -> bool:
        api = self.experiment.api
        if not self.lock(api.name) or not self.experiment.fleet.api_listens():
            return False
        delay = self.rng.random() * KillApi.answer_seconds
        with self.experiment.begin_to_submit() as request:
            time.sleep(delay)
            self.killed, self.target = api.pid, api.name
            kill(api.pid)
            answered = _has_response(request)
        # Kills fall before and after the commit.
        KillApi.answer_seconds = delay if answered else KillApi.answer_seconds * 1.2
        if answered:  # no fault: the request was processed whole
            self.heal()
        return not answered

    def heal(self) -> None:
        """The next request of the client is the same one."""
        self.experiment.replace(self.experiment.api)

    def is_healed(self) -> bool:
        return self.experiment.fleet.api_listens()


class KillEncoder(_Kill):
    heal_seconds = 180.0  # it loads torch

    def inject(self) -> bool:
        encoder = self.experiment.encoder
        if encoder is None or not self.lock(encoder.name) or not self.experiment.encoder_answers():
            return False
        self.killed, self.target = encoder.pid, encoder.name
        return kill_living(encoder.pid)

    def effect(self) -> str | None:
        if self.experiment.encoder_answers():
            return None
        return f"process {self.killed} has ended, and {self.experiment.describe_embedding()}"

    def heal(self) -> None:
        assert self.experiment.encoder is not None
        self.experiment.replace(self.experiment.encoder)

    def is_healed(self) -> bool:
        return self.experiment.encoder_answers()


def _has_response(request: socket.socket) -> bool:
    """Return whether any byte of a response was received."""
    try:
        return bool(request.recv(1))
    except ConnectionResetError:
        return False
