"""An encoder server for tests: a real process, on a Unix socket or TCP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from service.settings import Settings

OWNER = "ten_a"


class Server:
    """A running encoder server and its HTTP client."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._start()
        transport = None if settings.encoder_url else httpx.HTTPTransport(uds=str(settings.data_dir / "encoder.sock"))
        token = settings.encoder_token.get_secret_value()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        base = settings.encoder_url or "http://encoder"
        self.http = httpx.Client(base_url=base, transport=transport, headers=headers, timeout=30, trust_env=False)

    def _start(self) -> None:
        fields = self.settings.model_dump(exclude_defaults=True)
        fields |= {"encoder_token": self.settings.encoder_token.get_secret_value()}
        variables = {f"TWOVIEWS_{name.upper()}": str(value) for name, value in fields.items()}
        environment = os.environ | variables | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-m", "worker.encoder"], env=environment)

    def restart(self) -> None:
        self._start()
        self.wait()

    def wait(self) -> None:
        """Return when it accepts connections."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert self.process.poll() is None, "the encoder server ended"
            try:
                self.connect().close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the encoder server did not start")

    def health(self) -> dict:
        return self.http.get("/health").json()

    def memory(self, line: str = "VmRSS") -> int:
        """Return the resident memory in bytes; `VmHWM` is its peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(entry.split()[1]) * 1024 for entry in status.splitlines() if entry.startswith(line))

    def until(self, **expected: object) -> None:
        """Return when /health shows these values."""
        until = time.monotonic() + 30
        while not expected.items() <= self.health().items():
            assert time.monotonic() < until, f"{self.health()} never showed {expected}"
            time.sleep(0.01)

    def until_closed(self) -> None:
        """Return when it refuses connections."""
        until = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
            except ConnectionRefusedError:
                return
            assert time.monotonic() < until, "it still accepts connections"
            time.sleep(0.01)

    def encode(
        self, images: Sequence[bytes], *, model: str = "models/a", layer: str = "backbone", **headers: str
    ) -> httpx.Response:
        sizes = ",".join(str(len(image)) for image in images)
        fields = {"X-Owner": OWNER, "X-Model-Path": model, "X-Layer": layer, "X-Sizes": sizes} | headers
        return self.http.post("/encode", content=b"".join(images), headers=fields)

    def connect(self) -> socket.socket:
        """Open a socket to the server."""
        url = httpx.URL(self.settings.encoder_url)
        connection = socket.socket(socket.AF_INET if self.settings.encoder_url else socket.AF_UNIX)
        unix = str(self.settings.data_dir / "encoder.sock")
        try:
            connection.connect((url.host, url.port) if self.settings.encoder_url else unix)
        except OSError:
            connection.close()
            raise
        return connection

    def begin(self, images: Sequence[bytes], sent: int) -> socket.socket:
        """Send a request's headers and the first `sent` bytes of its body; return the open connection."""
        body = b"".join(images)
        sizes = ",".join(str(len(image)) for image in images)
        token = self.settings.encoder_token.get_secret_value()
        head = (
            f"POST /encode HTTP/1.1\r\nHost: encoder\r\nX-Owner: {OWNER}\r\n"
            f"X-Model-Path: models/a\r\nX-Layer: backbone\r\n"
            f"Authorization: Bearer {token}\r\nX-Sizes: {sizes}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = self.connect()
        connection.sendall(head.encode() + body[:sent])
        return connection

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


@contextmanager
def running(settings: Settings) -> Iterator[Server]:
    """Run an encoder server within the block."""
    server = Server(settings)
    try:
        server.wait()
        yield server
    finally:
        server.stop(signal.SIGKILL)
        server.http.close()


def features(answer: httpx.Response) -> np.ndarray:
    """Return the features (N×D) of a successful response."""
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<f4").reshape(-1, int(answer.headers["x-dim"]))


def problem(answer: httpx.Response) -> tuple[int, str, list[str]]:
    """Return the status, code and pointers of a problem response."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = json.loads(answer.content)
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"], [error["pointer"] for error in body["errors"]]


def data_folder(folder: Path) -> Path:
    """Create a folder with a path short enough for a Unix socket."""
    folder.mkdir(parents=True, exist_ok=True)
    assert len(str(folder)) < 90
    return folder
