"""Containers: what the images copy and install exists, and what the compose file starts is a command of ours."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
INSTRUCTIONS = {"FROM", "ARG", "WORKDIR", "RUN", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def instructions(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in lines]


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
            assert ours(yaml.safe_load(rest))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_installs_an_extra_that_exists(path):
    extras = re.findall(r'"\.\[(\w+)\]"', path.read_text())
    assert extras == [path.suffix[1:]]
    assert extras[0] in EXTRAS


def test_the_image_of_the_api_installs_no_torch():
    def wanted(extra):
        for requirement in EXTRAS[extra]:
            inner = re.fullmatch(r"twoviews\[([\w,]+)\]", requirement)
            yield from (name for part in inner[1].split(",") for name in wanted(part)) if inner else [requirement]

    names = {re.split(r"[^\w-]", requirement)[0] for requirement in wanted("api")}
    assert names.isdisjoint({"torch", "torchvision", "numpy", "pillow", "pyarrow"})
    assert "torch" in {re.split(r"[^\w-]", requirement)[0] for requirement in wanted("worker")}


def test_what_is_copied_is_not_ignored():
    kept = (ROOT / ".dockerignore").read_text()
    for path in DOCKERFILES:
        for name, rest in instructions(path):
            if name == "COPY" and "--from" not in rest:
                assert all(f"!{source}\n" in kept for source in rest.split()[:-1])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_a_command_that_exists(name):
    service = SERVICES[name]
    if service["image"].startswith("twoviews"):
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert "command" not in service or ours(service["command"])
        assert set(service["environment"]) <= {f"TWOVIEWS_{field.upper()}" for field in Settings.model_fields}
        assert service["volumes"] == ["data:/data"]
    assert {source.partition(":")[0] for source in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_everything_that_can_say_how_it_is_has_a_health_check():
    assert {"postgres", "redis", "encoder"} <= {name for name, service in SERVICES.items() if "healthcheck" in service}
    assert "HEALTHCHECK" in {name for name, _ in instructions(ROOT / "docker" / "Dockerfile.api")}


def test_a_gpu_is_reserved_by_the_profile_gpu_alone():
    reserving = {name for name, service in SERVICES.items() if "deploy" in service}
    assert {tuple(SERVICES[name]["profiles"]) for name in reserving} == {("gpu",)}
    device = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert SERVICES["worker"]["profiles"] == ["cpu"]


def test_no_secret_is_plain_that_could_not_be_set_otherwise():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "TOKEN" in name or "DATABASE_URL" in name:
                assert re.search(r"\$\{TWOVIEWS_\w+:-[\w-]+\}", value), name


@pytest.mark.parametrize("words", [("service", "--help"), ("worker", "--help")])
def test_commands_of_the_compose_file_run(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
