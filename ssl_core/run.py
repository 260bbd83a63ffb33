"""A run: config and inputs in, events out. The front door of `ssl_core`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ssl_core import config
from ssl_core.config import Distill, Export, KnnEval, LinearEval, Project, RunConfig, TrainingRun
from ssl_core.data.dataset import Dataset
from ssl_core.device import Machine
from ssl_core.distributed import collectives, process_group
from ssl_core.errors import BadCheckpoint, BadDataset, OutOfMemory, RunFailure, StorageFull, exhausted
from ssl_core.evaluation import knn_eval, linear_eval
from ssl_core.events import Event, Failed, Log, Resolved
from ssl_core.files import FULL
from ssl_core.inputs import Inputs
from ssl_core.serialization import checkpoint, provenance, saved_model
from ssl_core.training import duration
from ssl_core.training.loop import Training, fingerprint, versions
from ssl_core.training.resolve import Length, resolve, resolve_device
from ssl_core.training.training_data import Material


def run(run_config: RunConfig, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Yield the run's events: Resolved first, and last Result, Stopped or Failed.

    What the person who asked can mend, or another attempt, ends in Failed; anything else is a fault of ours and is
    raised.
    """
    try:
        yield from _RUNS[run_config.kind](run_config, inputs, directory)
    except (MemoryError, RuntimeError) as error:
        if not _too_large(error):
            raise
        yield _failed(OutOfMemory("The device has too little memory; a smaller batch_size or image_size needs less."))
    except OSError as error:
        if error.errno not in FULL:
            raise
        yield _failed(StorageFull("The storage is full."))
    except RunFailure as failure:
        yield _failed(failure)


def _too_large(error: MemoryError | RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or exhausted(error)


def _failed(failure: RunFailure) -> Failed:
    return Failed(failure.code, str(failure), failure.retry or _unreachable(failure.__cause__), failure.data)


def _unreachable(cause: BaseException | None) -> bool:
    """Whether the system could not read what it was asked for: a mount may be gone for a minute, and another attempt
    finds it again. Arrow calls damage an OSError too, but only the system's have a number.
    """
    return isinstance(cause, OSError) and cause.errno is not None


def _training(asked: TrainingRun, inputs: Inputs, directory: Path) -> Iterator[Event]:
    if inputs.model is not None and not isinstance(asked, Distill):  # then `weights` says nothing: they are the model's
        asked = asked.model_copy(update={"backbone": asked.backbone.model_copy(update={"weights": "random"})})
    dataset = _open(inputs.dataset)
    saved = checkpoint.load(inputs.checkpoint) if inputs.checkpoint else None
    if saved is None:
        resolved, material = _settle(asked, inputs, dataset)
    else:
        resolved = _resolved_before(asked, saved)
        material = Material.of(dataset, resolved, inputs.model)
    with process_group.joined(resolved.devices, resolved.device):
        yield from _trained(resolved, material, saved, inputs, directory)


def _trained(
    resolved: TrainingRun, material: Material, saved: dict[str, Any] | None, inputs: Inputs, directory: Path
) -> Iterator[Event]:
    """The events of the first process; others follow it and have none."""
    yield from [] if collectives.rank() else [Resolved(resolved.model_dump(mode="json"))]
    origin = provenance.about(inputs.provenance, saved_model.load_card(inputs.model) if inputs.model else None)
    training = Training(resolved, material, directory, inputs.stop, origin, new=saved is None)
    told = [] if saved is None else list(_resume(training, material, saved))
    if collectives.rank():
        training.follow()
        return
    yield from told
    yield from training.events()


def _settle(asked: TrainingRun, inputs: Inputs, dataset: Dataset) -> tuple[TrainingRun, Material]:
    material: Material | None = None

    def length_in(resolved: TrainingRun) -> Length:
        nonlocal material
        assert asked.minutes is not None
        material = Material.of(dataset, resolved, inputs.model)
        return duration.length_in(asked.minutes, resolved, asked.evaluation.every_epochs, material)

    start = saved_model.load_card(inputs.model) if inputs.model else None
    resolved = resolve(asked, dataset.report, Machine.here(asked.device), start=start, length_in=length_in)
    return resolved, material or Material.of(dataset, resolved, inputs.model)


def _resolved_before(asked: TrainingRun, saved: dict[str, Any]) -> TrainingRun:
    """The config that the checkpoint's run was resolved to, which has to be one that `asked` may settle to."""
    try:
        resolved = config.parse(saved["config"], asked.kind)
    except (KeyError, ValueError) as error:
        raise BadCheckpoint("The checkpoint holds no config of this version.") from error
    assert isinstance(resolved, TrainingRun)
    if differing := _disagreement(asked.model_dump(mode="json"), resolved.model_dump(mode="json")):
        raise BadCheckpoint(f"The checkpoint is of a run with another `{differing}`.")
    return resolved.model_copy(update={"devices": asked.devices})  # the same run on another number of them


def _disagreement(asked: Any, resolved: Any, place: str = "") -> str | None:
    """The first place where a resolved value is not one that the asked one leaves open."""
    if isinstance(asked, dict) and isinstance(resolved, dict):
        for name in asked.keys() & resolved.keys() - {"minutes", "devices"}:  # minutes have become epochs
            if found := _disagreement(asked[name], resolved[name], f"{place}.{name}".removeprefix(".")):
                return found
        return None
    return None if asked in ("auto", None) or asked == resolved else place


def _resume(training: Training, material: Material, saved: dict[str, Any]) -> Iterator[Log]:
    if saved["dataset"] != fingerprint(material):
        raise BadCheckpoint("The checkpoint is of a run on other images.")
    training.resume(saved)
    yield Log("info", f"Going on from the checkpoint of step {saved['step']}.", "resumed", {"step": saved["step"]})
    if saved["versions"] != versions():
        message = "The checkpoint was written under other versions or threads; weights may differ in their last bits."
        yield Log("warning", message, "versions_differ", {"then": saved["versions"], "now": versions()})


def _evaluation(asked: KnnEval | LinearEval, inputs: Inputs, directory: Path) -> Iterator[Event]:
    _open(inputs.dataset)
    resolved = resolve_device(asked, Machine.here(asked.device))
    yield Resolved(resolved.model_dump(mode="json"))
    yield from _EVALUATIONS[resolved.kind](resolved, inputs, directory)


def _project(asked: Project, inputs: Inputs, directory: Path) -> Iterator[Event]:
    from ssl_core.evaluation.projection import run_project  # noqa: PLC0415 - scikit-learn and matplotlib take seconds to load

    _open(inputs.dataset)
    resolved = resolve_device(asked, Machine.here(asked.device))
    yield Resolved(resolved.model_dump(mode="json"))
    yield from run_project(resolved, inputs, directory)


def _export(asked: Export, inputs: Inputs, directory: Path) -> Iterator[Event]:
    from ssl_core.export.formats import run_export  # noqa: PLC0415 - torch.export takes a second to load

    _open(inputs.dataset)
    yield Resolved(asked.model_dump(mode="json"))
    yield from run_export(asked, inputs, directory)


def _open(folder: Path) -> Dataset:
    try:
        return Dataset.open(folder)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BadDataset(f"The folder {folder.name} holds no packed dataset that can be read.") from error


_RUNS: dict[str, Callable[..., Iterator[Event]]] = {
    "pretrain": _training,
    "supervised": _training,
    "finetune": _training,
    "distill": _training,
    "linear_eval": _evaluation,
    "knn_eval": _evaluation,
    "project": _project,
    "export": _export,
}
_EVALUATIONS: dict[str, Callable[..., Iterator[Event]]] = {
    "linear_eval": linear_eval.run_linear_eval,
    "knn_eval": knn_eval.run_knn_eval,
}
