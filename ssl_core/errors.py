"""Errors: why a run cannot go on, one class per reason, which becomes the run's `Failed` event. Imports no torch."""

from collections.abc import Sequence
from typing import Any, TypedDict

MOST_FAULTS = 100  # listed of one file


class Fault(TypedDict):
    """One thing that is wrong with a config, a request or a file: where (a JSON pointer), a code, a sentence."""

    pointer: str
    code: str
    detail: str


def json_pointer(*parts: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a place, given from the root on; that of the root is empty."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def tensor_fault(name: str, code: str, detail: str) -> Fault:
    """Return the fault of the tensor of that name in a file of weights."""
    return Fault(pointer=json_pointer("tensors", name), code=code, detail=detail)


_OUT_OF_MEMORY = (  # in RuntimeErrors of torch, whose class alone does not show it
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "could not create a primitive",  # oneDNN
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN: no algorithm's workspace fits
    "Failed to CUDA calloc",  # NCCL
    "Failed to CUDA host alloc",  # NCCL
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the memory of the machine or of the GPU ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


class RunFailure(Exception):
    """A run that cannot go on; the text is a sentence for the user."""

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
    """The config is valid, but cannot be run on this dataset or this machine."""

    code = "config_unfit"


class BadCheckpoint(RunFailure):
    """The checkpoint cannot be read, or belongs to another run."""

    code = "bad_checkpoint"


class BadModel(RunFailure):
    """The folder holds no saved model that can be read."""

    code = "bad_model"


class ModelMissing(BadModel):
    """The folder of a saved model, or a file in it, is missing."""

    code = "model_missing"


class BadWeights(RunFailure):
    """The file holds no weights that fit one of our networks; `errors` are the places."""

    def __init__(self, code: str, detail: str, errors: Sequence[Fault] = ()) -> None:
        self.code, self.detail = code, detail
        self.errors = list(errors[:MOST_FAULTS])
        super().__init__(detail, errors=self.errors)


class Corrupt(RunFailure):
    """A stored file is missing, does not have the SHA-256 recorded when it was written, or cannot be parsed."""

    code = "corrupt"

    def __init__(self, file: str, fault: str = "damaged: its bytes are not those that were written") -> None:
        """file: the name of the file, without its folder."""
        super().__init__(f"The stored file {file} is {fault}.", file=file)


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
    """The model cannot be written in a format, or differs when it is loaded back."""

    code = "export_failed"


class PackageMissing(RunFailure):
    """A format needs a package that is not installed."""

    code = "package_missing"


class BadDataset(RunFailure):
    """The folder holds no packed dataset."""

    code = "bad_dataset"


class StorageFull(RunFailure):
    """There is no room for what the run has to write."""

    code = "storage_full"
    retry = True


class StorageFailed(RunFailure):
    """The storage cannot be read or written, for another reason than a lack of room."""

    code = "storage"
    retry = True
