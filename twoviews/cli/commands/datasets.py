"""`twoviews datasets`: upload, list and delete datasets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.values import Dataset

app = typer.Typer(no_args_is_help=True, help="Upload, list, show and delete datasets.")


@app.command()
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A zip, tar, npz or Parquet file, or a folder of images.")],
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default the file's name.")] = None,
    skip_bad_files: Annotated[bool, typer.Option("--skip-bad-files", help="Skip images that cannot be read.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse the upload if anything in it is left out.")] = False,
    layout: Annotated[str | None, typer.Option(help="What folders mean: flat, classes or splits.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column, array or field with the labels.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column, array or field with the splits.")] = None,
    pages: Annotated[str | None, typer.Option(help="Pages of a file: first, images or channels.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, max=16, help="Number of channels of each image.")] = None,
    low: Annotated[float | None, typer.Option(help="Value that becomes black in images of more than 8 bits.")] = None,
    high: Annotated[float | None, typer.Option(help="Value that becomes white.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the dataset is ready.")] = True,
    json: Json = False,
) -> None:
    """Upload a dataset."""
    api, policy = get_client(ctx), "skip" if skip_bad_files else "reject"
    options: dict[str, Any] = {
        "layout": layout,
        "label_column": label_column,
        "split_column": split_column,
        "pages": pages,
    }
    options |= {"strict": strict or None, "channels": channels, "low": low, "high": high}
    reading = {field: value for field, value in options.items() if value is not None}
    with terminal.transfer_bar(f"Uploading {path.name}", quiet=json) as progress:
        dataset = api.datasets.upload(path, name=name, on_bad_file=policy, progress=progress, **reading)
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


@app.command()
def images(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    label: Annotated[str | None, typer.Option("--class", help="Only images of this class.")] = None,
    split: Annotated[str | None, typer.Option(help="Only images of train, val or test.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Number of images, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample; the same seed draws the same images.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write the thumbnails to.")] = None,
    size: Annotated[int, typer.Option(min=16, max=512, help="Longer side of a thumbnail, in pixels.")] = 128,
    json: Json = False,
) -> None:
    """List the images of a dataset; with --out, write their thumbnails as <row>.jpg."""
    api = get_client(ctx)
    found = list(api.datasets.images(dataset, split, label, sample, seed))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for image in found:
            (out / f"{image['row']}.jpg").write_bytes(api.datasets.thumbnail(dataset, image["row"], size))
    if json:
        return terminal.print_json([dict(image) for image in found])
    rows = [
        (image["row"], image["split"], image["label"] or "–", f"{image['width']}×{image['height']}", image["name"])
        for image in found
    ]
    return terminal.print_table(("row", "split", "class", "size", "name"), rows, empty="No such images.")


@app.command()
def delete(
    ctx: typer.Context, dataset: Annotated[str, typer.Argument(help="Id of the dataset.")], json: Json = False
) -> None:
    """Delete a dataset and its files. Refused while a job that has not ended uses it."""
    get_client(ctx).datasets.delete(dataset)
    terminal.print_deleted(dataset, json=json)


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
    terminal.print_fields(
        {**about, "size": terminal.format_size(dataset.size_bytes), **counts, **found, "error": error}
    )
    return terminal.print_warnings(report.get("warnings", []))


def _count_images(dataset: Dataset) -> str:
    splits = (dataset.report or {}).get("splits", {})
    return f"{sum(part['images'] for part in splits.values()):,}" if splits else "–"
