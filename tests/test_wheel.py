"""The wheel: it has every file of the packages, and what it installs works without the source."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
USER = """from twoviews import Client, Job

client = Client("http://127.0.0.1:8000", "tv_key")
job: Job = client.jobs.get("job_1")
percent: float = client.jobs.get("job_1")
"""
# Other libraries are not analysed, which takes most of mypy's time.
MYPY = "[mypy]\nstrict = true\n[mypy-httpx.*]\nfollow_imports = skip\n"


class Installed:
    """An unpacked wheel, and the source from which it was built."""

    def __init__(self, source, site):
        self.source, self.site = source, site
        # With -S no .pth file is read, such as that of an editable installation of the source.
        self.python = [sys.executable, "-S", "-P"]
        self.environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{sysconfig.get_path('purelib')}"}

    def run(self, *words, cwd):
        return subprocess.run(
            [*self.python, *words], env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=120
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source, site = folder / "source", folder / "site"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, folder], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return Installed(source, site)


def test_it_has_every_file_of_the_packages(installed):
    def files(folder):
        packages = (path for package in PACKAGES for path in (folder / package).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix() for path in packages if "__pycache__" not in path.parts}

    expected = files(installed.source)
    assert {f"{package}/py.typed" for package in PACKAGES if package != "migrations"} <= expected
    assert {"migrations/script.py.mako", "migrations/versions/0001_first_tables.py"} <= expected
    assert files(installed.site) == expected


def test_its_command_prints_the_version(installed, tmp_path):
    command = PROJECT["project"]["scripts"]["twoviews"]
    (entry_points,) = installed.site.glob("*.dist-info/entry_points.txt")
    assert f"twoviews = {command}" in entry_points.read_text(encoding="utf-8").splitlines()
    module, _, function = command.partition(":")
    done = installed.run("-c", f"from {module} import {function}; {function}(['--version'])", cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"twoviews {PROJECT['project']['version']}\n", "")


def test_its_api_starts(installed, tmp_path):
    socket = tmp_path / "api.sock"
    environment = installed.environment | {"TWOVIEWS_DATA_DIR": str(tmp_path)}
    transport = httpx.HTTPTransport(uds=str(socket))
    command = [*installed.python, "-m", "api", "--uds", socket]
    subprocess.run([*installed.python, "-m", "service", "migrate"], env=environment, cwd=tmp_path, check=True)
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as api, httpx.Client(transport=transport) as client:
        try:
            deadline = time.monotonic() + 60
            while not socket.exists():
                assert api.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.get("http://api/health/live").json() == {"status": "live"}
            assert client.get("http://api/openapi.json").json()["info"]["version"] == PROJECT["project"]["version"]
        finally:
            api.terminate()


def test_a_type_checker_reads_the_types_of_its_client(installed, tmp_path):
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(MYPY, encoding="utf-8")
    done = installed.run("-m", "mypy", "--cache-dir", os.devnull, "user.py", cwd=tmp_path)
    fault, summary = done.stdout.splitlines()
    assert fault.startswith('user.py:5: error: Incompatible types in assignment (expression has type "Job"')
    assert summary.startswith("Found 1 error")
