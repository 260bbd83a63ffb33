"""`twoviews models`: import, list, show, name, download and delete models; and `twoviews embed`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import embeddings, terminal
from twoviews.cli import run_config
from twoviews.cli.commands import jobs
from twoviews.cli.context import Json, get_client

app = typer.Typer(no_args_is_help=True, help="Import, list, show, name, download and delete models.")
ModelId = Annotated[str, typer.Argument(help="Id or alias of the model, or id of the job that made it.")]


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
        (
            item.id,
            item.name,
            ", ".join(item.aliases),
            item.dim,
            terminal.format_size(item.size_bytes),
            item.created_at[:19],
        )
        for item in found
    ]
    columns = ("id", "name", "aliases", "dim", "size", "created")
    return terminal.print_table(columns, rows, empty="No models yet.")


@app.command()
def show(ctx: typer.Context, model: ModelId, json: Json = False) -> None:
    """Show a model: its method, backbone, layers, aliases and metrics."""
    found = get_client(ctx).models.get(model)
    if json:
        return terminal.print_json(dict(found.raw))
    card: dict[str, Any] = dict(found.raw)
    about = {"id": found.id, "name": found.name, "aliases": ", ".join(found.aliases), "job": found.job_id}
    network = {"method": card.get("method"), "backbone": (card.get("backbone") or {}).get("name"), "dim": found.dim}
    layers = "  ".join(f"{name} {width}" for name, width in (card.get("layers") or {}).items())
    stored = {"size": terminal.format_size(found.size_bytes), "sha256": found.sha256, "created": found.created_at[:19]}
    return terminal.print_fields({**about, **network, "layers": layers, **_list_metrics(card), **stored})


def _list_metrics(card: dict[str, Any]) -> dict[str, object]:
    return {name: value for name, value in (card.get("metrics") or {}).items() if isinstance(value, int | float)}


@app.command()
def alias(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The alias; without it, all are listed.")] = None,
    model: Annotated[str | None, typer.Argument(help="Id of the model that it is to name.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias; the model stays.")] = False,
    json: Json = False,
) -> None:
    """Give a model an alias or move it there; without a model, show the alias, and without an alias, all of them."""
    api = get_client(ctx).models
    if delete:
        if name is None or model is not None:
            raise typer.BadParameter("--delete needs the alias, and no model.")
        api.delete_alias(name)
        return terminal.print_deleted(name, json=json)
    found = (
        [api.alias(name, model)] if name and model else [each for each in api.aliases() if name in (None, each["name"])]
    )
    if json:
        return terminal.print_json([dict(each) for each in found])
    rows = [(each["name"], each["model"], each["moved_at"][:19]) for each in found]
    return terminal.print_table(
        ("alias", "model", "since"), rows, empty="No such alias." if name else "No aliases yet."
    )


@app.command()
def delete(ctx: typer.Context, model: ModelId, json: Json = False) -> None:
    """Delete a model and its files. Refused while a job that has not ended uses it, or an alias names it."""
    get_client(ctx).models.delete(model)
    terminal.print_deleted(model, json=json)


@app.command()
def download(
    ctx: typer.Context,
    model: ModelId,
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
    model: ModelId,
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
