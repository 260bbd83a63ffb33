"""A run: config and inputs in, events out. The entry point of `ssl_core`."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ssl_core.config import EmbedDataset, Export, KnnEval, LinearEval, Project, RunConfig, TrainingRun, view_sets
from ssl_core.config.base import OnDevice
from ssl_core.config.embedding import choose_rows, count_images
from ssl_core.config.requirements import count_channels, model_channels_differ
from ssl_core.config.views import list_left_out
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device, select_kernels
from ssl_core.distributed import collectives, process_group
from ssl_core.embedding.embed_dataset import run_embed_dataset
from ssl_core.errors import (
    BadDataset,
    ConfigUnfit,
    Corrupt,
    OutOfMemory,
    RunFailure,
    StorageFailed,
    StorageFull,
    is_out_of_memory,
)
from ssl_core.evaluation.knn_eval import run_knn_eval
from ssl_core.evaluation.linear_eval import run_linear_eval
from ssl_core.events import Checkpoint, Event, Failed, Log, Resolved
from ssl_core.files import AWAY, FULL, describe
from ssl_core.inputs import Inputs
from ssl_core.serialization import checkpoint, checkpoint_files, provenance, saved_model
from ssl_core.training import duration
from ssl_core.training.loop import Training
from ssl_core.training.resolve import resolve, resolve_device, with_length
from ssl_core.training.resume import load_resolved_config, resume
from ssl_core.training.training_data import TrainingData

Evaluated = TypeVar("Evaluated", bound=OnDevice)


def run(run_config: RunConfig, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Yield the run's events: Resolved first, and last Result, Stopped or Failed.

    An error that the user or another attempt can resolve ends in Failed; anything else is a bug and is raised. Of the
    checkpoints the newest `run_config.kept_checkpoints` are kept; see `Inputs.keeps_checkpoints`.
    """
    for event in catch_failures(RUNS[run_config.kind](run_config, inputs, directory)):
        if isinstance(event, Checkpoint) and not inputs.keeps_checkpoints:
            checkpoint_files.prune((directory / event.path).parent, run_config.kept_checkpoints, event.step)
        yield event


def catch_failures(events: Iterator[Event]) -> Iterator[Event]:
    """Yield the events, and a Failed event for an error that the user or another attempt can resolve."""
    settings: Mapping[str, Any] = {}
    try:
        for event in events:
            if isinstance(event, Resolved):
                settings = event.config
            yield event
    except (MemoryError, RuntimeError) as error:
        if not _too_large(error):
            raise
        yield _failed_event(_out_of_memory(settings))
    except OSError as error:
        if error.errno in FULL:
            yield _failed_event(StorageFull("The storage is full."))
        elif error.errno in AWAY:
            yield _failed_event(StorageFailed(f"The storage cannot be read or written: {describe(error)}."))
        else:
            raise
    except RunFailure as failure:
        yield _failed_event(failure)


def _too_large(error: MemoryError | RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)


def _out_of_memory(settings: Mapping[str, Any]) -> OutOfMemory:
    """Return the error of a run with these settings, which names those that decide how much memory a step takes."""
    sizes = {name: settings[name] for name in ("batch_size", "chunk_size", "image_size") if settings.get(name)}
    if not sizes:
        return OutOfMemory("The device has too little memory.")
    advice = "lower one of them"
    if "chunk_size" in settings and "chunk_size" not in sizes:
        advice += ", or set chunk_size, which keeps the batch and takes less"
    shown = " and ".join(f"{name} {value}" for name, value in sizes.items())
    return OutOfMemory(f"The device has too little memory for {shown}: {advice}.", **sizes)


def _failed_event(failure: RunFailure) -> Failed:
    return Failed(failure.code, str(failure), failure.retry or _unreachable(failure.__cause__), failure.data)


def _unreachable(cause: BaseException | None) -> bool:
    """Whether the system could not read a file: a mount may be gone for a minute, and another attempt succeeds.

    Arrow raises OSError for damaged files too, but only the system's has an errno.
    """
    return isinstance(cause, OSError) and cause.errno is not None


def _training(asked: TrainingRun, inputs: Inputs, directory: Path) -> Iterator[Event]:
    if inputs.model is not None and not asked.model_is_teacher:  # the job's model supplies the starting weights
        asked = asked.model_copy(update={"backbone": asked.backbone.model_copy(update={"weights": "random"})})
    dataset = _open(inputs.dataset)
    saved = checkpoint.load(inputs.checkpoint) if inputs.checkpoint else None
    card = saved_model.load_card(inputs.model) if inputs.model else None
    if saved is not None:
        resolved = load_resolved_config(asked, saved)
    else:
        _check_channels(card, dataset)
        resolved = resolve(asked, dataset.report, Device.here(asked.device), start=card)
    select_kernels(exact=resolved.exact is not False)
    with process_group.process_group(resolved.devices, resolved.device):  # which selects a GPU for each process
        data = TrainingData.of(dataset, resolved, inputs.model)
        if resolved.minutes is not None:
            resolved = with_length(resolved, duration.measure(resolved, data))
        yield from _train(
            resolved, data, saved, inputs, directory, provenance.build_card_fields(inputs.provenance, card)
        )


def _train(
    resolved: TrainingRun,
    data: TrainingData,
    saved: dict[str, Any] | None,
    inputs: Inputs,
    directory: Path,
    origin: Mapping[str, Any],
) -> Iterator[Event]:
    """The events of the first process; the others follow it and have none."""
    follows = collectives.rank() > 0
    yield from [] if follows else [Resolved(resolved.model_dump(mode="json"))]
    yield from [] if follows or saved is not None else _report_left_out(resolved, data.dataset)
    training = Training(resolved, data, directory, inputs.stop, origin, new=saved is None)
    resumed = [] if saved is None else list(resume(training, data, saved))
    if follows:
        training.follow()
        return
    yield from resumed
    yield from training.events()


def _linear_eval(asked: LinearEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    yield from _evaluation(run_linear_eval, asked, inputs, directory)


def _knn_eval(asked: KnnEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    yield from _evaluation(run_knn_eval, asked, inputs, directory)


def _project(asked: Project, inputs: Inputs, directory: Path) -> Iterator[Event]:
    from ssl_core.evaluation.projection import run_project  # noqa: PLC0415 - scikit-learn takes seconds to load

    yield from _evaluation(run_project, asked, inputs, directory)


def _export(asked: Export, inputs: Inputs, directory: Path) -> Iterator[Event]:
    from ssl_core.export.formats import run_export  # noqa: PLC0415 - torch.export takes a second to load

    _open_both(inputs)
    yield Resolved(asked.model_dump(mode="json"))
    yield from run_export(asked, inputs, directory)


def _embed_dataset(asked: EmbedDataset, inputs: Inputs, directory: Path) -> Iterator[Event]:
    splits = _open(inputs.dataset).report["splits"]
    rows = choose_rows(count_images(splits, asked.splits)) if asked.rows_per_shard == "auto" else asked.rows_per_shard
    planned = asked.model_copy(update={"rows_per_shard": rows})
    yield from _evaluation(run_embed_dataset, planned, inputs, directory)


def _evaluation(
    evaluate: Callable[[Evaluated, Inputs, Path], Iterator[Event]], asked: Evaluated, inputs: Inputs, directory: Path
) -> Iterator[Event]:
    """The events of a run that trains no network, once its device and precision are resolved."""
    _open_both(inputs)
    resolved = resolve_device(asked, Device.here(asked.device))
    select_kernels(exact=True)
    yield Resolved(resolved.model_dump(mode="json"))
    yield from evaluate(resolved, inputs, directory)


def _report_left_out(resolved: TrainingRun, dataset: Dataset) -> Iterator[Log]:
    """Yield an event where the views have options that do not apply to the dataset's images."""
    names = {name: None for views in view_sets(resolved.views) for name in list_left_out(views, dataset.channels)}
    if names:
        images = f"images of {dataset.channels} channel{'s' * (dataset.channels > 1)}"
        message = f"The views of {images} are made without {', '.join(names)}: these apply to RGB alone."
        yield Log("info", message, "colour_left_out", {"options": list(names), "channels": dataset.channels})


def _open_both(inputs: Inputs) -> None:
    """Check the dataset, and that the model takes its images. Raises BadDataset, Corrupt, BadModel and ConfigUnfit."""
    dataset = _open(inputs.dataset)
    _check_channels(saved_model.load_card(inputs.model) if inputs.model is not None else None, dataset)


def _check_channels(card: Mapping[str, Any] | None, dataset: Dataset) -> None:
    """Raise ConfigUnfit when the model of the card takes images of another number of channels than the dataset's."""
    if card is not None and (needed := count_channels(card["preprocessing"])) != dataset.channels:
        raise ConfigUnfit(model_channels_differ(needed, dataset.channels))


def _open(folder: Path) -> Dataset:
    try:
        return Dataset.open(folder)
    except FileNotFoundError as error:
        if folder.is_dir():
            raise Corrupt(Path(error.filename).name, "missing") from None  # no other attempt would find it
        raise BadDataset(f"The folder {folder.name} is missing.") from error
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BadDataset(f"The folder {folder.name} holds no packed dataset that can be read.") from error


RUNS: dict[str, Callable[[Any, Inputs, Path], Iterator[Event]]] = {
    "pretrain": _training,
    "supervised": _training,
    "finetune": _training,
    "distill": _training,
    "linear_eval": _linear_eval,
    "knn_eval": _knn_eval,
    "project": _project,
    "export": _export,
    "embed_dataset": _embed_dataset,
}
