"""`twoviews keys`: create, list and revoke API keys."""

from typing import Annotated

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")


@app.command()
def create(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="Name of the key.")], json: Json = False
) -> None:
    """Create a key; its secret is shown only now."""
    key = get_client(ctx).keys.create(name)
    if json:
        return terminal.print_json(dict(key.raw))
    return terminal.print_fields({"id": key.id, "name": key.name, "key": key.key})


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List keys."""
    found = list(get_client(ctx).keys.list())
    if json:
        return terminal.print_json([dict(key.raw) for key in found])
    return terminal.print_table(
        ("id", "name", "created"), [(key.id, key.name, key.created_at[:19]) for key in found], empty="No keys."
    )


@app.command()
def revoke(ctx: typer.Context, key: Annotated[str, typer.Argument(help="Id of the key.")], json: Json = False) -> None:
    """Revoke a key."""
    get_client(ctx).keys.revoke(key)
    if json:
        terminal.print_json({"id": key, "revoked": True})
    else:
        terminal.out.print(f"[green]✓[/] {key} is revoked.")
