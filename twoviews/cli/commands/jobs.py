"""`twoviews jobs`: submit, follow and list jobs; and `twoviews metrics`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli import run_config
from twoviews.cli.commands import comparison
from twoviews.cli.context import Json, get_client
from twoviews.client import require_success
from twoviews.values import Job, JobStatus

app = typer.Typer(no_args_is_help=True, help="Submit, follow, list, steer, compare and delete jobs.")
app.command("compare")(comparison.compare)
JobId = Annotated[str, typer.Argument(help="Id of the job.")]
_NO_ARTIFACTS = "The job has no artifacts."


@app.command()
def submit(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            help="pretrain, supervised, finetune, distill, linear_eval, knn_eval, project, export or embed_dataset."
        ),
    ],
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    config: Annotated[str | None, typer.Option(help="A JSON file, or JSON text.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of a recipe to start from.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Set one field, as in method.temperature=0.1; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Id of a model, or of the job that will make it.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    priority: Annotated[int, typer.Option(help="Of your jobs, those of a higher priority run first.")] = 0,
    max_runtime: Annotated[int | None, typer.Option(help="Seconds for which it may run in all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it has ended.")] = False,
    json: Json = False,
) -> None:
    """Submit a job."""
    api = get_client(ctx)
    wanted = run_config.build(config, recipe, change or [], api.recipes)
    about: dict[str, Any] = {"model": model, "name": name, "priority": priority, "max_runtime": max_runtime}
    job = api.jobs.submit(kind=kind, dataset=dataset, config=wanted, **about)
    if watch:
        follow(ctx, job, json)
    else:
        print_job(job, json)


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help=f"Only jobs of this status: {', '.join(JobStatus)}.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this dataset.")] = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    found = list(get_client(ctx).jobs.list(status=status, kind=kind, dataset=dataset))
    if json:
        return terminal.print_json([dict(job.raw) for job in found])
    rows = [(job.id, job.kind, job.name or "", job.status, _format_percent(job), job.created_at[:19]) for job in found]
    return terminal.print_table(("id", "kind", "name", "status", "done", "created"), rows, empty="No jobs yet.")


@app.command()
def show(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Show a job."""
    print_job(get_client(ctx).jobs.get(job), json)


@app.command()
def watch(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Follow a job until it has ended; --json prints one line per update. Exits with 1 unless it succeeds."""
    follow(ctx, get_client(ctx).jobs.get(job), json)


@app.command()
def cancel(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Cancel a job; it keeps its checkpoints."""
    print_job(get_client(ctx).jobs.cancel(job), json)


@app.command()
def pause(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Pause a job; it keeps its checkpoints and frees its worker."""
    print_job(get_client(ctx).jobs.pause(job), json)


@app.command()
def resume(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Queue a paused job again; it goes on from its last checkpoint."""
    print_job(get_client(ctx).jobs.resume(job), json)


@app.command()
def retry(
    ctx: typer.Context,
    job: JobId,
    start: Annotated[
        bool, typer.Option("--start", help="From the start; deletes its checkpoints and metrics.")
    ] = False,
    json: Json = False,
) -> None:
    """Queue a job that has failed or was cancelled again; it goes on from its last checkpoint."""
    print_job(get_client(ctx).jobs.retry(job, start="start" if start else "checkpoint"), json)


@app.command()
def clone(
    ctx: typer.Context,
    job: JobId,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change one field, as in seed=1; may be repeated.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Id of another dataset.")] = None,
    model: Annotated[str | None, typer.Option(help="Id of another model, or of the job that will make it.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it has ended.")] = False,
    json: Json = False,
) -> None:
    """Submit a job like another, with changes."""
    api = get_client(ctx)
    config = run_config.build(None, None, changes or [], api.recipes)
    fields = {"name": name} if name is not None else {}
    made = api.jobs.clone(job, config=config, dataset=dataset, model=model, **fields)
    if watch:
        follow(ctx, made, json)
    else:
        print_job(made, json)


@app.command()
def change(
    ctx: typer.Context,
    job: JobId,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    priority: Annotated[int | None, typer.Option(help="New priority, before the job is run.")] = None,
    json: Json = False,
) -> None:
    """Change a job's name or priority."""
    given = {"name": name, "priority": priority}
    fields = {field: value for field, value in given.items() if value is not None}
    print_job(get_client(ctx).jobs.change(job, **fields), json)


@app.command()
def delete(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Delete a job that has ended, with all that it has left. Its model has to be deleted first."""
    get_client(ctx).jobs.delete(job)
    terminal.print_deleted(job, json=json)


@app.command()
def events(
    ctx: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Print new events too, until the job has ended.")] = False,
    json: Json = False,
) -> None:
    """Print a job's events, oldest first; --json prints one line per event."""
    jobs = get_client(ctx).jobs
    for event in jobs.stream_events(job) if follow else jobs.events(job):
        if json:
            terminal.print_json(dict(event))
        else:
            terminal.print_line(f"{event['time'][:19]}  {event['level']:7}  {event['code']:16}  {event['message']}")


@app.command()
def artifacts(
    ctx: typer.Context,
    job: JobId,
    out: Annotated[Path | None, typer.Option(help="Download them to this folder.")] = None,
    json: Json = False,
) -> None:
    """List a job's artifacts, such as plots, or download them with --out."""
    jobs = get_client(ctx).jobs
    if out is not None:
        paths = [str(path) for path in jobs.download(job, out)]
        return (
            terminal.print_json(paths)
            if json
            else terminal.print_table(("file",), [(path,) for path in paths], empty=_NO_ARTIFACTS)
        )
    found = jobs.artifacts(job)
    if json:
        return terminal.print_json([dict(item) for item in found])
    rows = [(item["name"], item["media_type"], terminal.format_size(item["size_bytes"])) for item in found]
    return terminal.print_table(("name", "type", "size"), rows, empty=_NO_ARTIFACTS)


def embed_dataset(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model, or of the job that will make it.")],
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    layer: Annotated[str, typer.Option(help="backbone, projection, block1 to block4, or logits.")] = "backbone",
    split: Annotated[list[str] | None, typer.Option(help="train, val or test; may be repeated; default all.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each vector to length 1.")] = False,
    rows_per_shard: Annotated[int | None, typer.Option(help="Images in one shard.")] = None,
    workers: Annotated[int, typer.Option(help="Number of workers that may share the job.")] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it has ended.")] = False,
    out: Annotated[Path | None, typer.Option(help="Then download the embeddings to this folder.")] = None,
    json: Json = False,
) -> None:
    """Compute embeddings of every image of a dataset, as npy and Parquet."""
    api = get_client(ctx)
    config: dict[str, Any] = {"layer": layer, "dtype": dtype, "normalize": normalize, "workers": workers}
    config |= {"splits": split} if split else {}
    config |= {"rows_per_shard": rows_per_shard} if rows_per_shard is not None else {}
    job = api.embed_dataset(model, dataset, name=name, **config)
    if watch or out is not None:
        follow(ctx, job, json)
    else:
        print_job(job, json)
    if out is not None:
        api.jobs.download(job, out)


def metrics(
    ctx: typer.Context,
    job: JobId,
    names: Annotated[list[str] | None, typer.Argument(help="Names of metrics; default all.")] = None,
    max_points: Annotated[int, typer.Option(min=2, help="Maximum points per metric.")] = 20,
    json: Json = False,
) -> None:
    """Show a job's metrics."""
    found = get_client(ctx).jobs.metrics(job, names or (), max_points=max_points)
    if json:
        return terminal.print_json(dict(found.raw))
    rows = [
        (series.name, step, round(epoch, 2), value)
        for series in found.series.values()
        for step, epoch, value in zip(series.step, series.epoch, series.value, strict=True)
    ]
    return terminal.print_table(("metric", "step", "epoch", "value"), rows, empty="No metrics yet.")


def follow(ctx: typer.Context, job: Job, json: bool) -> None:
    """Show a job's progress until it has ended. Raises JobFailed."""
    updates = get_client(ctx).jobs.watch(job)
    if json:
        for update in updates:
            terminal.print_json({"job": dict(update.job.raw), "metrics": dict(update.metrics.raw)})
            job = update.job
    else:
        with terminal.JobBars() as runs:
            job = runs.follow(job.name or job.kind, updates)
        print_job(job, json)
    require_success(job)


def print_job(job: Job, json: bool) -> None:
    """Print a job."""
    if json:
        return terminal.print_json(dict(job.raw))
    about = {"id": job.id, "kind": job.kind, "name": job.name, "status": job.status, "dataset": job.dataset}
    error = (job.error or {}).get("detail") or (job.error or {}).get("message")
    baselines = _flatten({"supervised": list(job.supervised)})
    summary, code = _split_code(job.summary)
    queue = job.queue or {}
    about |= {"position in the queue": queue.get("position"), "estimated start": queue.get("estimated_start")}
    results = {"done": _format_percent(job), "model": job.model_id, "error": error, **_flatten(summary)}
    terminal.print_fields({**about, **results, **baselines})
    for title, text in code.items():
        terminal.print_code(title, text)
    return None


def _split_code(summary: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the summary without the code in it, which is objects of texts of several lines; and the code by title."""
    rest: dict[str, Any] = {}
    code: dict[str, str] = {}
    for name, value in dict(summary or {}).items():
        if isinstance(value, dict) and any("\n" in str(text) for text in value.values()):
            code |= {f"{name} {part}": str(text) for part, text in value.items()}
        else:
            rest[name] = value
    return rest, code


def _flatten(summary: Any) -> dict[str, object]:
    """Return the summary's scalar values; a list of results becomes one line per result."""
    flat: dict[str, object] = {}
    for name, value in dict(summary or {}).items():
        if isinstance(value, list):
            for place, item in enumerate(value):
                flat[f"{name} {place + 1}"] = _format_pairs(item) if isinstance(item, dict) else item
        else:
            flat[name] = _format_pairs(value) if isinstance(value, dict) else value
    return flat


def _format_pairs(pairs: dict[str, object]) -> str:
    return " · ".join(f"{name} {terminal.format_number(value)}" for name, value in pairs.items() if value is not None)


def _format_percent(job: Job) -> str:
    if job.status == JobStatus.SUCCEEDED:
        return "100 %"
    return f"{(job.progress or {}).get('percent') or 0:.0f} %"
