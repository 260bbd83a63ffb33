"""`twoviews methods` and `twoviews recipes`: what can be trained."""

import json as json_text
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.values import Json as Item

Name = Annotated[str | None, typer.Argument(help="Show only this one, with its config.")]


def methods(ctx: typer.Context, name: Name = None, json: Json = False) -> None:
    """List the training methods, or show the defaults of one."""
    found = _choose(get_client(ctx).methods(), name)
    if json:
        return terminal.print_json([dict(method) for method in found])
    if name is None:
        rows = [(method["name"], _first_paragraph(method["description"])) for method in found]
        return terminal.print_table(("name", "description"), rows, empty="")
    terminal.print_fields({"name": name, "description": _first_paragraph(found[0]["description"])})
    return terminal.print_code("config.method, with its defaults", json_text.dumps(found[0]["defaults"], indent=2))


def recipes(ctx: typer.Context, name: Name = None, json: Json = False) -> None:
    """List the recipes, complete configs by name, or show one."""
    found = _choose(get_client(ctx).recipes(), name)
    if json:
        return terminal.print_json([dict(recipe) for recipe in found])
    if name is None:
        rows = [(item["name"], item["kind"], _first_sentence(item["description"]), item["duration"]) for item in found]
        return terminal.print_table(("recipe", "kind", "description", "duration"), rows, empty="")
    about: dict[str, Any] = dict(found[0])
    config, evaluation = about.pop("config"), about.pop("evaluation", None)
    terminal.print_fields(about)
    terminal.print_code("config", json_text.dumps(config, indent=2))
    if evaluation:
        terminal.print_code("config of its evaluation", json_text.dumps(evaluation, indent=2))
    return None


def _choose(items: Sequence[Item], name: str | None) -> Sequence[Item]:
    """Return the item of that name, or all for None. Raises ValueError."""
    chosen = [item for item in items if name in (None, item["name"])]
    if not chosen:
        raise ValueError(f"There is no {name}; there are {', '.join(item['name'] for item in items)}.")
    return chosen


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".") + "."


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
