"""`twoviews datasets`: uploads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, client
from twoviews.values import Dataset

app = typer.Typer(no_args_is_help=True, help="Upload images and see what was found in them.")


@app.command()
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A zip, tar, npz or Parquet file, or a folder of images.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name unless told otherwise.")] = None,
    skip_bad_files: Annotated[
        bool, typer.Option("--skip-bad-files", help="Leave out images that cannot be read.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is ready.")] = True,
    json: Json = False,
) -> None:
    """Upload images."""
    api, policy = client(ctx), "skip" if skip_bad_files else "reject"
    with terminal.sending(f"Sending {path.name}", quiet=json) as progress:
        dataset = api.datasets.upload(path, name=name, on_bad_file=policy, progress=progress)
    if wait:
        with terminal.waiting("Looking at the images", quiet=json):
            dataset = api.datasets.wait(dataset)
    show_one(dataset, json)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List datasets, newest first."""
    found = list(client(ctx).datasets.list())
    if json:
        return terminal.as_json([dict(dataset.raw) for dataset in found])
    rows = [(item.id, item.name, item.status, terminal.size(item.size_bytes), _images(item)) for item in found]
    return terminal.table(("id", "name", "status", "size", "images"), rows, empty="No datasets yet.")


@app.command()
def show(ctx: typer.Context, dataset: str, json: Json = False) -> None:
    """Show a dataset and what was found in it."""
    show_one(client(ctx).datasets.get(dataset), json)


def show_one(dataset: Dataset, json: bool) -> None:
    """Print a dataset."""
    if json:
        return terminal.as_json(dict(dataset.raw))
    report: dict[str, Any] = dict(dataset.report or {})
    splits = report.get("splits", {})
    counts = {
        name: f"{part['images']:,} images, {part['labelled']:,} labelled"
        for name, part in splits.items()
        if part["images"]
    }
    about = {"id": dataset.id, "name": dataset.name, "status": dataset.status}
    found = {"classes": ", ".join(map(str, report.get("classes", []))), "skipped": report.get("skipped_count") or None}
    error = (dataset.error or {}).get("detail") or (dataset.error or {}).get("message")
    return terminal.fields({**about, "size": terminal.size(dataset.size_bytes), **counts, **found, "error": error})


def _images(dataset: Dataset) -> str:
    splits = (dataset.report or {}).get("splits", {})
    return f"{sum(part['images'] for part in splits.values()):,}" if splits else "–"
