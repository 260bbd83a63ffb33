"""An experiment: a fleet that runs jobs of every kind during faults, and whose ended processes are replaced."""

import array
import fcntl
import http.client
import random
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
from sqlalchemy import select

from service import keys
from service.db.models import Job, JobEvent
from service.db.statuses import HELD, TERMINAL, JobStatus
from tests.faults.fleet import Fleet, trainer_of
from tests.faults.nemesis import checker, requests
from tests.faults.nemesis.control import PAGE, ControlPage
from tests.faults.nemesis.network import Network
from tests.faults.nemesis.requests import JobRequest
from tests.faults.workload import Workload
from tests.processes import soon

ANSWER_SECONDS = 3.0
BUSY_SECONDS = 1.0  # for which a process waits for SQLite's write lock
FEW = 4  # unfinished jobs that are always submitted


@dataclass(eq=False)
class Slot:
    """A place for one process: `start` starts another after its end."""

    name: str
    start: Callable[[], subprocess.Popen]
    process: subprocess.Popen
    page: ControlPage | None = None

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(frozen=True)
class Acknowledged:
    """A job that the API has accepted; `id` is a dataset's for an upload."""

    request: JobRequest
    id: str


@dataclass(frozen=True)
class Held:
    """A job that a worker holds, as of the last look."""

    id: str
    attempt: int
    status: str
    worker: str | None
    lease_until: float | None
    is_real: bool


class Experiment:
    """Two workers, a data worker, two keepers, an API and a broker; jobs are submitted with an Idempotency-Key."""

    def __init__(
        self,
        fleet: Fleet,
        workload: Workload,
        kinds: Sequence[str],
        real: Sequence[int] = (),
        *,
        has_network: bool = True,
        has_encoder: bool = False,
    ) -> None:
        """kinds: of the jobs in order; real: the numbers of those that train a network with `ssl_core`."""
        self.fleet, self.workload = fleet, workload
        self.kinds, self._real = list(kinds), frozenset(real)
        self.acknowledged: list[Acknowledged] = []
        self.cancelled: set[str] = set()  # jobs whose cancellation was acknowledged
        self.retried: set[str] = set()  # jobs whose retry was requested
        self.unexpected: list[str] = []  # responses that no fault explains
        self.reserved_jobs = 0  # submitted during faults of the API only
        self.is_holding = False  # whether jobs wait before their last steps, for a fault
        self.locked: set[str] = set()  # names of slots and servers under a fault
        self.held: list[Held] = []
        self.unfinished: dict[str, str] = {}  # kinds by id
        self._pending: JobRequest | None = None
        self._key = self._create_key()
        self.network = Network(fleet) if has_network else None
        self.workers = [self._start(f"worker-{n}", "worker", "--queue", "train") for n in range(2)]
        self.keepers = [self._start(f"keeper-{n}", "worker.keeper") for n in range(2)]
        self.data_workers = [self._start("data-0", "worker", "--queue", "data")] if self._has_data_jobs() else []
        self.api = self._start("api", "api", *fleet.api_arguments)
        self.encoder = self._start("encoder", "worker.encoder") if has_encoder else None
        soon(fleet.api_listens)

    @property
    def slots(self) -> list[Slot]:
        encoders = [] if self.encoder is None else [self.encoder]
        return [*self.workers, *self.data_workers, *self.keepers, self.api, *encoders]

    @property
    def remaining_jobs(self) -> int:
        """The number of jobs that are not submitted yet."""
        return len(self.kinds) - len(self.acknowledged)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def look(self) -> None:
        """Read which jobs have not ended and which are held."""
        columns = (Job.id, Job.kind, Job.attempt, Job.status, Job.worker, Job.lease_until, Job.config)
        with self.workload.database.reading() as session:
            rows = session.execute(select(*columns).where(Job.status.not_in(TERMINAL))).all()
        self.unfinished = {row.id: row.kind for row in rows}
        self.held = [
            Held(row.id, row.attempt, row.status, row.worker, row.lease_until, checker.is_real(row.kind, row.config))
            for row in rows
            if row.status in HELD
        ]

    def job_of(self, slot: Slot) -> Held | None:
        """Return the job that the slot's worker holds and whose trainer runs."""
        job = next((job for job in self.held if (job.worker or "").endswith(f":{slot.pid}")), None)
        return job if job is not None and trainer_of(slot.process) is not None else None

    def release_message(self, job_id: str, attempt: int) -> str | None:
        """Return the message with which that attempt was returned to the queue, or None."""
        query = select(JobEvent).where(
            JobEvent.job_id == job_id, JobEvent.attempt == attempt, JobEvent.code == "status"
        )
        with self.workload.database.reading() as session:
            for event in session.scalars(query):
                if event.data["status"] == JobStatus.QUEUED:
                    return event.message
        return None

    def submit(self) -> None:
        """Submit the next job, with retries until it is accepted."""
        soon(self.try_to_submit)

    def try_to_submit(self) -> bool:
        """Submit the next job; return whether it was accepted. A retry sends the same request."""
        request = self._next_request()
        if not self.fleet.api_listens():  # httpcore does not close the socket of a connection that is refused
            return False
        try:
            answer = self.fleet.http.send(self._build(request))
        except httpx.TransportError:
            return False
        if answer.status_code == 202:
            self.acknowledged.append(Acknowledged(request, answer.json()["id"]))
            self._pending = None
            return True
        if answer.status_code != 503 and answer.json().get("code") != "idempotency_in_flight":
            self.unexpected.append(f"POST {request.path} was answered {answer.status_code}: {answer.text}")
        return False

    def begin_to_submit(self) -> socket.socket:
        """Send the request for the next job; return the connection once the API has read the whole request."""
        request = self._build(self._next_request())
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self.fleet.door))
        connection = http.client.HTTPConnection("api")
        connection.sock = line
        connection.request("POST", request.url.path, request.read(), dict(request.headers))
        until = time.monotonic() + 30
        while _unread_bytes(line):
            assert time.monotonic() < until, "the API did not read the request"
        return line

    def cancel(self, job_id: str) -> bool:
        """Cancel the job; return whether that was acknowledged."""
        is_done = self.steer(job_id, "cancel") == 200
        self.cancelled |= {job_id} if is_done else set()
        return is_done

    def retry(self, job_id: str) -> bool:
        """Retry the job; return whether that was acknowledged."""
        self.retried.add(job_id)
        return self.steer(job_id, "retry") == 200

    def steer(self, job_id: str, verb: str) -> int | None:
        """Send `POST /jobs/{id}/{verb}`; return the status, None without a response. 409 is of a job that has ended."""
        try:
            answer = self.fleet.http.post(f"/jobs/{job_id}/{verb}", headers=self.headers)
        except httpx.TransportError:
            return None
        if answer.status_code not in (200, 409, 503):
            self.unexpected.append(f"POST {verb} was answered {answer.status_code}: {answer.text}")
        return answer.status_code

    def encoder_answers(self) -> bool:
        """Return whether the encoder serves requests."""
        transport = httpx.HTTPTransport(uds=str(self.fleet.settings.data_dir / "encoder.sock"))
        with httpx.Client(transport=transport, trust_env=False, timeout=1) as client:
            try:
                return client.get("http://encoder/health").status_code == 200
            except httpx.TransportError:
                return False

    def describe_embedding(self) -> str:
        """Ask the API for an embedding while there is no encoder; return a sentence about the response."""
        body = {"model": self.acknowledged[0].id, "images": [""]}
        try:
            answer = self.fleet.http.post("/embed", json=body, headers=self.headers)
        except httpx.TransportError:
            return "POST /embed was not answered"
        if answer.status_code == 500:
            self.unexpected.append(f"POST /embed was answered {answer.status_code}: {answer.text}")
        return f"POST /embed was answered {answer.status_code}"

    def add_job(self, kind: str) -> None:
        """Submit a job of that kind next."""
        if self._pending is None:
            self.kinds.insert(len(self.acknowledged), kind)

    def replace(self, slot: Slot) -> None:
        """Start another process in place of an ended one."""
        slot.process.wait(30)
        slot.process = slot.start()

    def keep_busy(self, share: float) -> None:
        """Submit a job if few have not ended and more are due at that share of the faults.

        A fault needs jobs: more are added when the due ones have ended, and the running ones wait before their last
        steps while they are few or a fault needs it.
        """
        trained = [kind for kind in self.unfinished.values() if kind not in checker.DATA_KINDS]
        if (share < 1 and len(trained) <= 2) or self.is_holding:
            self.fleet.hold.touch()
        else:
            self.fleet.hold.unlink(missing_ok=True)
        if "api" in self.locked:
            return
        due = len(self.kinds)
        if share < 1:
            due = min(due - self.reserved_jobs, int(share * due) + FEW)
        is_due = len(self.unfinished) < FEW and len(self.acknowledged) < due
        if share < 1 and len(trained) < FEW - 1 and not is_due and self._pending is None:
            self.add_job("pretrain")
            is_due = True
        if is_due or self._pending is not None:
            self.try_to_submit()

    def stop(self) -> list[str]:
        """Terminate all processes; return the command lines of those that still run."""
        for slot in self.slots:
            slot.process.terminate()
        for slot in self.slots:
            slot.process.wait(60)
        self.close()
        return [command for command in self.fleet.find_leftovers() if "valkey" not in command]

    def close(self) -> None:
        """End the proxy."""
        if self.network is not None:
            self.network.proxy.close()

    def _next_request(self) -> JobRequest:
        if self._pending is None:
            if self.remaining_jobs == 0:
                self.kinds.append("pretrain")
            number = len(self.acknowledged)
            kind, dataset = self.kinds[number], self.workload.dataset
            is_real = number in self._real
            self._pending = requests.build(number, kind, dataset, self._find_parent, is_real=is_real)
        return self._pending

    def _find_parent(self, kinds: tuple[str, ...]) -> str | None:
        """Return a job of one of the kinds that makes or has made a model: the last but one, if there are two."""
        found = [job.id for job in self.acknowledged if job.request.kind in kinds and job.id not in self.cancelled]
        found = [job_id for job_id in found[-4:] if self.workload.job(job_id).status != JobStatus.FAILED]
        return found[-2:][0] if found else None

    def _build(self, request: JobRequest) -> httpx.Request:
        arguments = dict(request.arguments)
        headers = self.headers | {"Idempotency-Key": request.key} | arguments.pop("headers", {})
        return self.fleet.http.build_request("POST", request.path, headers=headers, timeout=ANSWER_SECONDS, **arguments)

    def _has_data_jobs(self) -> bool:
        return bool({"ingest", requests.RARE} & set(self.kinds))

    def _create_key(self) -> str:
        with self.workload.database.writing() as session:
            return keys.create(session, self.workload.tenant, "nemesis")[1]

    def _start(self, name: str, *arguments: str) -> Slot:
        """Start a module behind links of its own, with a control page."""
        environment: Mapping[str, str] = {}
        command, page = arguments, None
        if self.network is not None:
            page = ControlPage(self.fleet.folder / f"{name}.page")
            environment = self.network.environment(name) | {PAGE: str(page.path)}
            environment |= {"TWOVIEWS_TEST_BUSY_SECONDS": str(BUSY_SECONDS)}
            command = ("tests.faults.nemesis.launch", *arguments)

        def start() -> subprocess.Popen:
            return self.fleet.module(name, *command, environment=environment)

        return Slot(name, start, start(), page)


def pick(rng: random.Random, slots: Sequence[Slot]) -> Slot | None:
    """Return one of the slots, or None when there is none."""
    return rng.choice(slots) if slots else None


def _unread_bytes(line: socket.socket) -> int:
    """Return the bytes on a Unix socket that the peer has not read, with the kernel's overhead."""
    count = array.array("i", [0])
    fcntl.ioctl(line, termios.TIOCOUTQ, count)
    return count[0]
