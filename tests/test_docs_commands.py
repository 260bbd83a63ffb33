"""The commands of the operator's pages, run in their order against one running service."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from string import Template

import httpx
import pytest

from tests.test_docs import BLOCKS
from tests.test_end_to_end import up
from twoviews import credentials

PAGES = ("operate.md", "secure.md", "upgrade.md")
FOLDERS = re.compile(r"/(srv|backups)(?=/)")  # replaced by folders of the test
DONE = ("pip ", "twoviews up")  # the package is installed, and the service runs


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The variables of a shell on the machine of a running service."""
    data = tmp_path_factory.mktemp("operate") / "data"
    with up(data) as service:
        key = credentials.find(data_dir=data).key
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        yield os.environ | {
            "PATH": path,
            "TWOVIEWS_DATA_DIR": str(data),
            "TWOVIEWS_URL": service.url,
            "TWOVIEWS_KEY": key,
        }


def list_commands():
    """Return the commands of the pages, in their order."""
    found = [block for page in PAGES for block in BLOCKS if block.page.name == page and block.kind == "sh"]
    lines = [line.strip() for block in found for line in block.text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(DONE)]


def run(command, environment):
    """Run a command; return its exit status and output. A GET by curl is sent by httpx: curl may not be installed."""
    if command.startswith("curl "):
        url, *options = shlex.split(Template(command.removeprefix("curl ")).substitute(environment))
        headers = dict(value.split(": ") for flag, value in zip(options[::2], options[1::2], strict=True))
        answer = httpx.get(url, headers=headers, trust_env=False)
        return int(not answer.is_success), answer.text
    folder = Path(environment["TWOVIEWS_DATA_DIR"]).parent
    words = shlex.split(FOLDERS.sub(lambda found: f"{folder}{found[0]}", command))
    words = [sys.executable, "-m", "twoviews", *words[1:]] if words[0] == "twoviews" else words
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_command_of_the_operators_pages_succeeds(environment):
    commands = list_commands()
    assert len(commands) >= 12
    failed = {command: run(command, environment) for command in commands}
    assert {command: output for command, (status, output) in failed.items() if status} == {}
    restored = Path(environment["TWOVIEWS_DATA_DIR"]).parent / "srv" / "restored"
    assert (restored / "credentials.json").exists()
