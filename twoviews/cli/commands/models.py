"""`twoviews models`: import, list and download models; and `twoviews embed`."""

from pathlib import Path
from typing import Annotated

import typer

from twoviews import embeddings, terminal
from twoviews.cli import run_config
from twoviews.cli.commands import jobs
from twoviews.cli.context import Json, get_client

app = typer.Typer(no_args_is_help=True, help="Import, list and download models.")


@app.command("import")
def import_(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A safetensors file, or a state dict written by torch.save.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; default the file's name.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field that weights do not contain, as in image_size=96; may be repeated."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the model is ready.")] = True,
    json: Json = False,
) -> None:
    """Import pretrained weights as a model. Exits with 1 when they cannot be imported."""
    api = get_client(ctx)
    config = run_config.build(None, None, change or [], api.recipes)
    with terminal.transfer_bar(f"Uploading {path.name}", quiet=json) as progress:
        job = api.models.create(path, name=name, config=config, progress=progress)
    if wait:
        with terminal.spinner("Importing the weights", quiet=json):
            job = api.jobs.wait(job)
    jobs.print_job(job, json)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List models, newest first."""
    found = list(get_client(ctx).models.list())
    if json:
        return terminal.print_json([dict(model.raw) for model in found])
    rows = [
        (item.id, item.name, item.dim, terminal.format_size(item.size_bytes), item.created_at[:19]) for item in found
    ]
    return terminal.print_table(("id", "name", "dim", "size", "created"), rows, empty="No models yet.")


@app.command()
def download(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model, or of the job that made it.")],
    target: Annotated[
        str, typer.Argument(help="A file, or a folder, which ends with a slash if it is to be created.")
    ] = ".",
    file: Annotated[str, typer.Option(help="weights, heads, card or readme.")] = "weights",
    json: Json = False,
) -> None:
    """Download a file of a model and check its SHA-256."""
    with terminal.transfer_bar(f"Downloading {model}", quiet=json) as progress:
        path = get_client(ctx).models.download(model, target, file=file, progress=progress)
    if json:
        terminal.print_json({"path": str(path)})
    else:
        terminal.out.print(f"[green]✓[/] {path}")


def embed(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model, or of the job that made it.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    layer: Annotated[str, typer.Option(help="backbone, projection, or block1 to block4.")] = "backbone",
    json: Json = False,
) -> None:
    """Compute embeddings of images; --json prints all their values."""
    files = embeddings.find_images(images)
    rows = get_client(ctx).embed(model, files, layer=layer)
    if json:
        return terminal.print_json(
            [{"image": str(path), "embedding": list(row)} for path, row in zip(files, rows, strict=True)]
        )
    table_rows = [
        (str(path), len(row), "  ".join(f"{value:+.3f}" for value in row[:5]) + " …")
        for path, row in zip(files, rows, strict=True)
    ]
    return terminal.print_table(("image", "dim", "embedding"), table_rows, empty="No images.")
