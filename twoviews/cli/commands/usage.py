"""`twoviews usage`: what the owner of the key uses, and what it may use."""

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.values import Json as Amounts


def usage(ctx: typer.Context, json: Json = False) -> None:
    """Show jobs, stored bytes and requests, each with its quota."""
    found = get_client(ctx).usage()
    if json:
        return terminal.print_json(dict(found))
    rows = [
        _make_row("jobs queued", found["jobs"]["queued"]),
        _make_row("jobs running", found["jobs"]["running"]),
        _make_row("uploads queued", found["uploads"]["queued"]),
        _make_row("uploads running", found["uploads"]["running"]),
        _make_row("bytes stored", found["bytes"]),
        *((f"  {name}", f"{size:,}", "") for name, size in found["bytes"]["of"].items()),
        _make_row("requests in this minute", found["requests_per_minute"]),
    ]
    return terminal.print_table(("", "used", "allowed"), rows, empty="")


def _make_row(name: str, amount: Amounts) -> tuple[str, str, str]:
    allowed = amount["allowed"]
    return name, f"{amount['used']:,}", "no limit" if allowed is None else f"{allowed:,}"
