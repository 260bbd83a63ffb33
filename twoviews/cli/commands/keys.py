"""`twoviews keys` and `twoviews sign-in`: create, list and revoke API keys, and sign a browser in."""

from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.cli.times import parse_expiry
from twoviews.values import Key

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
_COLUMNS = ("id", "name", "scopes", "created", "expires", "last used")


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may be used for: read, embed, train, admin; repeatable. Default: as your own key."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Days such as 30d, a date, or a time. Default: as your own key.")
    ] = None,
    json: Json = False,
) -> None:
    """Create a key; its secret is shown only now."""
    expiry: dict[str, Any] = parse_expiry(expires) if expires else {}
    key = get_client(ctx).keys.create(name, scopes=scope or None, **expiry)
    if json:
        return terminal.print_json(dict(key.raw))
    fields = {"id": key.id, "name": key.name, "scopes": " ".join(key.scopes)}
    return terminal.print_fields({**fields, "expires": key.expires_at, "key": key.key})


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List keys."""
    found = list(get_client(ctx).keys.list())
    if json:
        return terminal.print_json([dict(key.raw) for key in found])
    return terminal.print_table(_COLUMNS, [_make_row(key) for key in found], empty="No keys.")


@app.command()
def revoke(ctx: typer.Context, key: Annotated[str, typer.Argument(help="Id of the key.")], json: Json = False) -> None:
    """Revoke a key."""
    get_client(ctx).keys.revoke(key)
    if json:
        terminal.print_json({"id": key, "revoked": True})
    else:
        terminal.out.print(f"[green]✓[/] {key} is revoked.")


def sign_in(ctx: typer.Context, json: Json = False) -> None:
    """Print an address that signs a browser in to the page, once, within 15 minutes."""
    address = get_client(ctx).keys.sign_in_address()
    if json:
        terminal.print_json({"url": address})
    else:
        print(address)  # noqa: T201  (one line, however long, for a terminal to open)


def _make_row(key: Key) -> tuple[str, ...]:
    expires = "revoked" if key.revoked_at else _format_date(key.expires_at)
    return (
        key.id,
        key.name,
        " ".join(key.scopes),
        _format_date(key.created_at),
        expires,
        _format_date(key.last_used_at),
    )


def _format_date(value: str | None) -> str:
    return value[:10] if value else ""
