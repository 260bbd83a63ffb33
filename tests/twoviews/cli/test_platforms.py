"""The command on Windows and in consoles without Unicode, by real processes that lack what such a platform lacks."""

import json
import os
import subprocess
import sys

import pytest

from tests.twoviews.scripted import Response

WINDOWS = """
import os, signal, sys
for module in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[module] = None  # an import of it raises ModuleNotFoundError
for name in ("SIGPIPE", "SIGHUP", "SIGKILL", "SIGQUIT", "pthread_sigmask"):
    delattr(signal, name)
for name in ("sched_getaffinity", "getuid", "killpg", "waitid", "fork"):
    delattr(os, name)
from twoviews.cli.main import app
app(sys.argv[1:])
"""


def run_on_windows(*words):
    return subprocess.run(
        [sys.executable, "-c", WINDOWS, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_commands_of_the_client_work_on_windows(script):
    script.responses = [Response(body={"data": [], "has_more": False, "next": None})]
    done = run_on_windows("--url", script.url, "--key", "tv_secret", "jobs", "list", "--json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")


@pytest.mark.parametrize("command", ["up", "demo"])
def test_the_commands_that_start_the_service_name_the_platforms_that_they_need(command):
    done = run_on_windows(command)
    assert done.returncode == 1
    assert "needs Linux or macOS" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_names_are_printed_where_the_encoding_of_a_pipe_does_not_have_their_characters(script, as_json):
    name = "čau ☃"
    script.responses = [Response(body={"id": "ds_1", "name": name, "status": "ready"})]
    words = ["--url", script.url, "--key", "tv_secret", "datasets", "show", "ds_1", *(["--json"] if as_json else [])]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-m", "twoviews", *words], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    if as_json:
        assert json.loads(done.stdout)["name"] == name
    else:
        assert b"?au ?" in done.stdout
