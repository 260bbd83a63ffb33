"""Chromium for the tests: the machine's, else Playwright's own, else the system's package is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_INSTALL_SECONDS = 300


def find(playwright: Playwright) -> str:
    """Return the path of a browser. Skips the test when none can be had, except in CI, where that is a failure."""
    found = _find_installed(playwright)
    if found is None:
        _install([sys.executable, "-m", "playwright", "install", "chromium"])
        found = _find_installed(playwright)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        _install(["apt-get", "install", "-y", "--no-install-recommends", "chromium"])
        found = _find_installed(playwright)
    if found is None:
        sentence = "There is no Chromium, and it could not be installed; install it to run the tests of the page."
        (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)
    return found


def _find_installed(playwright: Playwright) -> str | None:
    own = Path(playwright.chromium.executable_path)
    system = next(filter(None, map(shutil.which, _NAMES)), None)
    return system or (str(own) if own.exists() else None)


def _install(command: list[str]) -> None:
    try:
        subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        pass  # the next way is tried
