"""Processes: a child that dies starts again, and none outlives its parent."""

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


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_writes_to_its_own_log_and_stops_when_asked(tmp_path):
    one = child(tmp_path, sys.executable, "-uc", "print('hello'); import time; time.sleep(60)")
    one.start()
    until(lambda: "hello" in one.tail())
    processes.stop([one], grace_seconds=20)
    assert not one.running


def test_a_child_that_dies_starts_again_later_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "FIRST_PAUSE_SECONDS", 0.01)
    one = child(tmp_path, sys.executable, "-c", "print('born')")
    one.start()

    def born_three_times():
        one.revive()
        return one.tail().count("born") == 3

    until(born_three_times)
    assert one.deaths >= 2
    assert "ended with 0; starts again in" in one.tail()
    processes.stop([one], grace_seconds=20)


def test_a_child_that_will_not_stop_is_killed_with_its_family(tmp_path):
    stubborn = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN);"
    family = (
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    one = child(tmp_path, sys.executable, "-c", stubborn + family)
    one.start()
    until(lambda: one.tail().strip().isdigit())
    processes.stop([one], grace_seconds=0.1)
    until(lambda: gone(int(one.tail())))


def test_what_a_dead_child_left_behind_goes_before_it_starts_again(tmp_path):
    orphan = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    one = child(tmp_path, sys.executable, "-c", orphan + "; print(p.pid)")
    one.start()
    until(lambda: not one.running)
    left = int(one.tail())
    assert not gone(left)
    one.revive()
    until(lambda: gone(left))
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
def test_the_address_can_be_called_from_here(tmp_path, host, url):
    assert up.House(up.Plan(tmp_path, host, 8000), 8000).url == url


def test_children_die_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from twoviews.local.processes import Child;"
        "one = Child('x', [sys.executable, '-c', 'import time; time.sleep(600)'], os.environ, Path(sys.argv[1]));"
        "one.start(); print(one.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until(lambda: gone(pid))


def test_only_one_owner_of_a_folder(tmp_path):
    refused = pytest.raises(TwoviewsError, match=f"process {os.getpid()}")
    with up._sole_owner(tmp_path), refused, up._sole_owner(tmp_path):
        pass
    with up._sole_owner(tmp_path):
        pass


def test_a_port_in_use_is_a_sentence_and_zero_finds_a_free_one():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(TwoviewsError, match="choose another --host or --port"):
            addresses.free_port("127.0.0.1", taken.getsockname()[1])
        assert addresses.free_port("127.0.0.1", 0) != taken.getsockname()[1]
    with pytest.raises(TwoviewsError, match="choose another --host or --port"):
        addresses.free_port("no such host", 0)


def test_a_socket_path_that_is_too_long_moves_to_a_private_folder(tmp_path):
    short = addresses.socket_path(tmp_path / "v" / "valkey.sock")
    assert short == tmp_path / "v" / "valkey.sock"
    long = addresses.socket_path(tmp_path / ("x" * 120) / "valkey.sock")
    assert len(str(long)) < 100
    assert long == addresses.socket_path(tmp_path / ("x" * 120) / "valkey.sock")
    assert long.parent.stat().st_mode & 0o777 == 0o700
    long.parent.rmdir()


def test_a_long_data_folder_gets_an_encoder_on_loopback_with_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv("TWOVIEWS_ENCODER_URL", raising=False)
    assert addresses.encoder(tmp_path) == {}
    settings = addresses.encoder(tmp_path / ("x" * 120))
    assert settings["TWOVIEWS_ENCODER_URL"].startswith("http://127.0.0.1:")
    assert settings["TWOVIEWS_ENCODER_TOKEN"]


def test_the_broker_starts_over_the_socket_that_a_killed_one_left(tmp_path):
    door = tmp_path / "v" / "valkey.sock"
    for _ in range(2):
        broker = child(tmp_path, *valkey.command(door.parent, door))
        broker.start()
        until(lambda: valkey.answers(door))
        assert door.stat().st_mode & 0o777 == 0o700
        broker.kill()
    assert not valkey.answers(door)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
