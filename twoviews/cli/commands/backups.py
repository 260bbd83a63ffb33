"""`twoviews backup`, `restore` and `verify`: an operator's commands, beside the data of the service."""

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from twoviews import credentials
from twoviews.cli.commands.service import require_embedded
from twoviews.cli.context import get_session

Data = Annotated[Path | None, typer.Option(help="Data folder; default TWOVIEWS_DATA_DIR, or ./twoviews-data.")]


def backup(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(help="New folder of the backup.")],
    data: Data = None,
    since: Annotated[
        Path | None, typer.Option(help="Earlier backup; what has not changed since takes no space (hard links).")
    ] = None,
) -> None:
    """Back up the database and the stored files; the service may run. Exit code 1 if a file is damaged."""
    options = ["--since", str(since)] if since is not None else []
    _run(_find_data(ctx, data), "backup", str(out), *options)


def restore(
    ctx: typer.Context,
    backup: Annotated[Path, typer.Argument(help="Folder of a backup.")],
    data: Data = None,
    keep_damaged: Annotated[
        bool, typer.Option("--keep-damaged", help="Restore although files of the backup are damaged.")
    ] = False,
) -> None:
    """Restore a backup into an empty data folder, and the empty database of TWOVIEWS_DATABASE_URL if that is set."""
    options = ["--keep-damaged"] if keep_damaged else []
    _run(_find_data(ctx, data), "restore", str(backup), *options)


def verify(
    ctx: typer.Context,
    data: Data = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Check again what an interrupted verification has checked.")
    ] = False,
) -> None:
    """Compare every stored file with its recorded SHA-256. Exit code 1 if one is damaged or missing."""
    options = ["--restart"] if restart else []
    _run(_find_data(ctx, data), "verify", *options)


def _find_data(ctx: typer.Context, data: Path | None) -> Path:
    return (data or get_session(ctx).data or credentials.default_dir()).absolute()


def _run(data: Path, *arguments: str) -> None:
    """Run the administration command on the data folder, with this terminal. Raises TwoviewsError."""
    require_embedded()
    from twoviews.local.processes import PYTHON  # noqa: PLC0415  (needs what Windows does not have)

    environment = os.environ | {"TWOVIEWS_DATA_DIR": str(data)}
    raise typer.Exit(subprocess.run([*PYTHON, "service", *arguments], env=environment, check=False).returncode)
