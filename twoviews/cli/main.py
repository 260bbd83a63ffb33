"""The `twoviews` command: its groups, and how an error becomes a sentence and an exit code.

Exit codes: 0 all went well; 1 a job or a dataset failed; 2 the command or its request was wrong; 3 there is no such
thing; 4 the service cannot be reached, refuses the key, or is at fault itself.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from twoviews import terminal
from twoviews.cli.commands import datasets, jobs, keys, models, service
from twoviews.cli.context import Session
from twoviews.errors import ApiError, CannotReach, NoCredentials, TwoviewsError

FAILED, WRONG, MISSING, AWAY = 1, 2, 3, 4
SEEN_ENOUGH = 128 + signal.SIGPIPE  # as a shell has it


class Sentences(TyperGroup):
    """A group of commands whose errors are told in a sentence, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(SEEN_ENOUGH) from None
        except (TwoviewsError, OSError, ValueError) as error:
            terminal.problem(error)
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: Exception) -> int:
    """Return what the command ends with because of the error."""
    if isinstance(error, ApiError):
        if error.status == 404:
            return MISSING
        return AWAY if error.status in (401, 403) or error.status >= 500 else WRONG
    if isinstance(error, CannotReach | NoCredentials):
        return AWAY
    if isinstance(error, FileNotFoundError):
        return MISSING
    return FAILED if isinstance(error, TwoviewsError) else WRONG


app = typer.Typer(
    cls=Sentences,
    help="Train image encoders without labels, watch them, judge them, and ask them for embeddings.",
    epilog="Exit codes: 0 well · 1 a job or dataset failed · 2 wrong use or request · 3 not found · 4 service or key.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def connect(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(help="Address of the service, or TWOVIEWS_URL.")] = None,
    key: Annotated[str | None, typer.Option(help="The key, or TWOVIEWS_KEY.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of a local service, where its address and key are found.")
    ] = None,
) -> None:
    ctx.obj = Session(url, key, data)
    ctx.call_on_close(ctx.obj.close)


app.command("up")(service.up)
app.command("demo")(service.demo)
app.add_typer(datasets.app, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.command("metrics")(jobs.metrics)
app.command("embed")(models.embed)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
