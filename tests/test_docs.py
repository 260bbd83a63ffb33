"""The documentation: every command, address, config, path and piece of Python in it is one that exists."""

import ast
import inspect
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import typer
from pydantic import BaseModel

import twoviews
from api import app as api
from service.settings import Settings
from ssl_core import config
from twoviews.cli import app as command
from twoviews.client import Client

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
    """The commands of a shell block, as words; a line that goes on is one command, and comments are left out."""
    text = block.text.replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def routes():
    openapi = api.create(Settings(data_dir=Path("unused"), _env_file=None)).openapi()
    return {(method.upper(), path) for path, methods in openapi["paths"].items() for method in methods}


def test_every_block_says_its_language():
    known = {"", "sh", "python", "json config", "json linear_eval", "json knn_eval"}
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
            assert any(ROOT.glob(f"{words[2].replace('.', '/')}.py")) or (ROOT / words[2] / "__main__.py").exists()
        elif words[0] == "export":
            name = words[1].partition("=")[0].removeprefix("TWOVIEWS_").lower()
            assert name in Settings.model_fields
        else:
            assert words[:2] in (["docker", "compose"], ["git", "clone"], ["pip", "install"]), words


def check_curl(words):
    """The method and the path are a route; a JSON body's config is one that would be accepted."""
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
    path = re.sub(r"/(ds|job|mdl)_…", "/{id}", url.removeprefix("$TWOVIEWS_URL").partition("?")[0])
    method = method or ("POST" if form or body else "GET")
    known = {(verb, re.sub(r"\{\w+\}", "{id}", place)) for verb, place in routes()}
    assert (method, path) in known, f"{method} {path} is no route"
    if body:
        job = json.loads(body)
        config.parse(job["config"], job["kind"])


def check_twoviews(words):
    """The words parse as a command: it exists, and so does every option."""
    node = typer.main.get_command(command)
    context = node.make_context("twoviews", list(words), resilient_parsing=False)
    while hasattr(node, "commands"):
        name, node, rest = node.resolve_command(context, [*context._protected_args, *context.args])
        context = node.make_context(name, rest, parent=context)


@blocks("python")
def test_python_compiles_and_calls_what_exists(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "twoviews"
            assert all(hasattr(twoviews, alias.name) for alias in node.names)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("client."):
            target = resolve(ast.unparse(node.func).split(".")[1:])
            given = [ast.unparse(argument) for argument in node.args]
            inspect.signature(target).bind(*given, **{word.arg: word.value for word in node.keywords})


def resolve(path):
    """The bound method that `client.<path>` names."""
    with Client("http://127.0.0.1:9", "tv_none") as thing:
        for name in path:
            thing = getattr(thing, name)
        return thing


@blocks("json")
def test_configs_would_be_accepted(block):
    kind = block.kind.split(" ")[1].replace("config", "pretrain")
    config.parse(json.loads(block.text), kind)


def config_classes(model):
    """A kind's class, then those of its fields, each once."""
    parts = [part for field in model.model_fields.values() for part in models_in(field.annotation)]
    return list(dict.fromkeys([model, *(found for part in parts for found in config_classes(part))]))


def models_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def field_table(model):
    """The table of a config class as it has to stand on the page: its fields, their defaults, what they do."""
    rows = [f"| {model.__name__} | default | what it does |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} does not say what it does"
        rows.append(f"| `{name}` | {shown_default(field)} | {field.description} |")
    return "\n".join(rows)


def shown_default(field):
    """As JSON; an object's own defaults are in its own table."""
    if field.is_required():
        return "needed"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize(("page", "kinds"), [("train.md", ["pretrain"]), ("evaluate.md", ["linear_eval", "knn_eval"])])
def test_every_field_of_a_config_is_in_a_table(page, kinds):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for kind in kinds:
        for model in config_classes(config.KINDS[kind]):
            assert f"\n\n{field_table(model)}\n\n" in text + "\n", f"docs/{page} needs:\n\n{field_table(model)}"


def test_every_kind_has_its_tables_on_a_page():
    marked = test_every_field_of_a_config_is_in_a_table.pytestmark[0]
    assert {kind for _, kinds in marked.args[1] for kind in kinds} == set(config.KINDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
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


def test_every_method_of_the_client_and_every_module_starts_with_what_it_is():
    for file in (ROOT / "twoviews").rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no first line"


def test_paths_in_the_prose_exist():
    for page in PAGES:
        for path in re.findall(
            r"`((?:ssl_core|service|api|worker|twoviews|docker|migrations|tests)/[\w./]*)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
