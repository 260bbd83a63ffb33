"""The `twoviews` command: its groups, global options, error messages and exit codes.

Exit codes: 0 success; 1 a job or a dataset failed; 2 the command or its request is invalid; 3 the resource or file does
not exist; 4 the service cannot be reached, rejects the key, or has an internal error.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from twoviews import __version__, terminal
from twoviews.cli.commands import (
    audit,
    backups,
    catalog,
    comparison,
    datasets,
    indexes,
    jobs,
    keys,
    models,
    service,
    sweeps,
    usage,
)
from twoviews.cli.context import Session
from twoviews.errors import ApiError, CannotReach, NoCredentials, TwoviewsError

FAILED, INVALID, NOT_FOUND, UNAVAILABLE = 1, 2, 3, 4
BROKEN_PIPE = 128 + 13  # as a shell reports SIGPIPE, which Windows does not have


class ErrorHandlingGroup(TyperGroup):
    """A group of commands that prints errors as a sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of stdout has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except (TwoviewsError, OSError, ValueError) as error:
            terminal.print_error(error)
            raise typer.Exit(choose_exit_code(error)) from error


def choose_exit_code(error: Exception) -> int:
    """Return the exit code for the error."""
    if isinstance(error, ApiError):
        if error.status == 404:
            return NOT_FOUND
        return UNAVAILABLE if error.status in (401, 403) or error.status >= 500 else INVALID
    if isinstance(error, CannotReach | NoCredentials):
        return UNAVAILABLE
    if isinstance(error, FileNotFoundError):
        return NOT_FOUND
    return FAILED if isinstance(error, TwoviewsError) else INVALID


app = typer.Typer(
    cls=ErrorHandlingGroup,
    help="Train image encoders with self-supervised learning, follow and evaluate them, and compute embeddings.",
    epilog="Exit codes: 0 success · 1 job or dataset failed · 2 invalid request · 3 not found · 4 service or key.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(asked: bool) -> None:
    """Print the version and exit, if it is asked for."""
    if asked:
        terminal.out.print(f"twoviews {__version__}")
        raise typer.Exit


@app.callback()
def set_options(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(help="URL of the service; default TWOVIEWS_URL.")] = None,
    key: Annotated[str | None, typer.Option(help="API key; default TWOVIEWS_KEY.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of a local service, which has its URL and key.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    terminal.replace_unencodable()
    ctx.obj = Session(url, key, data)
    ctx.call_on_close(ctx.obj.close)


app.command("up")(service.up)
app.command("demo")(service.demo)
app.add_typer(datasets.app, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.add_typer(sweeps.app, name="sweeps")
app.command("metrics")(jobs.metrics)
app.command("embed")(models.embed)
app.command("embed-dataset")(jobs.embed_dataset)
app.add_typer(models.app, name="models")
app.command("search")(indexes.search)
app.add_typer(indexes.app, name="indexes")
app.command("sign-in")(keys.sign_in)
app.add_typer(keys.app, name="keys")
app.command("leaderboard")(comparison.leaderboard)
app.command("methods")(catalog.methods)
app.command("recipes")(catalog.recipes)
app.command("usage")(usage.usage)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
app.command("verify")(backups.verify)
app.command("audit")(audit.audit)
