"""A live server: the API in its own process, started by `python -m api`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from service import keys
from service.db.session import Database
from service.settings import Settings
from tests.servers import free_port


class Live:
    """A running server; `kill` sends SIGKILL, and `start` starts it again on the same port."""

    def __init__(self, settings: Settings, key: str) -> None:
        self.port, self.key = free_port(), key
        self.url = f"http://127.0.0.1:{self.port}"
        given = {f"TWOVIEWS_{name.upper()}": str(getattr(settings, name)) for name in settings.model_fields_set}
        self._environment = {**os.environ, **given}
        self.client = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "api", "--port", str(self.port), "--log-level", "warning"]
        if "TWOVIEWS_HTTP_GRACE_SECONDS" not in self._environment:
            command += ["--grace-seconds", "1"]
        self.process = subprocess.Popen(command, env=self._environment, cwd=Path(__file__).parents[2])
        until = time.monotonic() + 60
        while True:
            try:
                self.client.get("/health/live")
                return
            except httpx.TransportError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    @property
    def peak_bytes(self) -> int:
        """The peak resident memory of the process, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        """Return a connection from that address of the loopback network."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(address, 0))

    def begin_upload(self, sent: bytes, length: int = 10**9) -> socket.socket:
        """Start an upload of a body of `length` bytes, of which `sent` is sent; return the connection."""
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
        lines = ["POST /datasets HTTP/1.1", "Host: x", f"Authorization: Bearer {self.key}"]
        lines += ["Content-Type: multipart/form-data; boundary=x", f"Content-Length: {length}", "", ""]
        connection = self.connect()
        connection.sendall("\r\n".join(lines).encode() + head + sent)
        return connection


def read_response(connection: socket.socket) -> httpx.Response:
    """Return the response when the server has closed the connection."""
    answer = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


@contextmanager
def serving(settings: Settings, key: str) -> Iterator[Live]:
    server = Live(settings, key)
    try:
        yield server
    finally:
        server.client.close()
        if server.process.poll() is None:
            server.kill()


@contextmanager
def serving_fresh(data: Path, template: Path, broker: str, **settings: object) -> Iterator[Live]:
    """Serve a new SQLite database in the folder, a copy of `template`, with a key."""
    shutil.copy(template, data / "twoviews.db")
    found = Settings(data_dir=data, broker_url=broker, **settings)  # type: ignore[arg-type]
    database = Database(found.database)
    with database.writing() as session:
        _, secret = keys.create(session, keys.get_or_create_tenant(session, "acme").id, "test")
    database.close()
    with serving(found, secret) as server:
        yield server
