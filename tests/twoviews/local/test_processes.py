"""Child processes of the local service: restarts, stops, addresses and the data folder's lock."""

import os
import signal
import subprocess
import sys
import time

import pytest

from twoviews.errors import TwoviewsError
from twoviews.local import addresses, processes, up, valkey
from twoviews.local.processes import Child


def child(tmp_path, *command):
    return Child("test", command, os.environ, tmp_path / "logs" / "test.log")


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_writes_to_its_own_log_and_stops_on_request(tmp_path):
    one = child(tmp_path, sys.executable, "-uc", "print('hello'); import time; time.sleep(60)")
    one.start()
    wait_until(lambda: "hello" in one.read_tail())
    processes.stop([one], grace_seconds=20)
    assert not one.is_running


def test_a_child_that_ends_is_restarted_after_growing_pauses(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "FIRST_PAUSE_SECONDS", 0.01)
    one = child(tmp_path, sys.executable, "-c", "print('ready')")
    one.start()

    def has_started_three_times():
        one.restart_if_ended()
        return one.read_tail().count("ready") == 3

    wait_until(has_started_three_times)
    assert one.deaths >= 2
    assert "ended with 0; starts again in" in one.read_tail()
    processes.stop([one], grace_seconds=20)


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path):
    ignore_sigterm = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN);"
    start_child = (
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    one = child(tmp_path, sys.executable, "-c", ignore_sigterm + start_child)
    one.start()
    wait_until(lambda: one.read_tail().strip().isdigit())
    processes.stop([one], grace_seconds=0.1)
    wait_until(lambda: has_ended(int(one.read_tail())))


def test_the_children_of_an_ended_child_are_killed_before_its_restart(tmp_path):
    orphan = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    one = child(tmp_path, sys.executable, "-c", orphan + "; print(p.pid)")
    one.start()
    wait_until(lambda: not one.is_running)
    left = int(one.read_tail())
    assert not has_ended(left)
    one.restart_if_ended()
    wait_until(lambda: has_ended(left))
    processes.stop([one], grace_seconds=20)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("lab.example", "http://lab.example:8000"),
    ],
)
def test_the_url_is_reachable_from_this_machine(tmp_path, host, url):
    assert up.LocalService(up.Options(tmp_path, host, 8000), 8000).url == url


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_children_end_with_a_killed_parent(tmp_path, platform):
    code = (
        "import os, sys, time; from pathlib import Path; from twoviews.local.processes import Child;"
        f"sys.platform = {platform!r};"
        "one = Child('x', [sys.executable, '-c', 'import time; time.sleep(600)'], os.environ, Path(sys.argv[1]));"
        "one.start(); print(one.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: has_ended(pid))


def test_a_data_folder_has_one_owner(tmp_path):
    refused = pytest.raises(TwoviewsError, match=f"process {os.getpid()}")
    with up._lock(tmp_path), refused, up._lock(tmp_path):
        pass
    with up._lock(tmp_path):
        pass


def test_a_port_in_use_raises_and_port_0_is_a_free_one():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(TwoviewsError, match="choose another --host or --port"):
            addresses.free_port("127.0.0.1", taken.getsockname()[1])
        assert addresses.free_port("127.0.0.1", 0) != taken.getsockname()[1]
    with pytest.raises(TwoviewsError, match="choose another --host or --port"):
        addresses.free_port("no such host", 0)


def test_a_socket_path_that_is_too_long_is_replaced_by_a_private_folder(tmp_path):
    short = addresses.socket_path(tmp_path / "v" / "valkey.sock")
    assert short == tmp_path / "v" / "valkey.sock"
    long = addresses.socket_path(tmp_path / ("x" * 120) / "valkey.sock")
    assert len(str(long)) < 100
    assert long == addresses.socket_path(tmp_path / ("x" * 120) / "valkey.sock")
    assert long.parent.stat().st_mode & 0o777 == 0o700
    long.parent.rmdir()


def test_with_a_long_data_folder_the_encoder_is_on_loopback_with_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv("TWOVIEWS_ENCODER_URL", raising=False)
    assert addresses.encoder_settings(tmp_path) == {}
    settings = addresses.encoder_settings(tmp_path / ("x" * 120))
    assert settings["TWOVIEWS_ENCODER_URL"].startswith("http://127.0.0.1:")
    assert settings["TWOVIEWS_ENCODER_TOKEN"]


def test_the_broker_starts_over_the_socket_of_a_killed_one(tmp_path):
    socket_path = tmp_path / "v" / "valkey.sock"
    for _ in range(2):
        broker = child(tmp_path, *valkey.command(socket_path.parent, socket_path))
        broker.start()
        wait_until(lambda: valkey.is_answering(socket_path))
        assert socket_path.stat().st_mode & 0o777 == 0o700
        broker.kill()
    assert not valkey.is_answering(socket_path)


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
