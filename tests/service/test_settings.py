"""Settings from the environment, at the start of a process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(**environment):
    """Start a command of the service with these variables."""
    command = [sys.executable, "-m", "service", "migrate"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("TWOVIEWS_DATABASE_URL", "mysql://me@db/twoviews", "must begin with sqlite: or postgresql+psycopg:."),
        ("TWOVIEWS_LEASE_SECONDS", "soon", "Input should be a valid number"),
        ("TWOVIEWS_TRUSTED_PROXIES", "my-proxy", "'my-proxy' does not appear to be an IPv4 or IPv6 network."),
    ],
)
def test_an_invalid_setting_ends_the_process_with_a_sentence(name, value, sentence):
    done = start(**{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: {sentence}")
    assert "Traceback" not in done.stderr


def test_an_unknown_setting_is_named_at_start(tmp_path):
    done = start(TWOVIEWS_DATA_DIR=str(tmp_path), TWOVIEWS_LEASE_SECOND="60", TWOVIEWS_URL="http://x")
    assert done.returncode == 0
    assert done.stderr.count("There is no setting") == 1
    assert "There is no setting TWOVIEWS_LEASE_SECOND; did you mean TWOVIEWS_LEASE_SECONDS?" in done.stderr


def test_a_data_folder_that_cannot_be_made_ends_the_process_with_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    done = start(TWOVIEWS_DATA_DIR=str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be written: Not a directory." in done.stderr
