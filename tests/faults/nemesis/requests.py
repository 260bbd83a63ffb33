"""Requests that create jobs of every kind, in an order that the seed decides."""

import io
import random
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.faults import baseline
from tests.faults.fleet import python_output
from tests.faults.trainer import REAL_SEED
from tests.service import given

EPOCHS = {"pretrain": 8, "supervised": 6, "finetune": 5, "distill": 5, "linear_eval": 3}  # of ten toy steps each
SHARES = {
    "pretrain": 28,
    "clone": 6,
    "supervised": 14,
    "finetune": 9,
    "distill": 6,
    "linear_eval": 9,
    "knn_eval": 9,
    "project": 6,
    "export": 6,
    "ingest": 7,
}
RARE = "import"  # a real process that loads torch, so one in a hundred
PARENTS = {"distill": ("supervised", "finetune")}  # of the other kinds that need a model: any that trains
NEED_MODEL = ("finetune", "distill", "linear_eval", "knn_eval", "project", "export")
OTHER_FIELDS: Mapping[str, dict[str, Any]] = {
    "supervised": {"batch_size": 32},
    "finetune": {"batch_size": 32},
    "distill": {"batch_size": 32},
    "linear_eval": {"batch_size": 32},
    "pretrain": given.PRETRAIN,
}


@dataclass(frozen=True)
class JobRequest:
    """A request that creates one job; a retry sends the same bytes with the same Idempotency-Key."""

    number: int
    kind: str
    path: str
    json: dict[str, Any] | None = None
    file: bytes | None = None
    is_real: bool = False  # run by the service's own trainer, not by the toy

    @property
    def name(self) -> str:
        return f"number {self.number}"

    @property
    def key(self) -> str:
        """The Idempotency-Key."""
        return f"number-{self.number}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `httpx.Client.build_request`, the same for every retry."""
        if self.json is not None:
            return {"json": self.json}
        boundary = {"Content-Type": f"multipart/form-data; boundary=number{self.number}"}
        return {"files": {"file": ("a.zip", self.file)}, "data": {"name": self.name}, "headers": boundary}


def plan_kinds(jobs: int, rng: random.Random) -> list[str]:
    """Return the kinds of so many jobs: those that train first, then each kind, then by SHARES."""
    kinds = ["pretrain", "supervised"]
    rest = [kind for kind in SHARES if kind not in kinds]
    rng.shuffle(rest)
    kinds += rest + [RARE] * (jobs // 100)
    kinds += rng.choices(list(SHARES), list(SHARES.values()), k=max(0, jobs - len(kinds)))
    tail = kinds[2:]
    rng.shuffle(tail)
    return (kinds[:2] + tail)[:jobs]


def build(
    number: int, kind: str, dataset: str, find_parent: Callable[[tuple[str, ...]], str | None], *, is_real: bool = False
) -> JobRequest:
    """Return the request. find_parent: returns the id of a job of one of these kinds, for the model that is needed."""
    if is_real:
        return JobRequest(
            number, "pretrain", "/jobs", _body(number, "pretrain", dataset, baseline.CONFIG), is_real=True
        )
    if kind == "ingest":
        return JobRequest(number, kind, "/datasets", file=_archive(number))
    if kind == "clone" and (original := find_parent(("pretrain",))) is not None:
        changes = {"name": f"number {number}", "config": {"seed": number % REAL_SEED}}
        return JobRequest(number, "pretrain", f"/jobs/{original}/clone", changes)
    if kind == RARE:
        return JobRequest(number, kind, "/models", file=_weights())
    parent = find_parent(PARENTS.get(kind, ("pretrain", "supervised", "finetune", "distill")))
    if kind == "clone" or (kind in NEED_MODEL and parent is None):
        kind = "pretrain"
    config = {**OTHER_FIELDS.get(kind, {}), "seed": number % REAL_SEED}
    if kind in EPOCHS:
        config["epochs"] = EPOCHS[kind]
    if kind in EPOCHS and kind != "linear_eval":
        config["checkpoints"] = {"every_steps": 10}
    body = _body(number, kind, dataset, config)
    return JobRequest(number, kind, "/jobs", body | ({"model": parent} if kind in NEED_MODEL else {}))


def _body(number: int, kind: str, dataset: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "dataset": dataset, "config": config, "name": f"number {number}"}


def _archive(number: int) -> bytes:
    """Return a zip of eight images in two classes; each number has images of its own."""
    from tests import pictures

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for index in range(8):
            info = zipfile.ZipInfo(f"train/{index % 2}/{index}.png")
            archive.writestr(info, pictures.png(number * 8 + index, 8, 8))
    return target.getvalue()


@cache
def _weights() -> bytes:
    """Return a state dict of a tiny network, written by a child process, so that this one does not load torch."""
    code = (
        "import io, sys, torch; from ssl_core.models import resnet; target = io.BytesIO();"
        "network = resnet.ResNet('resnet10', width=0.125, stem='cifar');"
        "torch.save(network.state_dict(), target); print(target.getvalue().hex())"
    )
    return bytes.fromhex(python_output("-c", code))
