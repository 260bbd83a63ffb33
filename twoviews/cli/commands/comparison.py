"""`twoviews jobs compare` and `twoviews leaderboard`: jobs side by side, and models by accuracy."""

import json as json_text
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from twoviews import terminal
from twoviews.cli.context import Json, get_client

_LONGEST = 60  # characters of a text of a summary that is shown
_ABSENT = "–"
Row = tuple[str, ...]


def compare(
    ctx: typer.Context,
    jobs: Annotated[list[str], typer.Argument(help="Ids of at most 20 jobs.")],
    names: Annotated[
        list[str] | None, typer.Option("--metric", help="Name of a metric; may be repeated. Default: all.")
    ] = None,
    max_points: Annotated[int, typer.Option(min=2, help="Points of each metric, in JSON.")] = 200,
    json: Json = False,
) -> None:
    """Show jobs side by side: what differs in their configs, their results, and the last value of each metric."""
    found = get_client(ctx).jobs.compare(jobs, names or (), max_points=max_points if json else 2)
    if json:
        return terminal.print_json(dict(found))
    compared: Sequence[Mapping[str, Any]] = found["jobs"]
    rows = [(field, *(job[field] or _ABSENT for job in compared)) for field in ("id", "kind", "status", "method")]
    rows += _list_differences(found["differences"], compared) + _list_results(compared) + _list_metrics(compared)
    return terminal.print_table(("", *_make_titles(compared)), rows, empty="")


def leaderboard(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    protocol: Annotated[
        str | None, typer.Option(help="Only linear_eval, knn_eval, finetune, distill or supervised.")
    ] = None,
    labels: Annotated[float | None, typer.Option(min=0, help="Only results of this number of labels.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Models of each group.")] = 20,
    json: Json = False,
) -> None:
    """Rank the models that were evaluated on a dataset, in groups of the same protocol and number of labels."""
    groups = get_client(ctx).leaderboard(dataset, protocol=protocol, labels=labels, limit=limit)
    if json:
        return terminal.print_json([dict(group) for group in groups])
    for group in groups:
        count = "all labels" if group["labels"] is None else f"{group['labels']:,g} labels"
        terminal.print_heading(f"{group['protocol']} · {count}", group["description"])
        rows = [_make_row(entry) for entry in group["entries"]]
        terminal.print_table(
            ("rank", "top-1", "95 % interval", "model", "name", "method", "backbone", "epochs"), rows, empty=""
        )
    return None if groups else terminal.print_table((), (), empty="No evaluations of this dataset yet.")


def _make_titles(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the jobs, or the ends of their ids where there is none or one twice."""
    counts = Counter(job["name"] for job in jobs)
    return [job["name"] if job["name"] and counts[job["name"]] == 1 else f"…{job['id'][-8:]}" for job in jobs]


def _list_differences(differences: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        (
            found["pointer"],
            *(_format(found["values"][job["id"]]) if job["id"] in found["values"] else _ABSENT for job in jobs),
        )
        for found in differences
    ]


def _list_results(jobs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The numbers and short texts of the summaries."""
    summaries = [job["summary"] or {} for job in jobs]
    names = dict.fromkeys(name for summary in summaries for name, value in summary.items() if _is_short(value))
    return [(name, *(_format(summary.get(name)) for summary in summaries)) for name in names]


def _list_metrics(jobs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The last value of each metric."""
    last = [{series["name"]: series["value"][-1] for series in job["series"]} for job in jobs]
    names = sorted({name for values in last for name in values})
    return [(name, *(_format(values.get(name)) for values in last)) for name in names]


def _is_short(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST)


def _format(value: object) -> str:
    if isinstance(value, bool | dict | list):
        return json_text.dumps(value)
    return terminal.format_number(value)


def _make_row(entry: Mapping[str, Any]) -> tuple[object, ...]:
    interval = entry["top1_interval"]
    between = f"{interval[0]:.1%} to {interval[1]:.1%}".replace("%", " %") if interval else _ABSENT
    accuracy = f"{entry['top1']:.1%}".replace("%", " %")
    about = (entry[name] if entry[name] is not None else _ABSENT for name in ("name", "method", "backbone", "epochs"))
    return (entry["rank"], accuracy, between, entry["model"], *about)
