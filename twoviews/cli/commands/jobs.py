"""`twoviews jobs`: runs; and `twoviews metrics`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli import run_config
from twoviews.cli.context import Json, client
from twoviews.client import succeeded
from twoviews.values import Job

app = typer.Typer(no_args_is_help=True, help="Ask for runs and follow them.")
_NONE = "The job left no files."


@app.command()
def submit(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(help="pretrain, supervised, finetune, distill, linear_eval, knn_eval, project or export."),
    ],
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    config: Annotated[str | None, typer.Option(help="A JSON file, or JSON itself.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Start from the recipe of this name.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Set one field, as in method.temperature=0.1; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model, or the job that is to make it.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it has ended.")] = False,
    json: Json = False,
) -> None:
    """Ask for a run."""
    api = client(ctx)
    wanted = run_config.build(config, recipe, change or [], api.recipes)
    job = api.jobs.submit(kind=kind, dataset=dataset, config=wanted, model=model, name=name, priority=priority)
    if watch:
        follow(ctx, job, json)
    else:
        show_one(job, json)


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this dataset.")] = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    found = list(client(ctx).jobs.list(status=status, kind=kind, dataset=dataset))
    if json:
        return terminal.as_json([dict(job.raw) for job in found])
    rows = [(job.id, job.kind, job.name or "", job.status, _share(job), job.created_at[:19]) for job in found]
    return terminal.table(("id", "kind", "name", "status", "done", "created"), rows, empty="No jobs yet.")


@app.command()
def show(ctx: typer.Context, job: str, json: Json = False) -> None:
    """Show a job."""
    show_one(client(ctx).jobs.get(job), json)


@app.command()
def watch(ctx: typer.Context, job: str, json: Json = False) -> None:
    """Follow a job until it has ended; with --json one line for each update. Ends 1 when the job failed."""
    follow(ctx, client(ctx).jobs.get(job), json)


@app.command()
def cancel(ctx: typer.Context, job: str, json: Json = False) -> None:
    """Ask a job to end; it keeps its checkpoint."""
    show_one(client(ctx).jobs.cancel(job), json)


@app.command()
def artifacts(
    ctx: typer.Context,
    job: str,
    out: Annotated[Path | None, typer.Option(help="Fetch them into this folder.")] = None,
    json: Json = False,
) -> None:
    """List the files that a job left, such as pictures, or fetch them with --out."""
    jobs = client(ctx).jobs
    if out is not None:
        paths = [str(path) for path in jobs.download(job, out)]
        return terminal.as_json(paths) if json else terminal.table(("file",), [(path,) for path in paths], empty=_NONE)
    found = jobs.artifacts(job)
    if json:
        return terminal.as_json([dict(item) for item in found])
    rows = [(item["name"], item["media_type"], terminal.size(item["size_bytes"])) for item in found]
    return terminal.table(("name", "type", "size"), rows, empty=_NONE)


def metrics(
    ctx: typer.Context,
    job: str,
    names: Annotated[list[str] | None, typer.Argument(help="Names of metrics; all when none is given.")] = None,
    max_points: Annotated[int, typer.Option(min=2, help="At most so many points of each.")] = 20,
    json: Json = False,
) -> None:
    """Show a job's metrics."""
    found = client(ctx).jobs.metrics(job, names or (), max_points=max_points)
    if json:
        return terminal.as_json(dict(found.raw))
    rows = [
        (series.name, step, round(epoch, 2), value)
        for series in found.series.values()
        for step, epoch, value in zip(series.step, series.epoch, series.value, strict=True)
    ]
    return terminal.table(("metric", "step", "epoch", "value"), rows, empty="No metrics yet.")


def follow(ctx: typer.Context, job: Job, json: bool) -> None:
    """Show a job until it has ended. Raises JobFailed."""
    updates = client(ctx).jobs.watch(job)
    if json:
        for update in updates:
            terminal.as_json({"job": dict(update.job.raw), "metrics": dict(update.metrics.raw)})
            job = update.job
    else:
        with terminal.Runs() as runs:
            job = runs.follow(job.name or job.kind, updates)
        show_one(job, json)
    succeeded(job)


def show_one(job: Job, json: bool) -> None:
    """Print a job."""
    if json:
        return terminal.as_json(dict(job.raw))
    about = {"id": job.id, "kind": job.kind, "name": job.name, "status": job.status, "dataset": job.dataset}
    error = (job.error or {}).get("detail") or (job.error or {}).get("message")
    beside = _flat({"supervised": list(job.supervised)})
    told = {"done": _share(job), "model": job.model_id, "error": error, **_flat(job.summary), **beside}
    return terminal.fields({**about, **told})


def _flat(summary: Any) -> dict[str, object]:
    """Return the summary's plain values; a list of results becomes a line for each."""
    flat: dict[str, object] = {}
    for name, value in dict(summary or {}).items():
        if isinstance(value, list):
            for place, item in enumerate(value):
                flat[f"{name} {place + 1}"] = _line(item) if isinstance(item, dict) else item
        else:
            flat[name] = _line(value) if isinstance(value, dict) else value
    return flat


def _line(pairs: dict[str, object]) -> str:
    return " · ".join(f"{name} {terminal.number(value)}" for name, value in pairs.items() if value is not None)


def _share(job: Job) -> str:
    if job.status == "succeeded":
        return "100 %"
    return f"{(job.progress or {}).get('percent') or 0:.0f} %"
