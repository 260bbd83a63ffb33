"""Why a run cannot go on: one class per reason, which becomes the run's `Failed` event."""

from typing import Any


class RunFailure(Exception):
    """A run that cannot go on; the text is a sentence for the person who asked for it."""

    code = "failed"
    retry = False  # whether the same run may succeed when it is started again

    def __init__(self, message: str, **data: Any) -> None:
        """data: the evidence, plain JSON values, which goes into the `Failed` event."""
        super().__init__(message)
        self.data = data


class Diverged(RunFailure):
    """The loss is no longer a finite number."""

    code = "diverged"


class ConfigUnfit(RunFailure):
    """The config is well formed, yet cannot be run on this data or this machine."""

    code = "config_unfit"


class BadCheckpoint(RunFailure):
    """The checkpoint cannot be read, or belongs to another run."""

    code = "bad_checkpoint"


class BadModel(RunFailure):
    """The folder holds no trained encoder that can be read."""

    code = "bad_model"


class OutOfMemory(RunFailure):
    """The device has not enough memory for a step."""

    code = "out_of_memory"


class WeightsUnavailable(RunFailure):
    """Starting weights could not be fetched."""

    code = "weights_unavailable"
    retry = True


class LabelsNeeded(RunFailure):
    """An evaluation needs labels that the dataset does not have."""

    code = "labels_needed"


class ExportFailed(RunFailure):
    """The model cannot be written in a format, or is another one when it is loaded back."""

    code = "export_failed"


class PackageMissing(RunFailure):
    """A format needs a package that is not installed here."""

    code = "package_missing"


class BadDataset(RunFailure):
    """The folder holds no packed dataset."""

    code = "bad_dataset"


class StorageFull(RunFailure):
    """There is no room for what the run has to write."""

    code = "storage_full"
    retry = True
