"""A fleet: broker, keepers, workers and API as child processes of a test, which end with it.

Each process and its children have the fleet's name in their environment; `find_leftovers` searches for that name.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from service.db import ids
from service.doorbell import Doorbell
from service.settings import Settings
from ssl_core.distributed import parent_death
from tests import servers
from tests.processes import alive, soon
from twoviews.local import addresses

MARK = "TWOVIEWS_TEST_FLEET"
ROOT = Path(__file__).parent.parent.parent
SHORT = {
    "lease_seconds": "3",
    "heartbeat_seconds": "0.5",
    "grace_seconds": "10",
    "flush_seconds": "0.1",
    "ring_seconds": "0.3",
    "reap_seconds": "0.5",
    "retry_seconds": "0",
    "worker_seen_seconds": "6",
    "sweep_seconds": "2",
    "leftover_seconds": "5",
}


class Broker:
    """A Valkey server with an append-only file, which restarts at the same address."""

    def __init__(self, fleet: "Fleet", folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        self.url = servers.valkey_url(folder)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = self._fleet.spawn("broker", servers.valkey_command(self._folder))
        soon(self.answers, 30)

    def answers(self) -> bool:
        try:
            with self.client(0.5) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def kill(self, data: str = "kept") -> None:
        assert self.process is not None
        if data == "kept":  # with a slow disk the server holds back writes to its file for up to two seconds
            soon(self._has_written_all)
        kill(self.process.pid)
        self.process.wait()
        if data == "lost":
            for file in self._folder.rglob("*"):
                if file.is_file():
                    file.unlink()

    def _has_written_all(self) -> bool:
        with self.client() as client:
            return not client.info("persistence").get("aof_buffer_length", 0)

    def client(self, timeout_seconds: float | None = None) -> redis.Redis:
        return servers.broker_client(self.url, timeout_seconds)

    @property
    def socket(self) -> Path:
        """The server's Unix socket."""
        return Path(self.url.removeprefix("redis+socket://"))

    def queue_length(self, queue: str = "train") -> int:
        """Return the number of rings in the queue."""
        with self.client() as client:
            return int(client.llen(queue))

    def count_listeners(self) -> int:
        """Return the number of workers that wait for a ring."""
        with self.client() as client:
            return sum(line["cmd"] == "brpop" for line in client.client_list())


class Fleet:
    """Processes of the service with short intervals; `settings` are theirs, `http` is a client of the API.

    While the file `hold` exists, no toy trainer makes its last step.
    """

    def __init__(self, folder: Path, database_url: str, server: servers.PostgreSQL | None = None, **extra: str) -> None:
        """server: that of the database, for tests that kill it."""
        self.server = server
        self.name = ids.new("ten")
        self.folder = folder
        self.hold = folder / "hold"
        self.door = addresses.socket_path(folder / "api.sock")
        transport = httpx.HTTPTransport(uds=str(self.door), verify=False)
        self.http = httpx.Client(transport=transport, base_url="http://api", timeout=30, trust_env=False)
        self.broker = Broker(self, folder / "broker")
        self._processes: list[subprocess.Popen] = []
        (folder / "data").mkdir(exist_ok=True)
        trainer = f'["{sys.executable}", "{ROOT / "tests/faults/trainer.py"}"]'
        values = SHORT | {
            "data_dir": str(folder / "data"),
            "database_url": database_url,
            "broker_url": self.broker.url,
            "trainer_command": trainer,
        }
        values |= extra
        self.environment = {f"TWOVIEWS_{name.upper()}": value for name, value in values.items()}
        self.environment |= {"TWOVIEWS_TEST_HOLD": str(self.hold), "TWOVIEWS_TEST_STEP_SECONDS": "0.02"}
        self.environment |= {MARK: self.name, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.settings = Settings(**{name: value for name, value in values.items() if name != "trainer_command"})  # type: ignore[arg-type]

    def keeper(self) -> subprocess.Popen:
        return self.module("keeper", "worker.keeper")

    def worker(self, queue: str = "train") -> subprocess.Popen:
        return self.module(f"worker-{queue}", "worker", "--queue", queue)

    def module(self, name: str, *arguments: str, environment: Mapping[str, str] = {}) -> subprocess.Popen:
        """Start a Python module; its log is `<name>.log`."""
        return self.spawn(name, [sys.executable, "-m", *arguments], environment)

    def ring(self, queue: str = "train") -> None:
        """Ring once, as the API does."""
        bell = Doorbell(self.broker.url)
        bell.ring(queue)
        bell.close()

    def api(self) -> subprocess.Popen:
        """Start the API; return when it accepts connections."""
        api = self.module("api", "api", *self.api_arguments)
        soon(self.api_listens)
        return api

    @property
    def api_arguments(self) -> list[str]:
        return ["--uds", str(self.door), "--log-level", "warning"]

    def spawn(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str] = {},
        **options: Any,
    ) -> subprocess.Popen:
        """Start the command, which ends with this process; its output goes to `<name>.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment, **environment},
                start_new_session=True,
                preexec_fn=partial(parent_death.die_with_parent, os.getpid()),
                **{"stdout": log, "stderr": log, **options},
            )
        self._processes.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(f"--- {file.name}\n{file.read_text()}" for file in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        """Kill the fleet's processes; their children must end with them."""
        self.http.close()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
        soon(lambda: not self.find_leftovers(), 10)

    def find_leftovers(self) -> list[str]:
        """Return the command lines of living processes of the fleet other than those started here."""
        own = {process.pid for process in self._processes if process.poll() is None}
        return [" ".join(process.cmdline()) for process in self._marked() if process.pid not in own]

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def api_listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            return line.connect_ex(str(self.door)) == 0


def child_of(worker: subprocess.Popen) -> psutil.Process | None:
    """Return the worker's Celery child."""
    return next(iter(_children(worker.pid)), None)


def trainer_of(worker: subprocess.Popen) -> psutil.Process | None:
    """Return the trainer of the worker's child, if there is one and it has called exec."""
    child = child_of(worker)
    trainers = _children(child.pid) if child is not None else []
    return next((trainer for trainer in trainers if "--events" in _command(trainer)), None)


def reader_of(worker: subprocess.Popen) -> psutil.Process | None:
    """Return the process that reads an upload for the data worker's child, if there is one and it has called exec."""
    child = child_of(worker)
    readers = _children(child.pid) if child is not None else []
    return next((reader for reader in readers if any("worker.uploads" in word for word in _command(reader))), None)


def kill(pid: int) -> None:
    """Kill -9 a living process and wait for its end."""
    assert alive(pid), "the process had ended"
    os.kill(pid, signal.SIGKILL)
    soon(lambda: not alive(pid), 10)


def _children(pid: int) -> list[psutil.Process]:
    try:
        found = [psutil.Process(child) for child in _child_ids(pid)]
        return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def _child_ids(pid: int) -> list[int]:
    """Return the ids of the process's children; Linux lists them, elsewhere all processes are searched."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return [child.pid for child in psutil.Process(pid).children()]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def python_output(*arguments: str) -> str:
    """Run Python to its end in a child process and return its stdout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
