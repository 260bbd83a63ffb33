"""`twoviews models`: trained encoders; and `twoviews embed`."""

from pathlib import Path
from typing import Annotated

import typer

from twoviews import screen
from twoviews.session import Json, client

app = typer.Typer(no_args_is_help=True, help="See and fetch trained encoders.")


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List models, newest first."""
    found = list(client(ctx).models.list())
    if json:
        return screen.as_json([dict(model.raw) for model in found])
    rows = [(item.id, item.name, item.dim, screen.size(item.size_bytes), item.created_at[:19]) for item in found]
    return screen.table(("id", "name", "dim", "size", "created"), rows, empty="No models yet.")


@app.command()
def download(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model, or of the job that made it.")],
    target: Annotated[Path, typer.Argument(help="A file, or the folder to put it in.")] = Path(),
    file: Annotated[str, typer.Option(help="weights, heads, card or readme.")] = "weights",
    json: Json = False,
) -> None:
    """Fetch a model's file, checked against its SHA-256."""
    with screen.sending(f"Fetching {model}", quiet=json) as progress:
        path = client(ctx).models.download(model, target, file=file, progress=progress)
    if json:
        screen.as_json({"path": str(path)})
    else:
        screen.out.print(f"[green]✓[/] {path}")


def embed(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model, or of the job that made it.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    layer: Annotated[str, typer.Option(help="backbone, projection, or block1 to block4.")] = "backbone",
    json: Json = False,
) -> None:
    """Turn images into vectors; --json prints them whole."""
    rows = client(ctx).embed(model, images, layer=layer)
    if json:
        return screen.as_json(
            [{"image": str(path), "embedding": list(row)} for path, row in zip(images, rows, strict=True)]
        )
    shown = [
        (path.name, len(row), "  ".join(f"{value:+.3f}" for value in row[:5]) + " …")
        for path, row in zip(images, rows, strict=True)
    ]
    return screen.table(("image", "dim", "embedding"), shown, empty="No images.")
