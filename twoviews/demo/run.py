"""The demo: runs a local service, trains and evaluates on digits, prints a table and draws figures."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from twoviews import terminal
from twoviews.client import Client, require_success
from twoviews.demo import figures
from twoviews.demo.digits import TRAIN_IMAGES, Digits, png
from twoviews.errors import TwoviewsError
from twoviews.local.processes import PYTHON
from twoviews.values import Dataset, Job

RECIPES = {"SimCLR": "simclr-digits", "SimSiam": "simsiam-digits"}
LABEL_FRACTIONS = (0.01, 0.05, 0.1)
DRAWS = 10
STOP_SECONDS = 60.0
TAIL_LINES = 20


def run_demo(out: Path, data_dir: Path | None = None, epochs: int | None = None, draws: int = DRAWS) -> int:
    """Run the demo, write the figures to `out`, and return the exit code. Raises TwoviewsError when a step fails.

    epochs: of every training, instead of the recipe's; draws: random label splits, for the mean.
    """
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM also stops the service
    out.mkdir(parents=True, exist_ok=True)
    with _data_folder(data_dir) as folder, running_service(folder) as url, Client(url=url, data_dir=folder) as client:
        digits = Digits()
        try:
            jobs = _run_jobs(client, _upload(client, digits, folder), epochs, draws)
            _draw_figures(client, jobs, digits, out)
        except TwoviewsError:
            _show_logs(folder)
            raise
        _print_results(jobs, out, draws, time.monotonic() - started)
    return 0


@dataclass(frozen=True, slots=True)
class DemoJobs:
    """The jobs by method name; the supervised ones in the order of LABEL_FRACTIONS."""

    pretrained: Mapping[str, Job]
    linear: Mapping[str, Job]
    knn: Mapping[str, Job]
    supervised: Mapping[str, Job]


@contextmanager
def running_service(data_dir: Path) -> Iterator[str]:
    """Run `twoviews up` on a free port within the block; yield its URL. Raises TwoviewsError.

    TWOVIEWS_* variables are not passed on: they configure another service, with its own database, broker and key.
    """
    command = [*PYTHON, "twoviews", "up", "--data", str(data_dir), "--port", "0", "--json"]
    # On 8×8 images several threads are slower than one, more so on a busy machine.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TWOVIEWS_")}
    environment |= {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with terminal.spinner("Starting the service"):
                line = process.stdout.readline()
            if not line:
                raise TwoviewsError("The service did not start.")
            yield json.loads(line)["url"]
        finally:
            with terminal.spinner("Stopping the service"):
                _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its children die with it


@contextmanager
def _data_folder(data_dir: Path | None) -> Iterator[Path]:
    """Yield the given folder, or a temporary one."""
    if data_dir is not None:
        yield data_dir.absolute()
        return
    path = Path(tempfile.mkdtemp(prefix="twoviews-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _upload(client: Client, digits: Digits, folder: Path) -> Dataset:
    """Upload the digits and wait until the dataset is ready."""
    with terminal.spinner("Uploading 1,797 digits"):
        dataset = client.datasets.wait(client.datasets.upload(digits.write_zip(folder / "digits.zip"), name="digits"))
    splits: Any = (dataset.report or {})["splits"]
    _print_step(
        f"[b]digits[/] is ready: {splits['train']['images']:,} training and {splits['test']['images']:,} test images"
    )
    return dataset


def _run_jobs(client: Client, dataset: Dataset, epochs: int | None, draws: int) -> DemoJobs:
    """Submit all jobs at once (an evaluation waits for its model) and follow them to their end."""
    overrides = {"epochs": epochs} if epochs else {}
    recipes = {str(recipe["name"]): recipe["config"] | overrides for recipe in client.recipes()}
    pretrained = {
        name: client.jobs.submit(dataset=dataset, config=recipes[recipe], name=name, priority=1)
        for name, recipe in RECIPES.items()
    }
    linear = {
        name: client.jobs.submit(
            dataset=dataset,
            kind="linear_eval",
            model=job,
            config=_linear_config(name, draws),
            name=f"{name}: few labels",
        )
        for name, job in pretrained.items()
    }
    knn = {
        name: client.jobs.submit(
            dataset=dataset, kind="knn_eval", model=job, config=_knn_config(name), name=f"{name}: neighbours"
        )
        for name, job in pretrained.items()
    }
    simclr = recipes[RECIPES["SimCLR"]]
    supervised = {}
    for fraction in LABEL_FRACTIONS:
        title, config = f"Supervised: {_format_labels(fraction)}", _supervised_config(fraction, simclr) | overrides
        supervised[title] = client.jobs.submit(dataset=dataset, kind="supervised", config=config, name=title)
    stages = (pretrained, linear, knn, supervised)
    with terminal.JobBars() as bars:
        return DemoJobs(*({name: _follow(client, bars, job) for name, job in stage.items()} for stage in stages))


def _follow(client: Client, bars: terminal.JobBars, job: Job) -> Job:
    return require_success(bars.follow(job.name or job.kind, client.jobs.watch(job, poll_seconds=0.5)))


def _linear_config(name: str, draws: int) -> dict[str, Any]:
    return {"label_fractions": LABEL_FRACTIONS, "draws": draws, "baselines": _baselines(name)}


def _knn_config(name: str) -> dict[str, Any]:
    return {"k": 10, "baselines": _baselines(name)}


def _supervised_config(fraction: float, simclr: Mapping[str, Any]) -> dict[str, Any]:
    """Return SimCLR's backbone, image size and views, with a fraction of the labelled images only."""
    same = {name: simclr[name] for name in ("backbone", "image_size", "views")}
    return {"label_fraction": fraction, "pictures": False} | same


def _format_labels(fraction: float) -> str:
    return f"{round(fraction * TRAIN_IMAGES)} labels"


def _baselines(name: str) -> Sequence[str]:
    """Return the baselines of the first method's evaluations; the others need none."""
    return ("pixels", "random") if name == next(iter(RECIPES)) else ()


def _draw_figures(client: Client, jobs: DemoJobs, digits: Digits, out: Path) -> None:
    """Embed the test images and write the figures."""
    images, labels = digits.test
    with terminal.spinner("Embedding the test images, drawing figures"):
        vectors = client.embed(jobs.pretrained["SimCLR"], [png(image) for image in images])
        curves, tsne, neighbours = (out / name for name in figures.NAMES)
        metrics = {name: client.jobs.metrics(job, max_points=1000) for name, job in jobs.pretrained.items()}
        figures.draw_curves(metrics, curves)
        figures.draw_tsne(vectors, labels, tsne)
        figures.draw_neighbours(vectors, images, labels, neighbours)


def _print_results(jobs: DemoJobs, out: Path, draws: int, seconds: float) -> None:
    title = "\nTest accuracy in %, by the number of labels used"
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    grid.add_column("features")
    for fraction in LABEL_FRACTIONS:
        grid.add_column(f"{_format_labels(fraction)}\n({fraction:.0%})", justify="right")
    grid.add_column("kNN\n(all labels)", justify="right")
    for title, cells in compute_table(jobs).items():
        style = "bold green" if title in RECIPES else ""
        grid.add_row(title, *("–" if cell is None else f"{100 * cell:.1f}" for cell in cells), style=style)
    terminal.out.print(grid)
    terminal.out.print(f"[dim]With few labels: logistic regression, mean of {draws} draws. kNN: k = 10.[/]")
    terminal.out.print("[dim]Supervised: the same network, trained on these labels only; one draw.[/]")
    terminal.out.print("\nFigures:")
    for name, caption in figures.NAMES.items():
        terminal.out.print(f"  [cyan]{escape(str(out / name))}[/]  [dim]{caption}[/]")
    terminal.out.print(f"\n[dim]Done in {seconds / 60:.1f} minutes.[/] With your own images:\n")
    command = terminal.command_name()
    terminal.out.print(f"  {command} up")
    terminal.out.print(f"  {command} datasets add [green]photos.zip[/]")
    terminal.out.print(f"  {command} jobs submit pretrain [green]ds_…[/] --set method.name=simclr --watch\n")


def compute_table(jobs: DemoJobs) -> dict[str, list[float | None]]:
    """Return the table: per row of features, the accuracy by label fraction, then the kNN accuracy."""
    titles = {"Raw pixels": ("SimCLR", "pixels"), "Random network": ("SimCLR", "random")}
    titles |= {name: (name, "model") for name in RECIPES}
    table: dict[str, list[float | None]] = {}
    for title, (method, features) in titles.items():
        linear, knn = ((stage[method].summary or {})["results"] for stage in (jobs.linear, jobs.knn))
        shares = {item["label_fraction"]: item["top1"] for item in linear if item["features"] == features}
        near = next(item["top1"] for item in knn if item["features"] == features)
        table[title] = [*(shares[fraction] for fraction in LABEL_FRACTIONS), near]
        if features == "random":
            table["Supervised"] = [*((job.summary or {})["top1"] for job in jobs.supervised.values()), None]
    return table


def _print_step(sentence: str) -> None:
    terminal.out.print(f"[green]✓[/] {sentence}")


def _show_logs(data_dir: Path) -> None:
    for log in sorted((data_dir / "logs").glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        terminal.err.print(f"\n[dim]{escape(str(log))}[/]")
        terminal.err.print(escape("\n".join(lines)))
