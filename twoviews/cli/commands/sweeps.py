"""`twoviews sweeps`: start, follow, list, steer and delete sweeps."""

import time
from collections.abc import Mapping
from json import dumps
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli import run_config, sweep_space
from twoviews.cli.context import Json, get_client
from twoviews.errors import SweepFailed
from twoviews.values import Sweep

app = typer.Typer(no_args_is_help=True, help="Try configs that differ in some fields, and find the best.")
_Sweep = Annotated[str, typer.Argument(help="Id of the sweep.")]
_POLL_SECONDS = 2


@app.command()
def create(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    vary: Annotated[
        list[str],
        typer.Option(
            help="A field and its values, as in method.temperature=0.1,0.2, or its range, as in optimizer.lr=0.1..1:log"
            " or batch_size=64..512:log:int:4, of which a grid takes 4 numbers; may be repeated."
        ),
    ],
    kind: Annotated[str, typer.Option(help="Kind of the jobs.")] = "pretrain",
    config: Annotated[str | None, typer.Option(help="What all have in common: a JSON file, or JSON text.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of a recipe to start from.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Set one field for all, as in epochs=30; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Id of the input model, or of the job that will make it.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="So many random draws; without it, a grid.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, help="Jobs that are queued or running at once at most.")] = 2,
    metric: Annotated[
        str | None, typer.Option(help="The metric whose last value decides; default the accuracy of the kind.")
    ] = None,
    goal: Annotated[str | None, typer.Option(help="maximize or minimize; default by the metric.")] = None,
    pruner: Annotated[
        str | None, typer.Option(help="Stops bad trials early: median, successive_halving, or JSON with options.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the sweep until it has ended.")] = False,
    json: Json = False,
) -> None:
    """Start a sweep."""
    api = get_client(ctx)
    options: dict[str, Any] = {"seed": seed, "parallel": parallel}
    options |= {"metric": metric} if metric is not None else {}
    options |= {"goal": goal} if goal is not None else {}
    options |= {"name": name} if name is not None else {}
    options |= {"pruner": sweep_space.parse_pruner(pruner)} if pruner is not None else {}
    sweep = api.sweeps.create(
        dataset=dataset,
        space=sweep_space.parse(vary),
        kind=kind,
        config=run_config.build(config, recipe, change or [], api.recipes),
        model=model,
        search="grid" if trials is None else "random",
        trials=trials,
        **options,
    )
    if watch:
        _follow(ctx, sweep, json)
    else:
        print_sweep(sweep, json)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List sweeps, newest first."""
    found = list(get_client(ctx).sweeps.list())
    if json:
        return terminal.print_json([dict(sweep.raw) for sweep in found])
    rows = [
        (sweep.id, sweep.name or "–", sweep.status, _format_done(sweep), sweep.metric, _format_best(sweep))
        for sweep in found
    ]
    return terminal.print_table(("id", "name", "status", "trials", "metric", "best"), rows, empty="No sweeps yet.")


@app.command()
def show(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """Show a sweep and its best trial."""
    print_sweep(get_client(ctx).sweeps.get(sweep), json)


@app.command()
def trials(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """List the trials of a sweep, the best first."""
    sweeps = get_client(ctx).sweeps
    goal = sweeps.get(sweep).goal
    found = sorted(sweeps.trials(sweep), key=lambda trial: _rank(trial, goal))
    if json:
        return terminal.print_json([dict(trial) for trial in found])
    fields = [*dict.fromkeys(pointer for trial in found for pointer in trial["params"])]
    rows = []
    for trial in found:
        params = (_format_param(trial["params"].get(pointer)) for pointer in fields)
        rows.append((trial["number"], trial["state"], _format_value(trial), *params, trial["job"] or "–"))
    names = [pointer.removeprefix("/").replace("/", ".") for pointer in fields]
    return terminal.print_table(("trial", "state", "value", *names, "job"), rows, empty="No trials.")


@app.command()
def watch(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """Follow a sweep until it has ended. Exits with 1 unless it succeeds."""
    _follow(ctx, get_client(ctx).sweeps.get(sweep), json)


@app.command()
def pause(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """Pause a sweep and its jobs, which keep their checkpoints."""
    print_sweep(get_client(ctx).sweeps.pause(sweep), json)


@app.command()
def resume(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """Resume a paused sweep and its jobs."""
    print_sweep(get_client(ctx).sweeps.resume(sweep), json)


@app.command()
def cancel(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """Cancel a sweep and those of its jobs that have not ended."""
    print_sweep(get_client(ctx).sweeps.cancel(sweep), json)


@app.command()
def delete(ctx: typer.Context, sweep: _Sweep, json: Json = False) -> None:
    """Delete a sweep; its jobs stay, and those that have not ended are cancelled."""
    get_client(ctx).sweeps.delete(sweep)
    terminal.print_deleted(sweep, json=json)


def print_sweep(sweep: Sweep, json: bool) -> None:
    """Print a sweep."""
    if json:
        return terminal.print_json(dict(sweep.raw))
    states = ", ".join(f"{count} {state}" for state, count in sweep.counts.items() if count)
    about = {"id": sweep.id, "name": sweep.name, "status": sweep.status, "detail": sweep.status_detail}
    about |= {"dataset": sweep.dataset, "trials": states, "metric": f"{sweep.metric}, {sweep.goal}d"}
    if sweep.best is not None:
        about |= {"best": _format_best(sweep), "trial": str(sweep.best["number"]), "job": sweep.best["job"]}
        about |= {
            pointer.removeprefix("/").replace("/", "."): _format_param(value)
            for pointer, value in sweep.best["params"].items()
        }
    return terminal.print_fields({**about, "error": (sweep.error or {}).get("detail")})


def _follow(ctx: typer.Context, sweep: Sweep, json: bool) -> None:
    api, shown = get_client(ctx), ""
    while True:
        line = f"{_format_done(sweep)} trials have ended; best {sweep.metric}: {_format_best(sweep)}"
        if json:
            terminal.print_json(dict(sweep.raw))
        elif line != shown:
            terminal.print_line(shown := line)
        if sweep.done:
            break
        time.sleep(_POLL_SECONDS)
        sweep = api.sweeps.get(sweep)
    if not json:
        print_sweep(sweep, json)
    if sweep.status != "succeeded":
        raise SweepFailed(sweep.id, sweep.status, sweep.error)


def _rank(trial: Mapping[str, Any], goal: str) -> tuple[bool, bool, float, int]:
    value = trial["value"]
    order = 0.0 if value is None else -value if goal == "maximize" else value
    return trial["state"] != "succeeded", value is None, order, trial["number"]


def _format_param(value: Any) -> object:
    return value if isinstance(value, str | int | float) or value is None else dumps(value)


def _format_value(trial: Mapping[str, Any]) -> str:
    return "–" if trial["value"] is None else f"{trial['value']:.4g}"


def _format_best(sweep: Sweep) -> str:
    return f"{sweep.best['value']:.4g}" if sweep.best is not None else "–"


def _format_done(sweep: Sweep) -> str:
    waiting = sweep.counts.get("planned", 0) + sweep.counts.get("running", 0)
    return f"{sweep.trials - waiting} of {sweep.trials}"
