"""The tools of the nemesis: control pages, the proxy, and plans."""

import errno
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.faults.fleet import ROOT
from tests.faults.nemesis.control import DATA, PAGE, ControlPage
from tests.faults.nemesis.faults import KINDS
from tests.faults.nemesis.injector import plan_faults
from tests.faults.nemesis.proxy import Proxy
from tests.faults.nemesis.requests import SHARES, plan_kinds

WRITE = """
import sys, time
from pathlib import Path
from tests.faults.nemesis import control
before = time.time()
control.install("worker")
from ssl_core.files import write_atomic
for path in map(Path, sys.argv[1:]):
    try:
        write_atomic(path, b"whole")
        path.with_name("text").write_text("whole")
    except OSError as error:
        print(error.errno)
print(int(time.time() - before) // 3600)
"""


def run_writes(page: ControlPage, data: Path, *paths: Path) -> list[int]:
    """Return the errnos of the writes that failed, and the hours that the clock has moved."""
    environment = os.environ | {PAGE: str(page.path), DATA: str(data), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITE, *map(str, paths)]
    return [int(line) for line in subprocess.check_output(command, env=environment, text=True).split()]


def test_a_control_page_fails_writes_below_the_data_folder_and_shifts_the_clock(tmp_path: Path) -> None:
    page, data = ControlPage(tmp_path / "page"), tmp_path / "data"
    data.mkdir()
    page.fail_writes("worker", errno.ENOSPC, 4)  # a file fails when it is flushed, and when it is closed
    page.clock_offset_seconds = 3600.0
    assert run_writes(page, data, tmp_path / "else", data / "a", data / "b", data / "c") == [
        errno.ENOSPC,
        errno.ENOSPC,
        1,
    ]
    assert {path.name for path in data.iterdir()} == {"c", "text"}
    assert (page.failures("worker"), page.failures("trainer")) == (4, 0)
    assert page.shifted_reads("worker") > 0


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    """A server on a Unix socket that sends back what it receives."""
    path = tmp_path / "echo.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        Thread(target=_serve, args=(listener,), daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            line, _ = listener.accept()
        except OSError:
            return
        with line:
            while data := line.recv(100):
                line.sendall(data)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_link_passes_data_swallows_it_resets_and_refuses(echo: Path) -> None:
    proxy = Proxy(lambda name, command, **pipes: subprocess.Popen(command, cwd=ROOT, **pipes))
    try:
        port = proxy.add("a", echo)
        with connect(port) as line:
            line.sendall(b"one")
            assert line.recv(10) == b"one"
            proxy.set_mode("a", "silent")
            line.sendall(b"two")
            line.settimeout(0.2)
            with pytest.raises(TimeoutError):
                line.recv(10)
            assert proxy.counts("a").swallowed == 3
            line.settimeout(5)
            assert proxy.set_mode("a", "refuse", reset=True).reset == 1
            with pytest.raises(ConnectionResetError):
                line.recv(10)
        with pytest.raises(ConnectionResetError), connect(port) as line:
            line.recv(10)
        assert proxy.counts("a").refused == 1
        proxy.set_mode("a", "pass")
        with connect(port) as line:
            line.sendall(b"three")
            assert line.recv(10) == b"three"
    finally:
        proxy.close()


def test_a_plan_has_every_kind_that_the_database_allows_and_is_repeated_by_its_seed() -> None:
    plan = plan_faults(60, random.Random(1), ["sqlite"])
    assert set(plan) == {kind for kind, entry in KINDS.items() if entry.needs in ("", "sqlite")}
    assert (len(plan), plan) == (60, plan_faults(60, random.Random(1), ["sqlite"]))
    assert plan != plan_faults(60, random.Random(2), ["sqlite"])
    kinds = plan_kinds(100, random.Random(1))
    assert (len(kinds), set(kinds)) == (100, {*SHARES, "import"})
