"""`twoviews datasets`: upload and list datasets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.values import Dataset

app = typer.Typer(no_args_is_help=True, help="Upload, list and show datasets.")


@app.command()
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A zip, tar, npz or Parquet file, or a folder of images.")],
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default the file's name.")] = None,
    skip_bad_files: Annotated[bool, typer.Option("--skip-bad-files", help="Skip images that cannot be read.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the dataset is ready.")] = True,
    json: Json = False,
) -> None:
    """Upload a dataset."""
    api, policy = get_client(ctx), "skip" if skip_bad_files else "reject"
    with terminal.transfer_bar(f"Uploading {path.name}", quiet=json) as progress:
        dataset = api.datasets.upload(path, name=name, on_bad_file=policy, progress=progress)
    if wait:
        with terminal.spinner("Validating the images", quiet=json):
            dataset = api.datasets.wait(dataset)
    print_dataset(dataset, json)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List datasets, newest first."""
    found = list(get_client(ctx).datasets.list())
    if json:
        return terminal.print_json([dict(dataset.raw) for dataset in found])
    rows = [
        (item.id, item.name, item.status, terminal.format_size(item.size_bytes), _count_images(item)) for item in found
    ]
    return terminal.print_table(("id", "name", "status", "size", "images"), rows, empty="No datasets yet.")


@app.command()
def show(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    json: Json = False,
) -> None:
    """Show a dataset with its splits and classes."""
    print_dataset(get_client(ctx).datasets.get(dataset), json)


def print_dataset(dataset: Dataset, json: bool) -> None:
    """Print a dataset."""
    if json:
        return terminal.print_json(dict(dataset.raw))
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
    return terminal.print_fields(
        {**about, "size": terminal.format_size(dataset.size_bytes), **counts, **found, "error": error}
    )


def _count_images(dataset: Dataset) -> str:
    splits = (dataset.report or {}).get("splits", {})
    return f"{sum(part['images'] for part in splits.values()):,}" if splits else "–"
