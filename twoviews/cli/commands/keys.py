"""`twoviews keys`: who may call."""

from typing import Annotated

import typer

from twoviews import terminal
from twoviews.cli.context import Json, client

app = typer.Typer(no_args_is_help=True, help="Make and revoke keys.")


@app.command()
def create(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="What the key is for.")], json: Json = False
) -> None:
    """Make a key; its secret is shown this once."""
    key = client(ctx).keys.create(name)
    if json:
        return terminal.as_json(dict(key.raw))
    return terminal.fields({"id": key.id, "name": key.name, "key": key.key})


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List keys."""
    found = list(client(ctx).keys.list())
    if json:
        return terminal.as_json([dict(key.raw) for key in found])
    return terminal.table(
        ("id", "name", "created"), [(key.id, key.name, key.created_at[:19]) for key in found], empty="No keys."
    )


@app.command()
def revoke(ctx: typer.Context, key: Annotated[str, typer.Argument(help="Id of the key.")], json: Json = False) -> None:
    """Revoke a key; it opens nothing from now on."""
    client(ctx).keys.revoke(key)
    if json:
        terminal.as_json({"id": key, "revoked": True})
    else:
        terminal.out.print(f"[green]✓[/] {key} is revoked.")
