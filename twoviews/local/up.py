"""The embedded service: every process of it on this machine, as children of one."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.markup import escape
from rich.panel import Panel

from twoviews import terminal
from twoviews.credentials import FILE_NAME
from twoviews.errors import TwoviewsError
from twoviews.local import addresses, valkey
from twoviews.local.processes import Child, stop

START_SECONDS = 120.0
GRACE_SECONDS = 10.0  # beyond what a trainer may take to write its checkpoint
EARLY_DEATHS = 3  # so many before the service is ready, and it will not become ready


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` was asked for; port 0 means any that is free."""

    data_dir: Path
    host: str
    port: int

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"


def serve(plan: Plan, *, json: bool = False) -> int:
    """Run the service until SIGINT, SIGTERM or SIGHUP; return the exit code. Raises TwoviewsError when it cannot."""
    signals = Signals()
    try:
        plan.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TwoviewsError(f"{plan.data_dir} cannot hold the data: {error.strerror}.") from error
    with _sole_owner(plan.data_dir):
        house = House(plan, addresses.free_port(plan.host, plan.port))
        try:
            with terminal.waiting("Starting the service", quiet=json):
                house.start(signals)
            _announce(house, as_json=json)
            while not signals.asked:
                house.tend()
                time.sleep(0.2)
        except Interrupted:
            pass
        finally:
            with terminal.waiting("Stopping; a running job writes its checkpoint first", quiet=json):
                house.stop(signals)
    return 0


class Interrupted(Exception):
    """A signal asked us to stop before the service was ready."""


class Signals:
    """How often we were asked to stop; the second time means at once."""

    def __init__(self) -> None:
        self.asked = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)

    def _hear(self, *_: object) -> None:
        self.asked += 1

    def check(self) -> None:
        if self.asked:
            raise Interrupted

    def hurry(self) -> bool:
        return self.asked > 1


class House:
    """The children of the embedded service, in the order in which they start."""

    def __init__(self, plan: Plan, port: int) -> None:
        self.plan = plan
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.host, plan.host)
        self.url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
        self._broker_socket = addresses.socket_path(plan.data_dir / "valkey" / "valkey.sock")
        self._encoder = addresses.encoder(plan.data_dir)
        environment = dict(os.environ) | self._settings() | self._encoder
        python = [sys.executable, "-m"]
        commands = {
            "valkey": valkey.command(plan.data_dir / "valkey", self._broker_socket),
            "api": [*python, "api", "--host", plan.host, "--port", str(port)],
            "keeper": [*python, "worker.keeper"],
            "worker-data": [*python, "worker", "--queue", "data"],
            "worker-train": [*python, "worker", "--queue", "train"],
            "encoder": [*python, "worker.encoder"],
        }
        self._environment = environment
        self.children = {
            name: Child(name, command, environment, plan.logs / f"{name}.log") for name, command in commands.items()
        }

    def start(self, signals: Signals) -> None:
        """Bring everything up and return when it answers. Raises TwoviewsError and Interrupted."""
        self._bootstrap()
        self._broker_socket.unlink(missing_ok=True)  # left over by a broker that was killed
        for child in self.children.values():
            child.start()
            if child.name == "valkey":
                self._await("The broker", lambda: valkey.answers(self._broker_socket), signals)
        self._await("The API", lambda: self._answers(_here(), f"{self.url}/health/ready"), signals)
        self._await("The encoder", lambda: self._answers(*self._encoder_door()), signals)

    def tend(self) -> None:
        """Start again what has died."""
        for child in self.children.values():
            child.revive()

    def stop(self, signals: Signals) -> None:
        """End everything at once, and the broker last."""
        grace_seconds = float(self._environment.get("TWOVIEWS_GRACE_SECONDS") or 30) + GRACE_SECONDS
        everyone = dict(self.children)
        broker = everyone.pop("valkey")
        stop(everyone.values(), grace_seconds, signals.hurry)
        stop([broker], grace_seconds, signals.hurry)
        self._broker_socket.unlink(missing_ok=True)

    def _settings(self) -> dict[str, str]:
        return {
            "TWOVIEWS_DATA_DIR": str(self.plan.data_dir),
            "TWOVIEWS_BROKER_URL": f"redis+socket://{self._broker_socket}",
            "PYTHONUNBUFFERED": "1",
        }

    def _bootstrap(self) -> None:
        """Make or migrate the database, and the first key. Raises TwoviewsError."""
        command = [sys.executable, "-m", "service", "bootstrap", "--url", self.url]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = (done.stderr or done.stdout).strip().splitlines()[-10:]
            raise TwoviewsError("The database could not be prepared:\n" + "\n".join(tail))

    def _await(self, name: str, ready: Callable[[], bool], signals: Signals) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            signals.check()
            self.tend()
            for child in self.children.values():
                if child.deaths >= EARLY_DEATHS:
                    raise TwoviewsError(f"{child.name} does not start; the end of {child.log}:\n{child.tail()}")
            if time.monotonic() > deadline:
                raise TwoviewsError(f"{name} is not ready after {START_SECONDS:.0f} s; look into {self.plan.logs}.")
            time.sleep(0.1)

    def _answers(self, http: httpx.Client, address: str) -> bool:
        with http, contextlib.suppress(httpx.TransportError):
            return http.get(address, timeout=5).is_success
        return False

    def _encoder_door(self) -> tuple[httpx.Client, str]:
        url = self._encoder.get("TWOVIEWS_ENCODER_URL") or os.environ.get("TWOVIEWS_ENCODER_URL")
        if url:
            return _here(), f"{url}/health"
        door = httpx.HTTPTransport(uds=str(self.plan.data_dir / "encoder.sock"))
        return _here(transport=door), "http://encoder/health"


def _here(**options: Any) -> httpx.Client:
    """A client for this very machine, to which no proxy leads."""
    return httpx.Client(trust_env=False, **options)


def _announce(house: House, *, as_json: bool) -> None:
    key_file = house.plan.data_dir / FILE_NAME
    if as_json:
        print(json.dumps({"url": house.url, "credentials": str(key_file), "pid": os.getpid()}), flush=True)  # noqa: T201
        return
    here = house.plan.data_dir == (Path.cwd() / "twoviews-data")
    command = terminal.command() + ("" if here else f" --data {escape(str(house.plan.data_dir))}")
    lines = [
        f"[bold]Twoviews is up[/] at [cyan]{house.url}[/]",
        "",
        f"[dim]docs[/]  {house.url}/docs",
        f"[dim]key [/]  {escape(str(key_file))}",
        f"[dim]logs[/]  {escape(str(house.plan.logs))}",
        "",
        "[dim]In another terminal:[/]",
        f"  {command} datasets add [green]photos.zip[/]",
        f"  {command} jobs submit pretrain [green]ds_…[/] --set method.name=simclr --watch",
        "",
        "[dim]Ctrl-C stops it; running jobs write a checkpoint and go on next time.[/]",
    ]
    terminal.out.print(Panel("\n".join(lines), border_style="cyan", padding=(1, 2), expand=False))


@contextlib.contextmanager
def _sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises TwoviewsError when another `up` holds it."""
    with (data_dir / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise TwoviewsError(f"Another `twoviews up` (process {file.read().strip()}) serves {data_dir}.") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
