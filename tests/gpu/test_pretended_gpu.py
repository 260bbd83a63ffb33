"""The core on a pretended GPU, a slice of `make gpu-dry`; and what the pretence refuses and counts."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.agreed import AGREED, GOALS, Cost
from tests.gpu.pretended import hardware
from tests.gpu.pretended.record import Counts, Kind, Sighting
from tests.gpu.steps import OPTIMIZER, STEPS, VIEWS, Step

ROOT = Path(__file__).parent.parent.parent
SLICE = ("simclr", "dino", "mixed_sizes", "knn_eval", "pinned_images", "muon_in_batches", "embed_requests")
SLICE_STEPS = ("step:simclr", "step:mixed_sizes", "step:muon")

# Programs that end in an error, and how that begins.
REFUSED: Mapping[str, tuple[str, str]] = {
    "two_devices": ("ones(2, device='cuda') + ones(2)", "RuntimeError: add: expected all tensors on one device"),
    "weight_left_behind": ("Linear(4, 2)(ones(3, 4, device='cuda'))", "RuntimeError: addmm: expected all tensors on"),
    "scalar_index": ("ones(2, device='cuda').index_select(0, tensor(0))", "RuntimeError: index_select: a CPU scalar"),
    "cpu_indexed": ("ones(2)[tensor([0], device='cuda')]", "RuntimeError: index: a CPU tensor is indexed by a GPU"),
    "values_put": (
        "x = ones(3, device='cuda'); x[tensor([0, 1])] = ones(2)",
        "RuntimeError: index_put_: values of the",
    ),
    "no_kernel": ("ones(4, device='cuda').histogram(2)", "NotImplementedError: Could not run aten.histogram.bin_ct"),
    "numpy": ("ones(2, device='cuda').numpy()", "TypeError: can't convert cuda:0 device type tensor to numpy"),
    "to_numpy": (
        "numpy.asarray(ones(2, device='cuda'))",
        "TypeError: can't convert cuda:0 device type tensor to numpy",
    ),
}
# Programs that end well, and all that they do but for operators.
COUNTED: Mapping[str, tuple[str, dict[Kind, int]]] = {
    "sum": ("ones(2, device='cuda').sum()", {}),
    "item": ("ones(1, device='cuda').item()", {Kind.WAIT: 1}),
    "branch": ("if ones(1, device='cuda').sum() > 0: pass", {Kind.WAIT: 1}),
    "tolist": ("ones(2, device='cuda').tolist()", {Kind.WAIT: 1}),
    "cpu": ("ones(2, device='cuda').cpu().numpy()", {Kind.WAIT: 1}),
    "nonzero": ("ones(2, device='cuda').nonzero()", {Kind.WAIT: 1}),
    "boolean_index": ("x = ones(2, device='cuda'); x[x > 0]", {Kind.WAIT: 1}),
    "backward": (
        "x = ones(2, device='cuda').requires_grad_(); (x * x).sum().backward(); x.grad.tolist()",
        {Kind.WAIT: 1},
    ),
    "thread": ("t = Thread(target=ones(1, device='cuda').item); t.start(); t.join()", {Kind.WAIT: 1}),
    "new_tensor": ("tensor([1.0], device='cuda')", {Kind.BLOCKING_COPY: 1}),
    "cpu_index": ("ones(2, device='cuda')[tensor([0])]", {Kind.BLOCKING_COPY: 1}),
    "pageable": ("ones(2).to('cuda', non_blocking=True)", {Kind.BLOCKING_COPY: 1}),
    "pinned": ("ones(2).pin_memory().to('cuda', non_blocking=True)", {Kind.OVERLAPPING_COPY: 1}),
    "pinned_blocking": ("ones(2).pin_memory().to('cuda')", {Kind.BLOCKING_COPY: 1}),
    "pinned_converted": ("ones(2).pin_memory().to('cuda', float16, non_blocking=True)", {Kind.BLOCKING_COPY: 1}),
    "pinned_part": (
        "assert not ones(2).is_pinned(); host = empty(4, pin_memory=True)[1:3]; assert host.is_pinned();"
        " zeros(2, device='cuda').copy_(host, non_blocking=True)",
        {Kind.OVERLAPPING_COPY: 1},
    ),
    "to_host": ("ones(2, device='cuda').to('cpu', non_blocking=True)", {Kind.OVERLAPPING_COPY: 1}),
}
IMPORTS = """
import numpy
from threading import Thread
from torch import empty, float16, ones, tensor, zeros
from torch.nn import Linear
"""


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled guard."""
    if hardware.find_compiler() is None:
        pytest.skip(f"the guard needs a C++ compiler, one of {', '.join(hardware.COMPILERS)}")
    return hardware.build(tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="module")
def seen(guard: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What was recorded of each small program."""
    folder, paths = tmp_path_factory.mktemp("programs"), []
    for name, (source, _) in {**REFUSED, **COUNTED}.items():
        paths.append(folder / f"{name}.py")
        paths[-1].write_text(IMPORTS + source + "\n")
    done = run_module("tests.gpu.pretended", "--guard", guard, *paths)
    assert done.returncode == 0, done.stderr
    return {line["program"]: line for line in map(json.loads, done.stdout.splitlines())}


def run_module(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own: torch has to find the guard when it is imported."""
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_an_error(seen: dict[str, dict[str, Any]], name: str) -> None:
    assert seen[name]["error"].startswith(REFUSED[name][1])


@pytest.mark.parametrize("name", COUNTED)
def test_waits_and_copies_are_counted(seen: dict[str, dict[str, Any]], name: str) -> None:
    assert seen[name]["error"] is None
    kinds = (Kind.WAIT, Kind.BLOCKING_COPY, Kind.OVERLAPPING_COPY)
    assert {kind: seen[name][kind] for kind in kinds if seen[name][kind]} == COUNTED[name][1]


def test_runs_and_steps_are_what_a_gpu_takes_at_the_agreed_cost(guard: Path, tmp_path: Path) -> None:
    done = run_module(
        "tests.gpu", "--guard", guard, "--report", tmp_path / "report.json", "--only", *SLICE, *SLICE_STEPS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert [run["name"] for run in report["runs"]] == [*SLICE]
    assert [step["name"] for step in report["steps"]] == [*SLICE_STEPS]
    on_gpu = [run for run in report["runs"] if run["name"] != "pinned_images"]
    assert all(run["counts"]["operator"] > 100 for run in on_gpu)
    assert all(min(list(step["operators"].values())[:4]) > 0 for step in report["steps"])
    assert not any("by sorting" in seen["what"] for seen in report["steps"][0]["places"])  # of NT-Xent's gradient
    # The images of an online evaluation are encoded without a wait, and its classifiers are on the GPU.
    waits = find_waits(report["runs"][SLICE.index("simclr")])
    assert not waits & {"ssl_core/models/encoder.py", "ssl_core/evaluation/features.py"}
    assert waits >= {"ssl_core/evaluation/knn.py", "ssl_core/evaluation/logistic_regression.py"}


def find_waits(run: Mapping[str, Any]) -> set[str]:
    """The files in which the host waits for the GPU."""
    kinds = (Kind.WAIT, Kind.BLOCKING_COPY)
    return {seen["place"].rpartition(":")[0] for seen in run["places"] if seen["kind"] in kinds}


def test_a_step_that_costs_more_than_agreed_is_wrong() -> None:
    seen = {(Kind.OPERATOR, VIEWS, "add"): 5, (Kind.OPERATOR, OPTIMIZER, "add_"): 3, (Kind.WAIT, VIEWS, "item"): 1}
    times = Counter({Sighting(*what, ""): count for what, count in seen.items()})
    assert Step("a", Counts(times), Cost(5, 3, 1, 0)).wrong == []
    assert Step("a", Counts(times), Cost(4, 2, 0, 0)).wrong == [
        "5 view operators, and 4 are agreed",
        "3 optimizer operators, and 2 are agreed",
        "1 waits, and 0 are agreed",
    ]


def test_each_step_has_an_agreed_cost() -> None:
    assert AGREED.keys() == STEPS.keys()
    assert GOALS.keys() <= STEPS.keys()
