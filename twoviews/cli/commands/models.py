"""`twoviews models`: trained encoders; and `twoviews embed`."""

from pathlib import Path
from typing import Annotated

import typer

from twoviews import terminal
from twoviews.cli import run_config
from twoviews.cli.commands import jobs
from twoviews.cli.context import Json, client

app = typer.Typer(no_args_is_help=True, help="See and fetch trained encoders.")


@app.command("import")
def import_(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="safetensors, or a state dict as torch.save writes it.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name unless told otherwise.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="What weights do not tell, as in image_size=96; may be repeated."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the model is there.")] = True,
    json: Json = False,
) -> None:
    """Make a model of weights that were trained elsewhere. Ends 1 when they cannot become one."""
    api = client(ctx)
    config = run_config.build(None, None, change or [], api.recipes)
    with terminal.sending(f"Sending {path.name}", quiet=json) as progress:
        job = api.models.create(path, name=name, config=config, progress=progress)
    if wait:
        with terminal.waiting("Looking at the weights", quiet=json):
            job = api.jobs.wait(job)
    jobs.show_one(job, json)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List models, newest first."""
    found = list(client(ctx).models.list())
    if json:
        return terminal.as_json([dict(model.raw) for model in found])
    rows = [(item.id, item.name, item.dim, terminal.size(item.size_bytes), item.created_at[:19]) for item in found]
    return terminal.table(("id", "name", "dim", "size", "created"), rows, empty="No models yet.")


@app.command()
def download(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model, or of the job that made it.")],
    target: Annotated[Path, typer.Argument(help="A file, or the folder to put it in.")] = Path(),
    file: Annotated[str, typer.Option(help="weights, heads, card or readme.")] = "weights",
    json: Json = False,
) -> None:
    """Fetch a model's file, checked against its SHA-256."""
    with terminal.sending(f"Fetching {model}", quiet=json) as progress:
        path = client(ctx).models.download(model, target, file=file, progress=progress)
    if json:
        terminal.as_json({"path": str(path)})
    else:
        terminal.out.print(f"[green]✓[/] {path}")


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
        return terminal.as_json(
            [{"image": str(path), "embedding": list(row)} for path, row in zip(images, rows, strict=True)]
        )
    shown = [
        (path.name, len(row), "  ".join(f"{value:+.3f}" for value in row[:5]) + " …")
        for path, row in zip(images, rows, strict=True)
    ]
    return terminal.table(("image", "dim", "embedding"), shown, empty="No images.")
