"""Containers: what the images install is there and is enough, and the compose file starts and checks what exists.

Nothing here needs Docker: an image's environment is this one, less what its extra does not bring.
"""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import api.__main__
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
DOCKER_STOP_SECONDS = 10  # from SIGTERM to SIGKILL where a service says nothing else

# Imports the modules, and the broker's and the database's drivers, as if what is named absent were not installed.
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
    """What the service runs: its own command, or else the one of its image."""
    return service.get("command") or next(
        json.loads(rest) for name, rest in instructions(dockerfile(service)) if name == "CMD"
    )


def variables(path):
    """The environment that an image sets."""
    return dict(word.split("=", 1) for name, rest in instructions(path) if name == "ENV" for word in rest.split())


def started(profile):
    """The services that a profile brings up, and what each runs."""
    return {name: command(service) for name, service in OURS.items() if profile in service.get("profiles", [profile])}


def brought(extra):
    """The names of all distributions that come with an extra."""
    found = set()
    waiting = [Requirement(f"twoviews[{extra}]")]
    while waiting:
        wanted = waiting.pop()
        for part in ["", *wanted.extras]:
            if (key := (canonicalize_name(wanted.name), part)) not in found:
                found.add(key)
                waiting += required(*key)
    return {name for name, _ in found}


def required(name, extra):
    if name == "twoviews":  # from the file: what is installed may be older
        lines = EXTRAS[extra] if extra else PROJECT["project"]["dependencies"]
        return [Requirement(line) for line in lines]
    try:
        lines = [Requirement(line) for line in requires(name) or []]
    except PackageNotFoundError:  # of another platform
        return []
    return [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]


def modules(*packages):
    """Every module of the packages, by its dotted name."""
    files = [path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)


def ours(command):
    """Whether the command runs a module that exists."""
    assert command[:2] == ["python", "-m"], command
    return importlib.util.find_spec(command[2]) is not None


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_made_of_what_exists_and_runs_as_nobody_special(path):
    words = instructions(path)
    assert {name for name, _ in words} <= INSTRUCTIONS
    assert [name for name, _ in words].count("FROM") == 2
    last_stage = words[max(place for place, (name, _) in enumerate(words) if name == "FROM") :]
    assert ["USER", "twoviews"] in last_stage
    for name, rest in words:
        if name == "COPY" and "--from" not in rest:
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
        if name == "CMD":
            assert ours(json.loads(rest))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_installs_an_extra_that_exists(path):
    extras = re.findall(r'"\.\[(\w+)\]"', path.read_text())
    assert extras == [path.suffix[1:]]
    assert extras[0] in EXTRAS


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        ("api", [*modules("api", "service", "migrations/versions"), "worker.keeper"]),
        ("worker", [*modules("worker", "service", "ssl_core"), "torchvision"]),
    ],
    ids=["api", "worker"],
)
def test_an_extra_brings_all_that_its_image_imports(extra, needed):
    with_extra = brought(extra)
    absent = [
        module
        for module, names in packages_distributions().items()
        if with_extra.isdisjoint(map(canonicalize_name, names)) and module not in ("api", "service", "worker")
    ]
    assert "pytest" in absent
    assert "sqlalchemy" not in absent
    environment = OURS["migrate"]["environment"]
    database = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", environment["TWOVIEWS_DATABASE_URL"])
    told = json.dumps([absent, needed, database, environment["TWOVIEWS_BROKER_URL"]])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_WITHOUT],
        cwd=ROOT, input=told, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(extra == "worker")]


def test_every_service_is_covered_by_what_its_image_was_seen_to_import():
    there = {"api": {"api", "service", "worker.keeper"}, "worker": {"worker", "worker.encoder"}}
    for service in OURS.values():
        words = command(service)
        assert words[2] in there[dockerfile(service).suffix[1:]]


def test_the_image_of_the_api_installs_no_torch():
    assert brought("api").isdisjoint({"torch", "torchvision", "numpy", "pillow", "pyarrow"})
    assert "torch" in brought("worker")


def test_the_image_of_workers_installs_the_torch_that_the_project_wants():
    (run,) = [rest for name, rest in instructions(ROOT / "docker" / "Dockerfile.worker") if "$TORCH_OPTIONS" in rest]
    assert run.split("--no-cache-dir ")[1].split()[0] == "$TORCH_OPTIONS"  # no quotes: it may be several words
    assert set(re.findall(r'"(.*?)"', run)) == {line for line in EXTRAS["core"] if line.startswith("torch")}


def test_images_copy_every_package_that_is_built():
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    for path in DOCKERFILES:
        copied = {rest.split()[0] for name, rest in instructions(path) if name == "COPY" and "--from" not in rest}
        assert packages <= copied


def test_what_is_copied_is_not_ignored():
    kept = (ROOT / ".dockerignore").read_text()
    for path in DOCKERFILES:
        for name, rest in instructions(path):
            if name == "COPY" and "--from" not in rest:
                assert all(f"!{source}\n" in kept for source in rest.split()[:-1])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_a_command_that_exists(name):
    service = SERVICES[name]
    if name in OURS:
        assert dockerfile(service).exists()
        assert ours(command(service))
        assert set(service["environment"]) <= {f"TWOVIEWS_{field.upper()}" for field in Settings.model_fields}
        assert service["volumes"] == ["data:/data"]
        assert service["init"] is True
    assert {source.partition(":")[0] for source in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_sets_what_exists(path):
    ours = {name for name in variables(path) if name.startswith("TWOVIEWS_")}
    assert ours <= {f"TWOVIEWS_{field.upper()}" for field in Settings.model_fields}


def test_downloaded_weights_stay_in_the_volume_and_no_sweep_takes_them(tmp_path):
    home = Path(variables(ROOT / "docker" / "Dockerfile.worker")["HOME"])
    volume = Path(OURS["worker"]["volumes"][0].partition(":")[2])
    weights = tmp_path / home.relative_to(volume) / ".cache" / "torch" / "hub" / "checkpoints" / "resnet18.pth"
    leftover = tmp_path / "tmp" / "forgotten.upload"
    for path in (weights, leftover):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        os.utime(path, (1, 1))
    Storage(tmp_path).sweep([], frozenset(), leftover_seconds=60)
    assert weights.exists()
    assert not leftover.exists()


def test_everything_that_can_say_how_it_is_has_a_health_check():
    checked = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})}
    disabled = {name for name, service in SERVICES.items() if service.get("healthcheck", {}).get("disable")}
    assert checked | disabled == set(SERVICES) - {"api"}
    assert disabled == {"migrate", "keeper"}
    assert "HEALTHCHECK" in {name for name, _ in instructions(ROOT / "docker" / "Dockerfile.api")}


def test_postgres_is_healthy_once_it_answers_over_tcp_and_keeps_its_data():
    postgres = SERVICES["postgres"]
    assert int(re.fullmatch(r"postgres:(\d+)-alpine", postgres["image"])[1]) >= 18
    assert postgres["volumes"] == ["database:/var/lib/postgresql"]  # since 18; the data are in a folder of the version
    check = postgres["healthcheck"]["test"]
    assert check[:2] == ["CMD", "pg_isready"]
    assert check[check.index("-h") + 1] == "127.0.0.1"


def test_health_checks_over_http_ask_the_port_that_is_served_for_a_path_that_exists():
    (rest,) = [rest for name, rest in instructions(ROOT / "docker" / "Dockerfile.api") if name == "HEALTHCHECK"]
    of_api = json.loads(rest.partition("CMD ")[2])[-1]
    of_encoder = OURS["encoder"]["healthcheck"]["test"][-1]
    assert OURS["encoder-gpu"]["healthcheck"]["test"][-1] == of_encoder
    for check in (of_api, of_encoder):
        compile(check, "check", "exec")
    asked = [urlsplit(re.search(r"http://[^']+", check)[0]) for check in (of_api, of_encoder)]
    words = command(OURS["api"])
    assert asked[0].port == int(words[words.index("--port") + 1])
    application = api.app.create(Settings(data_dir=Path("unused"), _env_file=None))
    assert asked[0].path in application.openapi()["paths"]
    assert asked[1].port == urlsplit(OURS["encoder"]["environment"]["TWOVIEWS_ENCODER_URL"]).port
    assert f'case "GET", "{asked[1].path}":' in (ROOT / "worker" / "encoder.py").read_text()


def test_a_worker_is_healthy_once_the_service_has_seen_it(tmp_path):
    checks = {
        OURS[name]["healthcheck"]["test"][-1] for name in OURS if OURS[name].get("command", [])[2:3] == ["worker"]
    }
    (check,) = checks
    settings = Settings(data_dir=tmp_path, _env_file=None)
    database = Database(settings.database)

    def healthy():
        environment = {**os.environ, "TWOVIEWS_DATA_DIR": str(tmp_path), "TWOVIEWS_DATABASE_URL": ""}
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environment, capture_output=True, timeout=60)
        assert done.stderr == b""
        return done.returncode == 0

    try:
        migrate.upgrade(database)
        with database.writing() as session:
            workers.record_heartbeat(session, "train@elsewhere:1", "train")
        assert not healthy()
        with database.writing() as session:
            workers.record_heartbeat(session, f"train@{socket.gethostname()}:7", "train")
        assert healthy()
    finally:
        database.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_brings_each_part_once_and_one_image_of_workers(profile):
    parts = [
        ["service", "migrate"], ["api", "--host", "0.0.0.0", "--port", "8000"], ["worker.keeper"],
        ["worker", "--queue", "train"], ["worker", "--queue", "data"], ["worker.encoder"],
    ]  # fmt: skip
    found = [words[2:] for words in started(profile).values()]
    assert sorted(found) == sorted(parts)
    assert {OURS[name]["image"] for name in started(profile)} == {"twoviews-api", f"twoviews-worker:{profile}"}
    host = urlsplit(OURS["api"]["environment"]["TWOVIEWS_ENCODER_URL"]).hostname
    (encoder,) = [name for name, words in started(profile).items() if words[2] == "worker.encoder"]
    aliases = OURS[encoder].get("networks", {}).get("default", {}).get("aliases", [])
    assert host in [encoder, *aliases]


def test_the_profile_cpu_takes_a_torch_without_cuda():
    for name in started("cpu"):
        if OURS[name]["image"] == "twoviews-worker:cpu":
            options = OURS[name]["build"]["args"]["TORCH_OPTIONS"]
            assert options == "--index-url https://download.pytorch.org/whl/cpu"


def test_a_gpu_is_reserved_by_training_and_encoder_of_the_profile_gpu():
    reserving = {name: service["deploy"] for name, service in SERVICES.items() if "deploy" in service}
    assert set(reserving) == {"worker-gpu", "encoder-gpu"}
    for deploy in reserving.values():
        (device,) = deploy["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_services_end_by_themselves_before_docker_kills_them():
    assert "--grace-seconds" not in command(OURS["api"])
    assert api.__main__.GRACE_SECONDS < DOCKER_STOP_SECONDS
    grace_seconds = Settings(_env_file=None).grace_seconds
    for name, service in OURS.items():
        if dockerfile(service).suffix == ".worker":
            assert int(service["stop_grace_period"].removesuffix("s")) > grace_seconds + DOCKER_STOP_SECONDS, name


def test_no_secret_is_plain_that_could_not_be_set_otherwise():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "TOKEN" in name or "DATABASE_URL" in name:
                assert re.search(r"\$\{TWOVIEWS_\w+:-[\w-]+\}", value), name


@pytest.mark.parametrize("words", [("service", "migrate", "--help"), ("worker", "--queue", "train", "--help")])
def test_commands_of_the_compose_file_run(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
