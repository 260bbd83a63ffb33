"""The local service of `twoviews up`: starts, restarts and stops all its processes on this machine."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from rich.markup import escape
from rich.panel import Panel

from twoviews import credentials, terminal
from twoviews.client import Client
from twoviews.credentials import FILE_NAME
from twoviews.errors import TwoviewsError
from twoviews.local import addresses, log_files, valkey
from twoviews.local.processes import PYTHON, Child, stop
from twoviews.local.watchdog import BeatFile, Watchdog

START_SECONDS = 120.0
GRACE_SECONDS = 10.0  # added to the longest grace time of the children
HEALTH_SECONDS = 3.0  # for the answer to one health check
HUNG_SECONDS = 30.0  # without an answer; TWOVIEWS_HUNG_SECONDS replaces it
MAX_EARLY_EXITS = 3  # of a child before the service is ready


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `twoviews up`; port 0 means a free one."""

    data_dir: Path
    host: str
    port: int
    adopt: bool = False

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"


def serve(options: Options, *, json: bool = False) -> int:
    """Run the service until SIGINT, SIGTERM or SIGHUP; return the exit code. Raises TwoviewsError."""
    signals = StopSignals()
    try:
        options.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TwoviewsError(f"{options.data_dir} cannot be the data folder: {error.strerror}.") from error
    with _lock(options.data_dir):
        service = LocalService(options, addresses.free_port(options.host, options.port))
        try:
            with terminal.spinner("Starting the service", quiet=json):
                service.start(signals)
            _print_address(service, as_json=json)
            while not signals.count:
                service.restart_ended()
                time.sleep(0.2)
        except Interrupted:
            pass
        finally:
            with terminal.spinner("Stopping; a running job writes its checkpoint first", quiet=json):
                service.stop(signals)
    return 0


class Interrupted(Exception):
    """A stop signal came before the service was ready."""


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP; the second one stops the service without a grace time."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._increment)

    def _increment(self, *_: object) -> None:
        self.count += 1

    def raise_if_stopped(self) -> None:
        if self.count:
            raise Interrupted

    def is_urgent(self) -> bool:
        return self.count > 1


class LocalService:
    """The child processes of the local service, in the order in which they start."""

    def __init__(self, options: Options, port: int) -> None:
        self.options = options
        client_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
        self.url = f"http://[{client_host}]:{port}" if ":" in client_host else f"http://{client_host}:{port}"
        self._broker_socket = addresses.socket_path(options.data_dir / "valkey" / "valkey.sock")
        self._encoder = addresses.encoder_settings(options.data_dir)
        environment = dict(os.environ) | self._settings() | self._encoder
        commands = {
            "valkey": valkey.command(options.data_dir / "valkey", self._broker_socket, options.logs / "valkey.log"),
            "api": [*PYTHON, "api", "--host", options.host, "--port", str(port)],
            "keeper": [*PYTHON, "worker.keeper"],
            "worker-data": [*PYTHON, "worker", "--queue", "data"],
            "worker-train": [*PYTHON, "worker", "--queue", "train"],
            "encoder": [*PYTHON, "worker.encoder"],
        }
        self._environment = environment
        self._log_limits = log_files.Limits()
        beat_file = options.data_dir / "keeper.beat"
        self._watchdog = Watchdog(
            {
                "api": lambda: self._is_healthy(_loopback_client(), f"{self.url}/health/live"),
                "encoder": lambda: self._is_healthy(*self._encoder_health()),
                "keeper": BeatFile(beat_file).has_changed,
            },
            limit_seconds=float(environment.get("TWOVIEWS_HUNG_SECONDS") or HUNG_SECONDS),
            start_seconds=START_SECONDS,
        )
        self.children = {}
        for name, command in commands.items():
            log = options.logs / f"{name}.log"
            own = {} if name == "valkey" else {"TWOVIEWS_LOG_FILE": str(log)}
            own |= {"TWOVIEWS_BEAT_FILE": str(beat_file)} if name == "keeper" else {}
            self.children[name] = Child(name, command, environment | own, log)

    def start(self, signals: StopSignals) -> None:
        """Start all children and return when they answer. Raises TwoviewsError and Interrupted."""
        self._bootstrap()  # it checks the settings
        self._log_limits = log_files.Limits.of(self._environment)
        self._broker_socket.unlink(missing_ok=True)  # a killed broker leaves it
        for child in self.children.values():
            child.start()
            if child.name == "valkey":
                self._wait_until("The broker", lambda: valkey.is_answering(self._broker_socket), signals)
        self._wait_until("The API", lambda: self._is_healthy(_loopback_client(), f"{self.url}/health/ready"), signals)
        self._wait_until("The encoder", lambda: self._is_healthy(*self._encoder_health()), signals)
        self._watchdog.start()

    def restart_ended(self) -> None:
        """Kill the children that hang, restart those that have ended, and rotate the logs."""
        for child in self.children.values():
            with contextlib.suppress(OSError):  # the file grows meanwhile
                log_files.rotate(child.log, self._log_limits)
            if child.is_running and self._watchdog.is_hung(child.name):
                child.log_line("does not answer, and is killed")
                child.kill()
            before = child.pid
            child.restart_if_ended()
            if child.pid != before:
                self._watchdog.expect_start(child.name)

    def stop(self, signals: StopSignals) -> None:
        """Stop all children at once, then the broker."""
        self._watchdog.stop()
        api_seconds = self._read_seconds("HTTP_DRAIN", 0) + self._read_seconds("HTTP_GRACE", 30)
        grace_seconds = max(self._read_seconds("GRACE", 30), api_seconds) + GRACE_SECONDS
        others = dict(self.children)
        broker = others.pop("valkey")
        stop(others.values(), grace_seconds, signals.is_urgent)
        stop([broker], grace_seconds, signals.is_urgent)
        self._broker_socket.unlink(missing_ok=True)

    def _read_seconds(self, name: str, default: float) -> float:
        return float(self._environment.get(f"TWOVIEWS_{name}_SECONDS") or default)

    def _settings(self) -> dict[str, str]:
        return {
            "TWOVIEWS_DATA_DIR": str(self.options.data_dir),
            "TWOVIEWS_BROKER_URL": f"redis+socket://{quote(str(self._broker_socket))}",
            "PYTHONUNBUFFERED": "1",
        }

    def _bootstrap(self) -> None:
        """Create or migrate the database, and create the first key. Raises TwoviewsError."""
        command = [*PYTHON, "service", "bootstrap", "--url", self.url]
        command += ["--adopt"] if self.options.adopt else []
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = (done.stderr or done.stdout).strip().splitlines()[-10:]
            raise TwoviewsError("The database could not be prepared:\n" + "\n".join(tail))

    def _wait_until(self, name: str, is_ready: Callable[[], bool], signals: StopSignals) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            signals.raise_if_stopped()
            self.restart_ended()
            for child in self.children.values():
                if child.deaths >= MAX_EARLY_EXITS:
                    raise TwoviewsError(f"{child.name} does not start; the end of {child.log}:\n{child.read_tail()}")
            if time.monotonic() > deadline:
                raise TwoviewsError(
                    f"{name} is not ready after {START_SECONDS:.0f} s; see the logs in {self.options.logs}."
                )
            time.sleep(0.1)

    def _is_healthy(self, http: httpx.Client, address: str) -> bool:
        with http, contextlib.suppress(httpx.TransportError):
            return http.get(address, timeout=HEALTH_SECONDS).is_success
        return False

    def _encoder_health(self) -> tuple[httpx.Client, str]:
        url = self._encoder.get("TWOVIEWS_ENCODER_URL") or os.environ.get("TWOVIEWS_ENCODER_URL")
        if url:
            return _loopback_client(), f"{url}/health"
        transport = httpx.HTTPTransport(uds=str(self.options.data_dir / "encoder.sock"))
        return _loopback_client(transport=transport), "http://encoder/health"


def _loopback_client(**options: Any) -> httpx.Client:
    """Return an HTTP client that ignores proxy settings."""
    return httpx.Client(trust_env=False, **options)


def _print_address(service: LocalService, *, as_json: bool) -> None:
    key_file, page = service.options.data_dir / FILE_NAME, _make_page_address(service)
    if as_json:
        address = {"url": service.url, "page": page, "credentials": str(key_file), "pid": os.getpid()}
        print(json.dumps(address), flush=True)  # noqa: T201
        return
    is_default = service.options.data_dir == (Path.cwd() / "twoviews-data")
    command = terminal.command_name() + ("" if is_default else f" --data {escape(str(service.options.data_dir))}")
    lines = [
        f"[bold]Twoviews is up[/] at [cyan]{service.url}[/]",
        "",
        f"[dim]page[/]  [cyan]{page}[/]",
        f"[dim]docs[/]  {service.url}/docs",
        f"[dim]key [/]  {escape(str(key_file))}",
        f"[dim]logs[/]  {escape(str(service.options.logs))}",
        "",
        "[dim]In another terminal:[/]",
        f"  {command} datasets add [green]photos.zip[/]",
        f"  {command} jobs submit pretrain [green]ds_…[/] --set method.name=simclr --watch",
        "",
        "[dim]Ctrl-C stops it; running jobs write a checkpoint and resume at the next start.[/]",
    ]
    terminal.out.print(Panel("\n".join(lines), border_style="cyan", padding=(1, 2), expand=False))


def _make_page_address(service: LocalService) -> str:
    """Return an address of the page that signs in, once; without a valid key in the folder, one that asks for a key."""
    try:
        found = credentials.find(data_dir=service.options.data_dir)
        with Client(service.url, found.key, retries=0) as client:
            return client.keys.sign_in_address()
    except TwoviewsError:
        return f"{service.url}/"


@contextlib.contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's lock. Raises TwoviewsError when another `up` holds it, or it cannot be written."""
    try:
        descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TwoviewsError(f"{data_dir} cannot be written: {error.strerror}.") from error
    try:
        _lock_file(descriptor, data_dir)
        yield
    finally:
        os.close(descriptor)


def _lock_file(descriptor: int, data_dir: Path) -> None:
    """Lock the file and write the id of this process to it. Raises TwoviewsError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
    except BlockingIOError as error:
        pid = os.pread(descriptor, 10, 0).decode("ascii", "replace").strip()
        raise TwoviewsError(f"Another `twoviews up` (process {pid}) serves {data_dir}.") from error
    except OSError as error:
        raise TwoviewsError(f"{data_dir} cannot be written: {error.strerror}.") from error
