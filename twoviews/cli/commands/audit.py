"""`twoviews audit`: who did what with the owner's keys."""

from typing import Annotated

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.cli.times import parse_since

_COLUMNS = ("at", "action", "target", "key", "address")


def audit(
    ctx: typer.Context,
    action: Annotated[str | None, typer.Option(help="Only this action, such as key.create.")] = None,
    key: Annotated[str | None, typer.Option("--by", help="Only what this key did; its id.")] = None,
    since: Annotated[str | None, typer.Option(help="Days ago such as 7d, a date, or a time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of entries.")] = 50,
    json: Json = False,
) -> None:
    """List what was done with the owner's keys, newest first; --json prints all of each entry. Times are UTC."""
    found = get_client(ctx).audit(action=action, key=key, since=parse_since(since) if since else None)
    entries = [entry for _, entry in zip(range(limit), found, strict=False)]
    if json:
        return terminal.print_json([dict(entry) for entry in entries])
    rows = [
        (
            entry["at"][:16].replace("T", " "),
            entry["action"],
            entry["target"],
            entry["key_name"] or "server",
            entry["address"] or "",
        )
        for entry in entries
    ]
    return terminal.print_table(_COLUMNS, rows, empty="No entries.")
