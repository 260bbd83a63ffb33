"""The documentation: every command, route, config, path and Python name in it exists."""

import ast
import importlib.util
import inspect
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import typer
from pydantic import BaseModel

from api import app as api
from api.schemas import NewSweep, Usage
from service import keys
from service.audit import ACTIONS
from service.keys import SCOPES
from service.settings import Settings
from service.settings.logs import LogSettings
from service.settings.retention import RetentionSettings
from service.sweeps.space import apply, expand
from ssl_core import config
from ssl_core.config.metric_names import METRIC_NAMES
from tests.api.conftest import TestClient
from twoviews.cli import main
from twoviews.cli.main import app as command
from twoviews.client import Client, Datasets, Indexes, Jobs, Keys, Models, Sweeps

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CLIENT_VARIABLES = ("url", "key")  # TWOVIEWS_URL and TWOVIEWS_KEY, read by the client and by curl
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    page: Path
    kind: str
    text: str


BLOCKS = [
    Block(page, kind.strip(), text) for page in PAGES for kind, text in FENCE.findall(page.read_text(encoding="utf-8"))
]


def blocks(*kinds):
    chosen = [block for block in BLOCKS if block.kind.split(" ")[0] in kinds]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: f"{block.page.name}-{BLOCKS.index(block)}")


def lines(block):
    """Return the commands of a shell block as lists of words, with continuation lines joined and without comments."""
    text = block.text.replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def routes():
    openapi = api.create(Settings(data_dir=Path("unused"), _env_file=None)).openapi()
    return {(method.upper(), path) for path, methods in openapi["paths"].items() for method in methods}


def test_every_block_has_a_known_language():
    known = {
        "",
        "sh",
        "python",
        "json config",
        "json request",
        "json problem",
        "json refusal",
        "json usage",
        "json embeddings",
    } | {f"json {kind}" for kind in config.KINDS}
    assert {block.kind for block in BLOCKS} <= known


@blocks("sh")
def test_commands_exist(block):
    for words in lines(block):
        if words[0] == "curl":
            check_curl(words[1:])
        elif words[0] == "twoviews":
            check_twoviews(words[1:])
        elif words[0] == "make":
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(words[1:]) <= set(targets)
        elif words[:2] == ["python", "-m"]:
            module = ROOT / words[2].replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()
        elif words[0] == "ruff":
            assert words[1] in ("format", "check")
            assert all((ROOT / path).exists() for path in words[2:])
        elif words[0] == "export":
            name = words[1].partition("=")[0].removeprefix("TWOVIEWS_").lower()
            assert name in Settings.model_fields or name in CLIENT_VARIABLES
        elif words[:2] == ["pip", "install"]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            name, _, extras = words[2].removesuffix("]").partition("[")
            assert name == project["name"]
            assert set(filter(None, extras.split(","))) <= project["optional-dependencies"].keys()
        else:
            assert words[:2] in (["docker", "compose"], ["git", "clone"]), words


def check_curl(words):
    """Assert that method and path are a route, and that the config in a JSON body is valid."""
    values = {"-X": None, "-H": None, "-d": None, "-F": None}
    url, method, body, form = "", None, None, False
    rest = iter(words)
    for word in rest:
        if word not in values:
            url = word
            continue
        value = next(rest)
        method = value if word == "-X" else method
        body = value if word == "-d" else body
        form = form or word == "-F"
    path = re.sub(
        r"/((ds|job|mdl|idx|swp)_…|\d+)(?=/|$|\?)", "/{id}", url.removeprefix("$TWOVIEWS_URL").partition("?")[0]
    )
    method = method or ("POST" if form or body else "GET")
    known = {(verb, re.sub(r"\{\w+\}", "{id}", place)) for verb, place in routes()}
    assert (method, path) in known, f"{method} {path} is not a route"
    if body:
        sent = json.loads(body)
        for params in expand(NewSweep(**sent).space, "grid", None, 0) if path == "/sweeps" else [{}]:
            config.parse(apply(sent["config"], params), sent.get("kind", "pretrain"))


def check_twoviews(words):
    """Assert that the words parse as a command with its options."""
    node = typer.main.get_command(command)
    context = node.make_context("twoviews", list(words), resilient_parsing=False)
    while hasattr(node, "commands"):
        name, node, rest = node.resolve_command(context, [*context._protected_args, *context.args])
        context = node.make_context(name, rest, parent=context)


@blocks("python")
def test_python_compiles_and_calls_existing_methods(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert all(is_importable(node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("client."):
            target = resolve(ast.unparse(node.func).split(".")[1:])
            positional = [ast.unparse(argument) for argument in node.args]
            inspect.signature(target).bind(*positional, **{word.arg: word.value for word in node.keywords})


def is_importable(module, name):
    """Return whether the name is an attribute or a submodule of the module."""
    return hasattr(importlib.import_module(module), name) or bool(importlib.util.find_spec(f"{module}.{name}"))


def resolve(path):
    """Return the bound method `client.<path>`."""
    with Client("http://127.0.0.1:9", "tv_none") as thing:
        for name in path:
            thing = getattr(thing, name)
        return thing


@pytest.mark.parametrize("name", ["README.md", "api.md", "deploy.md"])
def test_a_page_sets_the_address_and_the_key_before_it_uses_them(name):
    page = next(page for page in PAGES if page.name == name)
    text = page.read_text(encoding="utf-8")
    for variable in ("TWOVIEWS_URL", "TWOVIEWS_KEY"):
        assert 0 <= text.find(f"export {variable}=") < text.find(f"${variable}"), variable


@blocks("json")
def test_configs_are_valid(block):
    if block.kind in ("json request", "json problem", "json refusal", "json usage", "json embeddings"):
        return  # test_the_example_of_a_problem_is_the_response_of_the_service, test_the_example_of_usage_is_complete
    kind = block.kind.split(" ")[1].replace("config", "pretrain")
    config.parse(json.loads(block.text), kind)


def config_classes(model):
    """Return the class and the config classes of its fields, each once."""
    parts = [part for field in model.model_fields.values() for part in models_in(field.annotation)]
    return list(dict.fromkeys([model, *(found for part in parts for found in config_classes(part))]))


def models_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def field_table(model):
    """Return the required table of a config class: fields, defaults, descriptions."""
    rows = [f"| {model.__name__} | default | what it does |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} has no description"
        rows.append(f"| `{name}` | {format_default(field)} | {field.description} |")
    return "\n".join(rows)


def format_default(field):
    """Return the default as JSON; the defaults of an object are in the object's own table."""
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        ("train.md", ["pretrain"]),
        ("finetune.md", ["supervised", "finetune", "distill"]),
        ("evaluate.md", ["linear_eval", "knn_eval"]),
        ("project.md", ["project"]),
        ("export.md", ["export"]),
        ("embed_dataset.md", ["embed_dataset"]),
    ],
)
def test_every_field_of_a_config_is_in_a_table(page, kinds):
    """Fields that a kind shares with pretraining are only in train.md."""
    text = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in (page, "train.md"))
    for kind in kinds:
        for model in config_classes(config.KINDS[kind]):
            assert f"\n\n{field_table(model)}\n\n" in text + "\n", f"docs/{page} needs:\n\n{field_table(model)}"


def test_every_field_of_an_import_is_in_a_table():
    assert f"\n\n{field_table(config.Import)}\n\n" in (ROOT / "docs" / "import.md").read_text(encoding="utf-8")


def test_every_kind_has_its_tables_on_a_page():
    parameters = test_every_field_of_a_config_is_in_a_table.pytestmark[0]
    assert {kind for _, kinds in parameters.args[1] for kind in kinds} == set(config.KINDS)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_example_of_a_problem_is_the_response_of_the_service(settings, database, tenant):
    request, problem = (
        json.loads(block.text) for kind in ("request", "problem") for block in BLOCKS if block.kind == f"json {kind}"
    )
    with database.writing() as session:
        _, key = keys.create(session, tenant, "test")
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": problem["request_id"]}
    with TestClient(api.create(settings), headers=headers) as client:
        answer = client.post("/jobs", json=request)
    assert answer.json() == problem


def test_the_example_of_usage_is_complete():
    (example,) = (block.text for block in BLOCKS if block.kind == "json usage")
    found = Usage.model_validate_json(example).model_dump()
    assert found == json.loads(example)
    assert found["bytes"]["used"] == sum(found["bytes"]["of"].values())


def test_every_quota_is_in_the_table():
    documented = [setting.strip("`").removeprefix("TWOVIEWS_").lower() for _, _, setting in rows("api.md", "quota")]
    assert documented == [name for name in Settings.model_fields if name.startswith("quota_")]


def test_every_setting_of_logs_is_in_the_page():
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    assert [name for name in LogSettings.model_fields if f"`TWOVIEWS_{name.upper()}`" not in page] == []


def test_every_setting_of_retention_is_in_the_table():
    documented = [
        cell.strip("`").removeprefix("TWOVIEWS_").lower() for *_, cell in rows("operate.md", "what is deleted")
    ]
    assert documented == list(RetentionSettings.model_fields)


def rows(page, heading):
    """Return the rows of the table with that first heading, as lists of cells."""
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_every_scope_and_every_action_is_in_its_table():
    assert [scope.strip("`") for scope, _ in rows("api.md", "scope")] == list(SCOPES)
    documented = [name.strip("` ") for names, _ in rows("secure.md", "action") for name in names.split(",")]
    assert sorted(documented) == sorted(ACTIONS)


def test_every_route_is_in_the_table_of_the_http_interface():
    assert sorted(tuple(call.strip("`").split()) for call, _ in rows("api.md", "call")) == sorted(routes())


def test_the_limits_are_those_of_the_settings():
    found = {
        setting.strip("`").removeprefix("TWOVIEWS_").lower(): default for _, default, setting in rows("api.md", "limit")
    }
    assert found == {name: in_words(Settings.model_fields[name].default) for name in found}
    limits = [name for name in Settings.model_fields if re.search(r"max_(\w+_)?(bytes|images?|unpack\w*)\b", name)]
    assert len(limits) >= 8
    assert [name for name in limits if name not in found] == []


def in_words(value):
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if value % size == 0:
            return f"{value // size:g} {unit}"
    return f"{value:,g}" if value < 2**16 else f"{value:,}"


def test_exit_codes_are_those_of_the_command():
    found = {int(code): meaning for code, meaning in rows("api.md", "code")}
    documented = re.search(r"Exit codes: (.*?)\.$", main.__doc__, re.DOTALL | re.MULTILINE)[1]
    assert found == {int(item[0]): item[2:] for item in " ".join(documented.split()).split("; ")}
    assert set(found) == {0, main.FAILED, main.INVALID, main.NOT_FOUND, main.UNAVAILABLE}


def test_every_metric_of_a_run_is_in_the_table():
    metrics = {
        node.value
        for file in (ROOT / "ssl_core").rglob("*.py")
        if file.name != "metric_names.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z]+/[a-z_0-9]+", str(node.value))
    }
    assert "train/loss" in metrics
    assert metrics == set(METRIC_NAMES)
    assert metrics == {name for names, _ in rows("watch.md", "metric") for name in re.findall(r"`(\w+/\w+)`", names)}


def test_every_warning_of_an_upload_is_in_the_table():
    codes = {
        node.args[0].value
        for room in ("ssl_core", "worker")
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Finding"
    }
    assert "unread_document" in codes
    assert codes == {code for cell, _ in rows("upload.md", "code") for code in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_exist(page):
    local = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_captioned_tree_is_the_tree():
    tree = next(block.text for block in BLOCKS if block.page.name == "README.md" and "ssl_core/  " in block.text)
    folder = ROOT
    for line in tree.splitlines():
        path, caption = line.split(maxsplit=1)
        assert caption, f"{path} has no caption"
        if not line.startswith(" "):
            folder = ROOT / path
            assert folder.is_dir(), path
        else:
            assert (folder / path).exists(), f"{folder.name}/{path}"
    core = tree.split("\nservice/")[0]
    assert [file.name for file in (ROOT / "ssl_core").glob("[a-z]*.py") if file.name not in core] == []


def test_every_module_of_the_client_has_a_docstring():
    for file in (ROOT / "twoviews").rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no docstring"


@pytest.mark.parametrize("noun", [Client, Datasets, Jobs, Models, Indexes, Sweeps, Keys])
def test_every_method_of_the_client_has_a_docstring(noun):
    public = {name: method for name, method in vars(noun).items() if inspect.isfunction(method) and name[0] != "_"}
    assert public
    assert noun.__doc__
    assert [name for name, method in public.items() if not method.__doc__] == []


PATH = r"(?:ssl_core|service|api|worker|twoviews|docker|migrations|tests)/[\w./]*"


def test_paths_in_the_prose_exist():
    for page in PAGES:
        for path in re.findall(f"`({PATH})`", page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_path_in_the_readme_exists():
    paths = re.findall(rf"(?<![\w/.-]){PATH}", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path.rstrip(".")).exists()] == []
