"""Containers: the images install all that they import, and the compose file runs and checks existing commands.

No test needs Docker: an image's environment is simulated by hiding packages that its extra does not install.
"""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import api.app
from service import workers
from service.db import migrate
from service.db.session import Database
from service.settings import Settings
from service.storage import Storage

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
INSTRUCTIONS = {"FROM", "ARG", "WORKDIR", "RUN", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("twoviews")}
PROFILES = ("cpu", "gpu")
DOCKER_STOP_SECONDS = 10  # default time from SIGTERM to SIGKILL

# Imports the modules, and the drivers of broker and database, as if the absent packages were not installed.
IMPORT_WITHOUT = """
import importlib, json, sys
absent, modules, database, broker = json.loads(sys.stdin.read())
class Present:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Present, sys.meta_path)
for module in modules:
    importlib.import_module(module)
from service.db.session import Database
from service.doorbell import create_celery_app
Database(database).close()
create_celery_app(broker).connection_for_write().transport
print("torch" in sys.modules)
"""


def instructions(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in lines]


def dockerfile(service):
    return ROOT / service["build"]["dockerfile"]


def command(service):
    """Return the command of the service, or else that of its image."""
    return service.get("command") or next(
        json.loads(rest) for name, rest in instructions(dockerfile(service)) if name == "CMD"
    )


def variables(path):
    """Return the environment variables that an image sets."""
    return dict(word.split("=", 1) for name, rest in instructions(path) if name == "ENV" for word in rest.split())


def commands_of(profile):
    """Return the services that a profile starts, with their commands."""
    return {name: command(service) for name, service in OURS.items() if profile in service.get("profiles", [profile])}


def extras_of(path):
    """Return the extras of this project that an image installs."""
    (found,) = re.findall(r'"\.\[([\w,]+)\]"', path.read_text())
    return found.split(",")


def distributions_of(extra):
    """Return the names of all distributions that an extra, or several with commas between them, installs."""
    found = set()
    pending = [Requirement(f"twoviews[{extra}]")]
    while pending:
        requirement = pending.pop()
        for part in ["", *requirement.extras]:
            if (key := (canonicalize_name(requirement.name), part)) not in found:
                found.add(key)
                pending += requirements_of(*key)
    return {name for name, _ in found}


def requirements_of(name, extra):
    if name == "twoviews":  # from pyproject.toml: the installed metadata may be older
        lines = EXTRAS[extra] if extra else PROJECT["project"]["dependencies"]
        return [Requirement(line) for line in lines]
    try:
        lines = [Requirement(line) for line in requires(name) or []]
    except PackageNotFoundError:  # for another platform
        return []
    return [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]


def modules(*packages):
    """Return the dotted names of all modules of the packages."""
    files = [path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)


def is_module_command(command):
    """Return whether the command runs an existing module."""
    assert command[:2] == ["python", "-m"], command
    return importlib.util.find_spec(command[2]) is not None


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_copies_existing_files_and_runs_without_privileges(path):
    words = instructions(path)
    assert {name for name, _ in words} <= INSTRUCTIONS
    assert [name for name, _ in words].count("FROM") == 2
    last_stage = words[max(place for place, (name, _) in enumerate(words) if name == "FROM") :]
    assert ["USER", "twoviews"] in last_stage
    for name, rest in words:
        if name == "COPY" and "--from" not in rest:
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
        if name == "CMD":
            assert is_module_command(json.loads(rest))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_installs_an_extra_that_exists(path):
    extras = extras_of(path)
    assert extras[0] == path.suffix[1:]
    assert set(extras) <= EXTRAS.keys()


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        ("api", [*modules("api", "service", "migrations/versions"), "worker.keeper"]),
        ("worker", [*modules("worker", "service", "ssl_core"), "torchvision"]),
    ],
    ids=["api", "worker"],
)
def test_an_extra_installs_all_that_its_image_imports(extra, needed):
    installed = extras_of(next(path for path in DOCKERFILES if path.suffix == f".{extra}"))
    with_extra = distributions_of(",".join(installed))
    absent = [
        module
        for module, names in packages_distributions().items()
        if with_extra.isdisjoint(map(canonicalize_name, names)) and module not in ("api", "service", "worker")
    ]
    assert "pytest" in absent
    assert "sqlalchemy" not in absent
    environment = OURS["migrate"]["environment"]
    database = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", environment["TWOVIEWS_DATABASE_URL"])
    request = json.dumps([absent, needed, database, environment["TWOVIEWS_BROKER_URL"]])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_WITHOUT],
        cwd=ROOT, input=request, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(extra == "worker")]


def test_every_command_is_in_the_import_test_of_its_image():
    tested = {"api": {"api", "service", "worker.keeper"}, "worker": {"worker", "worker.encoder"}}
    for service in OURS.values():
        words = command(service)
        assert words[2] in tested[dockerfile(service).suffix[1:]]


def test_the_image_of_the_api_installs_no_torch():
    assert distributions_of("api").isdisjoint({"torch", "torchvision", "numpy", "pillow", "pyarrow"})
    assert "torch" in distributions_of("worker")


def test_the_image_of_workers_installs_the_torch_version_of_the_project():
    (run,) = [rest for name, rest in instructions(ROOT / "docker" / "Dockerfile.worker") if "$TORCH_OPTIONS" in rest]
    assert run.split("--no-cache-dir ")[1].split()[0] == "$TORCH_OPTIONS"  # unquoted: it may be several words
    assert set(re.findall(r'"(.*?)"', run)) == {line for line in EXTRAS["core"] if line.startswith("torch")}


def test_images_copy_every_package_of_the_project():
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    for path in DOCKERFILES:
        copied = {rest.split()[0] for name, rest in instructions(path) if name == "COPY" and "--from" not in rest}
        assert packages <= copied


def test_copied_files_are_not_in_dockerignore():
    lines = (ROOT / ".dockerignore").read_text()
    for path in DOCKERFILES:
        for name, rest in instructions(path):
            if name == "COPY" and "--from" not in rest:
                assert all(f"!{source}\n" in lines for source in rest.split()[:-1])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_an_existing_command(name):
    service = SERVICES[name]
    if name in OURS:
        assert dockerfile(service).exists()
        assert is_module_command(command(service))
        assert set(service["environment"]) <= {f"TWOVIEWS_{field.upper()}" for field in Settings.model_fields}
        assert service["volumes"] == ["data:/data"]
        assert service["init"] is True
    assert {source.partition(":")[0] for source in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_sets_existing_settings(path):
    settings = {name for name in variables(path) if name.startswith("TWOVIEWS_")}
    assert settings <= {f"TWOVIEWS_{field.upper()}" for field in Settings.model_fields}


def test_downloaded_weights_are_in_the_volume_and_survive_the_sweep(tmp_path):
    home = Path(variables(ROOT / "docker" / "Dockerfile.worker")["HOME"])
    volume = Path(OURS["worker"]["volumes"][0].partition(":")[2])
    weights = tmp_path / home.relative_to(volume) / ".cache" / "torch" / "hub" / "checkpoints" / "resnet18.pth"
    leftover = tmp_path / "tmp" / "forgotten.upload"
    for path in (weights, leftover):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        os.utime(path, (1, 1))
    Storage(tmp_path).sweep([], frozenset(), time.time() - 60)
    assert weights.exists()
    assert not leftover.exists()


def test_every_service_has_a_health_check_or_disables_it():
    checked = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})}
    disabled = {name for name, service in SERVICES.items() if service.get("healthcheck", {}).get("disable")}
    assert checked | disabled == set(SERVICES) - {"api"}
    assert disabled == {"migrate", "keeper"}
    assert "HEALTHCHECK" in {name for name, _ in instructions(ROOT / "docker" / "Dockerfile.api")}


def test_postgres_is_healthy_once_it_answers_over_tcp_and_persists_its_data():
    postgres = SERVICES["postgres"]
    assert int(re.fullmatch(r"postgres:(\d+)-alpine", postgres["image"])[1]) >= 18
    assert postgres["volumes"] == ["database:/var/lib/postgresql"]  # since 18, a subfolder for each version
    check = postgres["healthcheck"]["test"]
    assert check[:2] == ["CMD", "pg_isready"]
    assert check[check.index("-h") + 1] == "127.0.0.1"


def test_health_checks_over_http_request_an_existing_path_on_the_served_port():
    (rest,) = [rest for name, rest in instructions(ROOT / "docker" / "Dockerfile.api") if name == "HEALTHCHECK"]
    of_api = json.loads(rest.partition("CMD ")[2])[-1]
    of_encoder = OURS["encoder"]["healthcheck"]["test"][-1]
    assert OURS["encoder-gpu"]["healthcheck"]["test"][-1] == of_encoder
    for check in (of_api, of_encoder):
        compile(check, "check", "exec")
    urls = [urlsplit(re.search(r"http://[^']+", check)[0]) for check in (of_api, of_encoder)]
    words = command(OURS["api"])
    assert urls[0].port == int(words[words.index("--port") + 1])
    application = api.app.create(Settings(data_dir=Path("unused"), _env_file=None))
    assert urls[0].path in application.openapi()["paths"]
    assert urls[1].port == urlsplit(OURS["encoder"]["environment"]["TWOVIEWS_ENCODER_URL"]).port
    assert f'case "GET", "{urls[1].path}":' in (ROOT / "worker" / "encoder" / "server.py").read_text()


def test_a_worker_is_healthy_once_the_service_has_seen_it(tmp_path):
    checks = {
        OURS[name]["healthcheck"]["test"][-1] for name in OURS if OURS[name].get("command", [])[2:3] == ["worker"]
    }
    (check,) = checks
    settings = Settings(data_dir=tmp_path, _env_file=None)
    database = Database(settings.database)

    def is_healthy():
        environment = {**os.environ, "TWOVIEWS_DATA_DIR": str(tmp_path), "TWOVIEWS_DATABASE_URL": ""}
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environment, capture_output=True, timeout=60)
        assert done.stderr == b""
        return done.returncode == 0

    try:
        migrate.upgrade(database)
        with database.writing() as session:
            workers.record_heartbeat(session, "train@elsewhere:1", "train")
        assert not is_healthy()
        with database.writing() as session:
            workers.record_heartbeat(session, f"train@{socket.gethostname()}:7", "train")
        assert is_healthy()
    finally:
        database.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_starts_each_process_once_with_one_worker_image(profile):
    parts = [
        ["service", "migrate"], ["api", "--host", "0.0.0.0", "--port", "8000"], ["worker.keeper"],
        ["worker", "--queue", "train"], ["worker", "--queue", "data"], ["worker.encoder"],
    ]  # fmt: skip
    found = [words[2:] for words in commands_of(profile).values()]
    assert sorted(found) == sorted(parts)
    assert {OURS[name]["image"] for name in commands_of(profile)} == {"twoviews-api", f"twoviews-worker:{profile}"}
    host = urlsplit(OURS["api"]["environment"]["TWOVIEWS_ENCODER_URL"]).hostname
    (encoder,) = [name for name, words in commands_of(profile).items() if words[2] == "worker.encoder"]
    aliases = OURS[encoder].get("networks", {}).get("default", {}).get("aliases", [])
    assert host in [encoder, *aliases]


def test_the_profile_cpu_installs_torch_without_cuda():
    for name in commands_of("cpu"):
        if OURS[name]["image"] == "twoviews-worker:cpu":
            options = OURS[name]["build"]["args"]["TORCH_OPTIONS"]
            assert options == "--index-url https://download.pytorch.org/whl/cpu"


def test_training_and_encoder_of_the_profile_gpu_reserve_a_gpu():
    reserving = {name: service["deploy"] for name, service in SERVICES.items() if "deploy" in service}
    assert set(reserving) == {"worker-gpu", "encoder-gpu"}
    for deploy in reserving.values():
        (device,) = deploy["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_services_stop_before_docker_kills_them():
    assert "--grace-seconds" not in command(OURS["api"])
    defaults = Settings(_env_file=None)
    for name, service in OURS.items():
        stop_seconds = int(service.get("stop_grace_period", f"{DOCKER_STOP_SECONDS}s").removesuffix("s"))
        if dockerfile(service).suffix == ".worker":
            assert stop_seconds > defaults.grace_seconds + DOCKER_STOP_SECONDS, name
        elif name == "api":
            assert stop_seconds > defaults.http_drain_seconds + defaults.http_grace_seconds + DOCKER_STOP_SECONDS


def test_every_secret_is_set_by_a_variable():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "TOKEN" in name or "DATABASE_URL" in name:
                assert re.search(r"\$\{TWOVIEWS_\w+:-[\w-]+\}", value), name


@pytest.mark.parametrize("words", [("service", "migrate", "--help"), ("worker", "--queue", "train", "--help")])
def test_commands_of_the_compose_file_run(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
