"""`twoviews indexes`: build and list indexes, and look into them; and `twoviews search`."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client
from twoviews.values import Index

app = typer.Typer(no_args_is_help=True, help="Build, list and delete indexes of embeddings, and look into them.")
_Index = Annotated[str, typer.Argument(help="Id of the index.")]
_Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many are listed at most.")]
_Split = Annotated[str | None, typer.Option(help="Only images of train, val or test.")]
_Label = Annotated[str | None, typer.Option("--class", help="Only images of this class.")]


@app.command()
def create(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(help="Id of the embed_dataset job.")],
    name: Annotated[str | None, typer.Option(help="Name of the index.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the index is ready.")] = True,
    json: Json = False,
) -> None:
    """Index the embeddings that a job has left."""
    api = get_client(ctx)
    index = api.indexes.create(job, name=name)
    if wait:
        with terminal.spinner("Building the index", quiet=json):
            index = api.indexes.wait(index)
    print_index(index, json)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List indexes, newest first."""
    found = list(get_client(ctx).indexes.list())
    if json:
        return terminal.print_json([dict(index.raw) for index in found])
    rows = [
        (item.id, item.name or "–", item.status, item.dataset or "–", item.model or "–", _count_vectors(item))
        for item in found
    ]
    return terminal.print_table(("id", "name", "status", "dataset", "model", "images"), rows, empty="No indexes yet.")


@app.command()
def show(ctx: typer.Context, index: _Index, json: Json = False) -> None:
    """Show an index."""
    print_index(get_client(ctx).indexes.get(index), json)


@app.command()
def delete(ctx: typer.Context, index: _Index) -> None:
    """Delete an index; the embeddings stay with their job."""
    get_client(ctx).indexes.delete(index)
    terminal.out.print(f"[green]✓[/] {index} is deleted.")


@app.command()
def duplicates(
    ctx: typer.Context,
    index: _Index,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least cosine similarity.")] = 0.95,
    limit: _Limit = 100,
    across_splits: Annotated[bool, typer.Option("--across-splits", help="Only pairs in different splits.")] = False,
    json: Json = False,
) -> None:
    """List pairs of images that are nearly the same."""
    found = get_client(ctx).indexes.duplicates(index, threshold=threshold, limit=limit, across_splits=across_splits)
    if json:
        return terminal.print_json([dict(pair) for pair in found])
    rows = [(f"{pair['similarity']:.4f}", *map(_describe, pair["images"])) for pair in found]
    return terminal.print_table(("similarity", "image", "other image"), rows, empty="No duplicates.")


@app.command()
def outliers(
    ctx: typer.Context,
    index: _Index,
    k: Annotated[int, typer.Option(min=1, max=32, help="Neighbours that the distance is to.")] = 10,
    limit: _Limit = 100,
    split: _Split = None,
    label: _Label = None,
    json: Json = False,
) -> None:
    """List images that are far from all others."""
    found = get_client(ctx).indexes.outliers(index, k=k, limit=limit, split=split, label=label)
    _print_images(found, json, distance=lambda image: f"{image['distance']:.4f}")


@app.command()
def select(
    ctx: typer.Context,
    index: _Index,
    n: Annotated[int, typer.Argument(min=1, max=10_000, help="How many images to select.")],
    seed: Annotated[int, typer.Option(min=0, help="Draws the first image.")] = 0,
    start: Annotated[int | None, typer.Option(min=0, help="Row of the first image.")] = None,
    split: _Split = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Only images without a label.")] = False,
    json: Json = False,
) -> None:
    """Select images that cover the others, to be labelled first."""
    found = get_client(ctx).indexes.select(index, n, seed=seed, start=start, split=split, unlabelled=unlabelled)
    _print_images(found, json, radius=lambda image: f"{image['radius']:.4f}")


@app.command()
def labels(
    ctx: typer.Context,
    index: _Index,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Labelled neighbours that vote.")] = 20,
    temperature: Annotated[float, typer.Option(min=0.001, max=10, help="Of the votes.")] = 0.1,
    split: _Split = None,
    json: Json = False,
) -> None:
    """Predict the labels of the images without one, by their labelled neighbours."""
    found = get_client(ctx).indexes.labels(index, k=k, temperature=temperature, split=split)
    _print_images(
        found,
        json,
        predicted=lambda image: image["predicted"] or "–",
        confidence=lambda image: f"{image['confidence']:.3f}",
    )


def search(
    ctx: typer.Context,
    index: _Index,
    image: Annotated[Path | None, typer.Argument(help="An image file to search for.")] = None,
    row: Annotated[int | None, typer.Option(min=0, help="Row of the index to search for, in place of a file.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many images are found.")] = 10,
    split: _Split = None,
    label: _Label = None,
    json: Json = False,
) -> None:
    """Find the images of an index that are nearest to an image or to one of its own rows."""
    if (image is None) == (row is None):
        raise ValueError("Give an image file or a --row.")
    found = get_client(ctx).indexes.search(index, row=row, image=image, k=k, split=split, label=label)
    _print_images(found, json, similarity=lambda item: f"{item['similarity']:.4f}")


def print_index(index: Index, json: bool) -> None:
    """Print an index."""
    if json:
        return terminal.print_json(dict(index.raw))
    report: dict[str, Any] = dict(index.report or {})
    about = {"id": index.id, "name": index.name, "status": index.status, "dataset": index.dataset}
    about |= {"model": index.model, "layer": index.layer}
    if report:
        about |= {"images": _count_vectors(index), "numbers": str(report["dim"]), "method": report["method"]}
        about |= {"recall at 10": f"{report['recall_at_10']:.3f}", "size": terminal.format_size(report["bytes"])}
    return terminal.print_fields({**about, "error": (index.error or {}).get("detail")})


def _print_images(images: Iterable[Mapping[str, Any]], json: bool, **columns: Callable[[Any], str]) -> None:
    """Print a table of images with further columns, or JSON."""
    found = list(images)
    if json:
        return terminal.print_json([dict(image) for image in found])
    rows = []
    for image in found:
        shown = (format_column(image) for format_column in columns.values())
        rows.append((image["row"], *shown, image["split"], image["label"] or "–", image["path"]))
    return terminal.print_table(("row", *columns, "split", "class", "path"), rows, empty="No such images.")


def _describe(image: Mapping[str, Any]) -> str:
    return f"{image['row']} ({image['split']}) {image['path']}"


def _count_vectors(index: Index) -> str:
    return f"{index.report['vectors']:,}" if index.report else "–"
